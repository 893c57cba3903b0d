"""Personal data and secrets in a text: `Scanner(kinds).scan(text)`, `redact(text, findings)`."""

from services.guard.detectors.base import Finding
from services.guard.detectors.scan import KINDS, Scanner, redact

__all__ = ["KINDS", "Finding", "Scanner", "redact"]
