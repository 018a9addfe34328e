"""docs/ldap: a real slapd takes the schema in both forms, and its attribute does what the pages say."""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.directories.authority import Authority
from tests.directories.slapd import SCHEMA, Slapd, program_path
from tests.directories.tree import BASE, dn_of, person
from tests.system.proxy import environment
from tests.system.waiting import PATIENCE_S, until

LDIF: Final = SCHEMA.with_suffix(".ldif")
ME: Final = f"gidNumber={os.getegid()}+uidNumber={os.geteuid()},cn=peercred,cn=external,cn=auth"

# As Debian's slapd is configured when it is installed: root of the machine, by the Unix socket, may change it.
CONFIG: Final = f"""\
dn: cn=config
objectClass: olcGlobal
cn: config

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

include: file:///etc/ldap/schema/core.ldif

dn: olcDatabase={{0}}config,cn=config
objectClass: olcDatabaseConfig
olcDatabase: {{0}}config
olcAccess: to * by dn.exact={ME} manage by * break
"""


def _run(folder: Path, *command: str, text: str = "") -> str:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd=folder, env=environment()
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_it_loads_into_a_running_cn_config(tmp_path: Path) -> None:
    """The command in the file's comment, word for word but for the place of the socket."""
    [command] = re.findall(r"ldapadd -Y EXTERNAL -H ldapi:/// -f trioproxy.ldif", LDIF.read_text())
    (tmp_path / "slapd.d").mkdir()
    _run(tmp_path, program_path("slapadd"), "-n", "0", "-F", "slapd.d", text=CONFIG)
    server = subprocess.Popen(
        [program_path("slapd"), "-d", "0", "-F", "slapd.d", "-h", "ldapi://ldapi/"], cwd=tmp_path, env=environment()
    )
    try:
        url = "ldapi://ldapi/"
        whoami = ["ldapwhoami", "-Y", "EXTERNAL", "-Q", "-H", url]
        until("slapd", lambda: subprocess.run(whoami, cwd=tmp_path, capture_output=True, check=False).returncode == 0)
        (tmp_path / LDIF.name).write_bytes(LDIF.read_bytes())  # the socket's path is relative: long ones do not work
        said = _run(tmp_path, *command.replace("ldapi:///", url).split())
        assert 'adding new entry "cn=trioproxy,cn=schema,cn=config"' in said
    finally:
        server.terminate()
        server.wait(PATIENCE_S)
    assert "succeeded" in _run(tmp_path, program_path("slaptest"), "-F", "slapd.d")


def test_both_forms_define_the_same(tmp_path: Path) -> None:
    """The numbers and every word of the definitions; only the names of the keywords differ."""

    def words(text: str) -> list[str]:
        kept = re.sub(r"^(#.*|dn:.*|objectClass:.*|cn:.*)$", "", text, flags=re.MULTILINE)
        kept = re.sub(r"olcObjectIdentifier:", "objectidentifier", kept)
        kept = re.sub(r"olcAttributeTypes:", "attributetype", kept)
        return re.sub(r"olcObjectClasses:", "objectclass", kept).split()

    assert words(SCHEMA.read_text()) == words(LDIF.read_text())


def test_rules_compare_with_case_and_come_back_as_they_went(tmp_path: Path) -> None:
    """Rules caseExactMatch and caseExactSubstringsMatch; the values keep case and characters."""
    rules = ['{1}deny tcp:*(*)->Secret.Example(443) note="a (b) *"', "tcp:*(*)->*.example.org(80,443)"]
    ldif = f"dn: {BASE}\nobjectClass: domain\ndc: campus\n\ndn: ou=people,{BASE}\nobjectClass: organizationalUnit\n\n"
    values = "\n".join(f"trioproxyRule: {rule}" for rule in rules)
    with Slapd(tmp_path / "slapd", Authority(tmp_path), ldif=ldif, overlays=()) as slapd:
        slapd.add(person("alice", values, classes="trioproxyRules"))

        def found(text: str) -> int:
            return slapd.search(f"(trioproxyRule={text})").count("dn: ")

        assert rules == slapd.read(dn_of("alice"), "trioproxyRule")["trioproxyRule"]
        assert (found("*Secret.Example*"), found("*secret.example*")) == (1, 0)
        exact = r":\2a\28\2a\29->\2a.example.org\2880,443\29"
        assert (found(f"tcp{exact}"), found(f"TCP{exact}")) == (1, 0)


def test_an_entry_without_the_class_may_hold_no_rules(tmp_path: Path) -> None:
    """A schema, not a free-for-all: 65, objectClassViolation."""
    ldif = f"dn: {BASE}\nobjectClass: domain\ndc: campus\n"
    with Slapd(tmp_path / "slapd", Authority(tmp_path), ldif=ldif, overlays=()) as slapd:
        with pytest.raises(AssertionError, match=r"Object class violation \(65\)"):
            slapd.replace(BASE, "trioproxyRule", "tcp:*(*)->*(*)")
