"""Makes identifiers: a word, the time, and chance; they sort by creation and are safe in a URL."""

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that reads like something else


def new_id(word: str, now: float) -> str:
    """`word_` followed by 22 characters: 10 of the time in milliseconds, 12 of chance (60 bits)."""
    return f"{word}_{_digits(int(now * 1000), 10)}{_digits(secrets.randbits(60), 12)}"


def _digits(number: int, length: int) -> str:
    return "".join(_ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(length)))
