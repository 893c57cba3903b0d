"""`/v1/files` as OpenAI's SDK uses it: uploaded in a stream, listed, read, deleted; of another team there are none."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from urllib.parse import quote

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from infra.clock import new_id
from infra.objects import CHUNK_BYTES
from infra.platform import Platform
from schemas.errors import InvalidRequest, NotFound, RequestTimeout
from schemas.openai.files import ExpiresAfter, FileDeleted, FileList, OpenAIFile
from services.ingress.batches.files import Files
from services.ingress.handler import Admissions, CallerGone
from services.ingress.http.paging import guarded, whole_number
from services.ingress.http.requests import credentials, too_large
from services.ingress.http.responses import JSON

_FORM_BYTES = 64 * 1024
"""What a form needs beside its file."""
_MOST = 10_000
_PATIENCE_S, _LEAST_BYTES_S = 30.0, 10_000
"""Who sends more slowly than this, after the first half minute, holds a connection and a file on the disk for nothing."""


class FileEndpoints:
    """The endpoints of one process."""

    def __init__(self, platform: Platform, admissions: Admissions, files: Files) -> None:
        self._platform, self._admissions, self._files = platform, admissions, files

    @guarded
    async def create(self, http: HttpRequest) -> Response:
        """POST /v1/files: a form with `file`, `purpose` and perhaps `expires_after[…]`."""
        identity = await self._admissions.identify(credentials(http))
        form = await _form(http, self._platform.settings.max_file_bytes)
        try:
            file = _checked(form)
            file_id = new_id("file", self._platform.clock())
            name = (file.filename or "upload.jsonl")[:255]
            return _json(
                await self._files.upload(identity.team.name, file_id, name, _chunks(file), _life_s(form), identity.caller)
            )
        finally:
            await form.close()

    @guarded
    async def list(self, http: HttpRequest) -> Response:
        """GET /v1/files?after=&limit=&order=&purpose=."""
        query = http.query_params
        limit = whole_number(query, "limit", _MOST, _MOST)
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequest("order must be `asc` or `desc`", param="order")
        page, more = await self._files.page(
            await self._team(http), query.get("after", ""), limit, query.get("purpose"), oldest_first=order == "asc"
        )
        ends = (page[0].id, page[-1].id) if page else (None, None)
        return Response(FileList(data=page, first_id=ends[0], last_id=ends[1], has_more=more).model_dump_json(), media_type=JSON)

    @guarded
    async def retrieve(self, http: HttpRequest) -> Response:
        return _json(await self._found(http))

    @guarded
    async def content(self, http: HttpRequest) -> Response:
        """GET /v1/files/{id}/content, chunk by chunk."""
        file = await self._found(http)
        headers = {
            "content-length": str(file.bytes),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
        }
        chunks = self._files.content(await self._team(http), file.id)
        return StreamingResponse(chunks, headers=headers, media_type="application/octet-stream")

    @guarded
    async def delete(self, http: HttpRequest) -> Response:
        file = await self._found(http)
        await self._files.delete(await self._team(http), file.id)
        return Response(FileDeleted(id=file.id).model_dump_json(), media_type=JSON)

    async def _found(self, http: HttpRequest) -> OpenAIFile:
        file_id = str(http.path_params["file_id"])
        file = await self._files.find(await self._team(http), file_id)
        if file is None:
            raise NotFound(f"No such File object: {file_id[:100]}", param="id")
        return file

    async def _team(self, http: HttpRequest) -> str:
        return (await self._admissions.identify(credentials(http))).team.name


async def _form(http: HttpRequest, max_file_bytes: int) -> FormData:
    """The form; a file above a megabyte lies on the disk. Raises InvalidRequest, RequestTooLarge, RequestTimeout, CallerGone."""
    if not http.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest("Send the file as multipart/form-data, with the fields `file` and `purpose`.")
    try:
        async with asyncio.timeout(_PATIENCE_S) as patience:
            stream = _limited(http, max_file_bytes, patience)
            return await MultiPartParser(http.headers, stream, max_files=1, max_fields=8, max_part_size=4096).parse()
    except MultiPartException as error:
        raise InvalidRequest(f"We could not read your form: {error.message}") from None
    except ClientDisconnect:
        raise CallerGone from None
    except TimeoutError:
        raise RequestTimeout(f"The file did not come at {_LEAST_BYTES_S:,} bytes/s. Try again.") from None


async def _limited(http: HttpRequest, max_file_bytes: int, patience: asyncio.Timeout) -> AsyncGenerator[bytes]:
    most, declared = max_file_bytes + _FORM_BYTES, http.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise too_large(max_file_bytes)
    size, began = 0, asyncio.get_running_loop().time()
    async for chunk in http.stream():
        size += len(chunk)
        if size > most:
            raise too_large(max_file_bytes)
        patience.reschedule(began + _PATIENCE_S + size / _LEAST_BYTES_S)
        yield chunk


def _checked(form: FormData) -> UploadFile:
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise InvalidRequest("The form has no file in its field `file`.", param="file")
    if purpose != "batch":
        raise InvalidRequest("Only files with the purpose `batch` are kept here.", param="purpose")
    if not file.size:
        raise InvalidRequest("The file is empty.", param="file")
    return file


def _life_s(form: FormData) -> int | None:
    """`expires_after[anchor]` and `expires_after[seconds]`, as SDKs send them."""
    given: Mapping[str, object] = {
        name: form[f"expires_after[{name}]"] for name in ("anchor", "seconds") if f"expires_after[{name}]" in form
    }
    if not given:
        return None
    try:
        return ExpiresAfter.model_validate(given, strict=False).seconds
    except ValidationError:
        text = "expires_after needs the anchor `created_at` and 3600 to 2592000 seconds"
        raise InvalidRequest(text, param="expires_after") from None


async def _chunks(file: UploadFile) -> AsyncGenerator[bytes]:
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk


def _json(file: OpenAIFile) -> Response:
    return Response(file.model_dump_json(), media_type=JSON)
