"""Times as Kubernetes writes them (RFC 3339, UTC) and as we reckon with them (Unix seconds). Reads no clock."""

from datetime import UTC, datetime


def write_time(unix_s: float) -> str:
    """Unix seconds as `2026-11-26T01:02:03Z`, whole seconds, as metav1.Time is written."""
    return datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(text: object) -> float | None:
    """Unix seconds of an RFC 3339 time; None for anything else, since others write what we read here."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
        # A time without a zone is nobody's: Kubernetes always writes one.
        return found.timestamp() if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
