"""Times as the store keeps them: ISO 8601 in UTC, to the second, so that their texts sort like they do."""

from datetime import UTC, datetime

from trioproxy.store.errors import StoreError

__all__ = ["end_of", "moment_of", "text_of"]


def text_of(moment: datetime | None) -> str | None:
    """The text of an aware time; None for none."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def moment_of(text: str) -> datetime:
    """The time of a text.

    Raises:
        StoreError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StoreError(f"the store holds {text!r} where a time belongs") from error
    # A time without a zone was not written by us; ours are in UTC.
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def end_of(text: str | None) -> datetime | None:
    """The time of a text; None for none, which is an end or a beginning that never comes.

    Raises:
        StoreError: there is a text that is no time.
    """
    return None if text is None else moment_of(text)
