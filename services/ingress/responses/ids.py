"""Ids of responses and of their items: all of them say which job they belong to. Pure."""

import re

from schemas.ids import job_id_in

_ITEM = re.compile(r"(?:msg|fc|fco|rs|item)_([0-9a-f]{32})[io]\d{1,6}")
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def response_id(job_id: str) -> str:
    """The id under which a job's caller knows it as a response."""
    return f"resp_{job_id.removeprefix('job_')}"


def job_id_of(response_id: str) -> str | None:
    """The job of a response, or None for what is no response's id."""
    return job_id_in(response_id) if response_id.startswith("resp_") else None


def item_id(kind: str, response_id: str, index: int, *, output: bool) -> str:
    """The id of an item of a response: the same, however often it is translated."""
    digits = response_id.removeprefix("resp_")
    return f"{_PREFIXES.get(kind, 'item')}_{digits}{'o' if output else 'i'}{index}"


def response_of_item(item_id: str) -> str | None:
    """The response that an item of ours belongs to."""
    found = _ITEM.fullmatch(item_id)
    return f"resp_{found[1]}" if found else None
