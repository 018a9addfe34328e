"""A backend of trioproxy that asks a program of the site."""

from trioproxy_example_auth.backend import ProgramBackend, ProgramSettings

__all__ = ["ProgramBackend", "ProgramSettings"]
