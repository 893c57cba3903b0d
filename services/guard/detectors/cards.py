"""Payment cards: issuer prefix and length (ISO/IEC 7812, the networks' published ranges), then Luhn."""

from __future__ import annotations

from collections.abc import Iterator

from stdnum import luhn

from services.guard.detectors.base import Detector, Span, digits, in_row, isolated, word

# (first and last prefix, both of one length; lengths of the number)
_LONG = frozenset(range(16, 20))
_ISSUERS: tuple[tuple[int, int, frozenset[int]], ...] = (
    (4, 4, frozenset({16, 19})),  # Visa
    (51, 55, frozenset({16})),  # Mastercard
    (2221, 2720, frozenset({16})),  # Mastercard, since 2017
    (34, 34, frozenset({15})),  # American Express
    (37, 37, frozenset({15})),
    (6011, 6011, _LONG),  # Discover
    (644, 659, _LONG),
    (300, 305, frozenset(range(14, 20))),  # Diners Club
    (3095, 3095, frozenset(range(14, 20))),
    (36, 36, frozenset(range(14, 20))),
    (38, 39, frozenset(range(14, 20))),
    (3528, 3589, _LONG),  # JCB
    (1800, 1800, frozenset({15})),
    (2131, 2131, frozenset({15})),
    (62, 62, _LONG),  # UnionPay
    (2200, 2204, _LONG),  # Mir
    (60, 60, frozenset({16})),  # RuPay
    (5018, 5018, _LONG),  # Maestro
    (5020, 5020, _LONG),
    (5038, 5038, _LONG),
    (5893, 5893, _LONG),
    (6304, 6304, _LONG),
    (6759, 6763, _LONG),
)
_SHORTEST, _LONGEST = 12, 19
_CONTEXT = r"(?i)\b(?:(?:credit|debit|bank)?card|visa|master|maestro|amex|cc\b)"


def _lengths_by_prefix() -> dict[str, frozenset[int]]:
    return {str(prefix): lengths for first, last, lengths in _ISSUERS for prefix in range(first, last + 1)}


_LENGTHS = _lengths_by_prefix()


def _issued(number: str) -> bool:
    return any(len(number) in _LENGTHS.get(number[:n], ()) for n in (1, 2, 3, 4))


def _is_card(text: str, start: int, end: int) -> bool:
    number = digits(text, start, end)
    return _issued(number) and isolated(text, start, end) and luhn.checksum(number) == 0


def _is_named(text: str, start: int, end: int) -> bool:
    """Beside a word such as "card" every prefix that networks ever used will do: old Visa of 13, Maestro of 12 digits."""
    number = digits(text, start, end)
    return number[0] in "23456" and isolated(text, start, end) and not in_row(text, start, end) and luhn.checksum(number) == 0


def _groups(text: str, start: int, end: int) -> list[Span]:
    groups: list[Span] = []
    at = start
    while at < end:
        stop = at
        while stop < end and text[stop].isdigit():
            stop += 1
        if stop > at:
            groups.append((at, stop))
        at = stop + 1
    return groups


def _begins_as_iban(text: str, start: int, first: Span) -> bool:
    """`FR91 3049 4386 ...`: all groups are one number, and it is no card's."""
    country = text[max(0, start - 2) : start]
    return first[1] - first[0] == 2 and len(country) == 2 and country.isalpha() and not (start > 2 and word(text[start - 3]))


def _windows(text: str, start: int, end: int) -> Iterator[Span]:
    """Spans of whole groups that hold 12 to 19 digits: a card may stand in a row of other numbers.

    Groups are of 3 to 8 digits as on a card; smaller ones (4 1 1 1 ...) count only when the run is nothing but them.
    """
    groups = _groups(text, start, end)
    if start and word(text[start - 1]):
        if _begins_as_iban(text, start, groups[0]):
            yield from (group for group in groups if _SHORTEST <= group[1] - group[0] <= _LONGEST)
            return
        # `user42 4111 1111 ...`: only the first group belongs to something else.
        groups = groups[1:]
        if not groups:
            return
        start = groups[0][0]
    sizes = [stop - at for at, stop in groups]
    if _SHORTEST <= sum(sizes) <= _LONGEST and len(set(sizes[:-1])) == 1:
        yield start, end
    for first, (begin, _) in enumerate(groups):
        count = 0
        for last in range(first, len(groups)):
            count += sizes[last]
            if count > _LONGEST or (last > first and not 3 <= sizes[last] <= 8):
                break
            if count >= _SHORTEST:
                yield begin, groups[last][1]
            if sizes[last] < 3:
                break


_RUN = r"\d(?:[ .-]{0,3}\d){11,}"

DETECTORS = (
    Detector("card", _RUN, _is_card, _windows),
    Detector("card", _RUN, _is_named, _windows, context=_CONTEXT),
)
