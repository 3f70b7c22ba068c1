"""Only senders with a secret are believed. The signatures here were computed with other tools."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from zammad.webhooks import BodyIncomplete, Delivery, SignatureInvalid, verify_signature

BODY = b"what do ya want for nothing?"
SIGNATURE = "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"


@pytest.mark.parametrize(
    ("secret", "body", "digest"),
    [
        pytest.param(
            "123456", b'{"action": "opened"}', "c28e33b2e56e548956c446e890929a6cbec3ac89", id="github"
        ),
        pytest.param("Jefe", BODY, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79", id="rfc2202"),
        pytest.param(
            "It's a Secret to Everybody",
            b"Hello, World!",
            "01dc10d0c83e72ed246219cdd91669667fe2ca59",
            id="github-docs",
        ),
        # printf '%s' '{"name":"Zoë"}' | openssl dgst -sha1 -hmac 'pässword'
        pytest.param(
            "pässword", '{"name":"Zoë"}'.encode(), "f97ddc81b36a94154a848294592386d988c8c7b0", id="utf-8"
        ),
    ],
)
def test_the_signatures_of_others_are_accepted(secret: str, body: bytes, digest: str) -> None:
    verify_signature(body, signature=f"sha1={digest}", secrets=[secret])


def test_any_of_several_secrets_will_do_while_they_are_rotated() -> None:
    verify_signature(BODY, signature=SIGNATURE, secrets=["new", "Jefe"])
    verify_signature(BODY, signature=SIGNATURE, secrets=["Jefe", "new"])


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (None, "signature missing"),
        ("", "signature malformed"),
        ("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79", "signature malformed"),
        ("sha1=", "signature malformed"),
        ("sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c7", "signature malformed"),
        ("sha1=EFFCDF6AE5EB2FA2D27416D5F184DF9C259A7C79", "signature malformed"),
        ("SHA1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79", "signature malformed"),
        ("sha256=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79", "signature malformed"),
        ("sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79\n", "signature malformed"),
        ("sha1=\u0661ffcdf6ae5eb2fa2d27416d5f184df9c259a7c79", "signature malformed"),
        ("sha1=\xe9ffcdf6ae5eb2fa2d27416d5f184df9c259a7c79", "signature malformed"),
        ("sha1=\udce9ffcdf6ae5eb2fa2d27416d5f184df9c259a7c79", "signature malformed"),
        ("sha1=0000000000000000000000000000000000000000", "signature wrong"),
    ],
)
def test_any_other_signature_is_refused_with_its_reason(signature: str | None, reason: str) -> None:
    with pytest.raises(SignatureInvalid) as refusal:
        verify_signature(BODY, signature=signature, secrets=["Jefe"])

    assert str(refusal.value) == reason


def test_one_changed_byte_of_the_body_is_noticed() -> None:
    with pytest.raises(SignatureInvalid, match="signature wrong"):
        verify_signature(BODY + b" ", signature=SIGNATURE, secrets=["Jefe"])


def test_an_empty_secret_never_counts() -> None:
    # printf '' | openssl dgst -sha1 -hmac ''
    signed_with_nothing = "sha1=fbdb1d1b18aa6c08324b7d64b71fb76370690e1d"

    with pytest.raises(SignatureInvalid, match="signature wrong"):
        verify_signature(b"", signature=signed_with_nothing, secrets=["", "Jefe"])


def test_without_any_secret_nothing_is_believed() -> None:
    with pytest.raises(SignatureInvalid, match="signature wrong"):
        verify_signature(BODY, signature=SIGNATURE, secrets=[])


# --- Headers and body together -----------------------------------------------------------------

NOW = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)
HEADERS = {"X-Hub-Signature": SIGNATURE, "Content-Length": str(len(BODY))}


def test_a_delivery_is_read_from_headers_and_body_alone() -> None:
    headers = {
        **HEADERS,
        "X-Zammad-Delivery": "0b1f3f9e-6a53-4a65-9a3e-0f1f2a9c7d11",
        "X-Zammad-Trigger": "Kündigung".encode().decode("latin-1"),
    }

    delivery = Delivery.from_http(headers, BODY, secrets=["Jefe"], now=NOW)

    assert delivery == Delivery(
        delivery_id=UUID("0b1f3f9e-6a53-4a65-9a3e-0f1f2a9c7d11"),
        trigger="Kündigung",
        # printf 'what do ya want for nothing?' | sha256sum
        body_digest="b381e7fec653fc3ab9b178272366b8ac87fed8d31cb25ed1d0e1f3318644c89c",
        customer=None,
        problem="the body is not readable JSON",
    )


def test_a_delivery_needs_no_header_but_its_signature() -> None:
    delivery = Delivery.from_http({"X-Hub-Signature": SIGNATURE}, BODY, secrets=["Jefe"], now=NOW)

    assert (delivery.delivery_id, delivery.trigger) == (None, "")


def test_a_delivery_that_is_not_signed_is_never_read() -> None:
    with pytest.raises(SignatureInvalid, match="signature missing"):
        Delivery.from_http({}, BODY, secrets=["Jefe"], now=NOW)


@pytest.mark.parametrize("more", [1, 10**30])
def test_a_delivery_of_which_less_came_than_announced_is_incomplete(more: int) -> None:
    headers = {**HEADERS, "Content-Length": str(len(BODY) + more)}

    with pytest.raises(BodyIncomplete):
        Delivery.from_http(headers, BODY, secrets=["Jefe"], now=NOW)
