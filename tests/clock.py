"""The time of day for tests that must hand one in."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present, aware."""
    return datetime.now(UTC)
