"""Who asks, by key, by token, by both: what is taken, what is refused and in which words, and whose bill it is."""

from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from infra.credentials import key_hash, new_key
from infra.kafka.table import ControlTable
from infra.oidc.tokens import Identified
from infra.redis.admission import Rate
from schemas.budget import NANO, Budget
from schemas.control import (
    GroupRule,
    Hold,
    IdentityProvider,
    Membership,
    OldSecret,
    Organization,
    Team,
    User,
    VirtualKey,
)
from schemas.errors import InvalidKey, KeyPaused, NotAllowed, SluiceError
from schemas.policy import Limits, Policy
from schemas.roles import Role
from schemas.topics import Lane
from services.ingress import identities
from services.ingress.identities import Credentials, Identities, Identity
from tests.fakes.clock import FakeClock

SECRET = new_key()
OLD = new_key()
TOKEN = "header.claims.signature"
RULES = (
    GroupRule(group="fraud", team="fraud", project="scores", environment="dev", policy=Policy(max_output_tokens=7)),
    GroupRule(group="analysts", policy=Policy(limits=Limits(requests_per_minute=3), budgets=(Budget(usd=Decimal(2)),))),
    GroupRule(group="search", team="search"),
)


def provider(name: str = "okta", *rules: GroupRule, version: int = 1) -> IdentityProvider:
    return IdentityProvider(name=name, issuer=f"https://{name}.example", audiences=("sluice",), groups=rules, version=version)


class Issued:
    """Tokens that were issued, by their text, and how often one was checked."""

    def __init__(self) -> None:
        self.people: dict[str, Identified] = {}
        self.checked = 0

    async def verify(self, token: str) -> Identified:
        self.checked += 1
        if token not in self.people:
            raise InvalidKey("The identity token has a wrong signature.")
        return self.people[token]


class Desk:
    """A team with a key, and ada, who has a token of okta's."""

    def __init__(self, *proxies: str, **of_key: Any) -> None:
        self.clock, self.table, self.issued = FakeClock(), ControlTable(), Issued()
        self.identities = Identities(self.table, self.issued, self.clock, proxies)
        self.key = VirtualKey(
            id="key_1", sha256=key_hash(SECRET), last4="abcd", team="fraud", project="scores", environment="dev", **of_key
        )
        self.put(
            Organization(id="org_1", name="acme", time_zone="Europe/Berlin"),
            Team(id="team_1", name="fraud", organization="acme"),
            Team(id="team_2", name="search", organization="acme"),
            self.key,
        )
        self.person()

    def put(self, *resources: Any) -> None:
        for resource in resources:
            self.table.put(resource)
        self.identities.forget()

    def person(self, *groups: str, by: IdentityProvider | None = None, subject: str = "ada", token: str = TOKEN) -> None:
        by = by or provider("okta", *RULES)
        self.put(by)
        self.issued.people[token] = Identified(by, subject, groups, self.clock() + 1_000, MappingProxyType({}))

    async def find(self, secret: str = SECRET, token: str = "", address: str = "", forwarded: str = "") -> Identity:
        return await self.identities.find(Credentials(secret, token, address, forwarded))

    async def refusal(self, secret: str = SECRET, token: str = "", **given: str) -> SluiceError:
        with pytest.raises(SluiceError) as refused:
            await self.find(secret, token, **given)
        return refused.value


def words(error: SluiceError) -> tuple[int, str | None, str]:
    fault = error.fault()
    return fault.status, fault.code, fault.message


async def test_a_key_says_whose_bill_it_is() -> None:
    found = await Desk(user="bob").find()
    assert found.caller.model_dump() == {
        "organization": "acme",
        "team": "fraud",
        "project": "scores",
        "environment": "dev",
        "key_id": "key_1",
        "user": "bob",
        "identity": "",
    }
    assert (found.asker, found.account.time_zone) == ("key_1", "Europe/Berlin")


@pytest.mark.parametrize("secret", ["", "sk-sl-", "sk-sl-admin", new_key(), SECRET[:-1] + "#", SECRET.swapcase(), "ключ"])
async def test_what_was_never_issued_is_refused_without_saying_more(secret: str) -> None:
    desk = Desk()
    assert words(await desk.refusal(secret)) == (
        401,
        "invalid_api_key",
        "Incorrect API key provided. Ask your platform team for a virtual key (it begins with sk-sl-).",
    )


async def test_a_revoked_key_is_as_one_that_never_was() -> None:
    desk = Desk()
    before = await desk.find()
    desk.put(desk.key.model_copy(update={"revoked": True}))
    assert words(await desk.refusal()) == words(await desk.refusal(new_key()))
    with pytest.raises(InvalidKey):
        desk.identities.of_key_id(before.caller.key_id)
    desk.table.remove("key/key_1")
    with pytest.raises(InvalidKey):
        desk.identities.of_key_id(before.caller.key_id)


async def test_a_key_expires_at_its_millisecond_though_nothing_has_changed() -> None:
    desk = Desk()
    desk.put(desk.key.model_copy(update={"expires_ms": desk.clock() + 10}))
    await desk.find()
    desk.clock.move(9)
    await desk.find()
    desk.identities.of_key_id("key_1")
    desk.clock.move(1)
    assert words(await desk.refusal()) == (
        401,
        "key_expired",
        "This API key has expired. Ask your platform team for a new one.",
    )
    with pytest.raises(InvalidKey):
        desk.identities.of_key_id("key_1")
    assert words(await desk.refusal(token=TOKEN))[1] == "key_expired", "a token makes no dead key live"


async def test_while_a_key_rotates_both_secrets_are_good() -> None:
    desk = Desk()
    ends = desk.clock() + 1_000
    desk.put(desk.key.model_copy(update={"old": (OldSecret(sha256=key_hash(OLD), until_ms=ends),)}))
    assert (await desk.find()).caller == (await desk.find(OLD)).caller
    desk.clock.move(1_000)
    assert words(await desk.refusal(OLD)) == (
        401,
        "key_rotated",
        "This API key was rotated, and its old secret is not taken any more. Use the new one.",
    )
    await desk.find()


async def test_a_paused_key_says_why_and_how_it_is_resumed() -> None:
    desk = Desk()
    desk.put(desk.key.model_copy(update={"held": Hold(reason="200 equal requests in a minute", since_ms=0)}))
    for error in (await desk.refusal(), await desk.refusal(token=TOKEN)):
        assert isinstance(error, KeyPaused)
        assert words(error) == (
            403,
            "key_paused",
            "This key is paused: 200 equal requests in a minute. Its owner can resume it with `sluice keys resume key_1`.",
        )


async def test_a_throttled_key_has_a_rate_besides() -> None:
    desk = Desk()
    desk.put(desk.key.model_copy(update={"held": Hold(reason="…", since_ms=0, requests_per_minute=4)}))
    for found in (await desk.find(), await desk.find(token=TOKEN)):
        assert found.account.rates(Lane.INTERACTIVE) == (Rate("key/key_1@held", 4),)


RANGES = [
    (("10.0.0.0/8",), "10.1.2.3", True),
    (("10.0.0.0/8",), "11.1.2.3", False),
    (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
    (("10.0.0.0/8",), "::ffff:11.1.2.3", False),
    (("192.0.2.7",), "192.0.2.7", True),
    (("2001:db8::/32",), "2001:db8::1", True),
    (("2001:db8::/32",), "10.1.2.3", False),
    (("10.0.0.0/8", "2001:db8::/32"), "2001:db8:1::1", True),
    (("0.0.0.0/0",), "2001:db8::1", False),
    (("10.0.0.0/8",), "", False),
    (("10.0.0.0/8",), "testclient", False),
    ((), "anywhere", True),
]


@pytest.mark.parametrize(("ranges", "address", "good"), RANGES)
async def test_a_key_may_be_bound_to_networks(ranges: tuple[str, ...], address: str, good: bool) -> None:
    desk = Desk(ip_ranges=ranges)
    for token in ("", TOKEN):
        if good:
            assert await desk.find(token=token, address=address)
        else:
            assert words(await desk.refusal(token=token, address=address)) == (
                403,
                "ip_not_allowed",
                "This key may not be used from your network address.",
            )


PROXIES = [
    ("203.0.113.9", "10.1.2.3", False),  # not one of our proxies: it says what it likes
    ("172.16.0.1", "10.1.2.3", True),
    ("172.16.0.1", "203.0.113.9", False),
    ("172.16.0.1", "10.1.2.3, 172.16.0.2", True),  # two of ours, one behind the other
    ("::ffff:172.16.0.1", "10.1.2.3", True),
    ("172.16.0.1", "10.1.2.3, 203.0.113.9", False),  # who came to our proxy forged what stands before
    ("172.16.0.1", "172.16.0.2, 203.0.113.9, 172.16.0.3", False),
    ("172.16.0.1", "nonsense", False),
    ("172.16.0.1", "10.1.2.3,", True),
    ("172.16.0.1", "", False),
    ("10.1.2.3", "203.0.113.9", True),
]


@pytest.mark.parametrize(("address", "forwarded", "good"), PROXIES)
async def test_our_own_proxies_say_who_sent_it(address: str, forwarded: str, good: bool) -> None:
    desk = Desk("172.16.0.0/12", ip_ranges=("10.0.0.0/8",))
    if good:
        assert await desk.find(address=address, forwarded=forwarded)
    else:
        assert (await desk.refusal(address=address, forwarded=forwarded)).fault().code == "ip_not_allowed"


async def test_a_proxy_that_asks_itself_is_who_asks() -> None:
    desk = Desk("172.16.0.0/12", ip_ranges=("172.16.0.0/12",))
    assert await desk.find(address="172.16.0.1")
    assert await desk.find(address="172.16.0.1", forwarded="172.16.0.9")


async def test_where_it_comes_from_is_looked_at_every_time() -> None:
    desk = Desk(ip_ranges=("10.0.0.0/8",))
    assert await desk.find(address="10.1.2.3")
    assert (await desk.refusal(address="11.1.2.3")).fault().code == "ip_not_allowed"


async def test_a_key_may_ask_who_comes_with_it() -> None:
    desk = Desk(policy=Policy(identity="required"))
    assert words(await desk.refusal()) == (
        401,
        "identity_required",
        "This key asks who you are: send your identity token as `x-sluice-identity: <JWT>`.",
    )
    assert (await desk.find(token=TOKEN)).caller.identity == "okta:ada"


async def test_with_both_the_key_pays_and_the_person_asks() -> None:
    desk = Desk(user="bob")
    desk.person("fraud", "search", "strangers")
    found = await desk.find(token=TOKEN)
    assert found.key == desk.key
    caller = found.caller
    assert (caller.team, caller.project, caller.environment, caller.key_id) == ("fraud", "scores", "dev", "key_1")
    assert (caller.user, caller.identity, found.asker) == ("ada", "okta:ada", "key_1")
    assert found.policy.max_output_tokens == 7, "the policy of a group counts"
    assert (await desk.find()).caller.user == "bob", "the key alone is somebody else"


async def test_what_its_groups_say_is_charged_to_the_person() -> None:
    desk = Desk()
    desk.person("analysts")
    account = (await desk.find(token=TOKEN)).account
    assert account.rates(Lane.INTERACTIVE) == (Rate("user/ada@analysts", 3),)
    assert [(one.key.rpartition(":")[0], one.usd_nano) for one in account.allowances(desk.clock())] == [
        ("spend:user/ada", 2 * NANO)
    ]


async def test_two_tokens_are_one_too_many() -> None:
    desk = Desk()
    assert words(await desk.refusal(TOKEN, TOKEN))[2] == (
        "Two identity tokens were given: send one, as the bearer or as `x-sluice-identity`."
    )
    assert desk.issued.checked == 0


async def test_who_has_no_good_key_has_no_signature_checked() -> None:
    desk = Desk()
    await desk.refusal(new_key(), TOKEN)
    assert desk.issued.checked == 0


async def test_a_forged_token_beside_a_good_key_is_refused() -> None:
    assert (await Desk().refusal(token="a.b.c")).fault().status == 401


async def test_a_token_alone_is_billed_by_the_first_rule_that_names_a_team() -> None:
    desk = Desk()
    desk.person("search", "analysts", "fraud")
    found = await desk.find(TOKEN)
    assert found.key is None
    caller = found.caller
    assert (caller.team, caller.project, caller.environment, caller.key_id) == ("fraud", "scores", "dev", "")
    assert (caller.organization, caller.user, caller.identity, found.asker) == ("acme", "ada", "okta:ada", "okta:ada")
    desk.person("search")
    assert (await desk.find(TOKEN)).caller.team == "search"


async def test_or_by_the_team_in_which_the_user_is() -> None:
    desk = Desk()
    desk.put(User(id="u", name="ada", memberships=(Membership(role=Role.AUDITOR), Membership(role=Role.MEMBER, team="search"))))
    caller = (await desk.find(TOKEN)).caller
    assert (caller.team, caller.project, caller.environment) == ("search", "", "")
    desk.person("fraud")
    assert (await desk.find(TOKEN)).caller.team == "fraud", "a rule goes before"


@pytest.mark.parametrize("memberships", [(), (Membership(role=Role.AUDITOR),)])
async def test_whom_no_team_pays_for_is_told_what_to_do(memberships: tuple[Membership, ...]) -> None:
    desk = Desk()
    desk.put(User(id="u", name="ada", memberships=memberships))
    error = await desk.refusal(TOKEN)
    assert isinstance(error, NotAllowed)
    assert words(error) == (
        403,
        "no_team",
        "Nobody has said which team pays for you: send a virtual key beside your token (x-api-key), or ask your platform team "
        "to map one of your groups to a team.",
    )


async def test_a_team_that_is_gone_pays_for_nobody() -> None:
    desk = Desk()
    desk.person("fraud")
    desk.table.remove("team/fraud")
    desk.identities.forget()
    assert (await desk.refusal(TOKEN)).fault().status == 401
    assert (await desk.refusal()).fault().status == 401


async def test_a_subject_of_another_provider_is_another_person() -> None:
    desk = Desk()
    desk.put(User(id="u", name="ada", policy=Policy(max_output_tokens=5)))
    assert (await desk.find(token=TOKEN)).policy.max_output_tokens == 5
    desk.person(by=provider("entra"), token="the.other.token")
    for token, name in ((TOKEN, "okta:ada"), ("the.other.token", "entra:ada")):
        found = await desk.find(token=token)
        assert (found.caller.user, found.caller.identity) == (name, name)
        assert found.policy.max_output_tokens is None, "the user `ada` is neither of them"
    desk.put(User(id="u2", name="entra:ada", policy=Policy(max_output_tokens=6)))
    assert (await desk.find(token="the.other.token")).policy.max_output_tokens == 6


async def test_who_changes_groups_has_other_rights_at_once() -> None:
    desk = Desk()
    desk.person("fraud")
    assert (await desk.find(TOKEN)).policy.max_output_tokens == 7
    desk.issued.people[TOKEN] = Identified(provider("okta", *RULES), "ada", ("search",), 0, MappingProxyType({}))
    found = await desk.find(TOKEN)
    assert (found.caller.team, found.policy.max_output_tokens) == ("search", None)


async def test_an_identity_is_made_once_for_each_change() -> None:
    desk = Desk()
    first, person = await desk.find(), await desk.find(token=TOKEN)
    assert await desk.find() is first
    assert await desk.find(token=TOKEN) is person
    assert desk.identities.of_key_id("key_1") is first
    desk.put(Team(id="team_1", name="fraud", organization="acme", version=2, policy=Policy(max_output_tokens=3)))
    again = await desk.find()
    assert (again.policy.max_output_tokens, again.policy.version) == (3, "1.2.0.0.1.0")
    assert (await desk.find(token=TOKEN)).policy.version == "1.2.0.0.1.0.1", "the identity provider's version is the last"


async def test_memory_is_bounded_whoever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "MOST_KNOWN", 3)
    desk = Desk()
    found: list[Identity] = []
    for n in range(5):
        desk.issued.people[f"t.{n}.t"] = Identified(provider("okta", *RULES), f"person-{n}", (), 0, MappingProxyType({}))
        found.append(await desk.find(token=f"t.{n}.t"))
    assert await desk.find(token="t.4.t") is found[4]
    assert await desk.find(token="t.0.t") is not found[0]
    assert {one.caller.user for one in found} == {f"person-{n}" for n in range(5)}


async def test_two_keys_with_one_person_are_two_callers() -> None:
    desk = Desk()
    secret = new_key()
    desk.put(VirtualKey(id="key_2", sha256=key_hash(secret), last4="abcd", team="search"))
    assert [(await desk.find(one, TOKEN)).caller.team for one in (SECRET, secret, SECRET)] == ["fraud", "search", "fraud"]
