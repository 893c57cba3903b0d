"""The Kafka door: one line of OpenAI's batch input a record, a job token in its header; nothing else of it is believed."""

import asyncio
import logging
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from infra.credentials import JobTokens
from infra.kafka.envelope import Poison, explain, header, trace_context
from infra.kafka.log import Incoming, Partition
from infra.kafka.post import Post, result_id
from infra.kafka.stage import lane_of
from infra.kafka.turns import Ahead
from infra.platform import Platform
from infra.telemetry import genai, metrics
from schemas.base import JsonObject
from schemas.batch import URL_TO_API, BatchLine, BatchResponse, BatchResult
from schemas.errors import InvalidKey, InvalidRequest, NotAllowed, SluiceError, Unavailable
from schemas.ids import uuid7_hex
from schemas.job import ReplyTo
from schemas.topics import Lane
from services.ingress import policy
from services.ingress.handler import Admissions, Request, refused
from services.ingress.identities import Identity

log = logging.getLogger(__name__)

AHEAD = Ahead(records=64_000, size=64 * 1024 * 1024)
"""Records of the door are small, come by the ten thousand, and stand in whatever partition their sender chose."""

_STRUCTURED = "application/cloudevents+json"
_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)
_MAX_WAIT_S = 30.0


class Door:
    """Admits what stands on `sluice.jobs.{lane}`."""

    def __init__(self, platform: Platform, admissions: Admissions, tokens: JobTokens, post: Post) -> None:
        self._platform = platform
        self._admissions = admissions
        self._tokens = tokens
        self._post = post

    async def work(self, record: Incoming, suspect: bool) -> None:
        """Admits one record, or answers it, or puts it aside with the reason."""
        identity = self._identify(record)
        line = identity if isinstance(identity, Poison) else read_line(record)
        if isinstance(identity, Poison) or isinstance(line, Poison):
            reason = identity if isinstance(identity, Poison) else line
            assert isinstance(reason, Poison)
            log.warning("door: %s from %s/%d@%d", reason.reason, record.topic, record.partition, record.offset)
            await self._post.dead(record, reason)
            return
        job_id = self._job_id(record)
        parent, sample = trace_context(record.headers), identity.policy.tracing.sample
        with self._platform.tracing.span(f"receive {record.topic}", parent, "consumer", sample) as span:
            if span.recording:
                span.set(genai.record(record.topic, record.partition, record.offset, "sluice-door", "receive"))
                span.set({genai.SLUICE_JOB: job_id})
            refusal = await self._admit(identity, line, record, job_id, span.context)
            if refusal and span.recording and refusal.response is not None:
                span.set({genai.ERROR_TYPE: str(refusal.response.status_code)})
            if refusal and not (suspect and await self._is_told(identity, refusal, record)):
                await self._post.refuse(identity.team.name, refusal, span.context)

    def team_of(self, record: Incoming) -> bytes:
        """Whose record it is, for fairness: by its token, since its key says what the sender likes."""
        identity = self._identify(record)
        return b"" if isinstance(identity, Poison) else identity.team.name.encode()

    async def _is_told(self, identity: Identity, refusal: BatchResult, record: Incoming) -> bool:
        return await self._platform.results.told(identity.team.name, refusal.id, record.timestamp)

    async def _admit(
        self, identity: Identity, line: BatchLine, record: Incoming, job_id: str, traceparent: str
    ) -> BatchResult | None:
        """Sends the line on its way as a job, or gives the result that says why not."""
        lane = lane_of(Partition(record.topic, record.partition))
        try:
            request = to_request(line, lane, record.headers)
            while True:
                try:
                    admitted = await self._admissions.admit(identity, request, ReplyTo(kind="results"), job_id)
                    break
                except Unavailable as error:
                    # Whoever came through the queue waits; only who holds a connection is told to come again.
                    await asyncio.sleep(min(error.retry_after_s or 1, _MAX_WAIT_S))
        except SluiceError as error:
            return _refusal(job_id, line.custom_id, refused(error))
        metrics.ADMITTED.labels(lane.value, "kafka").inc()
        await self._post.forward(admitted.job, traceparent)
        return None

    def _identify(self, record: Incoming) -> Identity | Poison:
        scheme, _, token = header(record.headers, "authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return Poison("no_token", "the record has no header `authorization: Bearer <job token>`")
        claims = self._tokens.verify(token.strip(), self._platform.clock() // 1000)
        if claims is None:
            return Poison("invalid_token", "the job token is not ours or has expired: mint one with POST /v1/job_tokens")
        try:
            identity = self._admissions.identify_by_id(claims.key_id)
        except NotAllowed as error:
            return Poison("key_not_allowed", error.message)
        except InvalidKey:
            return Poison("revoked_key", "the virtual key that the job token was minted from is gone")
        if identity.policy.identity == "required":
            return Poison("identity_required", "the virtual key asks who you are, which a record can't say")
        return identity

    def _job_id(self, record: Incoming) -> str:
        """The same for a record that is delivered twice, and not to be guessed."""
        born_ms = record.timestamp if record.timestamp > 0 else self._platform.clock()
        bits = self._platform.signer.derive("door", record.topic, str(record.partition), str(record.offset))
        return f"job_{uuid7_hex(born_ms, bits)}"


def read_line(record: Incoming) -> BatchLine | Poison:
    """The line in a record, also if it came as a structured CloudEvent."""
    if not record.value:
        return Poison("empty", "the record has no value")
    try:
        if header(record.headers, "content-type").startswith(_STRUCTURED):
            return BatchLine.model_validate(_OBJECT.validate_json(record.value).get("data"))
        return BatchLine.model_validate_json(record.value)
    except ValidationError as error:
        return Poison("invalid_line", f"not a line of batch input: {explain(error)}")


def to_request(line: BatchLine, lane: Lane, headers: Sequence[tuple[str, bytes | None]] = ()) -> Request:
    """The request in the words of admission. Raises InvalidRequest for what a line can't ask for."""
    api = URL_TO_API.get(line.url)
    if api is None:
        raise InvalidRequest(f"`{line.url[:100]}` can't be asked for here; one of {', '.join(URL_TO_API)} can", param="url")
    if line.body.get("stream"):
        raise InvalidRequest("A line of a batch can't be streamed: leave `stream` out", param="body.stream")
    return Request(
        api=api,
        body=line.body,
        lane=lane,
        custom_id=line.custom_id,
        deadline_ms=policy.deadline_ms(header(headers, "x-sluice-deadline")),
        not_before_ms=policy.not_before_ms(header(headers, "x-sluice-not-before")),
    )


def _refusal(job_id: str, custom_id: str, error: SluiceError) -> BatchResult:
    fault = error.fault()
    response = BatchResponse(status_code=fault.status, request_id=job_id, body=fault.openai())
    return BatchResult(id=result_id(job_id), custom_id=custom_id, response=response)
