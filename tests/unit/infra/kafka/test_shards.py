"""Shuffle sharding."""

from hypothesis import given
from hypothesis import strategies as st

from infra.clock import new_id
from infra.kafka.shards import SHARDS_PER_TEAM, partition_of, partitions_of

TEAMS = st.text(max_size=30)


@given(TEAMS, st.integers(1, 64))
def test_a_team_owns_a_few_partitions_always_the_same(team: str, partitions: int) -> None:
    own = partitions_of(team, partitions)
    assert len(own) == len(set(own)) == min(SHARDS_PER_TEAM, partitions)
    assert all(0 <= n < partitions for n in own)
    assert own == partitions_of.__wrapped__(team, partitions)


@given(TEAMS, st.integers(0, 2**47), st.integers(1, 64))
def test_a_job_lies_in_a_partition_of_its_team(team: str, unix_ms: int, partitions: int) -> None:
    job_id = new_id("job", unix_ms)
    assert partition_of(team, job_id, "t", partitions) in partitions_of(team, partitions)
    assert partition_of(team, job_id, "t", partitions) == partition_of(team, job_id, "t", partitions)


@given(TEAMS, st.integers(8, 63))
def test_more_partitions_move_few_teams(team: str, partitions: int) -> None:
    before, after = set(partitions_of(team, partitions)), set(partitions_of(team, partitions + 1))
    assert after - before <= {partitions}


def test_one_teams_flood_leaves_most_teams_a_partition_of_their_own() -> None:
    flooded = set(partitions_of("flood", 8))
    teams = [f"team-{n}" for n in range(200)]
    untouched = [team for team in teams if not set(partitions_of(team, 8)) <= flooded]
    # One of the 70 ways to choose 4 of 8 is the flooded one.
    assert len(untouched) > 190


def test_the_jobs_of_a_team_are_spread_over_its_partitions() -> None:
    jobs = [new_id("job", 0) for _ in range(400)]
    assert {partition_of("fraud", job, "t", 8) for job in jobs} == set(partitions_of("fraud", 8))
