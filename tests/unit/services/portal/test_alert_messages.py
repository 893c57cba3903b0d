"""What a channel is sent: nothing in a name of somebody else's becomes a header, a link or a mention."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert
from services.portal.alert_messages import event, mail, slack

LINK = "https://sluice.corp.example/admin/v1/alerts/alert_1"
HOSTILE = "<!channel> <http://evil|ok> & \r\nBcc: eve@evil.example\r\n\r\n<script>"


def alert(message: str = "80 % are spent", **members: Any) -> Alert:
    given: dict[str, Any] = {"id": "alert_1", "at_ms": 1_800_000_000_000, "what": "budget_share", "scope": "team/fraud"}
    given |= {"team": "fraud", "facts": {"share": 0.8}}
    return Alert(message=message, **(given | members))


def test_an_event_has_the_alert_and_the_link() -> None:
    assert json.loads(event(alert(same="x"), LINK)) == {
        "id": "alert_1",
        "object": "event",
        "type": "alert.budget_share",
        "created_at": 1_800_000_000,
        "data": {
            "id": "alert_1",
            "at_ms": 1_800_000_000_000,
            "what": "budget_share",
            "scope": "team/fraud",
            "team": "fraud",
            "severity": "warning",
            "message": "80 % are spent",
            "facts": {"share": 0.8},
            "link": LINK,
        },
    }


def test_slack_gets_text_and_a_button_that_leads_here() -> None:
    said = json.loads(slack(alert(severity="critical"), LINK))
    assert said["text"] == ":rotating_light: 80 % are spent"
    section, context, actions = said["blocks"]
    assert section["text"] == {"type": "mrkdwn", "text": said["text"]}
    assert context["elements"][0]["text"] == "*critical* budget_share · team/fraud · team fraud · 2027-01-15 08:00:00 UTC"
    assert actions["elements"][0]["url"] == LINK


@given(st.text(max_size=5000))
def test_nobody_is_called_and_no_link_is_made_by_a_name(text: str) -> None:
    said = slack(alert(HOSTILE + text, scope=text, team=text), LINK).decode()
    assert "<" not in said


def test_a_section_of_slacks_is_never_too_long() -> None:
    assert len(json.loads(slack(alert("&" * 9000), LINK))["blocks"][0]["text"]["text"]) < 3000


def test_a_mail_says_it_twice_and_has_the_alerts_id() -> None:
    got = mail(alert(), LINK, "sluice@corp.example", ("ada@corp.example", "bob@corp.example"), "ops")
    assert got["Subject"] == "[Sluice] warning: 80 % are spent"
    assert (got["To"], got["From"]) == ("ada@corp.example, bob@corp.example", "sluice@corp.example")
    assert got["Message-ID"] == "<alert_1.ops@corp.example>"
    assert got["Date"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    text, html = (part.get_content() for part in got.iter_parts())
    assert text.splitlines() == [
        "80 % are spent",
        "",
        "kind: budget_share",
        "severity: warning",
        "about: team/fraud",
        "team: fraud",
        "at: 2027-01-15 08:00:00 UTC",
        "share: 0.8",
        "",
        LINK,
    ]
    assert f'href="{LINK}"' in html


@given(st.text(max_size=500))
def test_no_header_and_no_tag_comes_out_of_a_name(text: str) -> None:
    made = alert(HOSTILE + text, scope=text, facts={text: text})
    got = mail(made, LINK, "sluice@corp.example", ("ada@corp.example",), "ops")
    assert sorted(map(str.lower, got.keys())) == sorted(
        ["subject", "from", "to", "date", "message-id", "auto-submitted", "mime-version", "content-type"]
    )
    assert "<script>" not in [part.get_content() for part in got.iter_parts()][1]
    got.as_bytes()


def test_an_address_with_a_line_end_is_refused() -> None:
    with pytest.raises(ValueError, match="Header"):
        mail(alert(), LINK, "sluice@corp.example", ("a@b.example\r\nBcc: c@d.example",), "ops")
