"""`trioproxy user import`: the users of an htpasswd file."""

from pathlib import Path
from typing import Final

from auth.htpasswd import HtpasswdError, parse_htpasswd
from auth.local import LocalUser
from trioproxy.cli.output import Failure, count, say
from trioproxy.cli.place import HERE, Place, note_lonely, parse_groups, select_tenant
from trioproxy.store import EntryError

__all__ = ["import_users"]

_HTPASSWD_BYTES_MAX: Final = 16 << 20  # 100,000 users


def import_users(  # noqa: PLR0913 - the options of a command
    file: Path,
    /,
    *,
    tenant: str | None = None,
    group: tuple[str, ...] = (),
    no_proxy: bool = False,
    update: bool = False,
    place: Place = HERE,
) -> None:
    """Take over the users of an htpasswd file: all of them, or none if anything is wrong with it.

    Args:
        file: the htpasswd file (bcrypt, apr1, SHA, sha256-crypt, sha512-crypt or argon2 hashes).
        tenant: whose users they become; by default those of the tenant main.
        group: a group for each of the new users; may be given several times.
        no_proxy: the new users are no members of the proxy group.
        update: users who are there already get the password of the file; otherwise that is an error.
        place: which installation.
    """
    config = place.load()
    home = select_tenant(tenant, config)
    groups = parse_groups(group) | (frozenset() if no_proxy else {config.tenants()[home].proxy_group})
    users = [LocalUser(home, name, stored, groups) for name, stored in _read_htpasswd(file)]
    with place.open_store(config, create=True) as store:
        try:
            changed = store.users.add(users, update=update)
        except EntryError as error:
            raise Failure(f"{error}; --update gives new passwords") from error
        note_lonely(groups, home, config, store, {user.name for user in users})
    say(f"{count(len(users) - changed, 'user')} added to tenant {home}, {count(changed, 'password')} changed")


def _read_htpasswd(file: Path) -> list[tuple[str, str]]:
    try:
        with file.open("rb") as opened:
            content = opened.read(_HTPASSWD_BYTES_MAX + 1)
        if len(content) > _HTPASSWD_BYTES_MAX:
            raise Failure(f"{file}: larger than {_HTPASSWD_BYTES_MAX:,} bytes: is this the right file?")
        return parse_htpasswd(content)
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}") from error
    except HtpasswdError as error:
        lines = [f"{file}:{line}: {problem}" for line, problem in error.problems]
        raise Failure("nothing imported", *lines) from error
