"""trioproxy: a SOCKS5 server for a campus or a company."""

__all__ = ["__version__"]

__version__ = "0.1.0"
