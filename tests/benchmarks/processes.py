"""The memory of a server's workers, from Linux."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.server import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of a process alone, and with its share of what it shares, in MB."""

    rss: float
    pss: float


def memory_of_workers(server: Server, workers: int) -> dict[int, Memory]:
    """Return the largest processes of a server by ID: the others are the parent and its helpers."""
    assert server.process is not None
    leader = server.process.pid
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            pid = int(directory.name)
            if pid != leader and os.getpgid(pid) == leader:
                found[pid] = memory_of(directory)
        except (ProcessLookupError, FileNotFoundError):
            continue  # it has just ended
    largest = sorted(found, key=lambda pid: found[pid].pss)[-workers:]
    return {pid: found[pid] for pid in sorted(largest)}


def memory_of(directory: Path) -> Memory:
    lines = (directory / "smaps_rollup").read_text().splitlines()[1:]
    told = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return Memory(rss=told["Rss"], pss=told["Pss"])
