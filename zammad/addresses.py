"""What an e-mail address is, and how one is written in several ways."""

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

MAX_SPELLINGS = 3

# Names for networks of one's own and for tests: mail servers there know them, and so do accounts here.
for name in ("local", "test"):
    SPECIAL_USE_DOMAIN_NAMES.remove(name)


def validated_address(address: str) -> str:
    """Return an address in the form we compare, if it is one that we take, wherever it comes from.

    Quoted ones, such as "a b"@example.com, are refused: they may hold anything.

    :raises ValidationError:
    """
    try:
        return validate_email(address.strip(), check_deliverability=False).normalized.lower()
    except (EmailNotValidError, UnicodeError) as error:
        raise ValidationError(_("Enter a valid e-mail address."), code="invalid") from error


def spellings(address: str) -> set[str]:
    """List the ways in which an account or Zammad may hold an address, in lower case.

    Some programs write an international domain in letters, others in IDNA's ASCII.
    """
    address = address.lower()
    if address.isascii() and "xn--" not in address:
        return {address}
    try:
        parts = validate_email(address, check_deliverability=False)
    except (EmailNotValidError, UnicodeError):
        return {address}
    return {address, parts.normalized.lower(), f"{parts.local_part}@{parts.ascii_domain}".lower()}


def ascii_form(address: str) -> str:
    """Return the spelling by which addresses are compared: they are equal if this is."""
    return next((each for each in sorted(spellings(address)) if each.isascii()), address.lower())
