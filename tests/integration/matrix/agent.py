"""The OpenAI agents SDK: an agent with a tool that has to answer in a form, through both of OpenAI's APIs."""

from dataclasses import dataclass
from typing import Any, Literal

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner, function_tool

from tests.integration.matrix.talks import SYSTEM, City, Clients, Weather, Where, Wish


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it: the answer, how the tool was called, requests and tokens as the SDK counts them."""

    answer: object
    called: list[Weather]
    requests: int
    given: int
    made: int


async def run(clients: Clients, wish: Wish, text: str, result: str, *, responses: bool) -> Run:
    """Has an agent answer."""
    called: list[Weather] = []

    @function_tool(name_override="Weather")
    def weather(where: Where, days: Literal[42, 43]) -> str:
        """Tells how the weather is"""
        called.append(Weather.model_validate({"where": where, "days": days}))
        return result

    client = clients.openai.with_options(default_headers=wish.headers)
    model = (OpenAIResponsesModel if responses else OpenAIChatCompletionsModel)(wish.model, client)
    settings = ModelSettings(include_usage=True)
    agent: Agent[None] = Agent(
        "Guide", instructions=SYSTEM, tools=[weather], output_type=City, model=model, model_settings=settings
    )
    config = RunConfig(tracing_disabled=True)
    if wish.stream:
        ran: Any = Runner.run_streamed(agent, text, run_config=config)
        events = [event.type async for event in ran.stream_events()]
        assert "raw_response_event" in events
    else:
        ran = await Runner.run(agent, text, run_config=config)
    usage = ran.context_wrapper.usage
    return Run(ran.final_output, called, usage.requests, usage.input_tokens, usage.output_tokens)
