"""Bank accounts and wallets: IBAN by the registry's lengths and its checksum, Bitcoin by its own, Ethereum by shape."""

from __future__ import annotations

from collections.abc import Iterator

from stdnum import bitcoin, iban

from services.guard.detectors.base import Detector, Span, compact, isolated

# SWIFT IBAN registry: characters by country.
_REGISTRY = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18
FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20
LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24
SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _REGISTRY.split()}
_WIDEST = 2 * max(_LENGTHS.values())


def _by_registry(text: str, start: int, end: int) -> Iterator[Span]:
    """From country and check digits to where an account of that country ends, at most one separator between groups."""
    left = _LENGTHS.get(text[start : start + 2].upper(), 0) - (end - start)
    if left <= 0:
        return
    separated = False
    for at in range(end, min(len(text), end + _WIDEST)):
        char = text[at]
        if char.isascii() and char.isalnum():
            left -= 1
            separated = False
            if left == 0:
                yield start, at + 1
                return
        elif char in " -." and not separated:
            separated = True
        else:
            return


def _is_iban(text: str, start: int, end: int) -> bool:
    # check_country would also ask for a country's own check digits inside: stricter than the IBAN itself.
    return isolated(text, start, end) and iban.is_valid(compact(text, start, end), check_country=False)


def _is_bitcoin(text: str, start: int, end: int) -> bool:
    return isolated(text, start, end, "") and end - start <= 90 and bitcoin.is_valid(text[start:end])


def _is_ethereum(text: str, start: int, end: int) -> bool:
    return end - start == 42 and isolated(text, start, end, "") and len(set(text[start + 2 : end].lower())) > 4


DETECTORS = (
    Detector("iban", r"\b[A-Za-z]{2}\d{2}", _is_iban, _by_registry),
    Detector("crypto", r"\b[13][1-9A-HJ-NP-Za-km-z]{25,}", _is_bitcoin),
    Detector("crypto", r"(?i)\bbc1[02-9ac-hj-np-z]{11,}", _is_bitcoin),
    Detector("crypto", r"\b0x[0-9A-Fa-f]{40,}", _is_ethereum),
)
