"""The page `docs/openldap.md`, done as it says: its LDIF in a real slapd, its configuration in the real program.

And the tables of `docs/ldap.md`, which must say what the code says.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import attrs
import pytest

from auth import Cause
from auth.ldap import LdapSettings
from auth.ldap.flavours import FLAVOURS, Flavour
from tests.directories.authority import Authority
from tests.directories.slapd import program_path
from tests.system.origins import free_port
from tests.system.proxy import Proxy, environment
from tests.system.waiting import PATIENCE_S, until
from trioproxy.config import parse_config_untrusted

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "openldap.md").read_text(encoding="utf-8")
FILES: Final = dict(re.findall(r"^```ldif\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
[CONFIG] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

ADMIN: Final = "cn=admin,dc=example,dc=org"
ADMIN_PASSWORD: Final = "admin-secret"
HASH: Final = "{SSHA}0zv1o3pmV5xk7cpxNxgbWTOzDsFRHlDm"  # of the page; the secret file has another password each time

# As Debian sets a directory up, but that nobody may read anything without being allowed to.
CONFIGURATION: Final = """\
dn: cn=config
objectClass: olcGlobal
olcTLSCACertificateFile: {ca}
olcTLSCertificateFile: {chain}
olcTLSCertificateKeyFile: {key}

dn: cn=module,cn=config
objectClass: olcModuleList
olcModulePath: /usr/lib/ldap
olcModuleLoad: back_mdb
olcModuleLoad: ppolicy

dn: cn=schema,cn=config
objectClass: olcSchemaConfig

include: file:///etc/ldap/schema/core.ldif
include: file:///etc/ldap/schema/cosine.ldif
include: file:///etc/ldap/schema/nis.ldif
include: file:///etc/ldap/schema/inetorgperson.ldif

dn: olcDatabase=config,cn=config
objectClass: olcDatabaseConfig
olcAccess: to * by dn.exact=gidNumber={gid}+uidNumber={uid},cn=peercred,cn=external,cn=auth manage by * none

dn: olcDatabase=mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDbDirectory: {folder}/db
olcDbNoSync: TRUE
olcSuffix: dc=example,dc=org
olcRootDN: {admin}
olcRootPW: {admin_password}
olcAccess: to attrs=userPassword by self write by anonymous auth by * none
olcAccess: to * by self read by * none
"""

PEOPLE: Final = """\
dn: dc=example,dc=org
objectClass: domain

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit

""" + "".join(
    f"""\
dn: uid={name},ou=people,dc=example,dc=org
objectClass: inetOrgPerson
sn: {name}
cn: {name}
userPassword: {name}-secret

"""
    for name in ("alice", "bob", "carol")
)

STAFF: Final = """\
dn: cn=staff,ou=groups,dc=example,dc=org
objectClass: groupOfNames
member: uid=alice,ou=people,dc=example,dc=org
"""


class Directory:
    """A slapd that is configured by `cn=config`; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.port = free_port("127.0.0.1")
        (folder / "db").mkdir()
        (folder / "slapd.d").mkdir()
        certificate = self.authority.good()
        settings = CONFIGURATION.format(
            ca=self.authority.pem,
            chain=certificate.chain,
            key=certificate.key,
            folder=folder,
            admin=ADMIN,
            admin_password=ADMIN_PASSWORD,
            gid=os.getegid(),
            uid=os.geteuid(),
        )
        self.run("slapadd", "-n", "0", "-F", "slapd.d", text=settings)

    def __enter__(self) -> Self:
        urls = f"ldaps://127.0.0.1:{self.port}/ ldapi://ldapi/"
        command = [program_path("slapd"), "-d", "0", "-F", "slapd.d", "-h", urls]
        self._process = subprocess.Popen(command, cwd=self.folder, env=environment(), stdin=subprocess.DEVNULL)
        until("slapd to listen", lambda: (self.folder / "ldapi").exists() and self._answers())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        assert self._process.wait(PATIENCE_S) == 0

    def _answers(self) -> bool:
        assert self._process.poll() is None
        return self.try_run("ldapwhoami", "-Y", "EXTERNAL", "-Q", "-H", "ldapi://ldapi/").returncode == 0

    def try_run(self, *command: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run one of OpenLDAP's programs."""
        words = [program_path(command[0]), *command[1:]]
        return subprocess.run(
            words, cwd=self.folder, env=environment(), input=text, text=True, capture_output=True, check=False
        )

    def run(self, *command: str, text: str = "") -> str:
        """The same; it must succeed."""
        done = self.try_run(*command, text=text)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def configure(self, ldif: str, tool: str = "ldapmodify") -> None:
        """What the page does by `-Y EXTERNAL` on the machine of the directory."""
        self.run(tool, "-Y", "EXTERNAL", "-Q", "-H", "ldapi://ldapi/", text=ldif)

    def add(self, ldif: str, tool: str = "ldapadd") -> None:
        """What the page does as the administrator of the tree."""
        self.run(tool, "-x", "-D", ADMIN, "-w", ADMIN_PASSWORD, "-H", "ldapi://ldapi/", text=ldif)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    """Everything that the page says, but for the rules in the directory."""
    folder = tmp_path_factory.mktemp("openldap")
    secret = folder / "ldap.secret"
    secret.touch(mode=0o600)
    secret.write_text("MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0")  # as `openssl rand -base64 24 | tr -d '\n'` makes them
    with Directory(folder) as running:
        running.add(PEOPLE + STAFF)
        hashed = running.run("slappasswd", "-T", str(secret)).strip()
        assert HASH in FILES["service.ldif"]
        running.add(FILES["service.ldif"].replace(HASH, hashed))
        running.configure(FILES["access.ldif"])
        running.add(FILES["group.ldif"])
        yield running


@pytest.fixture(scope="module")
def proxy(directory: Directory, tmp_path_factory: pytest.TempPathFactory) -> Proxy:
    """The configuration of the page, with what belongs to the machine put in."""
    text = CONFIG
    for written, here in {
        '["ldaps://ldap1.example.org", "ldaps://ldap2.example.org"]': f'["ldaps://localhost:{directory.port}"]',
        "/etc/trioproxy/ldap-ca.pem": str(directory.authority.pem),
        "/etc/trioproxy/ldap.secret": str(directory.folder / "ldap.secret"),
        "/var/lib/trioproxy": str(directory.folder),
        "0.0.0.0:1080": "127.0.0.1:0",
    }.items():
        assert written in text
        text = text.replace(written, here)
    site = Proxy(tmp_path_factory.mktemp("proxy"), text)
    [rule] = re.findall(r"^\$ trioproxy rule add group:staff '(.*)'", PAGE, re.MULTILINE)
    site.command("rule", "add", "group:staff", rule)
    return site


def try_login(proxy: Proxy, name: str) -> tuple[int, str]:
    """Exit code and output of `auth test`."""
    done = proxy.try_command("auth", "test", name, "--password-stdin", text=f"{name}-secret\n")
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_page_has_its_files() -> None:
    """What the tests below use is all that there is."""
    assert list(FILES) == [
        "service.ldif",
        "access.ldif",
        "access-ppolicy.ldif",
        "group.ldif",
        "access-rules.ldif",
        "rules.ldif",
    ]


def test_members_log_in(proxy: Proxy) -> None:
    """With the rights that the page gives our account, and no others."""
    proxy.command("check")
    code, shown = try_login(proxy, "alice")
    assert code == 0, shown
    assert "ACCEPTED by campus" in shown
    assert "  groups: staff, system-proxy" in shown


def test_the_output_on_the_page(proxy: Proxy) -> None:
    """What the page shows is what comes, but for times and the machine."""
    [shown] = re.findall(r"^alice from 127.*?(?=^```$)", PAGE, re.MULTILINE | re.DOTALL)
    assert _of_any_machine(shown) == _of_any_machine(try_login(proxy, "alice")[1])


def _of_any_machine(text: str) -> list[str]:
    text = text.replace("ldap1.example.org", "localhost")
    return re.sub(r"\d+ ms|/\S+/ldap\.secret|certificate for .*|localhost(:\d+| is .*)", "X", text).split()


def test_others_do_not(proxy: Proxy) -> None:
    """Who is not in the group, and who is not there."""
    code, shown = try_login(proxy, "carol")
    assert (code, "REFUSED: user is not a member of the proxy group" in shown) == (1, True)
    code, shown = try_login(proxy, "nobody")
    assert (code, "REFUSED: unknown user" in shown) == (1, True)


def test_who_is_locked_out(directory: Directory, proxy: Proxy) -> None:
    """With ppolicy, and the right to see what it writes."""
    directory.configure("dn: olcOverlay=ppolicy,olcDatabase={1}mdb,cn=config\nchangetype: add\n"
                        "objectClass: olcOverlayConfig\nobjectClass: olcPPolicyConfig\n")  # fmt: skip
    directory.configure(FILES["access-ppolicy.ldif"])
    directory.run(
        *("ldapmodify", "-e", "relax", "-x", "-D", ADMIN, "-w", ADMIN_PASSWORD, "-H", "ldapi://ldapi/"),
        text="dn: uid=bob,ou=people,dc=example,dc=org\nchangetype: modify\nreplace: pwdAccountLockedTime\n"
        "pwdAccountLockedTime: 000001010000Z\n",
    )
    done = proxy.try_command("auth", "test", "bob", "--no-password")
    assert (done.returncode, "pwdAccountLockedTime is 000001010000Z" in done.stdout) == (1, True)
    assert try_login(proxy, "alice")[0] == 0


def test_rules_in_the_directory(directory: Directory, proxy: Proxy) -> None:
    """The schema, the right to read it, and rules of a group."""
    directory.configure((ROOT / "docs/ldap/trioproxy.ldif").read_text(), "ldapadd")
    directory.configure(FILES["access-rules.ldif"])
    directory.add(FILES["rules.ldif"], "ldapmodify")
    before = proxy.config_file.read_text()
    proxy.config_file.write_text(before.replace("[store]", 'rules_attribute = "trioproxyRule"\n[store]'))
    code, shown = try_login(proxy, "alice")
    proxy.config_file.write_text(before)
    assert code == 0
    assert re.search(r"^group:staff +1 +2 in cn=staff,ou=groups,dc=example,dc=org$", shown, re.MULTILINE)
    assert "warning" not in shown


# ---- the tables of `docs/ldap.md`


def rows(heading: str, page: str = "ldap.md") -> dict[str, list[str]]:
    """The table below a heading: the first word of each line to its other cells."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = re.split(r"^#+ ", text.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = {}
    for line in re.findall(r"^\| `.*\|$", section, re.MULTILINE):
        first, *others = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        found[first.strip("`")] = [other.replace("\\|", "|") for other in others]
    return found


def test_every_setting_is_on_the_page() -> None:
    """Its name, in the order of the class, and the default that it has."""
    shown = rows("Settings")
    fields = {field.name: field for field in attrs.fields(LdapSettings)}
    by_flavour = {field.name for field in attrs.fields(Flavour)}
    assert list(shown) == list(fields)
    for name, field in fields.items():
        default = shown[name][0]
        if name in by_flavour:
            assert (default, field.default) == ("by flavour", None)
        elif field.default is attrs.NOTHING:
            assert default == "must be given"
        elif field.default is not None:
            value = int(field.default) if isinstance(field.default, float) else field.default
            assert default == f"`{json.dumps(value)}`"
        else:
            assert default  # in words


def test_every_flavour_is_on_the_page() -> None:
    """Each of its defaults."""
    shown = rows("Flavours")
    assert list(shown) == [field.name for field in attrs.fields(Flavour)]
    for name, cells in shown.items():
        for cell, flavour in zip(cells, FLAVOURS.values(), strict=True):
            value = getattr(flavour, name)
            assert cell == ", ".join(f"`{one}`" for one in ([value] if isinstance(value, str) else value))


def test_every_cause_is_on_the_page() -> None:
    """With the counter that it has, and in the words that `auth test` uses."""
    shown = {name.removeprefix("login_unavailable_"): cells[0] for name, cells in rows("When it does not work").items()}
    causes = {cause.name.lower(): cause.value for cause in Cause if cause is not Cause.OTHER}
    assert shown == causes | {"other": "anything else"}


@pytest.mark.parametrize("page", ["openldap.md", "active-directory.md", "freeipa.md"])
def test_configurations_are_whole(page: str) -> None:
    """The first one of each page could be used as it stands: listener, store, TLS, our own account, the proxy group."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    first = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    config = parse_config_untrusted(first, page)
    settings = config.auth.tables["campus"].settings
    assert {"urls", "ca_file", "bind_dn", "bind_password_file", "user_base", "group_base"} <= settings.keys()
    assert config.auth.backends == ("campus",)
    assert config.store.url is not None
    assert config.log.records is not None
    assert "trioproxy auth test alice --config" in text
