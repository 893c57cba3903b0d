"""The same conversations as LangChain holds them: ChatOpenAI at both of OpenAI's APIs, ChatAnthropic at Anthropic's."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.integration.matrix.talks import BUDGET, SYSTEM, Call, Clients, Said, Talk, Wish

_STOPS = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length", "incomplete": "length"}


class _Chain:
    def __init__(self, model: BaseChatModel, wish: Wish) -> None:
        self._wish = wish
        self._messages: list[BaseMessage] = [SystemMessage(SYSTEM)]
        runnable: Any = model.bind_tools([*wish.tools]) if wish.tools else model
        if wish.form:
            method = "function_calling" if wish.by_tool else "json_schema"
            runnable = model.with_structured_output(wish.form, method=method, include_raw=True)
        self._runnable = runnable

    async def say(self, text: str, image: str = "") -> Said:
        content: Any = text
        if image:
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image}}]
        return await self._ask([HumanMessage(content)])

    async def tell(self, results: Mapping[Call, str]) -> Said:
        return await self._ask([ToolMessage(text, tool_call_id=call.id) for call, text in results.items()])

    async def _ask(self, messages: Sequence[BaseMessage]) -> Said:
        self._messages += messages
        if self._wish.stream:
            pieces = [piece async for piece in self._runnable.astream(self._messages)]
        else:
            pieces = [await self._runnable.ainvoke(self._messages)]
        parsed = None
        if self._wish.form:
            told = [piece for piece in pieces if piece.get("parsed") is not None]
            parsed = told[-1]["parsed"] if told else next(piece["parsing_error"] for piece in pieces if "parsing_error" in piece)
            pieces = [piece["raw"] for piece in pieces if "raw" in piece]
        answer = pieces[0]
        for piece in pieces[1:]:
            answer += piece
        self._messages.append(answer)
        return _said(answer, parsed)


def _said(answer: Any, parsed: object) -> Said:
    calls = [Call(call["id"], call["name"], call["args"]) for call in answer.tool_calls]
    told = answer.response_metadata
    stop = told.get("finish_reason") or told.get("stop_reason") or told.get("status")
    if stop == "completed":
        stop = "tool_calls" if calls else "stop"
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    text = str(answer.text)
    thoughts = "".join(block.get("reasoning", "") for block in answer.content_blocks if block["type"] == "reasoning")
    return Said(text, _STOPS.get(stop, stop), usage["input_tokens"], usage["output_tokens"], calls, parsed, thoughts)


def _openai(clients: Clients, wish: Wish, *, responses: bool) -> Talk:
    team = clients.team
    model = ChatOpenAI(
        model=wish.model,
        base_url=f"{team.url}/v1",
        api_key=SecretStr(team.key),
        max_retries=0,
        default_headers=wish.headers,
        stream_usage=True,
        use_responses_api=responses,
        max_completion_tokens=wish.most_tokens,
        reasoning_effort="low" if wish.thinks else None,
    )
    return _Chain(model, wish)


openai_chat = partial(_openai, responses=False)
openai_responses = partial(_openai, responses=True)


def anthropic_messages(clients: Clients, wish: Wish) -> Talk:
    team = clients.team
    model = ChatAnthropic(
        model_name=wish.model,
        base_url=team.url,
        api_key=SecretStr(team.key),
        max_retries=0,
        default_headers=wish.headers,
        max_tokens_to_sample=wish.most_tokens,
        timeout=None,
        stop=None,
        thinking={"type": "enabled", "budget_tokens": BUDGET} if wish.thinks else None,
    )
    return _Chain(model, wish)
