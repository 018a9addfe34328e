"""Who is asking: credentials in, an identity, a rejection or "could not tell" out.

This package knows nothing of SOCKS, of Trio or of the store. Backends are synchronous; the server calls them in
threads.
"""

from auth.backend import (
    Answer,
    Backend,
    Cause,
    Credentials,
    EntryRules,
    Identity,
    Rejected,
    Rejection,
    Step,
    Unavailable,
)

__all__ = [
    "Answer",
    "Backend",
    "Cause",
    "Credentials",
    "EntryRules",
    "Identity",
    "Rejected",
    "Rejection",
    "Step",
    "Unavailable",
]
