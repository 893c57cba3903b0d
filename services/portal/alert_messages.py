"""What a channel is sent of an alert: a webhook's event, Slack's blocks, a mail. Pure.

Names in an alert are somebody else's text: for Slack `&<>` are escaped, so that no `<!channel>` and no link comes out of them; in
a header no line ends.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from typing import Final

from pydantic_core import to_json

from schemas.alert import Alert, Severity
from schemas.base import JsonObject

_SIGNS: Final[dict[Severity, str]] = {"info": ":information_source:", "warning": ":warning:", "critical": ":rotating_light:"}
_MOST_TEXT: Final = 550
"""Escaped, that is less than the 3,000 characters that a section of Slack's may have."""
_MOST_SUBJECT: Final = 120
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")


def event(alert: Alert, link: str) -> bytes:
    """A webhook's body (standard-webhooks; as the events of jobs have it). The `webhook-id` is the alert's id."""
    told: JsonObject = alert.model_dump(mode="json", exclude={"id", "same"})
    told["link"] = link
    body: JsonObject = {
        "id": alert.id,
        "object": "event",
        "type": f"alert.{alert.what}",
        "created_at": alert.at_ms // 1000,
        "data": {"id": alert.id, **told},
    }
    return to_json(body)


def slack(alert: Alert, link: str) -> bytes:
    """The body of an incoming webhook: `text` for notifications, blocks for the channel."""
    said = _slack_text(alert.message[:_MOST_TEXT])
    about = [f"*{alert.severity}* {alert.what}", _slack_text(alert.scope[:_MOST_TEXT])]
    about += [f"team {_slack_text(alert.team)}"] if alert.team else []
    body: JsonObject = {
        "text": f"{_SIGNS[alert.severity]} {said}",
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f"{_SIGNS[alert.severity]} {said}"}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join((*about, _time(alert)))}]},
            {
                "type": "actions",
                "elements": [{"type": "button", "text": {"type": "plain_text", "text": "Show the alert"}, "url": link}],
            },
        ],
    }
    return to_json(body)


def mail(alert: Alert, link: str, sender: str, to: Sequence[str], channel: str) -> EmailMessage:
    """A mail (RFC 5322), as text and as HTML. Its id is the alert's: who gets it twice can see that. Raises ValueError."""
    message = EmailMessage()
    message["Subject"] = _line(f"[Sluice] {alert.severity}: {alert.message}")[:_MOST_SUBJECT]
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Date"] = format_datetime(datetime.fromtimestamp(alert.at_ms / 1000, UTC))
    message["Message-ID"] = f"<{_line(alert.id)}.{channel}@{sender.partition('@')[2] or 'sluice'}>"
    message["Auto-Submitted"] = "auto-generated"
    rows = [
        ("kind", alert.what),
        ("severity", alert.severity),
        ("about", alert.scope),
        ("team", alert.team),
        ("at", _time(alert)),
    ]
    rows += [(_line(name), _shown(value)) for name, value in alert.facts.items()]
    shown = [(name, value) for name, value in rows if value]
    message.set_content("\n".join([alert.message, "", *(f"{name}: {value}" for name, value in shown), "", link, ""]))
    table = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in shown)
    message.add_alternative(
        f"<p><b>{escape(alert.message)}</b></p><table>{table}</table>"
        f'<p><a href="{escape(link)}">Show the alert</a> (<code>sluice alerts show {escape(alert.id)}</code>)</p>',
        subtype="html",
    )
    return message


def _slack_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shown(value: object) -> str:
    return _line(value if isinstance(value, str) else to_json(value).decode())


def _line(text: str) -> str:
    return _CONTROL.sub(" ", text)


def _time(alert: Alert) -> str:
    return datetime.fromtimestamp(alert.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
