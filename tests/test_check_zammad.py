"""A command tells what our token may do in Zammad, and warns of an owner who may do too much."""

import io

import pytest
from django.core.management import CommandError, call_command

from zammad.sandbox import Fault, Sandbox

MINTING = "user_preferences.access_token"
KNOWN = "Zammad knows the token.\n"
MINTS = "It may make invite tokens.\n"


def check() -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("check_zammad", stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def let(sandbox: Sandbox, *, owner: set[str], token: set[str]) -> None:
    """Give the token to somebody who holds these permissions, and these to the token."""
    person = sandbox.add_user("minting@helpdesk.example", permissions=frozenset(owner))
    with sandbox.lock:
        sandbox.records["tokens"][1].update(user_id=person["id"], permissions=frozenset(token))


def test_an_agent_without_admin_user_is_as_it_should_be(sandbox: Sandbox) -> None:
    let(sandbox, owner={MINTING, "ticket.agent"}, token={MINTING, "ticket.agent"})

    assert check() == (f"{KNOWN}{MINTS}It may list users, as import_zammad_users does.\n", "")
    assert {call.method for call in sandbox.calls} == {"GET"}


@pytest.mark.parametrize("token", [{MINTING}, {MINTING, "admin.user"}])
def test_an_owner_with_admin_user_is_warned_of_whatever_the_token_may(
    sandbox: Sandbox, token: set[str]
) -> None:
    let(sandbox, owner={MINTING, "admin.user"}, token=token)

    _, warnings = check()

    assert warnings.splitlines()[-1] == (
        "Warning: The owner of ZAMMAD_API_TOKEN holds admin.user. In Zammad every token of such an "
        "account, also the powerless ones behind invites, can act as any user: make the token with an "
        "account without admin.user."
    )


def test_other_rights_of_an_admin_are_not_warned_of(sandbox: Sandbox) -> None:
    let(sandbox, owner={MINTING, "ticket.agent", "admin.webhook"}, token={MINTING, "ticket.agent"})

    assert check()[1] == ""


def test_a_token_that_sees_only_itself_is_warned_of(sandbox: Sandbox) -> None:
    let(sandbox, owner={MINTING, "ticket.agent"}, token={MINTING})

    assert check() == (
        KNOWN + MINTS,
        "Warning: The token may not list users: import_zammad_users needs ticket.agent.\n",
    )


def test_a_token_that_mints_nothing_fails_the_check(sandbox: Sandbox) -> None:
    let(sandbox, owner={MINTING, "ticket.agent"}, token={"ticket.agent"})

    with pytest.raises(
        CommandError, match=r"^Zammad answered 403: .* have user_preferences\.access_token\?$"
    ):
        check()


def test_a_zammad_that_does_not_answer_fails_the_check(sandbox: Sandbox) -> None:
    sandbox.faults.set("GET /api/v1/users/me", Fault.RESET)

    with pytest.raises(CommandError, match=r"^Zammad could not be reached \(\w+\)\.$"):
        check()
