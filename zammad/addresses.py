"""How one e-mail address is written in several ways."""

from email_validator import EmailNotValidError, validate_email

MAX_SPELLINGS = 3


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
