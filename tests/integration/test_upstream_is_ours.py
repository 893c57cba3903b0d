"""Callers can't say where a request goes: not on any route, to any provider, in the body, in a header or in the query (G33)."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import httpx
import pytest

from tests.integration.endpoints import Trap, trapping
from tests.integration.matrix.stand import EMBEDDERS, PLACES, Stand, standing
from tests.system import prompt

CHAT, RESPONSES, MESSAGES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"
TAKEN_OUT = ("api_base", "base_url", "api_key", "custom_host")
STRANGE = (
    *("azure_endpoint", "endpoint", "endpoint_url", "host", "url", "upstream", "proxy", "api_url", "server_url", "target"),
    *("aws_bedrock_runtime_endpoint", "aws_sts_endpoint", "vertex_api_base"),
)
CASES = [*product((CHAT, RESPONSES, MESSAGES), PLACES, (False, True)), *((EMBEDDINGS, name, False) for name in EMBEDDERS)]
Where = tuple[Mapping[str, object], Mapping[str, str], Mapping[str, str]]
"""What is put into the body, the headers and the query."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The matrix's system and mocks, a team's client, and where nobody may be led."""

    stand: Stand
    client: httpx.AsyncClient
    trap: Trap

    @property
    def elsewhere(self) -> str:
        return f"http://127.0.0.1:{self.trap.port}"

    async def ask(self, route: str, body: Mapping[str, object], where: Where) -> httpx.Response:
        more, headers, query = where
        return await self.client.post(route, json={**body, **more}, headers=headers, params=query)

    def arrived(self, alias: str, marker: str) -> Sequence[str]:
        """The bodies with this marker in them that reached the configured provider."""
        bodies = map(json.dumps, self.stand.mocks.bodies(alias))
        return [body for body in bodies if marker in body]


@pytest.fixture(scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Bench]:
    async with standing(tmp_path_factory.mktemp("upstream")) as stand, trapping() as trap, stand.bills.team.http() as client:
        yield Bench(stand, client, trap)


def known(url: str) -> dict[str, object]:
    """Members that the gateway itself takes out."""
    return {**dict.fromkeys(TAKEN_OUT, url), "custom_llm_provider": "acme"}


def strange(url: str) -> dict[str, object]:
    """Members that others, or a provider's own server, might heed."""
    elsewhere = {"model_name": "m", "litellm_params": {"model": "openai/m", "api_base": url}}
    return {
        **dict.fromkeys(STRANGE, url),
        "provider": "openai",
        "deployment_id": "other",
        "litellm_params": elsewhere["litellm_params"],
        "model_list": [elsewhere],
        "user_config": {"model_list": [elsewhere]},
        "fallbacks": [{"model": "openai/m", "api_base": url}],
        "config": {"provider": "openai", "custom_host": url},
        "extra_headers": {"x-portkey-custom-host": url},
        "extra_body": {"api_base": url},
        "vertex_credentials": json.dumps({"type": "service_account", "token_uri": url}),
        "aws_role_name": "arn:aws:iam::1:role/x",
    }


def as_text(members: Mapping[str, object]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in members.items()}


def headers(url: str) -> dict[str, str]:
    """The same in headers, and those by which Portkey, LiteLLM, proxies and other gateways are told."""
    # The key and the host are HTTP's own.
    given = {name.replace("_", "-"): value for name, value in as_text({**known(url), **strange(url)}).items()}
    host = url.removeprefix("http://")
    return {
        **{name: value for name, value in given.items() if name not in ("api-key", "host")},
        **{f"x-{name}": value for name, value in given.items() if name != "api-key"},
        **{f"x-portkey-{name}": value for name, value in given.items()},
        **{f"x-litellm-{name}": value for name, value in given.items()},
        **dict.fromkeys(("x-original-url", "x-rewrite-url", "x-target-url", "openai-base-url"), url),
        **dict.fromkeys(("x-forwarded-host", "forwarded", "x-forwarded-server"), host),
        "x-portkey-virtual-key": "other",
        "x-bf-api-key": "other",
        "x-ai-eg-model": "other",
    }


def body_of(route: str, alias: str, marker: str, *, stream: bool) -> dict[str, object]:
    match route:
        case "/v1/embeddings":
            return {"model": f"{alias}-embeddings", "input": marker}
        case "/v1/responses":
            return {"model": alias, "input": marker, "stream": stream}
        case _:
            said = [{"role": "user", "content": marker}]
            return {"model": alias, "messages": said, "max_tokens": 50, "stream": stream}


@pytest.mark.parametrize("place", ["body", "header", "query"])
async def test_what_would_choose_another_upstream_changes_nothing(bench: Bench, place: str) -> None:
    url = bench.elsewhere
    everything = as_text({**known(url), **strange(url)})
    where: Mapping[str, Where] = {
        "body": (known(url), {}, {}),
        "header": ({}, headers(url), {}),
        "query": ({}, {}, everything),
    }

    async def one(route: str, alias: str, stream: bool) -> None:
        marker = prompt()
        answer = await bench.ask(route, body_of(route, alias, marker, stream=stream), where[place])
        assert answer.status_code == 200, answer.text
        assert url not in answer.text
        if route != EMBEDDINGS:
            (body,) = bench.arrived(alias, marker)
            assert url not in body

    await asyncio.gather(*(one(*case) for case in CASES))
    assert bench.trap.connections == 0


async def test_whatever_else_a_body_says_goes_nowhere_else(bench: Bench) -> None:
    async def one(route: str, alias: str, stream: bool) -> None:
        marker = prompt()
        where: Where = (strange(bench.elsewhere), {}, {})
        answer = await bench.ask(route, body_of(route, alias, marker, stream=stream), where)
        # OpenAI's members of tomorrow pass, so that its own server refuses what it doesn't know.
        refused = answer.status_code == 400 and "Unrecognized request argument" in answer.text
        assert answer.status_code == 200 or refused, answer.text

    await asyncio.gather(*(one(*case) for case in CASES))
    assert bench.trap.connections == 0


async def test_what_lies_on_the_web_is_not_fetched_by_the_gateway(bench: Bench) -> None:
    url = f"{bench.elsewhere}/picture.png"
    parts: Mapping[str, Sequence[object]] = {
        CHAT: [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "file", "file": {"file_data": url, "filename": "a.pdf"}},
            {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
        ],
        RESPONSES: [{"type": "input_image", "image_url": url}, {"type": "input_file", "file_url": url}],
        MESSAGES: [
            {"type": "image", "source": {"type": "url", "url": url}},
            {"type": "document", "source": {"type": "url", "url": url}},
        ],
    }

    async def one(route: str, part: object, alias: str) -> None:
        said = [{"role": "user", "content": [part]}]
        body = {"model": alias, "max_tokens": 50, **({"input": said} if route == RESPONSES else {"messages": said})}
        answer = await bench.ask(route, body, ({}, {}, {}))
        assert answer.status_code in (200, 400), answer.text

    await asyncio.gather(*(one(route, part, alias) for route in parts for part in parts[route] for alias in PLACES))
    assert bench.trap.connections == 0


async def test_a_model_is_no_address(bench: Bench) -> None:
    for name, route in product((bench.elsewhere, f"openai/{bench.elsewhere}", f"{bench.elsewhere}#openai"), (CHAT, MESSAGES)):
        answer = await bench.ask(route, {**body_of(route, "openai", prompt(), stream=False), "model": name}, ({}, {}, {}))
        assert answer.status_code == 404, answer.text
    assert bench.trap.connections == 0
