"""Active Directory and FreeIPA, as far as they can be imitated: entries, flags, groups, answers."""

import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from auth import Cause, Identity, Rejected, Rejection, Unavailable
from auth.ldap import LdapSettings
from tests.auth.ldap.trying import NOT_A_MEMBER, OTHER_NAME, UNKNOWN, WRONG, Trying, trying
from tests.directories.authority import Authority
from tests.directories.emulated import ActiveDirectory, FreeIPA, MemoryDirectory
from tests.directories.messages import bind_result
from tests.directories.scripted import ScriptedServer

SECRET = "service-secret"
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One for all servers here."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def serve(authority: Authority, tmp_path: Path) -> Iterator[Callable[..., tuple[ScriptedServer, LdapSettings]]]:
    """Starts a server for a directory, and makes settings for it."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    tls = authority.good().context()
    running: list[ScriptedServer] = []

    def start(directory: MemoryDirectory, **changes: Any) -> tuple[ScriptedServer, LdapSettings]:
        server = ScriptedServer(directory, tls=tls)
        server.__enter__()
        running.append(server)
        settings: dict[str, Any] = {"ca_file": str(authority.pem), "bind_password_file": str(secret), **changes}
        return server, LdapSettings(urls=(server.url,), **settings)

    yield start
    for server in running:
        server.__exit__(None, None, None)


# ---- Active Directory


@pytest.fixture
def ad() -> ActiveDirectory:
    """A domain with a service account and the proxy group."""
    domain = ActiveDirectory()
    domain.add_user("svc-proxy", SECRET)
    domain.add_group("system-proxy", domain.add_user("alice", "right"))
    domain.add_user("bob", "right")
    return domain


@pytest.fixture
def settings_of_ad(serve: Callable[..., Any], ad: ActiveDirectory) -> LdapSettings:
    """As in the docs: the whole domain as base, the flavour for the rest."""
    _, settings = serve(
        ad,
        flavour="active-directory",
        bind_dn=f"CN=Svc-Proxy Surname,{ad.users}",
        user_base=ad.base,
        group_base=ad.users,
    )
    assert isinstance(settings, LdapSettings)
    return settings


def test_ad_login(settings_of_ad: LdapSettings) -> None:
    """By sAMAccountName, in the whole domain, whose three references are known and ignored."""
    with trying(settings_of_ad) as campus:
        answer = campus.log_in("alice", "right")
        assert isinstance(answer, Identity)
        assert answer.groups == {"system-proxy"}
        assert campus.log_in("alice", "wrong") == WRONG
        assert campus.log_in("bob", "right") == NOT_A_MEMBER
        assert campus.log_in("nobody", "right") == UNKNOWN
        assert campus.find("alice") == answer


def test_ad_nested_groups(settings_of_ad: LdapSettings, ad: ActiveDirectory) -> None:
    """The matching rule finds groups of groups, also those in a ring; `nested_groups = "no"` does not."""
    staff = ad.add_group("staff", ad.add_user("erin", "right"))
    teams = ad.add_group("teams", staff)
    ad.join(staff, teams)
    ad.join(f"CN=system-proxy,{ad.users}", teams)
    with trying(settings_of_ad) as campus:
        assert campus.log_in("erin", "right") != NOT_A_MEMBER
        assert campus.find("erin") == campus.log_in("erin", "right")
        found = campus.find("erin")
        assert isinstance(found, Identity)
        assert found.groups == {"staff", "teams", "system-proxy"}
    with trying(attrs.evolve(settings_of_ad, nested_groups="no")) as campus:
        assert campus.log_in("erin", "right") == NOT_A_MEMBER
    with trying(attrs.evolve(settings_of_ad, nested_groups="walk")) as campus:
        assert campus.find("erin") == found_by(campus, "erin")


def found_by(campus: Trying, name: str) -> Identity:
    """The identity that a login brings."""
    answer = campus.log_in(name, "right")
    assert isinstance(answer, Identity)
    return answer


def test_ad_names_with_accents(settings_of_ad: LdapSettings, ad: ActiveDirectory) -> None:
    """It finds `jose` for `jos\u00e9`: two names would be one person, past the rules for either."""
    ad.join(f"CN=system-proxy,{ad.users}", ad.add_user("jos\u00e9", "right"))
    with trying(settings_of_ad) as campus:
        assert isinstance(campus.log_in("jos\u00e9", "right"), Identity)
        assert campus.log_in("jose", "right") == OTHER_NAME
        assert isinstance(campus.log_in("alice", "right"), Identity)
        assert campus.log_in("\u00e1lice", "right") == OTHER_NAME


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"disabled": True}, Rejection.DISABLED),
        ({"locked": True}, Rejection.DISABLED),
        ({"expires_at": YESTERDAY}, Rejection.EXPIRED),
        ({"password_expired": True}, Rejection.EXPIRED),
        ({"must_change": True}, Rejection.EXPIRED),
    ],
)
@pytest.mark.parametrize("careless", [False, True])
def test_ad_account_is_over(
    serve: Callable[..., Any], state: dict[str, Any], why: Rejection, *, careless: bool
) -> None:
    """By its diagnostic if it refuses the bind, by its flags if it does not; never a wrong password (case 56)."""
    domain = ActiveDirectory(careless=careless)
    domain.add_user("svc-proxy", SECRET)
    domain.add_group("system-proxy", domain.add_user("alice", "right", **state))
    _, settings = serve(
        domain,
        flavour="active-directory",
        bind_dn=f"CN=Svc-Proxy Surname,{domain.users}",
        user_base=domain.base,
        group_base=domain.users,
    )
    with trying(settings) as campus:
        assert campus.log_in("alice", "right") == Rejected(why)
        assert campus.log_in("alice", "wrong") == WRONG
        assert campus.find("alice") == Rejected(why)


def test_ad_valid_until(settings_of_ad: LdapSettings, ad: ActiveDirectory) -> None:
    """An account that ends tomorrow: the end goes with the identity, so that no cache outlives it (case 41)."""
    ad.join(f"CN=system-proxy,{ad.users}", ad.add_user("carol", "right", expires_at=TOMORROW))
    with trying(settings_of_ad) as campus:
        until = found_by(campus, "carol").valid_until
        assert until is not None
        assert abs(until - TOMORROW) < timedelta(seconds=1)


def test_ad_principal_name(settings_of_ad: LdapSettings) -> None:
    """Login with userPrincipalName, by two settings."""
    principal = attrs.evolve(
        settings_of_ad,
        user_filter="(&(objectClass=user)(userPrincipalName={username}))",
        username_attribute="userPrincipalName",
    )
    with trying(principal) as campus:
        assert isinstance(campus.log_in("alice@ad.campus.example", "right"), Identity)
        assert campus.log_in("alice", "right") == UNKNOWN


def test_ad_without_an_account(settings_of_ad: LdapSettings) -> None:
    """It answers searches after a bind only; the step says what to set."""
    with trying(attrs.evolve(settings_of_ad, bind_dn=None, bind_password_file=None)) as campus:
        answer = campus.log_in("alice", "right")
        assert isinstance(answer, Unavailable)
        assert answer.cause is Cause.REFUSED
        assert "bind_dn" in campus.failures[-1].advice


def test_ad_ranges(settings_of_ad: LdapSettings, ad: ActiveDirectory) -> None:
    """More than 1,500 values of memberOf come in parts: nobody can tell which groups are missing."""
    many = [ad.add_group(f"group-{number}") for number in range(1_600)]
    ad.set(f"CN=Alice Surname,{ad.users}", "memberOf", *many)
    by_attribute = attrs.evolve(settings_of_ad, membership="memberof", nested_groups="no")
    with trying(by_attribute) as campus:
        answer = campus.log_in("alice", "right")
        assert isinstance(answer, Unavailable)
        assert answer.cause is Cause.AMBIGUOUS


@pytest.mark.parametrize(
    ("data", "why"),
    [("530", Rejection.DISABLED), ("531", Rejection.DISABLED), ("525", Rejection.WRONG_PASSWORD), ("0", None)],
)
def test_ad_reasons(serve: Callable[..., Any], ad: ActiveDirectory, data: str, why: Rejection | None) -> None:
    """Hours, machine, unknown: each its reason; "unknown" never sends the password to the next backend."""

    def script(request: Any) -> Any:
        if request.dn == f"CN=Alice Surname,{ad.users}":
            text = f"80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data {data}, v4563"
            return [bind_result(49, text)]
        return ad(request)

    _, settings = serve(
        script,
        flavour="active-directory",
        bind_dn=f"CN=Svc-Proxy Surname,{ad.users}",
        user_base=ad.base,
        group_base=ad.users,
    )
    with trying(settings) as campus:
        assert campus.log_in("alice", "right") == Rejected(why or Rejection.WRONG_PASSWORD)


# ---- FreeIPA


@pytest.fixture
def ipa() -> FreeIPA:
    """A domain with a service account and the proxy group."""
    domain = FreeIPA()
    domain.add(f"uid=svc-proxy,cn=sysaccounts,cn=etc,{domain.base}", {"objectClass": ["account"]}, SECRET)
    domain.add_group("system-proxy", domain.add_user("alice", "right"))
    domain.add_user("bob", "right")
    return domain


@pytest.fixture
def settings_of_ipa(serve: Callable[..., Any], ipa: FreeIPA) -> LdapSettings:
    """As in the docs: the tree of accounts, whose users list their groups, the nested ones too."""
    _, settings = serve(
        ipa,
        flavour="rfc2307",
        bind_dn=f"uid=svc-proxy,cn=sysaccounts,cn=etc,{ipa.base}",
        user_base=ipa.users,
        group_base=ipa.groups,
        unique_id_attribute="ipaUniqueID",
        membership="memberof",
        password_changed_attribute="krbLastPwdChange",
    )
    assert isinstance(settings, LdapSettings)
    return settings


def test_ipa_login(settings_of_ipa: LdapSettings) -> None:
    """A member, and somebody who is none."""
    with trying(settings_of_ipa) as campus:
        assert found_by(campus, "alice").groups == {"system-proxy"}
        assert campus.log_in("alice", "wrong") == WRONG
        assert campus.log_in("bob", "right") == NOT_A_MEMBER
        assert campus.find("alice") == campus.log_in("alice", "right")


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"locked": True}, Rejection.DISABLED),
        ({"password_expires_at": YESTERDAY}, Rejection.EXPIRED),
        ({"principal_expires_at": YESTERDAY}, Rejection.EXPIRED),
    ],
)
def test_ipa_account_is_over(
    settings_of_ipa: LdapSettings, ipa: FreeIPA, state: dict[str, Any], why: Rejection
) -> None:
    """Refused with 53, or let in by the directory although it is over (case 56)."""
    ipa.join(f"cn=system-proxy,{ipa.groups}", ipa.add_user("carol", "right", **state))
    with trying(settings_of_ipa) as campus:
        assert campus.log_in("carol", "right") == Rejected(why)
        assert campus.find("carol") == Rejected(why)


def test_ipa_password_change(settings_of_ipa: LdapSettings, ipa: FreeIPA) -> None:
    """A new password is a new epoch."""
    with trying(settings_of_ipa) as campus:
        before = found_by(campus, "alice").epoch
        ipa.set(f"uid=alice,{ipa.users}", "krbLastPwdChange", "20260101000000Z")
        assert found_by(campus, "alice").epoch != before


# ---- what the pages tell people to write


def table_of(page: str) -> dict[str, Any]:
    """`[auth.campus]` of the first whole configuration on a page of the docs."""
    text = (Path(__file__).parents[3] / "docs" / page).read_text()
    blocks = (tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    table = next(block["auth"]["campus"] for block in blocks if "campus" in block.get("auth", {}))
    return {key: value for key, value in table.items() if key not in ("type", "urls", "ca_file", "bind_password_file")}


def test_the_page_for_ad(serve: Callable[..., Any]) -> None:
    """Its configuration, as it stands there but for the machine, lets a member in."""
    table = table_of("active-directory.md")
    domain = ActiveDirectory("DC=example,DC=org")
    domain.add(table["bind_dn"], {"objectClass": ["user"]}, SECRET)
    domain.users = domain.add(table["user_base"], {"objectClass": ["organizationalUnit"]})
    alice = domain.add_user("alice", "right")
    domain.add_user("bob", "right")
    domain.users = domain.add(table["group_base"], {"objectClass": ["organizationalUnit"]})
    domain.add_group("system-proxy", domain.add_group("staff", alice))
    _, settings = serve(domain, **table)
    with trying(settings) as campus:
        assert found_by(campus, "alice").groups == {"staff", "system-proxy"}
        assert campus.log_in("bob", "right") == NOT_A_MEMBER


def test_the_page_for_ipa(serve: Callable[..., Any]) -> None:
    """The same for FreeIPA."""
    table = table_of("freeipa.md")
    domain = FreeIPA("dc=example,dc=org")
    domain.add(table["bind_dn"], {"objectClass": ["account"]}, SECRET)
    domain.add_group("system-proxy", domain.add_user("alice", "right"))
    domain.add_user("bob", "right")
    _, settings = serve(domain, **table)
    with trying(settings) as campus:
        assert found_by(campus, "alice").groups == {"system-proxy"}
        assert campus.log_in("bob", "right") == NOT_A_MEMBER
