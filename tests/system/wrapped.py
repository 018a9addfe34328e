"""Programs that know no SOCKS, with a library between them and the network: Dante's socksify, and proxychains4."""

from collections.abc import Sequence
from pathlib import Path

from tests.system.proxy import PASSWORD, USER, environment

__all__ = ["chained", "socksified"]


def socksified(
    folder: Path, proxy: tuple[str, int], command: Sequence[str], login: tuple[str, str] | None = (USER, PASSWORD)
) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of a program below socksify, which has TCP and UDP.

    Its client takes an IPv4 gateway only, so the server is reached over IPv4; the targets are of both families.

    Args:
        folder: for the file of its settings.
        proxy: where the server listens.
        command: the program.
        login: name and password; None: without.
    """
    config = folder / "socks.conf"
    routes = "\n".join(
        f"route {{ from: {network} to: {network} via: {proxy[0]} port = {proxy[1]}\n proxyprotocol: socks_v5\n"
        f" protocol: tcp udp\n command: connect udpassociate\n method: {'username' if login else 'none'}\n}}"
        for network in ("0.0.0.0/0", "::/0")
    )
    # fake: names (and what nc asks for) go to the proxy as they are
    config.write_text(f"resolveprotocol: fake\n{routes}\n")
    secrets = {"SOCKS_USERNAME": login[0], "SOCKS_PASSWORD": login[1]} if login else {}
    # By default Dante goes around the proxy to addresses of this machine's own networks.
    return ["socksify", *command], environment(SOCKS_CONF=str(config), SOCKS_AUTOADD_LANROUTES="no", **secrets)


def chained(
    folder: Path, proxy: tuple[str, int], command: Sequence[str], login: tuple[str, str] | None = (USER, PASSWORD)
) -> list[str]:
    """The command line of a program below proxychains4, which has TCP alone; see `socksified`."""
    config = folder / "proxychains.conf"
    entry = " ".join(["socks5", proxy[0], str(proxy[1]), *(login or ())])
    config.write_text(f"strict_chain\nproxy_dns\n[ProxyList]\n{entry}\n")
    return ["proxychains4", "-q", "-f", str(config), *command]
