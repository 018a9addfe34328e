"""What the first bytes of a flow are. Pure: bytes come in, findings come out."""

from trioproxy.sniff.finding import App, Finding

__all__ = ["App", "Finding"]
