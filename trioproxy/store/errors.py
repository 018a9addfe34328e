"""The two ways in which a wish to the store can fail."""

__all__ = ["EntryError", "StoreError"]


class StoreError(OSError):
    """The store cannot be used: missing, broken, locked, full, or not ours. The message names the file and what to do.

    It is an `OSError`, as `auth` expects of a look-up that cannot tell.
    """


class EntryError(ValueError):
    """The store is fine, but what was asked for is not in it, or is in it already. Nothing was changed."""
