"""Install a locked file of requirements into a virtual environment, which is made when missing.

Run by the Makefile with the system's Python: only the standard library, and syntax that an
older Python can read, so that it can say what it needs.
"""

import ast
import os
import subprocess
import sys

UV = "uv==0.13.9"  # installs three to four times as fast as pip; without it pip does the work
# What pip was told about the index, and the name under which uv wants to hear it.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


def environment_of_uv(pip):
    """Return our environment with pip's settings in it, which uv does not read by itself."""
    environment = dict(os.environ)
    listed = subprocess.run(
        [*pip, "config", "list"], stdout=subprocess.PIPE, universal_newlines=True, check=False
    )
    told = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if name in UV_NAMES and value:
            told[section, name] = ast.literal_eval(value)
    for section in ("global", "install", ":env:"):  # the later one wins, as with pip
        for name, uv_name in UV_NAMES.items():
            if (section, name) in told and uv_name not in os.environ:
                separator = "," if name == "find-links" else " "
                environment[uv_name] = separator.join(told[section, name].split())
    # Like pip, look at every index; the hashes say which files are the right ones.
    environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return environment


def install(venv, lock):
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        print("Making " + venv, flush=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    print("Installing " + lock, flush=True)
    uv = [os.path.join(venv, "bin", "uv"), "pip", "install", "--quiet", "--python", python]
    hashed = ["--require-hashes", "-r", lock]
    if (
        subprocess.run([*pip, "install", "--quiet", UV], check=False).returncode == 0
        and subprocess.run([*uv, *hashed], env=environment_of_uv(pip), check=False).returncode == 0
    ):
        return
    print("uv could not install it: trying with pip", flush=True)
    subprocess.run([*pip, "install", "--quiet", *hashed], check=True)


if __name__ == "__main__":
    if sys.version_info < (3, 11):
        sys.exit("Family Plans needs Python 3.11 or later: name one with make PYTHON=python3.11")
    try:
        install(*sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(
            "Installing failed, see above. On Debian, `apt install python3-venv` may be missing. "
            + str(error)
        )
