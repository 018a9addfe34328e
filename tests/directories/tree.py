"""What stands in the directories of the tests: a small campus, in LDIF, where every trap has a user of its own.

Below `BASE`:

- ou=people: alice is a member of the proxy group and of students, bob of students, carol of system-proxy2, dave of the
  group that has the right name in ou=other, erin of staff, which is a member of the proxy group. frank (posixAccount)
  is in the posixGroup system-proxy, grace (posixAccount) in another one, though system-proxy is her primary group.
  heidi is a member and has the second uid heidi.alias, jürgen is a member, leo is in a ring of groups that leads
  nowhere, mia in one that leads to the proxy group, ursula is in cn=unique-proxy by uniqueMember. Members that may not
  come in: lena is locked for ever, rita must change her password, xaver has expired (shadowExpire). uid=shadow is an
  alias of alice.
- ou=groups: system-proxy (groupOfNames), system-proxy2, students and staff with rules, loop-a -> loop-b -> loop-c ->
  loop-a, ring-a <-> ring-b -> system-proxy, unique-proxy (groupOfUniqueNames).
- ou=unix: posixGroups. ou=other: another cn=system-proxy.
- ou=services: cn=proxy, whom a service binds as. ou=policies: what ppolicy goes by.
- ou=elsewhere is a referral; a search of it, or of all of `BASE`, ends in a reference.

Alice and students have two rules each, staff has one.
"""

from base64 import b64encode
from typing import Final

__all__ = [
    "BASE",
    "GROUPS",
    "LOCKED_AFTER",
    "OTHER_GROUPS",
    "PEOPLE",
    "PROXY_GROUP",
    "REFERRAL",
    "SERVICE",
    "SERVICE_PASSWORD",
    "UNIX_GROUPS",
    "campus",
    "chain_of_groups",
    "dn_of",
    "group",
    "password_of",
    "person",
]

BASE: Final = "dc=campus,dc=example"
PEOPLE: Final = f"ou=people,{BASE}"
GROUPS: Final = f"ou=groups,{BASE}"
OTHER_GROUPS: Final = f"ou=other,{BASE}"
UNIX_GROUPS: Final = f"ou=unix,{BASE}"
PROXY_GROUP: Final = f"cn=system-proxy,{GROUPS}"
SERVICE: Final = f"cn=proxy,ou=services,{BASE}"
SERVICE_PASSWORD: Final = "service-secret"
REFERRAL: Final = "ldap://elsewhere.example/ou=elsewhere,dc=elsewhere,dc=example"
LOCKED_AFTER: Final = 3  # wrong passwords, by the policy of all users


def dn_of(uid: str) -> str:
    """The DN of a user; no name in `campus` needs escaping."""
    return f"uid={uid},{PEOPLE}"


def password_of(uid: str) -> str:
    """A user's password."""
    return f"{uid}-secret"


def person(uid: str, more: str = "", *, classes: str = "") -> str:
    """LDIF of a user.

    Args:
        uid: the name; may be any text.
        more: lines for the end.
        classes: auxiliary object classes, words.
    """
    lines = [
        _line("dn", dn_of(uid)),
        *(f"objectClass: {name}" for name in ("inetOrgPerson", *classes.split())),
        _line("uid", uid),
        _line("cn", uid),
        _line("sn", uid),
        _line("userPassword", password_of(uid)),
    ]
    return "\n".join([*lines, *more.strip().splitlines()]) + "\n\n"


def group(dn: str, *members: str, rules: tuple[str, ...] = ()) -> str:
    """LDIF of a groupOfNames, with rules if there are any."""
    lines = [_line("dn", dn), "objectClass: groupOfNames", *(["objectClass: trioproxyRules"] if rules else [])]
    lines += [_line("member", member) for member in members]
    lines += [_line("trioproxyRule", rule) for rule in rules]
    return "\n".join(lines) + "\n\n"


def chain_of_groups(length: int, uid: str) -> str:
    """LDIF of a user, and of groups deep-1 ... deep-N one in the other around the user.

    deep-N is a member of nothing: add it to where the chain should lead.
    """
    names = [f"cn=deep-{number},{GROUPS}" for number in range(1, length + 1)]
    return person(uid) + "".join(group(outer, inner) for inner, outer in zip([dn_of(uid), *names], names, strict=False))


def campus(referral: str = REFERRAL) -> str:
    """LDIF of all of it, in an order in which memberOf is right at the end.

    Args:
        referral: where ou=elsewhere is said to be.
    """
    return _FRAME.format(referral=referral) + "".join(_people()) + "".join(_groups()) + _ALIAS


def _line(name: str, value: str) -> str:
    """RFC 2849: what is not plain ASCII goes as Base64."""
    if value.isascii() and value.isprintable() and not value.startswith((" ", ":", "<")) and not value.endswith(" "):
        return f"{name}: {value}"
    return f"{name}:: {b64encode(value.encode()).decode()}"


def _people() -> list[str]:
    plain = ["bob", "carol", "dave", "erin", "j\u00fcrgen", "leo", "mia", "ursula"]
    posix = "uidNumber: {number}\ngidNumber: 5000\nhomeDirectory: /home/{name}"
    return [
        *map(person, plain),
        person(
            "alice",
            "trioproxyRule: {2}tcp:*(*)->*(443)\ntrioproxyRule: {1}deny tcp:*(*)->secret.campus.example(443)",
            classes="trioproxyRules",
        ),
        person("frank", posix.format(number=2001, name="frank"), classes="posixAccount"),
        person("grace", posix.format(number=2002, name="grace"), classes="posixAccount"),
        person("heidi", "uid: heidi.alias"),
        person("lena", "pwdAccountLockedTime: 000001010000Z"),
        person("rita", "pwdReset: TRUE"),
        person("xaver", "shadowExpire: 1", classes="shadowAccount"),
    ]


def _groups() -> list[str]:
    named = {name: f"cn={name},{GROUPS}" for name in ("staff", "loop-a", "loop-b", "loop-c", "ring-a", "ring-b")}
    members = ["alice", "heidi", "j\u00fcrgen", "lena", "rita", "xaver"]
    return [
        group(named["staff"], dn_of("erin"), rules=("udp:*(*)->*(53)",)),
        group(
            f"cn=students,{GROUPS}",
            dn_of("alice"),
            dn_of("bob"),
            rules=("{1}deny any:*(*)->*(25)", "{2}tcp:*(*)->*.campus.example(80,443)"),
        ),
        group(named["loop-a"], dn_of("leo")),
        group(named["loop-b"], named["loop-a"]),
        group(named["loop-c"], named["loop-b"]),
        f"dn: {named['loop-a']}\nchangetype: modify\nadd: member\nmember: {named['loop-c']}\n\n",
        group(named["ring-a"], dn_of("mia")),
        group(named["ring-b"], named["ring-a"]),
        f"dn: {named['ring-a']}\nchangetype: modify\nadd: member\nmember: {named['ring-b']}\n\n",
        group(PROXY_GROUP, *map(dn_of, members), named["staff"], named["ring-b"]),
        group(f"cn=system-proxy2,{GROUPS}", dn_of("carol")),
        group(f"cn=system-proxy,{OTHER_GROUPS}", dn_of("dave")),
    ]


_FRAME: Final = f"""\
dn: {BASE}
objectClass: domain
dc: campus

dn: {PEOPLE}
objectClass: organizationalUnit

dn: {GROUPS}
objectClass: organizationalUnit

dn: {OTHER_GROUPS}
objectClass: organizationalUnit

dn: {UNIX_GROUPS}
objectClass: organizationalUnit

dn: ou=services,{BASE}
objectClass: organizationalUnit

dn: ou=policies,{BASE}
objectClass: organizationalUnit

dn: cn=users,ou=policies,{BASE}
objectClass: organizationalRole
objectClass: pwdPolicy
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: {LOCKED_AFTER}
pwdMaxAge: 31536000
pwdMustChange: TRUE

# Nobody can lock out a service by guessing at its password.
dn: cn=services,ou=policies,{BASE}
objectClass: organizationalRole
objectClass: pwdPolicy
pwdAttribute: userPassword
pwdLockout: FALSE

dn: {SERVICE}
objectClass: applicationProcess
objectClass: simpleSecurityObject
userPassword: {SERVICE_PASSWORD}
pwdPolicySubentry: cn=services,ou=policies,{BASE}

dn: ou=elsewhere,{BASE}
objectClass: referral
objectClass: extensibleObject
ref: {{referral}}

dn: cn=system-proxy,{UNIX_GROUPS}
objectClass: posixGroup
gidNumber: 5000
memberUid: frank

dn: cn=printing,{UNIX_GROUPS}
objectClass: posixGroup
gidNumber: 5001
memberUid: grace

dn: cn=unique-proxy,{GROUPS}
objectClass: groupOfUniqueNames
uniqueMember: {dn_of("ursula")}

"""

_ALIAS: Final = f"""\
dn: {dn_of("shadow")}
objectClass: alias
objectClass: extensibleObject
uid: shadow
aliasedObjectName: {dn_of("alice")}

"""
