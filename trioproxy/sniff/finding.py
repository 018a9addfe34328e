"""What a flow was found to be."""

import enum
from typing import Final

import attrs

__all__ = ["SERVER_FIRST", "App", "Finding"]


class App(enum.Enum):
    """The protocols that are told apart; the word is what `app=` in a rule says."""

    TLS = "tls"
    HTTP = "http"
    SSH = "ssh"
    SMTP = "smtp"
    FTP = "ftp"
    IMAP = "imap"
    POP3 = "pop3"
    RDP = "rdp"
    BITTORRENT = "bittorrent"
    DNS = "dns"
    STUN = "stun"
    QUIC = "quic"
    UNKNOWN = "unknown"

    __hash__ = object.__hash__  # there is one of each


SERVER_FIRST: Final = (App.UNKNOWN, App.SSH, App.SMTP, App.FTP, App.IMAP, App.POP3)  # the server may speak first


@attrs.frozen
class Finding:
    """What the first bytes said.

    Attributes:
        app: the protocol; UNKNOWN where they fit none, or there were none in time.
        sni: the canonical name in the ClientHello of TLS or QUIC; None: there is none. With ECH the outer name, which
            is not where the client really goes.
        http_host: the canonical host of an HTTP request, without its port; None: there is none.
        ech: the ClientHello carries an encrypted one.
    """

    app: App
    sni: str | None = None
    http_host: str | None = None
    ech: bool = False
