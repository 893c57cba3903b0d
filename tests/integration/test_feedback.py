"""POST /v1/feedback, from an application to the books."""

from typing import Any

import httpx
import pytest

from tests.system import System, until

CHAT = {"model": "mock", "messages": [{"role": "user", "content": "feedback"}]}


async def opinions(system: System, job_id: str) -> list[dict[str, Any]]:
    return await system.query(f"SELECT * FROM feedback WHERE job_id = '{job_id}' ORDER BY name, author")


async def test_the_last_opinion_of_each_author_stands_beside_the_job(system: System) -> None:
    team = await system.create_team("feedback")
    async with team.http() as client:
        job_id = (await client.post("/v1/chat/completions", json=CHAT)).headers["x-sluice-job"]
        for body in ({"thumbs": "up"}, {"thumbs": "down", "label": "rude"}, {"score": 0.5, "name": "depth", "author": "ada"}):
            answer = await client.post("/v1/feedback", json={"job_id": job_id, **body})
            assert answer.status_code == 201, answer.text
        assert answer.json()["score"] == 0.5

    async def there() -> bool:
        found = await opinions(system, job_id)
        return [(row["name"], row["score"]) for row in found] == [("depth", 0.5), ("rating", -1.0)] and bool(found[0]["model"])

    assert await until(there, 15), await opinions(system, job_id)
    row = (await opinions(system, job_id))[1]
    assert (row["team"], row["model"], row["label"]) == (team.name, "mock", "rude")


async def test_an_opinion_of_another_teams_job_learns_nothing_of_it(system: System) -> None:
    owner, other = await system.create_team("feedback-owner"), await system.create_team("feedback-other")
    async with owner.http() as client:
        job_id = (await client.post("/v1/chat/completions", json=CHAT)).headers["x-sluice-job"]
    async with other.http() as client:
        await client.post("/v1/feedback", json={"job_id": job_id, "thumbs": "up"})

    async def there() -> bool:
        return bool(await opinions(system, job_id)) and bool(await system.query(f"SELECT 1 FROM usage WHERE job_id = '{job_id}'"))

    assert await until(there, 15)
    (row,) = await opinions(system, job_id)
    assert (row["team"], row["model"]) == (other.name, "")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"thumbs": "up"}, "job_id"),
        ({"job_id": "chatcmpl-1", "thumbs": "up"}, "job_id"),
        ({"job_id": "job_019b76daa8007000800000000000002a"}, None),
        ({"job_id": "job_019b76daa8007000800000000000002a", "score": 2}, "score"),
        ({"job_id": "job_019b76daa8007000800000000000002a", "score": 1, "thumbs": "up"}, None),
        ({"job_id": "job_019b76daa8007000800000000000002a", "thumbs": "sideways"}, "thumbs"),
        ({"job_id": "job_019b76daa8007000800000000000002a", "stars": 5}, "stars"),
    ],
)
async def test_what_says_nothing_is_refused_with_what_is_missing(system: System, body: dict[str, Any], param: str | None) -> None:
    team = await system.create_team("feedback-bad")
    async with team.http() as client:
        answer: httpx.Response = await client.post("/v1/feedback", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
