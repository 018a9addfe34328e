"""P6: the cache, a chain and changing users against a model that remembers everything."""

from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from auth import Answer, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.cache import Generation, ResultCache
from auth.chain import Chain
from auth.local import LocalBackend, LocalSettings, LocalUser
from tests.auth.doubles import CHEAP, context_of

TTL_S = 60.0
ENTRIES_MAX = 3
TENANTS = ("main", "physics")
NAMES = ("alice", "bob")
PASSWORDS = ("one", "two")
HASHES = {password: CHEAP.hash(password) for password in PASSWORDS}
MEMBER = frozenset({"system-proxy"})

tenants, user_names, passwords = st.sampled_from(TENANTS), st.sampled_from(NAMES), st.sampled_from(PASSWORDS)

changes_of_state = st.sampled_from(["disable", "enable", "leave", "join"])


@attrs.frozen
class Verified:
    """What the model knows of one acceptance."""

    at_s: float
    changes_seen: int


@attrs.frozen
class Question:
    """A login whose backends were asked, and whose answer has not come back yet."""

    said: Credentials
    generation: Generation
    changes_seen: int
    answer: Answer


class CacheMachine(RuleBasedStateMachine):
    """Logins as the server makes them, on users that change here or at another node.

    The model: for every login, when the backends last accepted it and how many changes to its user this node had heard
    of then. A hit must be explained by that.
    """

    questions: Bundle[Question] = Bundle("questions")

    @initialize()
    def start(self) -> None:
        """Two tenants, each with an alice and a bob whose passwords differ from tenant to tenant."""
        self.now_s = 1000.0
        self.users: dict[tuple[str, str], LocalUser] = {}
        for tenant, password in zip(TENANTS, PASSWORDS, strict=True):
            for name in NAMES:
                self.users[tenant, name] = LocalUser(tenant, name, HASHES[password], MEMBER)
        self.down = False
        context = attrs.evolve(context_of({}), find_user=self.find_user)
        self.chain = Chain([("local", LocalBackend(LocalSettings(), context))], "system-proxy", CHEAP)
        self.cache = ResultCache(TTL_S, ENTRIES_MAX)
        self.changes: dict[tuple[str, str], int] = dict.fromkeys(self.users, 0)
        self.unheard: list[tuple[str, str]] = []
        self.verified: dict[Credentials, Verified] = {}

    def find_user(self, tenant: str, name: str) -> LocalUser | None:
        """The store, which may be away."""
        if self.down:
            raise TimeoutError
        return self.users.get((tenant, name))

    # ---- logins

    @rule(target=questions, tenant=tenants, name=st.sampled_from([*NAMES, "carol"]), password=passwords)
    def ask(self, tenant: str, name: str, password: str) -> Question:
        """A login that the cache does not know sets out for the backends."""
        said = Credentials(tenant, name, password)
        seen = self.changes.get((tenant, name), 0)
        return Question(said, self.cache.generation(tenant, name), seen, self.chain.authenticate(said))

    @rule(question=consumes(questions))
    def answer(self, question: Question) -> None:
        """The answer arrives, now or long after, and is remembered if it is an acceptance."""
        if not isinstance(question.answer, Identity):
            return
        key = self.cache.key(question.said, self.chain.label)
        before = self.cache.get(key, self.now_s)
        self.cache.put(key, question.answer, question.generation, self.now_s)
        if self.cache.get(key, self.now_s) is not None and not question.generation.over:
            self.verified[question.said] = Verified(self.now_s, question.changes_seen)
        else:
            assert before == self.cache.get(key, self.now_s)

    @rule(tenant=tenants, name=st.sampled_from([*NAMES, "carol"]), password=passwords)
    def look(self, tenant: str, name: str, password: str) -> None:
        """Hit => the same login was verified at most TTL ago, and no revocation was heard of since (P6)."""
        said = Credentials(tenant, name, password)
        hit = self.cache.get(self.cache.key(said, self.chain.label), self.now_s)
        if hit is None:
            return
        assert (tenant, name) == (hit.tenant, hit.user)
        verified = self.verified[said]
        assert self.now_s - verified.at_s < TTL_S
        assert verified.changes_seen == self.changes[tenant, name]
        if (tenant, name) not in self.unheard:
            # Nothing changed that this node has not heard of: the backends would say the same.
            assert isinstance(self.without_faults(said), Identity)

    @rule(tenant=tenants, name=user_names)
    def right_login_at_once(self, tenant: str, name: str) -> None:
        """What the backends accept right now is a hit right after: the cache is not merely empty."""
        for password in PASSWORDS:
            said = Credentials(tenant, name, password)
            generation, seen = self.cache.generation(tenant, name), self.changes[tenant, name]
            self.answer(Question(said, generation, seen, self.without_faults(said)))
            if isinstance(self.without_faults(said), Identity):
                assert self.cache.get(self.cache.key(said, self.chain.label), self.now_s) is not None

    def without_faults(self, said: Credentials) -> Answer:
        """What the backends would answer if the store were there."""
        down, self.down = self.down, False
        answer = self.chain.authenticate(said)
        self.down = down
        return answer

    @rule(tenant=tenants, name=user_names)
    def look_up(self, tenant: str, name: str) -> None:
        """A user with a live session is looked up without a password: whatever is remembered says the same then."""
        found = self.chain.find(tenant, name)
        if not isinstance(found, Identity):
            return
        found = attrs.evolve(found, verified_s=self.now_s)
        self.cache.confirm(found)
        hits = [hit for hit in self.all_hits() if (hit.tenant, hit.user) == (tenant, name)]
        assert all((hit, hit.verified_s) == (found, self.now_s) for hit in hits)

    # ---- users change

    @rule(
        tenant=tenants,
        name=user_names,
        change=st.sampled_from(["disable", "enable", "leave", "join"]),
        here=st.booleans(),
    )
    def change_state(self, tenant: str, name: str, change: str, here: bool) -> None:
        """Disabled, enabled, out of the proxy group, back in it."""
        changes: dict[str, dict[str, Any]] = {
            "disable": {"disabled": True},
            "enable": {"disabled": False},
            "leave": {"groups": frozenset()},
            "join": {"groups": MEMBER},
        }
        self.change(attrs.evolve(self.users[tenant, name], **changes[change]), here=here)

    @rule(tenant=tenants, name=user_names, password=passwords, here=st.booleans())
    def change_password(self, tenant: str, name: str, password: str, here: bool) -> None:
        """A new password, or the old one again."""
        self.change(attrs.evolve(self.users[tenant, name], password_hash=HASHES[password]), here=here)

    def change(self, user: LocalUser, *, here: bool) -> None:
        """Change the store; this node hears of it at once, or later from the node that did it."""
        self.users[user.tenant, user.name] = user
        if here:
            self.hear(user.tenant, user.name)
        else:
            self.unheard.append((user.tenant, user.name))

    @precondition(lambda self: self.unheard)
    @rule()
    def hear_of_the_oldest_change(self) -> None:
        """A message from another node arrives."""
        self.hear(*self.unheard[0])

    def hear(self, tenant: str, name: str) -> None:
        """As the server does."""
        self.unheard = [change for change in self.unheard if change != (tenant, name)]
        self.changes[tenant, name] += 1
        self.cache.drop_user(tenant, name)
        assert not any((hit.tenant, hit.user) == (tenant, name) for hit in self.all_hits())

    @rule()
    def all_changed(self) -> None:
        """The configuration was read again."""
        self.unheard = []
        self.changes = {user: count + 1 for user, count in self.changes.items()}
        self.cache.clear()
        assert self.all_hits() == []

    # ---- the world

    @rule(down=st.booleans())
    def store_goes_or_comes(self, down: bool) -> None:
        """While it is away the backend cannot tell."""
        self.down = down

    @rule(seconds=st.sampled_from([0.0, 1.0, 20.0, 59.0, 60.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        """Forward only: the clock is monotonic."""
        self.now_s += seconds

    # ---- always

    def all_hits(self) -> list[Identity]:
        """Everything the cache would say yes to."""
        logins = [Credentials(tenant, name, word) for tenant in TENANTS for name in NAMES for word in PASSWORDS]
        hits = [self.cache.get(self.cache.key(said, self.chain.label), self.now_s) for said in logins]
        return [hit for hit in hits if hit is not None]

    @invariant()
    def stays_small(self) -> None:
        """The size is bounded, whatever comes."""
        assert len(self.cache) <= ENTRIES_MAX

    @invariant()
    def only_acceptances(self) -> None:
        """No *no* and no *unknown* is ever remembered as anything: whatever is held is a member's identity."""
        assert all(hit.backend == "local" and hit.groups == MEMBER for hit in self.all_hits())


TestCacheMachine = CacheMachine.TestCase


def test_the_chain_of_the_machine_gives_every_answer() -> None:
    """The machine would prove little if its backends always said the same."""
    machine = CacheMachine()
    machine.start()
    answers = [
        machine.chain.authenticate(Credentials("main", name, word))
        for name, word in (("alice", "one"), ("alice", "two"), ("carol", "one"))
    ]
    machine.down = True
    answers.append(machine.chain.authenticate(Credentials("main", "alice", "one")))
    assert [
        Identity("main", "alice", MEMBER, "local"),
        Rejected(Rejection.WRONG_PASSWORD),
        Rejected(Rejection.UNKNOWN_USER),
        Unavailable("the users cannot be looked up: TimeoutError"),
    ] == answers
