"""Valid e-mail addresses, and the several ways to spell one."""

from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

# Domains for private networks and tests, where mail servers and accounts use them.
for name in ("local", "test"):
    SPECIAL_USE_DOMAIN_NAMES.remove(name)


def validated_address(address: str) -> str:
    """Return a valid address, normalized for comparison.

    Quoted ones, such as "a b"@example.com, are refused: they may contain anything.

    :raises ValidationError:
    """
    try:
        return validate_email(address.strip(), check_deliverability=False).normalized.lower()
    except (EmailNotValidError, UnicodeError) as error:
        raise ValidationError(_("Enter a valid e-mail address."), code="invalid") from error


def spellings(address: str) -> set[str]:
    """Return the spellings in which an account or Zammad may store an address, in lower case.

    Some programs write an international domain in Unicode, others in the ASCII form of IDNA.
    """
    address = address.lower()
    if address.isascii() and "xn--" not in address:
        return {address}
    try:
        parts = validate_email(address, check_deliverability=False)
    except (EmailNotValidError, UnicodeError):
        return {address}
    return {address, parts.normalized.lower(), f"{parts.local_part}@{parts.ascii_domain}".lower()}


def all_spellings(addresses: Iterable[str]) -> set[str]:
    """Return the spellings of all addresses, without those that are empty."""
    return set[str]().union(*map(spellings, addresses)) - {""}


def ascii_form(address: str) -> str:
    """Return the spelling that decides whether addresses are equal."""
    return next((each for each in sorted(spellings(address)) if each.isascii()), address.lower())
