"""Logs: one line of JSON an event on standard error, with nothing secret in it."""

import json
import logging
import re

_SECRET = re.compile(r"(sk-[A-Za-z0-9_-]{4})[A-Za-z0-9_-]+|(Bearer )\S+", re.IGNORECASE)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": scrub(record.getMessage()),
        }
        if record.exc_info:
            line["error"] = scrub(self.formatException(record.exc_info))
        return json.dumps(line)


def scrub(text: str) -> str:
    """The text without what looks like a credential."""
    return _SECRET.sub(lambda m: f"{m.group(1) or m.group(2)}…", text)


def configure(level: str) -> None:
    """Sends all logs of this process through one handler."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("faststream", "httpx", "httpcore", "uvicorn.error", "qdrant_client"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # aiokafka logs as errors what it then tries again: leaders that move, brokers that start.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
