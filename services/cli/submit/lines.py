"""The file of batch lines: checked as a whole before anything is sent, then read again line by line."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from schemas.batch import URL_TO_API, BatchLine

MAX_LINE_BYTES = 2_000_000
"""What fits into a record of the Kafka door, with its headers."""

SHOWN_PROBLEMS = 20
EXAMPLE = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "…", "messages": […]}}'


class BadFile(Exception):
    """The file can't be sent. `problems` each name a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Batch:
    """A file that may be sent. Lines are counted from 0; `by_id` finds them by their `custom_id`."""

    path: Path
    sha256: str
    by_id: Mapping[str, int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.by_id)

    def lines(self) -> Iterator[bytes]:
        """The lines as they stand in the file, without their ends."""
        with self.path.open("rb") as file:
            yield from (text for _, text in _lines(file))


def check(path: Path) -> Batch:
    """Reads the whole file. Raises BadFile with the first lines that can't be sent, or OSError."""
    digest, by_id, places, problems = hashlib.sha256(), dict[str, int](), list[int](), list[str]()
    with path.open("rb") as file:
        for number, text in _lines(file):
            digest.update(text + b"\n")
            found = _check_line(text)
            if isinstance(found, BatchLine) and found.custom_id in by_id:
                first = places[by_id[found.custom_id]]
                found = f"custom_id {found.custom_id[:64]!r} stands in line {first} already; each line needs its own"
            if isinstance(found, BatchLine):
                by_id[found.custom_id] = len(by_id)
                places.append(number)
                continue
            problems.append(f"line {number}: {found}")
            if len(problems) == SHOWN_PROBLEMS:
                problems.append("… and perhaps more")
                break
    if not by_id and not problems:
        problems.append(f"there is no line in it; each should look like {EXAMPLE}")
    if problems:
        raise BadFile(problems)
    return Batch(path, digest.hexdigest(), by_id)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and text of each line that isn't empty."""
    for number, raw in enumerate(file, 1):
        text = raw.strip().removeprefix(b"\xef\xbb\xbf")
        if text:
            yield number, text


def _check_line(text: bytes) -> BatchLine | str:
    """The line, or what is wrong with it. The content itself is not repeated: it may be secret."""
    if len(text) > MAX_LINE_BYTES:
        return f"{len(text):,} bytes; at most {MAX_LINE_BYTES:,} go through Kafka. Send it by HTTP"
    try:
        line = BatchLine.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        member = ".".join(str(part) for part in first["loc"])
        if not member:
            return f"not a JSON object. Each line must be a request of OpenAI's Batch API, such as {EXAMPLE}"
        return f"{member}: {first['msg']}. A line looks like {EXAMPLE}"
    if line.url not in URL_TO_API:
        return f"url {line.url[:100]!r} can't be asked for; one of {', '.join(URL_TO_API)} can"
    if line.body.get("stream"):
        return "body.stream: a line of a batch can't be streamed; leave `stream` out"
    if not isinstance(line.body.get("model"), str):
        return "body.model is missing: the name of a model, as GET /v1/models lists them"
    return line
