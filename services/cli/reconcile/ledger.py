"""What a provider says that it has counted and charged: its own formats, as entries. Bounded memory: a line at a time.

A page of a provider's usage or cost API is read as a whole, up to 64 MB; all else line by line.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, TextIO, cast

Record = Mapping[str, object]
"""A line, or a result of a page, by the names of its members."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a line of a provider's books says; None: it doesn't say. `input_tokens` has the cached ones in it."""

    model: str | None = None
    day: date | None = None
    team: str | None = None
    deployment: str | None = None
    calls: int | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Decimal | None = None


class Unreadable(Exception):
    """A file, or a line of it, isn't what a provider writes. The text says which and why."""


MODEL: Final = (
    *("model", "model_id", "model_version", "model_name", "snapshot_id", "x_model", "skuid", "line_item"),
    *("line_item_usage_type", "lineitem/usagetype", "skumeter", "resourceid"),
)
DAY: Final = (
    *("at", "date", "day", "timestamp", "ts", "start_time", "starting_at", "start_time_iso", "usage_date_utc", "created_at"),
    *("created", "chargeperiodstart", "line_item_usage_start_date", "lineitem/usagestartdate", "aggregation_timestamp"),
)
TEAM: Final = ("team", "subaccountname", "workspace", "project_name", "project")
DEPLOYMENT: Final = ("deployment", "deployment_id")
CALLS: Final = ("calls", "requests", "num_requests", "num_model_requests", "n_requests", "request_count", "x_jobs")
INPUT: Final = (
    *("input_tokens", "prompt_tokens", "n_context_tokens_total", "n_context_tokens", "tokens_in", "x_inputtokens"),
    "usage_input_tokens",
)
FRESH: Final = ("uncached_input_tokens", "usage_input_tokens_no_cache")
"""Anthropic counts what is neither read from a cache nor written to one apart."""
CACHED: Final = (
    *("cached_tokens", "input_cached_tokens", "cached_input_tokens", "cache_read_input_tokens", "n_cached_context_tokens_total"),
    *("usage_input_tokens_cache_read", "x_cachedtokens"),
)
WRITTEN: Final = (
    *("cache_creation_input_tokens", "usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h"),
    *("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
)
OUTPUT: Final = (
    *("output_tokens", "completion_tokens", "n_generated_tokens_total", "n_generated_tokens", "tokens_out", "x_outputtokens"),
    "usage_output_tokens",
)
COST: Final = (
    *("cost_usd", "cost", "amount_usd", "amount_value", "amount", "billedcost", "line_item_unblended_cost"),
    *("lineitem/unblendedcost", "total_cost", "spend"),
)
CURRENCY: Final = (
    *("currency", "amount_currency", "billingcurrency", "line_item_currency_code", "lineitem/currencycode"),
    "billing_currency",
)

_GROUPED: Final = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
"""A number with commas between thousands. In any other a comma may stand for the point."""
_MOST_PAGE_BYTES: Final = 64 * 1024 * 1024
_MOST_LINE: Final = 4 * 1024 * 1024
_LATEST_S: Final = 10**11


def entries(path: Path) -> Iterator[Entry]:
    """The entries of a file, whichever format it has; that is told by its content. Raises Unreadable, and OSError."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from _entries(file, path.stat().st_size)
        except UnicodeDecodeError as error:
            raise Unreadable(f"It is no text in UTF-8 ({error.reason}).") from None
        except csv.Error as error:
            raise Unreadable(f"It can't be read as CSV: {error}.") from None


def _entries(file: TextIO, size: int) -> Iterator[Entry]:
    first = _first_line(file)
    if not first.startswith(("{", "[")):
        yield from _csv_entries(file)
    elif _is_line(first):
        yield from _jsonl_entries(file)
    elif size > _MOST_PAGE_BYTES:
        raise Unreadable(f"A JSON document of more than {_MOST_PAGE_BYTES:,} bytes: write a line for each entry (JSONL).")
    else:
        yield from _page_entries(_json(file.read(), "The document"))


def _first_line(file: TextIO) -> str:
    """The first line that says something; then the file stands at its beginning again."""
    while (line := file.readline(_MOST_LINE)) and not line.strip():
        pass
    file.seek(0)
    return line.strip()


def _is_line(first: str) -> bool:
    """True if a line is an entry by itself: an object that isn't a page."""
    try:
        read = json.loads(first)
    except ValueError:
        return False
    return isinstance(read, dict) and "data" not in read and "results" not in read


def _jsonl_entries(file: TextIO) -> Iterator[Entry]:
    number = 0
    while line := file.readline(_MOST_LINE):
        number += 1
        if not line.strip():
            continue
        read = _json(line, f"Line {number}")
        if not isinstance(read, dict):
            raise Unreadable(f"Line {number} is no JSON object.")
        yield _entry(_flat(cast("Record", read)), f"Line {number}")


def _csv_entries(file: TextIO) -> Iterator[Entry]:
    sample = _first_line(file)
    reader = csv.reader(
        file, delimiter="\t" if "\t" in sample and "," not in sample else ";" if ";" in sample and "," not in sample else ","
    )
    header: list[str] = []
    for row in reader:
        if not any(row):
            continue
        if not header:
            header = [name.strip().lower().replace(" ", "_") for name in row]
            _check_header(header)
            continue
        if len(row) != len(header):
            raise Unreadable(f"Line {reader.line_num} has {len(row)} cells, the header has {len(header)}.")
        yield _entry(dict(zip(header, row, strict=True)), f"Line {reader.line_num}")


def _check_header(header: Sequence[str]) -> None:
    if not set(header) & {*CALLS, *INPUT, *FRESH, *OUTPUT, *COST}:
        raise Unreadable(
            f"No column of calls, tokens or cost in {', '.join(header)[:200]!r}. Name them model, calls, input_tokens, "
            "cached_tokens, output_tokens, cost_usd."
        )


def _page_entries(read: object) -> Iterator[Entry]:
    """Pages of OpenAI's and Anthropic's usage and cost APIs, one or a list of them; or a list of entries."""
    for number, page in enumerate(cast("list[object]", read) if isinstance(read, list) else [read], 1):
        if not isinstance(page, dict):
            raise Unreadable(f"Object {number} of the document is no JSON object.")
        known = cast("dict[str, object]", page)
        if "data" not in known and "results" not in known:
            yield _entry(_flat(known), f"Object {number}")
            continue
        for bucket in _objects(known.get("data", [known])):
            # A bucket without results is an entry by itself.
            for result in _objects(bucket["results"]) if "results" in bucket else [bucket]:
                times = {name: bucket[name] for name in ("start_time", "starting_at") if name in bucket}
                yield _result(result, times, f"A result of {next(iter(times.values()), 'a bucket')}")


def _result(result: Record, times: Record, where: str) -> Entry:
    amount = result.get("amount")
    found = dict(_flat(result)) | dict(times)
    if "cost_type" in result or (isinstance(amount, str) and "currency" in result):
        # Anthropic's cost report counts in cents.
        found["amount"] = _decimal(amount, where, "amount") / 100
    if isinstance(line := found.get("line_item"), str):
        # OpenAI: "gpt-4o-mini, input".
        found["line_item"] = line.partition(",")[0]
    return _entry(found, where)


def _flat(record: Record) -> Record:
    """OpenAI's `amount: {value}` and Anthropic's `cache_creation: {…}` lie a level deeper. Names in small letters."""
    found: dict[str, object] = {name.lower(): value for name, value in record.items()}
    for name, value in record.items():
        if isinstance(value, dict):
            inner = cast("dict[str, object]", value)
            found |= {f"{name}_{key}".lower() if name == "amount" else key.lower(): held for key, held in inner.items()}
    if "amount_value" in found:
        found.pop("amount", None)
    return found


def _entry(record: Record, where: str) -> Entry:
    def number(names: Sequence[str], how: Callable[[object, str, str], int]) -> int | None:
        name = next((name for name in names if _given(record.get(name))), None)
        return None if name is None else how(record[name], where, name)

    def words(names: Sequence[str]) -> str | None:
        return next((str(record[name]) for name in names if _given(record.get(name))), None)

    cached, written = number(CACHED, _count), [_count(record[name], where, name) for name in WRITTEN if _given(record.get(name))]
    fresh, given_input = number(FRESH, _count), number(INPUT, _count)
    if fresh is not None:
        given_input = fresh + (cached or 0) + sum(written)
    cost_name = next((name for name in COST if _given(record.get(name))), None)
    cost = None if cost_name is None else _decimal(record[cost_name], where, cost_name)
    _insist_on_usd(record, where)
    output = number(OUTPUT, _count)
    day_name = next((name for name in DAY if _given(record.get(name))), None)
    said = number(CALLS, _count)
    return Entry(
        model=words(MODEL),
        day=None if day_name is None else _day(record[day_name], where, day_name),
        team=words(TEAM),
        deployment=words(DEPLOYMENT),
        calls=said if said is not None or _is_aggregate(record) else _is_billed(given_input, output, cost),
        input_tokens=given_input,
        cached_tokens=cached,
        output_tokens=output,
        cost_usd=cost,
    )


def _insist_on_usd(record: Record, where: str) -> None:
    for name in CURRENCY:
        if _given(record.get(name)) and str(record[name]).strip().upper() != "USD":
            raise Unreadable(f"{where}: {name} is {str(record[name])[:40]!r}; our books are in USD.")


def _is_aggregate(record: Record) -> bool:
    """True for a line that stands for many calls without saying how many: it belongs to a whole day."""
    return bool(
        {
            "start_time",
            "starting_at",
            "usage_date_utc",
            "chargeperiodstart",
            "line_item",
            "line_item_usage_type",
            "lineitem/usagetype",
        }
        & record.keys()
    )


def _is_billed(*amounts: int | Decimal | None) -> int:
    """1 for a call that something was billed for. A line that tells no amount at all is a call too."""
    told = [amount for amount in amounts if amount is not None]
    return int(any(told) or not told)


def _given(value: object) -> bool:
    return value is not None and value != "" and not isinstance(value, dict | list)


def _count(value: object, where: str, name: str) -> int:
    found = _decimal(value, where, name)
    if found != found.to_integral_value() or found < 0:
        raise Unreadable(f"{where}: {name} is {str(value)[:40]!r}; it should be a whole number.")
    return int(found)


def _decimal(value: object, where: str, name: str) -> Decimal:
    text = str(value).strip().removeprefix("$")
    try:
        found = Decimal(text.replace(",", "") if _GROUPED.fullmatch(text) else text)
    except InvalidOperation:
        found = Decimal("NaN")
    if isinstance(value, bool) or not found.is_finite():
        raise Unreadable(f"{where}: {name} is {str(value)[:40]!r}; it should be a number such as 1234.50.")
    return found


def _day(value: object, where: str, name: str) -> date:
    text = str(value).strip()
    try:
        if text.replace(".", "", 1).isdigit():
            seconds = float(text)
            return datetime.fromtimestamp(seconds / 1000 if seconds > _LATEST_S else seconds, UTC).date()
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    except (ValueError, OverflowError, OSError):
        raise Unreadable(f"{where}: {name} is {text[:40]!r}; it should be a time such as 2026-11-01T00:00:00Z.") from None
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise Unreadable(f"{where} is no JSON.") from None


def _objects(value: object) -> Iterator[dict[str, object]]:
    for one in cast("list[object]", value) if isinstance(value, list) else []:
        if isinstance(one, dict):
            yield cast("dict[str, object]", one)
