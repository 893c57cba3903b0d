"""Conversations as OpenAI's and Anthropic's own SDKs hold them, unmodified."""

import json
from collections.abc import Mapping
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI, pydantic_function_tool

from tests.integration.matrix.talks import BUDGET, SYSTEM, Call, Clients, Said, Talk, Wish


class _Chat:
    """OpenAI's SDK, chat completions."""

    def __init__(self, client: AsyncOpenAI, wish: Wish) -> None:
        self._chats: Any = client.chat.completions
        self._wish = wish
        self._messages: list[Any] = [{"role": "system", "content": SYSTEM}]

    async def say(self, text: str, image: str = "") -> Said:
        content: Any = text
        if image:
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image}}]
        self._messages.append({"role": "user", "content": content})
        return await self._ask()

    async def tell(self, results: Mapping[Call, str]) -> Said:
        self._messages += [{"role": "tool", "tool_call_id": call.id, "content": result} for call, result in results.items()]
        return await self._ask()

    async def _ask(self) -> Said:
        wish = self._wish
        asked: dict[str, Any] = {"model": wish.model, "messages": self._messages, "max_completion_tokens": wish.most_tokens}
        if wish.tools:
            asked["tools"] = [pydantic_function_tool(tool) for tool in wish.tools]
        if wish.thinks:
            asked["reasoning_effort"] = "low"
        if wish.form:
            asked["response_format"] = wish.form
        chats, streamed = self._chats, ""
        if wish.stream:
            async with chats.stream(**asked, stream_options={"include_usage": True}) as stream:
                streamed = "".join([event.delta async for event in stream if event.type == "content.delta"])
                # The SDK won't give an answer that is cut off as a final one.
                cut: Any = stream.current_completion_snapshot
                answer: Any = cut if cut.choices[0].finish_reason == "length" else await stream.get_final_completion()
        else:
            answer = await (chats.parse if wish.form else chats.create)(**asked)
        (choice,) = answer.choices
        message = choice.message
        assert not wish.stream or streamed == (message.content or "")
        self._messages.append(_sent_back(message) if wish.stream else message)
        calls = [Call(call.id, call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
        parsed, thoughts = getattr(message, "parsed", None), getattr(message, "reasoning_content", None) or ""
        usage = answer.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        return Said(
            message.content or "",
            choice.finish_reason,
            usage.prompt_tokens,
            usage.completion_tokens,
            calls,
            parsed,
            thoughts,
        )


def _sent_back(message: Any) -> dict[str, Any]:
    """As whoever reads streams sends it back: by hand."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments}}
        for call in message.tool_calls or ()
    ]
    return {"role": "assistant", "content": message.content, **({"tool_calls": calls} if calls else {})}


class _Responses:
    """OpenAI's SDK, responses. A stream is gone on with by the id of the response, the rest by its items."""

    def __init__(self, client: AsyncOpenAI, wish: Wish) -> None:
        self._responses: Any = client.responses
        self._wish = wish
        self._input: list[Any] = []
        self._previous: str | None = None

    async def say(self, text: str, image: str = "") -> Said:
        content: Any = text
        if image:
            picture = {"type": "input_image", "image_url": image, "detail": "auto"}
            content = [{"type": "input_text", "text": text}, picture]
        return await self._ask([{"role": "user", "content": content}])

    async def tell(self, results: Mapping[Call, str]) -> Said:
        items = results.items()
        return await self._ask([{"type": "function_call_output", "call_id": call.id, "output": text} for call, text in items])

    async def _ask(self, items: list[Any]) -> Said:
        wish, responses = self._wish, self._responses
        self._input = items if self._previous else [*self._input, *items]
        asked: dict[str, Any] = {"model": wish.model, "input": self._input, "max_output_tokens": wish.most_tokens}
        asked |= {"instructions": SYSTEM, "previous_response_id": self._previous}
        if wish.tools:
            asked["tools"] = [{"type": "function", **pydantic_function_tool(tool)["function"]} for tool in wish.tools]
        if wish.thinks:
            asked["reasoning"] = {"effort": "low"}
        if wish.form:
            asked["text_format"] = wish.form
        streamed = ""
        if wish.stream:
            async with responses.stream(**asked) as stream:
                events: list[Any] = [event async for event in stream]
                streamed = "".join(event.delta for event in events if event.type == "response.output_text.delta")
                cut = [event.response for event in events if event.type == "response.incomplete"]
                answer: Any = cut[0] if cut else await stream.get_final_response()
            self._previous = answer.id
        else:
            answer = await (responses.parse if wish.form else responses.create)(**asked)
            self._input += answer.output
        assert not wish.stream or streamed == answer.output_text
        calls = [Call(i.call_id, i.name, json.loads(i.arguments)) for i in answer.output if i.type == "function_call"]
        why = answer.incomplete_details and answer.incomplete_details.reason
        stop = {None: "tool_calls" if calls else "stop", "max_output_tokens": "length"}[why]
        assert answer.status == ("incomplete" if why else "completed")
        usage, parsed = answer.usage, getattr(answer, "output_parsed", None)
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        return Said(answer.output_text, stop, usage.input_tokens, usage.output_tokens, calls, parsed)


_STOPS = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}


class _Messages:
    """Anthropic's SDK."""

    def __init__(self, client: AsyncAnthropic, wish: Wish) -> None:
        self._api: Any = client.messages
        self._wish = wish
        self._messages: list[Any] = []

    async def say(self, text: str, image: str = "") -> Said:
        content: list[Any] = [{"type": "text", "text": text}]
        if image:
            head, _, data = image.partition(";base64,")
            kept = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
            content.insert(0, {"type": "image", "source": kept if data else {"type": "url", "url": image}})
        return await self._ask(content)

    async def tell(self, results: Mapping[Call, str]) -> Said:
        items = results.items()
        return await self._ask([{"type": "tool_result", "tool_use_id": call.id, "content": text} for call, text in items])

    async def _ask(self, content: list[Any]) -> Said:
        wish, messages = self._wish, self._api
        self._messages.append({"role": "user", "content": content})
        asked: dict[str, Any] = {"model": wish.model, "messages": self._messages, "max_tokens": wish.most_tokens}
        asked["system"] = SYSTEM
        if wish.tools:
            asked["tools"] = [
                {"name": tool.__name__, "description": tool.__doc__, "input_schema": tool.model_json_schema()}
                for tool in wish.tools
            ]
        if wish.thinks:
            asked["thinking"] = {"type": "enabled", "budget_tokens": BUDGET}
        if wish.form:
            asked["output_format"] = wish.form
        streamed = ""
        if wish.stream:
            async with messages.stream(**asked) as stream:
                streamed = "".join([piece async for piece in stream.text_stream])
                answer: Any = await stream.get_final_message()
        else:
            answer = await (messages.parse if wish.form else messages.create)(**asked)
        self._messages.append({"role": "assistant", "content": answer.content})
        blocks = answer.content
        text = "".join(block.text for block in blocks if block.type == "text")
        assert not wish.stream or streamed == text
        calls = [Call(block.id, block.name, block.input) for block in blocks if block.type == "tool_use"]
        thoughts = "".join(block.thinking for block in blocks if block.type == "thinking")
        usage, parsed = answer.usage, getattr(answer, "parsed_output", None)
        given = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        return Said(text, _STOPS[answer.stop_reason], given, usage.output_tokens, calls, parsed, thoughts)


def openai_chat(clients: Clients, wish: Wish) -> Talk:
    return _Chat(clients.openai.with_options(default_headers=wish.headers), wish)


def openai_responses(clients: Clients, wish: Wish) -> Talk:
    return _Responses(clients.openai.with_options(default_headers=wish.headers), wish)


def anthropic_messages(clients: Clients, wish: Wish) -> Talk:
    return _Messages(clients.anthropic.with_options(default_headers=wish.headers), wish)
