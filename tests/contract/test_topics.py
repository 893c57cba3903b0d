"""schemas/topics.py against itself, the schemas and the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import schemas.topics
from infra.settings import Settings
from schemas.publish import MESSAGES
from schemas.slip import Stage
from schemas.topics import JOBS, TOPICS, Lane, Topic, door_topic, job_topic, results_topic

ROOT = Path(__file__).parents[2]
SERVICES = {"ingress", "guard", "cache", "router", "accounting", "portal"}
OUTSIDERS = {"batch teams", "operators"}
WITHOUT_SCHEMA = {"Resource", "the record as it came"}

STAGE_TOPICS = [topic for topic in TOPICS if topic.name in {f"sluice.{stage.value}.{{lane}}" for stage in Stage}]
LOOKS_LIKE_A_TOPIC = re.compile(r"sluice\.[a-z]+(\.[a-z{}]+)?")


def test_each_topic_stands_once() -> None:
    names = [topic.name for topic in TOPICS]
    concrete = [name for topic in TOPICS for name in topic.names()]
    assert len(set(names)) == len(names)
    assert len(set(concrete)) == len(concrete)
    assert {value for value in vars(schemas.topics).values() if isinstance(value, Topic)} == set(TOPICS)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_says_what_it_is_for_and_who_writes_and_reads_it(topic: Topic) -> None:
    assert topic.what
    assert topic.key
    assert topic.partitions >= 1
    assert topic.writers
    assert set(topic.writers) <= SERVICES | OUTSIDERS
    assert topic.readers
    assert set(topic.readers) <= SERVICES | OUTSIDERS
    assert topic.payload in {message.__name__ for message in MESSAGES} | WITHOUT_SCHEMA
    assert topic.compacted == (topic.retention_ms < 0)


def test_outsiders_touch_public_topics_only() -> None:
    for topic in TOPICS:
        if "batch teams" in topic.writers + topic.readers:
            assert topic.public


def test_a_job_keeps_its_shard_on_its_whole_way() -> None:
    assert len(STAGE_TOPICS) == len(Stage)
    assert len({topic.partitions for topic in STAGE_TOPICS}) == 1


def test_jobs_outlive_the_longest_deadline() -> None:
    longest_ms = Settings.model_fields["batch_timeout_s"].default * 1000
    for topic in (JOBS, *STAGE_TOPICS):
        assert topic.retention_ms > 2 * longest_ms


def test_each_stage_has_a_topic_in_each_lane() -> None:
    names = {name for topic in TOPICS for name in topic.names()}
    for lane in Lane:
        assert door_topic(lane) in names
        assert {job_topic(stage.value, lane) for stage in Stage} <= names
    assert results_topic("fraud") == "sluice.results.fraud"


def test_a_name_in_the_code_is_a_name_in_the_list() -> None:
    known = {topic.name for topic in TOPICS} | {name for topic in TOPICS for name in topic.names()}
    strangers = {f"{path.relative_to(ROOT)}: {text}" for path, text in literals() if text not in known}
    assert strangers == set()


def literals() -> Iterator[tuple[Path, str]]:
    """Texts in the code that look like a topic. Names of spans and of tables look alike, and have folders of their own."""
    others = [ROOT / "infra" / folder for folder in ("telemetry", "clickhouse", "embedded")]
    for folder in ("infra", "services"):
        for path in (ROOT / folder).rglob("*.py"):
            if any(path.is_relative_to(other) for other in others):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and LOOKS_LIKE_A_TOPIC.fullmatch(node.value):
                    yield path, node.value
