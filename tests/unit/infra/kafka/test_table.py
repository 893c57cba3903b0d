"""The control topic as a table in memory."""

from infra.kafka.table import ControlTable
from schemas.control import Deployment, Model, Organization, Resource, Team, VirtualKey, resource_key


def key(sha256: str, revoked: bool = False) -> VirtualKey:
    return VirtualKey(id="key_1", sha256=sha256, last4="9f3c", team="fraud", revoked=revoked)


def table_of(*resources: Resource) -> ControlTable:
    table = ControlTable()
    for resource in resources:
        table.put(resource)
    return table


ORGANIZATION = Organization(id="org_1", name="acme")
TEAM = Team(id="team_1", name="fraud", organization="acme")
MODEL = Model(name="small/one", deployments=(Deployment(id="d", provider="echo", model="echo"),))


def test_each_resource_is_found_by_its_name_and_keys_by_their_hash() -> None:
    table = table_of(ORGANIZATION, TEAM, MODEL, key("aa"))
    assert (table.organizations, table.teams, table.models) == ({"acme": ORGANIZATION}, {"fraud": TEAM}, {"small/one": MODEL})
    assert table.keys == {"key_1": key("aa")}
    assert table.keys_by_hash == {"aa": key("aa")}


def test_a_newer_version_takes_the_place_of_the_older() -> None:
    table = table_of(TEAM, TEAM.model_copy(update={"version": 2}), key("aa"), key("aa", revoked=True))
    assert table.teams["fraud"].version == 2
    assert table.keys_by_hash["aa"].revoked


def test_a_key_with_a_new_secret_is_not_found_by_the_old_one() -> None:
    assert table_of(key("aa"), key("bb")).keys_by_hash == {"bb": key("bb")}


def test_what_is_deleted_is_gone_under_the_key_it_was_written_with() -> None:
    resources: tuple[Resource, ...] = (ORGANIZATION, TEAM, MODEL, key("aa"))
    table = table_of(*resources)
    for resource in resources:
        table.remove(resource_key(resource))
    assert not any((table.organizations, table.teams, table.models, table.keys, table.keys_by_hash))


def test_the_deletion_of_what_is_not_there_and_of_what_nobody_knows_harms_nothing() -> None:
    table = table_of(TEAM)
    for stranger in ("team/other", "key/none", "spell/abracadabra", "", "team"):
        table.remove(stranger)
    assert table.teams == {"fraud": TEAM}
