"""Dead letters, as an administrator sees them: why each was put aside, where it came from, and what stands in it."""

import base64
from typing import Literal

from pydantic import BaseModel, Field

from infra.kafka.carriage import fetched
from infra.kafka.dead import DeadLetters, Letter, Page
from infra.kafka.envelope import Poison
from infra.platform import Platform
from infra.redis.replays import Replays
from schemas.errors import InvalidRequest, NotFound


class LettersAsked(BaseModel):
    """GET /admin/v1/dead."""

    reason: str | None = None
    stage: str | None = None
    after: str | None = None
    limit: int = Field(default=20, ge=1, le=100)


class LetterShown(BaseModel):
    """A dead letter. `became`: the job or the topic that it was replayed to, or empty."""

    id: str
    object: Literal["dead_letter"] = "dead_letter"
    at_ms: int
    reason: str
    detail: str
    origin: str
    stage: str
    type: str
    became: str


class LetterOpened(BaseModel):
    """A dead letter with all that stands in it. `value` null: its body is gone; `base64` where it is no text."""

    letter: LetterShown
    headers: dict[str, str]
    value: str | None
    encoding: Literal["text", "base64"] = "text"


class Dead:
    """Looks at `sluice.dead`."""

    def __init__(self, platform: Platform) -> None:
        self._files = platform.files
        self._letters = DeadLetters(platform.kafka)
        self._replays = Replays(platform.redis)

    async def page(self, asked: LettersAsked) -> tuple[list[LetterShown], str | None]:
        """Letters, the youngest first, and the id to go on from, if anything older is left. Raises InvalidRequest."""
        page = await self.letters(asked.reason, asked.stage, asked.after, asked.limit)
        became = await self._replays.became([letter.id for letter in page.letters])
        return [_shown(*pair) for pair in zip(page.letters, became, strict=True)], page.after

    async def open(self, name: str) -> LetterOpened:
        """The letter with this id or origin. Raises NotFound."""
        letter = await self.find(name)
        (became,) = await self._replays.became([letter.id])
        resolved = await fetched(letter.record, self._files)
        headers = {name: value.decode("utf-8", "replace") for name, value in letter.headers}
        opened = LetterOpened(letter=_shown(letter, became), headers=headers, value=None)
        if isinstance(resolved, Poison):
            return opened
        try:
            return opened.model_copy(update={"value": (resolved.value or b"").decode()})
        except UnicodeDecodeError:
            return opened.model_copy(update={"value": base64.b64encode(resolved.value or b"").decode(), "encoding": "base64"})

    async def letters(self, reason: str | None, stage: str | None, after: str | None, limit: int) -> Page:
        """A page of letters, of any reason or stage where none is given. Raises InvalidRequest."""

        def wanted(letter: Letter) -> bool:
            return reason in (None, letter.reason) and stage in (None, letter.stage)

        try:
            return await self._letters.page(after, wanted, limit)
        except ValueError as error:
            raise InvalidRequest(str(error), param="after") from None

    async def find(self, name: str) -> Letter:
        """The letter with this id or origin. Raises NotFound."""
        letter = await self._letters.find(name)
        if letter is None:
            raise NotFound(f"There is no dead letter {name[:200]!r}. `sluice dead list` shows them.")
        return letter


def _shown(letter: Letter, became: str) -> LetterShown:
    return LetterShown(
        id=letter.id,
        at_ms=letter.record.timestamp,
        reason=letter.reason,
        detail=letter.detail,
        origin=letter.origin,
        stage=letter.stage,
        type=letter.type,
        became=became,
    )
