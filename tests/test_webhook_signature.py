"""Only who knows a secret is believed. The signatures here were computed by others."""

import pytest

from zammad.webhooks import SignatureInvalid, verify_signature

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
