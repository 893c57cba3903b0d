"""Credentials: what providers issue, by the prefix they document, and values assigned to a telling name.

A random-looking body is asked for everywhere, so that `sk-xxxx`, `<your key>` and names in prose stay what they are.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial

from services.guard.detectors.base import Confirm, Detector, Span, isolated, word

_URLSAFE = r"[A-Za-z0-9_-]"
_WORD = r"[A-Za-z0-9_]"
_ALNUM = r"[A-Za-z0-9]"
_HEX = r"[0-9a-f]"

# (prefix, characters of the body, fewest of them). Fewest is what tells a key from a word, not the issuer's exact
# length: formats grow.
_ISSUED: tuple[tuple[str, str, int], ...] = (
    ("sk-sl-", _WORD, 32),  # ours
    ("sk-ant-", _URLSAFE, 24),  # Anthropic
    ("sk-(?:proj|svcacct|admin|None)-", _URLSAFE, 24),  # OpenAI
    ("sk-or-", _URLSAFE, 24),  # OpenRouter
    ("sk-", _ALNUM, 20),  # OpenAI of old, DeepSeek, many others
    ("gh[pousr]_", _ALNUM, 30),  # GitHub
    ("github_pat_", _WORD, 30),
    ("gl(?:pat|ptt|dt|rt|soat|cbt|ft|imt|agent|oas|ffct)-", r"[A-Za-z0-9_.-]", 18),  # GitLab
    ("(?:AKIA|ASIA|ABIA|ACCA)", "[A-Z0-9]", 16),  # AWS
    ("AIza", _URLSAFE, 30),  # Google
    ("ya29\\.", _URLSAFE, 30),
    ("GOCSPX-", _URLSAFE, 20),
    ("(?:sk|rk|pk)_(?:live|test)_", _ALNUM, 16),  # Stripe
    ("whsec_", r"[A-Za-z0-9+/=]", 24),
    ("xox[abeoprs]-", r"[A-Za-z0-9.-]", 20),  # Slack
    ("xapp-", r"[A-Za-z0-9-]", 30),
    ("(?:SK|AC)", _HEX, 32),  # Twilio
    ("SG\\.", r"[A-Za-z0-9_.-]", 40),  # SendGrid
    ("key-", _HEX, 32),  # Mailgun
    ("hf_", _ALNUM, 30),  # Hugging Face
    ("api_org_", _ALNUM, 30),
    ("npm_", _ALNUM, 30),
    ("pypi-", _URLSAFE, 50),
    ("rubygems_", _HEX, 40),
    ("dop_v1_", _HEX, 40),  # DigitalOcean
    ("do[or]_v1_", _HEX, 40),
    ("shp(?:at|ca|pa|ss)_", "[0-9a-fA-F]", 30),  # Shopify
    ("sq0(?:atp|csp|idp)-", _URLSAFE, 20),  # Square
    ("EAAA", _URLSAFE, 56),
    ("dapi", _HEX, 32),  # Databricks
    ("gsk_", _ALNUM, 40),  # Groq
    ("xai-", _ALNUM, 60),
    ("pplx-", _ALNUM, 40),
    ("r8_", _ALNUM, 36),  # Replicate
    ("fw_", _ALNUM, 22),  # Fireworks
    ("nvapi-", _URLSAFE, 50),
    ("lin_api_", _ALNUM, 36),
    ("ntn_", _ALNUM, 40),  # Notion
    ("secret_", _ALNUM, 40),
    ("PMAK-", r"[0-9a-f-]", 50),  # Postman
    ("NRAK-", "[A-Z0-9]", 24),  # New Relic
    ("gl(?:sa|c)_", r"[A-Za-z0-9_+/=]", 32),  # Grafana
    ("hv[sbr]\\.", _URLSAFE, 24),  # Vault
    ("dp\\.(?:pt|st|ct|sa)\\.", r"[A-Za-z0-9_.-]", 40),  # Doppler
    ("figd_", _URLSAFE, 36),
    ("ATATT3", r"[A-Za-z0-9_=-]", 60),  # Atlassian
    ("sntry[su]_", r"[A-Za-z0-9+/=_]", 50),  # Sentry
    ("fo1_", _URLSAFE, 40),  # Fly
    ("sbp_", _HEX, 36),  # Supabase
    ("sb_secret_", _URLSAFE, 20),
    ("vc[picsar]_", _ALNUM, 24),  # Vercel
    ("pscale_(?:tkn|oauth|pw)_", r"[A-Za-z0-9_.=-]", 30),
    ("LTAI", _ALNUM, 16),  # Alibaba
    ("oy2", "[a-z0-9]", 40),  # NuGet
    ("AGE-SECRET-KEY-1", "[A-Z0-9]", 50),
    ("ops_eyJ", r"[A-Za-z0-9+/=]", 100),  # 1Password
    ("tskey-(?:api|auth|client)-", r"[A-Za-z0-9-]", 20),  # Tailscale
    ("CFPAT-", _URLSAFE, 40),
    ("pat-(?:na|eu)1-", r"[0-9a-f-]", 30),  # HubSpot
)
_PLACEHOLDER = re.compile(r"(?i)example|placeholder|your|change.?me|redacted|dummy|insert|x{4}|\*{3}|\.{3}|0{6}|<|\{|1234567890")


def entropy(text: str) -> float:
    """Shannon entropy in bits a character; 0 for an empty text. Random base62 of 32 characters has about 4.5, hex 3.6."""
    length = len(text)
    return -sum(n / length * math.log2(n / length) for n in Counter(text).values())


def _random(body: str, bits: float = 2.9) -> bool:
    # Past some hundred characters more text tells nothing new about randomness, and costs.
    sample = body[:256]
    return entropy(sample) >= bits and not _PLACEHOLDER.search(sample)


def _is_issued(prefix: re.Pattern[str], fewest: int, text: str, start: int, end: int) -> bool:
    head = prefix.match(text, start)
    if head is None or (end < len(text) and word(text[end])) or end - head.end() < fewest:
        return False
    body = text[head.end() : end]
    return _random(body) and (body.isupper() or _mixed(body, 2))


def _mixed(body: str, fewest: int = 3) -> bool:
    """Capitals and digits inside words, as chance makes them and names do not: `my-app-v2-prod1` has two."""
    return len(re.findall(r"[a-z](?=[A-Z0-9])|[A-Z](?=[0-9])|[0-9](?=[A-Za-z])", body[:256])) >= fewest


def _without_full_stop(text: str, start: int, end: int) -> Iterator[Span]:
    while end > start and text[end - 1] == ".":
        end -= 1
    yield start, end


def _issued(prefix: str, body: str, fewest: int) -> Detector:
    confirm: Confirm = partial(_is_issued, re.compile(prefix), fewest)
    return Detector("api_key", rf"\b{prefix}{body}{{12,}}", confirm, _without_full_stop)


def _is_jwt(text: str, start: int, end: int) -> bool:
    header = text[start : text.index(".", start)]
    try:
        parsed: object = json.loads(base64.urlsafe_b64decode(header[:4096] + "=" * (-len(header) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and "alg" in parsed


_KEY_BODY = 16_384
_KEY_LINES = re.compile(r"(?:\s|\\n|\\r)*(?:[A-Za-z0-9+/=]{16,}(?:\s|\\n|\\r)*)*")


def _key_block(text: str, start: int, end: int) -> Iterator[Span]:
    """From the header to its footer; where that is missing or far, as much as looks like a key."""
    limit = min(len(text), end + _KEY_BODY)
    following = text.find("-----BEGIN", end, limit)
    limit = limit if following < 0 else following
    footer = text.find("-----END", end, limit)
    if footer >= 0:
        close = text.find("-----", footer + 8, footer + 80)
        yield start, (footer + 8 if close < 0 else close + 5)
        return
    lines = _KEY_LINES.match(text, end, limit)
    yield start, (lines.end() if lines else end)


def _always(text: str, start: int, end: int) -> bool:
    return True


def _is_connection(text: str, start: int, end: int) -> bool:
    """user:password@host, the password not a variable."""
    authority = text[start:end].split("://", 1)[1]
    password = authority.rsplit("@", 1)[0].partition(":")[2]
    return len(password) >= 3 and not _VARIABLE.search(password) and not _PLACEHOLDER.search(password)


_VARIABLE = re.compile(
    r"(?i)^\$(?-i:[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*)$|^\$?[{(].*[)}]$|^%\w*%$|%\(\w+\)s|^<|^\[|^\*+$"
    r"|^(?:password|passwd|pass|pwd|secret|token|user|username)$"
)
_CODE = re.compile(r"(?i)^(?:os\.|env|process\.|getenv|config|self\.|null|none|true|false|str\b|string|function|undefined)|[()]")


def _is_assigned(bits: float, text: str, start: int, end: int) -> bool:
    """The value of `api_key = "..."`: random, neither a variable nor a call nor an id."""
    value = text[start:end]
    if _VARIABLE.search(value) or _CODE.search(value) or _is_uuid(value):
        return False
    return _random(value, bits) and _mixed(value)


def _is_uuid(value: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value) is not None


def _is_password(text: str, start: int, end: int) -> bool:
    value = text[start:end]
    if _VARIABLE.search(value) or _CODE.search(value) or _PLACEHOLDER.search(value):
        return False
    kinds = sum(any(test(char) for char in value) for test in (str.islower, str.isupper, str.isdigit, _symbol))
    return kinds >= (2 if any(map(str.isdigit, value)) else 3) and len(set(value)) >= 5 and not _ATTRIBUTE.fullmatch(value)


_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|\w+\[.*")  # hashlib.sha256, Optional[str]


def _symbol(char: str) -> bool:
    return not char.isalnum()


# AWS' secret key has 40 characters of base64, an Azure storage key 88 with the padding: nothing else to know them by.
_BARE_LENGTHS = frozenset({40, 88})
_DIGEST = re.compile(r"(?i)(?:sha\d{1,3}[-:=]|base64,|integrity.{0,4})$")


def _is_bare(text: str, start: int, end: int) -> bool:
    value = text[start:end]
    if len(value) not in _BARE_LENGTHS or (len(value) == 88) != value.endswith("=="):
        return False
    if not isolated(text, start, end, "") or _DIGEST.search(text[max(0, start - 16) : start]):
        return False
    return _random(value, 4.0) and _mixed(value) and value.count("/") < 7


_NAMES = (
    r"(?:api|app|access|auth|account|bearer|client|consumer|encryption|master|private|secret|service|session|signing|storage"
    r"|webhook)[_. -]?(?:key|token|secret|credential)s?|secret|token|credentials?|apikey"
)
_ASSIGN = r"[\"'\x60]?\s{0,3}(?::=|=>|[:=]|\bis\b)\s{0,3}[\"'\x60]?"
_SCHEMES = (
    "postgres(?:ql)?|mysql|mariadb|mongodb|rediss?|amqps?|mssql|sqlserver|clickhouse|cockroachdb|oracle|nats|kafka|ldaps?"
    "|smtps?|ftps?|sftp|ssh|https?"
)

DETECTORS = (
    Detector(
        "private_key",
        r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d",
        _always,
        _key_block,
    ),
    Detector("jwt", r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*", _is_jwt),
    Detector(
        "connection_url",
        rf"(?i)\b(?:{_SCHEMES})(?:\+[a-z0-9]+)?://[^\s:/@\"'<>]*:[^\s\"'<>/]+@[^\s\"'<>\x60),;]+",
        _is_connection,
        _without_full_stop,
    ),
    *(_issued(prefix, body, fewest) for prefix, body, fewest in _ISSUED),
    Detector("api_key", r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/]{20,}", _always),
    Detector("api_key", r"https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/\d+/[A-Za-z0-9_-]{20,}", _always),
    Detector("api_key", r"\b\d{8,10}:AA[A-Za-z0-9_-]{30,}", partial(_is_assigned, 3.5)),  # Telegram
    Detector("api_key", r"\b[0-9a-f]{32}-us\d{1,2}\b", partial(_is_assigned, 2.9)),  # Mailchimp
    Detector(
        "api_key",
        r"[A-Za-z0-9/+]{40,}={0,2}",
        _is_bare,
        context=r"(?i)(?:key|secret|token|aws|azure|credential|password|login|client)",
    ),
    Detector("api_key", r"(?i)\b(?:bearer|basic)\s{1,3}([A-Za-z0-9._~+/-]{20,}=*)", partial(_is_assigned, 3.2)),
    Detector("api_key", rf"(?i)(?:{_NAMES}){_ASSIGN}([A-Za-z0-9_./+=~-]{{16,}})", partial(_is_assigned, 3.3)),
    Detector(
        "password",
        r"(?i)(?:password|passwd|passwort|passphrase|pwd)" + _ASSIGN + r"([^\s\"'\x60<>,;]{8,})",
        _is_password,
    ),
)
