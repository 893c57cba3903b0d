"""National identity and tax numbers: a shape, and the country's own checksum from python-stdnum.

A bare run of digits whose checksum one in ten passes by chance counts only beside a word that names it.
"""

from __future__ import annotations

from collections.abc import Callable

from stdnum.au import abn, tfn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cn import ric
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.exceptions import ValidationError
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar, pan
from stdnum.iso7064 import mod_11_2, mod_11_10
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.us import ssn
from stdnum.za import idnr as za_id

from services.guard.detectors.base import Confirm, Detector, compact, in_row, isolated

Valid = Callable[[str], bool]


def _checked(valid: Valid, separators: str = "") -> Confirm:
    """Confirm by a checksum; `separators` are what the checker wants to see kept in the number."""

    def confirm(text: str, start: int, end: int) -> bool:
        if not isolated(text, start, end) or (" " in text[start:end] and in_row(text, start, end)):
            return False
        number = text[start:end].upper() if separators else compact(text, start, end)
        return valid(number)

    return confirm


def _nric(number: str) -> bool:
    """Singapore's NRIC and FIN: weights 2 7 6 5 4 3 2, offset and check letters by series."""
    series, body, check = number[0], number[1:8], number[8]
    total = sum(int(digit) * weight for digit, weight in zip(body, (2, 7, 6, 5, 4, 3, 2), strict=True))
    if series == "M":
        return "KLJNPQRTUWX"[10 - (total + 3) % 11] == check
    letters = "JZIHGFEDCBA" if series in "ST" else "XWUTRQPNMLK"
    return letters[(total + (4 if series in "TG" else 0)) % 11] == check


def _nino(number: str) -> bool:
    """British national insurance number: no checksum, but prefixes that are never given out."""
    return number[:2] not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}


def _es_nif(number: str) -> bool:
    return dni.is_valid(number) or nie.is_valid(number)


def _idnr(number: str) -> bool:
    # stdnum also asks how often digits repeat; beside a word that names the number its checksum is enough.
    return number[0] != "0" and mod_11_10.is_valid(number)


def _ric(number: str) -> bool:
    # Not ric.is_valid: its look-up of the birth place raises KeyError on places it only half knows.
    try:
        ric.get_birth_date(number)
    except ValidationError:
        return False
    return mod_11_2.is_valid(number)


def _hetu(number: str) -> bool:
    # Since 2023 more letters may stand for the century; the checksum does not look at them.
    sign = "-" if number[6] in "-YXWVU" else "A" if number[6] in "ABCDEF" else "+"
    return hetu.is_valid(number[:6] + sign + number[7:])


def _detector(kind: str, pattern: str, valid: Valid, context: str | None = None, keep: str = "") -> Detector:
    near = rf"(?i)\b(?:{context})" if context else None
    return Detector(kind, rf"\b{pattern}", _checked(valid, keep), context=near)


DETECTORS = (
    _detector("us_ssn", r"\d{3}-\d{2}-\d{4}", ssn.is_valid),
    _detector("us_ssn", r"\d{3} ?\d{2} ?\d{4}", ssn.is_valid, r"ssn|social.?security"),
    _detector("br_cpf", r"\d{3}\.\d{3}\.\d{3}-?\d{2}", cpf.is_valid),
    _detector("br_cpf", r"\d{9}-?\d{2}", cpf.is_valid, "cpf"),
    _detector("in_pan", r"[A-Z]{3}[ABCFGHJLPTK][A-Z]\d{4}[A-Z]", pan.is_valid),
    _detector("in_aadhaar", r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}", aadhaar.is_valid),
    _detector("in_aadhaar", r"[2-9]\d{11}", aadhaar.is_valid, "aadhaar|aadhar|uidai|uid"),
    _detector("fi_hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Z]", _hetu, keep="-"),
    _detector("es_nif", r"(?i:\d{8}-?[a-z]|[xyz]-?\d{7}-?[a-z])", _es_nif),
    _detector("it_codice_fiscale", r"(?i:[a-z]{6}\d[0-9lmnp-v][a-z]\d[0-9lmnp-v][a-z]\d{3}[a-z])", codicefiscale.is_valid),
    _detector("fr_nir", r"[12] ?\d{2} ?[0-9]{2} ?\d[0-9AB] ?\d{3} ?\d{3} ?\d{2}", nir.is_valid),
    _detector("gb_nino", r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", _nino),
    _detector("gb_nhs", r"\d{3}[ -]?\d{3}[ -]?\d{4}", nhs.is_valid, "nhs|national health"),
    _detector("sg_nric", r"[STFGM]\d{7}[A-Z]", _nric),
    _detector("ch_ahv", r"756[. ]?\d{4}[. ]?\d{4}[. ]?\d{2}", ahv.is_valid),
    _detector("cn_ric", r"[1-8]\d{16}[0-9Xx]", _ric),
    _detector("kr_rrn", r"\d{6}-\d{7}", rrn.is_valid),
    _detector("mx_curp", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[0-9A-Z]\d", curp.is_valid),
    _detector("nl_bsn", r"\d{4}[. ]?\d{2}[. ]?\d{3}", bsn.is_valid, "bsn|burgerservice|sofi"),
    _detector("pl_pesel", r"\d{11}", pesel.is_valid, "pesel"),
    _detector("de_idnr", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", _idnr, r"steuer|idnr|identifikations|tax.?id|tin\b"),
    _detector("au_tfn", r"\d{3} ?\d{3} ?\d{2,3}", tfn.is_valid, r"tfn|tax.?file"),
    _detector("au_abn", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", abn.is_valid, r"abn|business.?number"),
    _detector("ca_sin", r"\d{3}[ -]?\d{3}[ -]?\d{3}", sin.is_valid, r"sin\b|social.?insurance|nas\b"),
    _detector("se_personnummer", r"(?:\d{2})?\d{6}[-+]?\d{4}", personnummer.is_valid, "personn", keep="-"),
    _detector("no_fodselsnummer", r"\d{6} ?\d{5}", fodselsnummer.is_valid, "f.dselsn|personn"),
    _detector("dk_cpr", r"\d{6}-?\d{4}", cpr.is_valid, "cpr|personn"),
    _detector("za_id", r"\d{13}", za_id.is_valid, r"(?:south.?african|sa|rsa).?id|id.?n|identity"),
)
