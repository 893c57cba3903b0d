"""The lines of an input file: split as they come, and checked as a whole before the first is run. Pure."""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import cast

from pydantic import ValidationError

from schemas.base import JsonObject
from schemas.batch import BatchLine
from schemas.openai.batches import BatchProblem

MAX_LINES = 50_000
MAX_INPUTS = 50_000
"""Of embeddings, over all lines."""
MAX_PROBLEMS = 100
"""More are not told."""

_ENVELOPE_BYTES = 16 * 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Raw:
    """A line that isn't empty, counted from 1; `text` None: it is too long to be looked at."""

    number: int
    text: bytes | None


class Splitter:
    """Cuts chunks into lines, and keeps no more than the longest line that may be."""

    def __init__(self, max_body_bytes: int) -> None:
        self._longest = max_body_bytes + _ENVELOPE_BYTES
        self._number = 0
        self._rest = bytearray()
        self._too_long = False

    def feed(self, chunk: bytes) -> Generator[Raw]:
        """The lines that end in this chunk."""
        *ends, last = chunk.split(b"\n")
        for end in ends:
            self._keep(end)
            yield from self._cut()
        self._keep(last)

    def end(self) -> Generator[Raw]:
        """The last line, if nothing ends it."""
        yield from self._cut()

    def _keep(self, part: bytes) -> None:
        if len(self._rest) + len(part) > self._longest:
            self._too_long = True
            self._rest.clear()
        elif not self._too_long:
            self._rest += part

    def _cut(self) -> Generator[Raw]:
        self._number += 1
        text = bytes(self._rest).removeprefix(_BOM).strip()
        if self._too_long or text:
            yield Raw(self._number, None if self._too_long else text)
        self._rest.clear()
        self._too_long = False


@dataclass(slots=True)
class Plan:
    """What is to be run: custom ids in the order of their lines, the models asked for; or what is wrong with the file."""

    ids: dict[str, int] = field(default_factory=dict[str, int])
    models: set[str] = field(default_factory=set[str])
    problems: list[BatchProblem] = field(default_factory=list[BatchProblem])

    @property
    def model(self) -> str | None:
        """The model, if all lines ask for the same."""
        return next(iter(self.models)) if len(self.models) == 1 else None


class Checker:
    """Looks at each line of a file once."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._inputs = 0
        self.plan = Plan()

    @property
    def enough(self) -> bool:
        """True if so much is wrong that the rest needn't be read."""
        return len(self.plan.problems) >= MAX_PROBLEMS or len(self.plan.ids) > MAX_LINES

    def add(self, raw: Raw) -> None:
        """Takes a line into the plan, or notes what is wrong with it."""
        found = self._look(raw)
        if isinstance(found, BatchProblem):
            self.plan.problems.append(found)
            return
        self.plan.ids[found.custom_id] = len(self.plan.ids)
        self._inputs += _inputs(found.body) if self._endpoint == "/v1/embeddings" else 0
        if isinstance(model := found.body.get("model"), str) and len(self.plan.models) < 2:
            self.plan.models.add(model)

    def end(self) -> Plan:
        """The plan, with what is wrong with the file as a whole."""
        plan = self.plan
        if not plan.ids and not plan.problems:
            plan.problems.append(BatchProblem(code="empty_file", message="The input file has no line."))
        if len(plan.ids) > MAX_LINES:
            text = f"The input file has more than {MAX_LINES:,} lines. Make several batches of it."
            plan.problems.append(BatchProblem(code="too_many_lines", message=text))
        if self._inputs > MAX_INPUTS:
            text = f"The batch asks for {self._inputs:,} embeddings; at most {MAX_INPUTS:,} are possible over all lines."
            plan.problems.append(BatchProblem(code="too_many_inputs", message=text))
        return plan

    def _look(self, raw: Raw) -> BatchLine | BatchProblem:
        """The content itself is not repeated in what is said about it: it may be secret."""
        if raw.text is None:
            return BatchProblem(code="line_too_long", message="This line is too long for one request.", line=raw.number)
        try:
            line = BatchLine.model_validate_json(raw.text)
        except ValidationError as error:
            return _invalid(raw.number, error)
        if line.custom_id in self.plan.ids:
            text = "The custom_id of this line stands in an earlier line already; each needs its own."
            return BatchProblem(code="duplicate_custom_id", message=text, param="custom_id", line=raw.number)
        if line.url != self._endpoint:
            text = f"The url of this line is not the endpoint of the batch, {self._endpoint}."
            return BatchProblem(code="mismatched_endpoint", message=text, param="url", line=raw.number)
        if line.body.get("stream"):
            text = "A line of a batch can't be streamed: leave `stream` out."
            return BatchProblem(code="invalid_request", message=text, param="body.stream", line=raw.number)
        return line


def _invalid(number: int, error: ValidationError) -> BatchProblem:
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"])
    if not param:
        text = "This line is not parseable as a JSON object."
        return BatchProblem(code="invalid_json_line", message=text, line=number)
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_request"
    return BatchProblem(code=code, message=f"Invalid value for `{param}`: {first['msg']}", param=param, line=number)


def _inputs(body: JsonObject) -> int:
    """How many embeddings a body asks for."""
    given = body.get("input")
    if not isinstance(given, list):
        return 1
    inputs = cast("list[object]", given)
    return 1 if inputs and isinstance(inputs[0], int) else len(inputs)
