"""The command line: the only place that prints."""

from trioproxy.cli.app import main

__all__ = ["main"]
