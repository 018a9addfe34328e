"""What slapd would never do: referrals with a trap, broken TLS, silence, garbage, entries that change in between."""

import gc
import itertools
import resource
import ssl
import threading
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from auth import Answer, Cause, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.ldap import LdapSettings
from auth.ldap.ber import Allowance
from tests.auth.ldap.trying import UNKNOWN, settings_for, trying
from tests.directories.authority import Authority
from tests.directories.emulated import MemoryDirectory
from tests.directories.messages import (
    Kind,
    Request,
    bind_result,
    disconnection,
    entry,
    extended_result,
    intermediate,
    reference,
    search_done,
)
from tests.directories.misbehaviour import (
    GARBAGE,
    black_hole,
    close,
    close_within,
    endless,
    huge,
    reset,
    result_for,
    silent,
    slowly,
    start_tls_with_more,
)
from tests.directories.scripted import Reply, Script, ScriptedServer
from tests.directories.tree import BASE, GROUPS, PEOPLE, PROXY_GROUP, SERVICE, SERVICE_PASSWORD, dn_of, password_of

ALICE = {
    "objectClass": ["inetOrgPerson"],
    "uid": ["alice"],
    "entryUUID": ["6ba7b810-9dad-11d1-80b4-00c04fd430c8"],
}
QUICK: dict[str, Any] = {"connect_s": 0.4, "answer_s": 0.4, "login_s": 1.0}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One for all servers here."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    """A good certificate."""
    return authority.good().context()


@pytest.fixture
def make_settings(authority: Authority, tmp_path: Path) -> Callable[..., LdapSettings]:
    """Makes settings for a server with a good certificate."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(SERVICE_PASSWORD)

    def make(*urls: str, **changes: Any) -> LdapSettings:
        return settings_for(authority.pem, secret, *urls, **changes)

    return make


@pytest.fixture
def directory() -> MemoryDirectory:
    """Alice, a member, in a directory that can change under a login's feet."""
    memory = MemoryDirectory(BASE)
    memory.add(PEOPLE, {"objectClass": ["organizationalUnit"]})
    memory.add(GROUPS, {"objectClass": ["organizationalUnit"]})
    memory.add(SERVICE, {"objectClass": ["applicationProcess"]}, SERVICE_PASSWORD)
    memory.add(dn_of("alice"), ALICE, password_of("alice"))
    memory.add(PROXY_GROUP, {"objectClass": ["groupOfNames"], "cn": ["system-proxy"]})
    memory.join(PROXY_GROUP, dn_of("alice"))
    return memory


def instead(directory: Script, of: Callable[[Request], bool], reply: Callable[[], Reply]) -> Script:
    """The answers of a directory, but for some requests."""
    return lambda request: reply() if of(request) else directory(request)


def of_user(request: Request) -> bool:
    """The bind as a user."""
    return request.kind is Kind.BIND and request.dn == dn_of("alice")


def of_people(request: Request) -> bool:
    """The search for the user."""
    return request.kind is Kind.SEARCH and request.base == PEOPLE


def of_entry(request: Request) -> bool:
    """Reading the entry again."""
    return request.kind is Kind.SEARCH and request.scope == 0


def of_groups(request: Request) -> bool:
    """The search for groups."""
    return request.kind is Kind.SEARCH and request.base == GROUPS


def unavailable(answer: Answer, *causes: Cause) -> Unavailable:
    """It must be that, by one of these causes."""
    assert isinstance(answer, Unavailable), answer
    assert answer.cause in causes, answer
    return answer


def test_a_directory_in_memory(
    directory: MemoryDirectory, tls: ssl.SSLContext, make_settings: Callable[..., Any]
) -> None:
    """The stage for all that follows: here a login works, and what is sent is what was meant (cases 47, 49)."""
    with ScriptedServer(directory, tls=tls) as server, trying(make_settings(server.url)) as campus:
        assert isinstance(campus.log_in("alice"), Identity)
        assert all(request.encrypted for request in server.requests)
        assert [request.dn for request in server.binds] == [SERVICE, dn_of("alice")]
        assert len({request.connection for request in server.binds}) == 2
        first = server.searches[0]
        assert (first.filter, first.size_limit, first.values) == ("(uid=alice)", 2, (b"alice",))
        asked = len(server.requests)
        for name in ("*", "a*", "*)(uid=*", "a)(|(cn=*"):
            assert campus.log_in(name, "x") == UNKNOWN
            assert server.requests[asked].values == (name.encode(),)
            asked = len(server.requests)
        assert campus.log_in("alice", "") == Rejected(Rejection.EMPTY_PASSWORD)
        assert len(server.requests) == asked


# ---- referrals (case 52)


@pytest.mark.parametrize("where", [of_people, of_entry, of_groups, of_user, lambda request: request.kind is Kind.BIND])
def test_referral(
    directory: MemoryDirectory, tls: ssl.SSLContext, make_settings: Callable[..., Any], where: Callable[[Request], bool]
) -> None:
    """As the result of a search or a bind: the second host never hears of us (case 52)."""
    with ScriptedServer(tls=tls) as elsewhere:
        urls = [f"{elsewhere.url}/{PEOPLE}", f"ldap://127.0.0.1:{elsewhere.port}/{PEOPLE}"]

        def script(request: Request) -> Reply:
            if not where(request):
                return directory(request)
            make = bind_result if request.kind is Kind.BIND else search_done
            return [make(10, referrals=urls)]

        with ScriptedServer(script, tls=tls) as server, trying(make_settings(server.url)) as campus:
            unavailable(campus.log_in("alice"), Cause.REFUSED, Cause.SERVICE_LOGIN)
        assert elsewhere.connections == 0


def test_continuation_reference(
    directory: MemoryDirectory, tls: ssl.SSLContext, make_settings: Callable[..., Any]
) -> None:
    """Beside the entry, or in its place; ignored where that is set, followed never (cases 51 and 52)."""
    with ScriptedServer(tls=tls) as elsewhere:
        found = [entry(dn_of("alice"), ALICE), reference(f"{elsewhere.url}/{PEOPLE}"), search_done()]
        for reply, ignored in ((found, Identity), (found[1:], Rejected)):
            script = instead(directory, of_people, partial(list, reply))
            with ScriptedServer(script, tls=tls) as server:
                with trying(make_settings(server.url)) as campus:
                    unavailable(campus.log_in("alice"), Cause.REFUSED)
                with trying(make_settings(server.url, search_references="ignore")) as campus:
                    assert isinstance(campus.log_in("alice"), ignored)
        assert elsewhere.connections == 0


# ---- StartTLS (case 53)


def starttls_refused(_tls: ssl.SSLContext) -> Script:
    """The server does not want to."""
    return result_for(2, "unsupported extended operation")


def starttls_unknown(_tls: ssl.SSLContext) -> Script:
    """Somebody on the line has taken it out: the server knows no such operation."""
    return lambda _request: [extended_result(53)]


def starttls_with_words_before(tls: ssl.SSLContext) -> Script:
    """Somebody on the line puts an answer to the next request behind the yes (CVE-2021-3935)."""
    return lambda _request: start_tls_with_more(tls, bind_result().numbered(2))


def starttls_without_tls(_tls: ssl.SSLContext) -> Script:
    """Yes, and then no handshake."""
    return lambda _request: [extended_result(), silent]


def starttls_with_plain_text(_tls: ssl.SSLContext) -> Script:
    """Yes, and then plain LDAP."""
    return lambda _request: [extended_result(), bind_result(), bind_result()]


@pytest.mark.parametrize(
    "script",
    [
        starttls_refused,
        starttls_unknown,
        starttls_with_words_before,
        starttls_without_tls,
        starttls_with_plain_text,
    ],
)
def test_start_tls_that_fails(
    tls: ssl.SSLContext, make_settings: Callable[..., Any], script: Callable[[ssl.SSLContext], Script]
) -> None:
    """No bind is sent, and the login is unavailable (case 53)."""
    with ScriptedServer(script(tls)) as server:
        with trying(make_settings(server.url, **QUICK)) as campus:
            unavailable(campus.log_in("alice"), Cause.TLS, Cause.TIMEOUT, Cause.PROTOCOL)
        assert server.binds == []


# ---- what changes between the steps (case 57, and the order of a login)


def removed_from_the_group(directory: MemoryDirectory) -> None:
    """The proxy group loses her."""
    directory.leave(PROXY_GROUP, dn_of("alice"))


def deleted(directory: MemoryDirectory) -> None:
    """She has gone."""
    removed_from_the_group(directory)
    directory.remove(dn_of("alice"))


def replaced(directory: MemoryDirectory) -> None:
    """Somebody else has her DN, and even her membership."""
    directory.set(dn_of("alice"), "entryUUID", "00000000-9dad-11d1-80b4-00c04fd430c8")


def renamed(directory: MemoryDirectory) -> None:
    """The entry has another name now."""
    directory.set(dn_of("alice"), "uid", "mallory")


def locked(directory: MemoryDirectory) -> None:
    """The flag is set."""
    directory.set(dn_of("alice"), "pwdAccountLockedTime", "000001010000Z")


@pytest.mark.parametrize("change", [removed_from_the_group, deleted, replaced, renamed, locked])
@pytest.mark.parametrize("moment", ["on_bind", "on_bound"])
def test_change_in_between(
    directory: MemoryDirectory,
    tls: ssl.SSLContext,
    make_settings: Callable[..., Any],
    change: Callable[[MemoryDirectory], None],
    moment: str,
) -> None:
    """Removed, deleted, replaced or locked while the password is on its way: she does not get in (case 57)."""

    def act(dn: str) -> None:
        if dn == dn_of("alice"):
            change(directory)

    setattr(directory, moment, act)
    with ScriptedServer(directory, tls=tls) as server, trying(make_settings(server.url)) as campus:
        answer = campus.log_in("alice")
        assert isinstance(answer, Rejected | Unavailable)
        # It is one login that went wrong, and no hint that she is unknown: that would send the password on.
        assert answer != UNKNOWN


# ---- a server in trouble (case 59)


MISBEHAVIOURS: dict[str, Reply] = {
    "silent": [silent],
    "a byte a second": [slowly(search_done(), interval_s=0.2)],
    "closes": [close],
    "resets": [reset],
    "closes within a message": [close_within(search_done())],
    "busy": [],
    "unavailable": [],
    "100 MiB": [huge()],
    "without end": [endless()],
    "MiBs of entries": [endless(entry("cn=x,dc=example", {"description": [b"x" * 100_000]}))],
    "references without end": [endless(reference("ldap://x/"))],
    "notices without end": [endless(intermediate())],
    "says farewell": [disconnection()],
    "another question's answer": [search_done().numbered(99)],
    "an answer of another kind": [extended_result()],
    **{f"garbage: {name}": [act] for name, act in GARBAGE.items()},
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
@pytest.mark.parametrize("where", [of_people, of_user, of_groups])
def test_misbehaviour(
    directory: MemoryDirectory,
    tls: ssl.SSLContext,
    make_settings: Callable[..., Any],
    name: str,
    where: Callable[[Request], bool],
) -> None:
    """Whatever comes, at whatever step: unavailable, no thread is left, memory stays flat, and then it works again."""
    broken = threading.Event()
    broken.set()

    def script(request: Request) -> Reply:
        if not (where(request) and broken.is_set()):
            return directory(request)
        if name in ("busy", "unavailable"):
            return result_for(51 if name == "busy" else 52)(request)
        return MISBEHAVIOURS[name]

    memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ScriptedServer(script, tls=tls) as server, trying(make_settings(server.url, **QUICK)) as campus:
        before = threading.active_count()
        answer = campus.log_in("alice")
        # Much is about what was found, and not the server's failure: others may write entries.
        much = (Cause.AMBIGUOUS,) if name == "MiBs of entries" else ()
        unavailable(answer, Cause.TIMEOUT, Cause.CONNECT, Cause.PROTOCOL, Cause.BUSY, *much)
        assert sum(request.dn == dn_of("alice") for request in server.binds) <= 1
        broken.clear()
        assert isinstance(campus.log_in("alice"), Identity)
        assert threading.active_count() <= before + server.connections  # those of the scripted server
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kib < 64 << 10


def test_a_bind_is_never_sent_twice(
    directory: MemoryDirectory, tls: ssl.SSLContext, make_settings: Callable[..., Any]
) -> None:
    """When the bind was sent and no answer came, no other server is asked: it may have counted already (item 7)."""
    hangs = instead(directory, of_user, lambda: [silent])
    with ScriptedServer(hangs, tls=tls) as first, ScriptedServer(directory, tls=tls) as second:
        with trying(make_settings(first.url, second.url, **QUICK)) as campus:
            unavailable(campus.log_in("alice"), Cause.TIMEOUT)
            assert second.connections == 0
            assert isinstance(campus.log_in("alice"), Identity)  # the first is skipped now
            assert len(second.binds) == 2


def test_the_next_server_takes_over(
    directory: MemoryDirectory, tls: ssl.SSLContext, make_settings: Callable[..., Any]
) -> None:
    """Before the bind everything may be asked again, of the next one, in the same login."""
    hangs = instead(directory, of_people, lambda: [silent])
    with ScriptedServer(hangs, tls=tls) as first, ScriptedServer(directory, tls=tls) as second:
        with trying(make_settings(first.url, second.url, connect_s=1, answer_s=0.3, login_s=5)) as campus:
            assert isinstance(campus.log_in("alice"), Identity)
            assert len(second.binds) == 2
            assert dn_of("alice") not in [request.dn for request in first.binds]


def test_black_hole(directory: MemoryDirectory, tls: ssl.SSLContext, make_settings: Callable[..., Any]) -> None:
    """A machine that drops every packet: the next one is asked in the same login; alone it is unavailable in time."""
    with black_hole() as port, ScriptedServer(directory, tls=tls) as server:
        dead = f"ldaps://127.0.0.1:{port}"
        with trying(make_settings(dead, server.url, connect_s=0.3, login_s=5)) as campus:
            assert isinstance(campus.log_in("alice"), Identity)
        with trying(make_settings(dead, **QUICK)) as campus:
            unavailable(campus.log_in("alice"), Cause.CONNECT, Cause.TIMEOUT)


@pytest.mark.parametrize("code", [1, 2, 8, 13, 32, 50, 53, 80, 4096])
def test_strange_results(
    directory: MemoryDirectory, tls: ssl.SSLContext, make_settings: Callable[..., Any], code: int
) -> None:
    """A bind or search with any other result is neither success nor a wrong password."""
    for where in (of_user, of_people, of_groups):

        def script(request: Request, where: Callable[[Request], bool] = where) -> Reply:
            return result_for(code, "no\nthanks")(request) if where(request) else directory(request)

        with ScriptedServer(script, tls=tls) as server, trying(make_settings(server.url)) as campus:
            problem = unavailable(campus.log_in("alice"), Cause.REFUSED).problem
            assert str(code) in problem
            assert "\n" not in problem


@pytest.mark.parametrize(
    "found",
    [
        [entry("", ALICE)],
        [entry("this is no name", ALICE)],
        [entry(b"uid=\xff\xfe,dc=example", ALICE)],
        [entry(dn_of("alice"), {**ALICE, "entryUUID": []})],
        [entry(dn_of("alice"), {**ALICE, "entryUUID": ["a", "b"]})],
        [entry(dn_of("alice"), {**ALICE, "objectClass": ["ALIAS"]})],
        [entry(dn_of("alice"), {**ALICE, "objectClass": ["top", "referral"]})],
        [entry(dn_of("alice"), ALICE), entry(dn_of("bob"), ALICE)],
        [entry(dn_of("alice"), ALICE), entry(dn_of("alice"), ALICE), entry(dn_of("alice"), ALICE)],
    ],
)
def test_strange_entries(
    directory: MemoryDirectory, tls: ssl.SSLContext, make_settings: Callable[..., Any], found: list[Any]
) -> None:
    """Without a name, without an id, an alias, two: nobody is bound as any of them (case 51)."""
    script = instead(directory, of_people, lambda: [*found, search_done()])
    with ScriptedServer(script, tls=tls) as server:
        with trying(make_settings(server.url)) as campus:
            unavailable(campus.log_in("alice"), Cause.AMBIGUOUS, Cause.PROTOCOL)
        assert [request.dn for request in server.binds] == [SERVICE]


@pytest.mark.parametrize("where", [of_people, of_entry, of_groups])
def test_limit_of_the_server(
    directory: MemoryDirectory, tls: ssl.SSLContext, make_settings: Callable[..., Any], where: Callable[[Request], bool]
) -> None:
    """A server that stops early has not told all: not a person, not all groups, so nobody is let in (case 51)."""
    script = instead(directory, where, lambda: [entry(dn_of("alice"), ALICE), search_done(4)])
    with ScriptedServer(script, tls=tls) as server, trying(make_settings(server.url)) as campus:
        assert "entries" in unavailable(campus.log_in("alice"), Cause.AMBIGUOUS).problem


def test_tls_handshake_that_never_ends(make_settings: Callable[..., Any]) -> None:
    """ldaps:// to something that takes the bytes and says nothing (case 59)."""
    with ScriptedServer(at_first=silent) as server:
        with trying(make_settings(f"ldaps://localhost:{server.port}", **QUICK)) as campus:
            unavailable(campus.log_in("alice"), Cause.TIMEOUT)
        assert server.requests == []


# ---- our own account


def reachable(beginning: object) -> set[int]:
    """Every object that can be reached from this one, but for modules and classes."""
    seen: dict[int, object] = {}
    left = [beginning]
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, type | types.ModuleType | types.FunctionType):
            seen[id(one)] = one
            left += gc.get_referents(one)
    return set(seen)


def test_refused_service_account_keeps_no_passwords(make_settings: Callable[..., Any]) -> None:
    """What is remembered of the refusal is its words: nothing grows, and nobody's credentials are kept with it."""
    with ScriptedServer(result_for(49)) as server:
        with trying(make_settings(server.url, insecure_plaintext=True)) as campus:
            asked = [Credentials("main", f"user{number}", f"secret-{number}") for number in range(3)]
            for credentials in asked:
                unavailable(campus.backend.authenticate(credentials), Cause.SERVICE_LOGIN)
            assert len(server.binds) == 1
            assert not reachable(campus.backend._servers) & set(map(id, asked))


# ---- what one login may cost


def found_by(where: Callable[[Request], bool], *replies: Any) -> Script:
    """Alice and her groups, with these messages before the end of one search."""

    def script(request: Request) -> Reply:
        if request.kind is Kind.BIND:
            return [bind_result()]
        own = [] if where(request) else [entry(PROXY_GROUP if GROUPS in request.base else dn_of("alice"), ALICE)]
        return [*own, *(replies if where(request) else ()), search_done()]

    return script


@pytest.mark.parametrize(("values", "taken"), [(19_000, True), (20_001, False)])
def test_many_values(make_settings: Callable[..., Any], values: int, taken: bool) -> None:
    """However short they are; it says nothing about the server, which goes on being asked first."""
    many = entry(dn_of("alice"), {**ALICE, "memberOf": [b"cn=a"] * (values - 1) + [PROXY_GROUP]})
    with ScriptedServer(found_by(of_people, many)) as server:
        with trying(make_settings(server.url, insecure_plaintext=True, membership="memberof")) as campus:
            answer = campus.find("alice")
            if taken:
                assert isinstance(answer, Identity)
            else:
                assert "more values than are taken" in unavailable(answer, Cause.AMBIGUOUS).problem
            assert campus.backend._servers.all[0].failed_until_s == 0.0


def test_values_nobody_asked_for(make_settings: Callable[..., Any]) -> None:
    """They are not even read."""
    many = entry(dn_of("alice"), {**ALICE, "description": [b""] * 300_000})
    with ScriptedServer(found_by(of_people, many)) as server:
        with trying(make_settings(server.url, insecure_plaintext=True)) as campus:
            assert isinstance(campus.find("alice"), Identity)


def test_searches_for_groups_share_what_they_may_bring(make_settings: Callable[..., Any]) -> None:
    """Level by level, each answer allowed by itself: 4 MiB are the end for all together."""
    levels = itertools.count()

    def script(request: Request) -> Reply:
        if not of_groups(request) or request.scope == 0:
            return found_by(of_groups)(request)
        level = next(levels)
        big = [entry(f"cn=g{level}x{n},{GROUPS}", {"cn": [b"x" * 10_000]}) for n in range(90)]
        return [*big, search_done()]

    with ScriptedServer(script) as server:
        with trying(make_settings(server.url, insecure_plaintext=True, nested_groups="walk")) as campus:
            assert "more bytes than are taken" in unavailable(campus.find("alice"), Cause.AMBIGUOUS).problem
            assert len([search for search in server.searches if of_groups(search)]) == 5


def test_one_message_is_read_at_a_time(make_settings: Callable[..., Any]) -> None:
    """Of all connections to a directory; who waits for that waits no longer than for anything else."""
    with ScriptedServer(found_by(lambda _: False)) as server:
        with trying(make_settings(server.url, insecure_plaintext=True, **QUICK)) as campus:
            assert isinstance(campus.find("alice"), Identity)
            with campus.backend._servers._decoding:
                unavailable(campus.find("alice"), Cause.TIMEOUT)
            assert isinstance(campus.find("alice"), Identity)


# ---- words with a password in them


@pytest.mark.parametrize("password", ["tr\u00a0oubadour", "troubadour"])
@pytest.mark.parametrize("padding", [0, 190])
def test_password_in_the_servers_words(make_settings: Callable[..., Any], password: str, padding: int) -> None:
    """They are withheld as a whole, however they would be cut and made fit to be shown; the code still counts."""

    def script(request: Request) -> Reply:
        if of_user(request):
            return [bind_result(49, f"{'x' * padding}{password}: AcceptSecurityContext error, data 533, v1db1")]
        return found_by(lambda _: False)(request)

    with ScriptedServer(script) as server:
        with trying(make_settings(server.url, insecure_plaintext=True)) as campus:
            assert campus.log_in("alice", password) == Rejected(Rejection.DISABLED)
            detail = campus.step("bind").detail
    assert detail.endswith("(49): (not shown: the password stands in it)")
    assert "oubad" not in repr(campus.steps)


def test_an_endless_answer_to_a_bind(make_settings: Callable[..., Any]) -> None:
    """Nothing of an entry is in it, so that is the server's failure."""
    many = bind_result(49, referrals=["ldap://a"])
    with ScriptedServer(lambda _: [many]) as server:
        with (
            trying(make_settings(server.url, insecure_plaintext=True)) as campus,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr("auth.ldap.connection.Allowance", partial(Allowance, elements_left=0))
            unavailable(campus.log_in("alice", "x"), Cause.PROTOCOL)


# ---- groups and rules


def test_groups_without_a_name_here_are_told_of(directory: MemoryDirectory, make_settings: Callable[..., Any]) -> None:
    """Whoever wonders why a group has no rules finds it in `auth test`."""
    directory.add(f"cn=a/b,{GROUPS}", {"objectClass": ["groupOfNames"], "cn": ["a/b"]})
    directory.join(f"cn=a/b,{GROUPS}", dn_of("alice"))
    with ScriptedServer(directory) as server:
        with trying(make_settings(server.url, insecure_plaintext=True)) as campus:
            assert campus.groups_of("alice") == {"system-proxy"}
            assert f"without a name here: cn=a/b,{GROUPS}" in campus.step("groups").detail


def test_own_rules_keep_nobody_in(directory: MemoryDirectory, make_settings: Callable[..., Any]) -> None:
    """257 of them let no member in; who was removed is no member, and no matter of doubt."""
    own = {"trioproxyRule": [f"tcp:*(*)->*({port})" for port in range(1, 258)]}
    directory.add(dn_of("mallory"), {**ALICE, "uid": ["mallory"], **own}, password_of("mallory"))
    settings: dict[str, Any] = {"insecure_plaintext": True, "rules_attribute": "trioproxyRule"}
    with ScriptedServer(directory) as server, trying(make_settings(server.url, **settings)) as campus:
        assert campus.find("mallory") == Rejected(Rejection.NOT_A_MEMBER)
        directory.join(PROXY_GROUP, dn_of("mallory"))
        unavailable(campus.find("mallory"), Cause.AMBIGUOUS)
