"""Invoices as people and programs read them."""

from collections.abc import Sequence
from html import escape

from services.cli.report.sheet import Format, Sheet, Value, as_csv, as_table, exact_json, for_people, heading, html_table, page
from services.portal.reports.invoice import BY, Invoice

_COLUMNS = ("jobs", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd", "saved_usd")
_OF_A_LINE = tuple(name for name in BY if name != "team")


def invoices_written(invoices: Sequence[Invoice], form: Format) -> str:
    """All of them, one after the other."""
    match form:
        case Format.TABLE:
            return "\n".join(_as_text(one) for one in invoices)
        case Format.CSV:
            rows = [row for one in invoices for row in (*_rows(one), *_margin(one))]
            return "".join(as_csv(["invoice", "team", *_OF_A_LINE, *_COLUMNS], rows))
        case Format.JSON:
            return exact_json([one.model_dump() for one in invoices]) + "\n"
        case Format.HTML:
            return page("Invoices", [_as_html(one) for one in invoices])


def _sheet(invoice: Invoice) -> Sheet:
    of = invoice.subtotal
    total: list[Value] = ["subtotal", *("" for _ in _OF_A_LINE[1:]), *(getattr(of, name) for name in _COLUMNS)]
    return Sheet(invoice.number, [*_OF_A_LINE, *_COLUMNS], [row[2:] for row in _rows(invoice)], total)


def _rows(invoice: Invoice) -> list[list[Value]]:
    """A row a line."""
    return [
        [invoice.number, invoice.team, *(line.place[name] for name in _OF_A_LINE), *(getattr(line, name) for name in _COLUMNS)]
        for line in invoice.lines
    ]


def _margin(invoice: Invoice) -> list[list[Value]]:
    """The margin as a row, so that what a spreadsheet adds up is the total."""
    if not invoice.margin_percent:
        return []
    sums: list[Value] = [invoice.margin_usd if name == "cost_usd" else None for name in _COLUMNS]
    return [[invoice.number, invoice.team, *("margin" if name == "model" else "" for name in _OF_A_LINE), *sums]]


def _head(invoice: Invoice) -> list[str]:
    period = invoice.period
    return [
        f"Team {invoice.team or '(none)'}, organization {invoice.organization}",
        f"{period.first} to {period.last} ({period.time_zone}), issued {invoice.issued}"
        + ("; preliminary, the period is not over" if invoice.status == "preliminary" else ""),
    ]


def _foot(invoice: Invoice) -> list[str]:
    percent = format(invoice.margin_percent, "f")
    kind = "Discount" if invoice.margin_percent < 0 else "Margin"
    return [
        *([f"{kind} {percent} %: {for_people(invoice.margin_usd)} USD"] if invoice.margin_percent else []),
        f"Total: {format(invoice.total_usd, 'f')} USD",
        f"Due: {invoice.due_usd} USD",
        f"Estimated, as the provider told no tokens: {for_people(invoice.subtotal.estimated_usd)} USD",
        f"Prices: {', '.join(invoice.price_versions) or 'none'}",
    ]


def _as_text(invoice: Invoice) -> str:
    return "\n".join([f"Invoice {invoice.number}", *_head(invoice), "", as_table(_sheet(invoice)), *_foot(invoice)]) + "\n"


def _as_html(invoice: Invoice) -> str:
    foot = "".join(f"<p>{escape(words)}</p>" for words in _foot(invoice))
    return f"<section>{heading(f'Invoice {invoice.number}', *_head(invoice))}\n{html_table(_sheet(invoice))}\n{foot}</section>"
