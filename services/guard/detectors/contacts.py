"""How to reach somebody: e-mail, phone, IP and hardware addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from services.guard.detectors.base import Detector, Span, digits, isolated, word
from services.guard.detectors.fold import LETTER

_EMAIL = rf"[A-Za-z0-9{LETTER}._%+'-]+@[A-Za-z0-9{LETTER}-]+(?:\.[A-Za-z0-9{LETTER}-]+)+"


def _address(text: str, start: int, end: int) -> Iterator[Span]:
    """Quotes and dots around an address belong to the sentence."""
    while start < end and text[start] in ".'-%+":
        start += 1
    while end > start and text[end - 1] == "-":
        end -= 1
    yield start, end


def _is_email(text: str, start: int, end: int) -> bool:
    local, _, domain = text[start:end].partition("@")
    labels = domain.split(".")
    if _USERINFO.search(text[max(0, start - 80) : start]) or local == "git":
        return False
    return (
        0 < len(local) <= 64
        and len(domain) <= 253
        and len(labels[-1]) >= 2
        and labels[-1][0].isalpha()
        and ".." not in local
        and not any(label.startswith("-") or label.endswith("-") for label in labels)
        and labels[-1].lower() not in _FILES
    )


# scheme://user:password@host is an address of a server, as is git@host.
_USERINFO = re.compile(r"://[^\s/]{0,80}$")
# image@2x.png and the like.
_FILES = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js"})


def _is_ipv4(text: str, start: int, end: int) -> bool:
    if not isolated(text, start, end, ".") or _version(text, start):
        return False
    return _is_address(text[start:end])


def _version(text: str, start: int) -> bool:
    """ "version 1.2.3.4", "section 1.2.3.4": four numbers, but no address."""
    return _VERSION.search(text[max(0, start - 16) : start]) is not None


_VERSION = re.compile(r"(?i)(?:version|release|ver|rev|build|v|section|chapter|clause|figure)[\s.:=#\"']{0,4}$")


def _is_ipv6(text: str, start: int, end: int) -> bool:
    address = text[start:end]
    # `a::b` is Rust, and 12:30:45 is a time: ask for three groups, and ipaddress for the rest.
    groups = [group for group in address.split(":") if group]
    return len(groups) >= 3 and isolated(text, start, end, ".:") and _is_address(address)


def _is_address(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    # Every machine is 127.0.0.1: it points at nobody.
    return not (parsed.is_loopback or parsed.is_unspecified or address == "255.255.255.255")


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    """An address of hexadecimal groups may end a sentence or a line: `... fe80::1:2:3.`"""
    while end > start and text[end - 1] in ".:" and text[end - 2 : end] != "::":
        end -= 1
    yield start, end


def _is_mac(text: str, start: int, end: int) -> bool:
    return isolated(text, start, end, "-:") and len({*text[start:end]} & {":", "-"}) == 1


def _phone_ends(text: str, start: int, end: int) -> Iterator[Span]:
    """The whole match, then without its last groups: `+1 415 762 2488 12` ends in something else."""
    yield start, end
    for at in range(end - 1, start + 7, -1):
        if text[at].isdigit() and not text[at + 1 : at + 2].isdigit() and at + 1 != end:
            yield start, at + 1


def _dialled(written: str) -> str:
    """Digits of a number, its extension left out."""
    number = re.split("[xe]", written, maxsplit=1)[0]
    return digits(number, 0, len(number))


def _clear(text: str, start: int, end: int) -> bool:
    """No letter or digit touches the number, no digit is joined to it, and it is not the tail of a row of groups."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    joints = "-./" if text[start] in "+(" else "-./ "
    joined = (len(before) == 2 and before[1] in joints and before[0].isdigit()) or (
        len(after) == 2 and after[0] in "-./" and after[1].isdigit()
    )
    # 0049 0020 0068 ... is a row of code points.
    joined = joined or (text[start] == "0" and after[:1] == " " and after[1:].isdigit())
    return not (joined or (before and word(before[-1])) or (after and word(after[0])))


# Digits, country code included, where a country's plan has one length; E.164 allows 15 at most.
_PLAN_LENGTHS = {"1": {11}, "7": {11}, "33": {11}, "34": {11}, "91": {12}, "61": {11}, "31": {11}}


def _is_international(text: str, start: int, end: int) -> bool:
    written = text[start:end].replace("(0)", "")  # +41 (0)62: the zero is not dialled from abroad
    number = _dialled(written)
    prefix = "00" if number.startswith("00") else ""
    number = number.removeprefix(prefix)
    if not _clear(text, start, end) or not 8 <= len(number) <= 15 or number[0] == "0":
        return False
    expected = _PLAN_LENGTHS.get(number[:1]) or _PLAN_LENGTHS.get(number[:2])
    if prefix and written.isdigit() and len(number) < 10:
        return False  # more likely an order number padded with zeros
    return expected is None or len(number) in expected


_DAY, _MONTH = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
_DATE = re.compile(
    rf"\b(?:{_DAY}([-./]){_MONTH}\1(?:19|20)?\d\d|{_MONTH}([-./]){_DAY}\2(?:19|20)?\d\d|(?:19|20)\d\d([-./]){_MONTH}\3{_DAY})\b"
)


def _is_national(text: str, start: int, end: int) -> bool:
    """0-prefixed with separators (Europe, Asia): 9 to 11 digits."""
    written = text[start:end]
    return 9 <= len(_dialled(written)) <= 11 and not _DATE.search(written) and _clear(text, start, end)


# What stands right before a number that is dialled, and what before one that is not.
_DIALLED = re.compile(
    r"(?i)(?:(?<![a-z])(?:(?:tele)?phone|tel|mobile|mob|cell|cellular|call|fax|whatsapp|sms|dial)(?![a-z])[a-z_\s.:#='\"|-]{0,24}"
    r"|\b(?:desk|office|home|work)\s?:\s?|\b(?:text|texts|messages?|ring|reach|answering)(?: me| us)? (?:at|on|to):?\s?)\(?$"
)
_COUNTED = re.compile(
    r"(?i)(?<![a-z])(?:order|invoice|ticket|case|ref|reference|article|id|card|account|code|item|model|in)(?![a-z])"
)


def _is_local(text: str, start: int, end: int) -> bool:
    """Any 7 to 12 digits right after a word such as `phone:`."""
    before = text[max(0, start - 40) : start]
    said = _DIALLED.search(before)
    if said is None or _COUNTED.search(said.group()):
        return False
    written = text[start:end]
    return 7 <= len(_dialled(written)) <= 12 and not _DATE.search(written) and _clear(text, start, end)


_EXTENSION = r"(?: ?(?:x|ext\.?) ?\d{1,5})?"

DETECTORS = (
    Detector("email", _EMAIL, _is_email, _address),
    Detector("ip", r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", _is_ipv4),
    Detector("ip", r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:\.\d{1,3}){0,3}", _is_ipv6, _trimmed),
    Detector("mac", r"\b[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}", _is_mac),
    Detector("phone", r"(?:\+|\b00)[1-9](?:[ ().\-/]{0,3}\d){7,15}" + _EXTENSION, _is_international, _phone_ends),
    Detector(
        "phone",
        r"(?:\(|\b(?:1[ .-]?\(?)?)[2-9]\d{2}\)?[ .-]{0,2}[2-9]\d{2}[ .-]\d{4}" + _EXTENSION,
        _clear,
    ),
    Detector("phone", r"(?:\(|\b)0[1-9]\d{0,3}\)?[ \-/]\d{2,8}(?:[ \-]\d{2,8}){0,4}" + _EXTENSION, _is_national, _phone_ends),
    Detector(
        "phone",
        r"\(?\d(?:[ ().\-]{0,2}\d){6,11}" + _EXTENSION,
        _is_local,
        context=r"(?i)(?:^|[^a-z])(?:(?:tele)?phone|tel|mob|cell|call|fax|desk|office|home|work|whatsapp|sms|dial|ring|text|message|reach|answer)",
    ),
)
