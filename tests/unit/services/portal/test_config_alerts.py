"""`alerts` of a sluice.yaml: what it may say, what is refused and how, and what of it is written."""

import pytest

from infra.kafka.table import ControlTable
from schemas.alerting import Alerting, EmailChannel, SlackChannel, WebhookChannel
from schemas.control import Organization
from schemas.errors import InvalidRequest
from services.portal.config import ConfigError, read
from services.portal.config.alerts import check_channels
from services.portal.declared import Changes, Configuration, changes

GOOD = """
alerts:
  rules: {errors: {share: 0.5}, slos: {chat: {ttft_ms: 2000}}}
  channels:
    - {name: ops, kind: slack, url: env:SLACK, only: {severities: [critical]}}
    - {name: mail, kind: email, to: [ada@corp.example]}
    - {name: pager, kind: webhook, url: https://pager.example/hook, secret: file:pager}
"""


def wanted(text: str) -> Configuration:
    return read([("f.yaml", text)]).over(Configuration())


def test_rules_and_channels_are_read() -> None:
    alerts = wanted(GOOD).alerts
    assert alerts is not None
    assert (alerts.rules.errors.share, alerts.rules.errors.least_calls, alerts.rules.slos["chat"].objective) == (0.5, 20, 0.99)
    assert [type(channel) for channel in alerts.channels] == [SlackChannel, EmailChannel, WebhookChannel]


BAD = {
    "alerts: {rule: {}}": "alerts.rule: no such member; check the spelling (did you mean rules?)",
    "alerts: {rules: {errors: {shares: 0.2}}}": "alerts.rules.errors.shares: no such member",
    "alerts: {rules: {slos: {m: {ttft_ms: 9, objective: 0.5}}}}": "alerts.rules.slos.m.objective: Input should be greater than",
    "alerts: {rules: {errors: {minutes: 60}}}": "alerts.rules.errors.minutes: Input should be less than or equal to 15",
    "alerts: {channels: [{name: a, kind: slak}]}": "alerts.channels[0]: Input tag 'slak'",
    "alerts: {channels: [{name: a, kind: slack, url: 'https://hooks.slack.com/hush'}]}": "alerts.channels[0].url: it is a",
    "alerts: {channels: [{name: a, kind: slack, url: 'vault:x'}]}": "alerts.channels[0].url: write vault:PATH#FIELD",
    "alerts: {channels: [{name: a, kind: webhook, url: 'ftp://x', secret: env:S}]}": "alerts.channels[0].url: write https://",
    "alerts: {channels: [{name: a, kind: webhook, url: 'https://x', secret: hush}]}": "alerts.channels[0].secret: it is",
    "alerts: {channels: [{name: a, kind: email, to: []}]}": "alerts.channels[0].to: Tuple should have at least 1",
    "alerts: {channels: [{name: a, kind: email, to: ['x@y, z@y']}]}": "alerts.channels[0].to[0]: String should match",
    'alerts: {channels: [{name: a, kind: email, to: ["x@y\\nBcc: z@y"]}]}': "alerts.channels[0].to[0]: String should match",
    "alerts: {channels: [{name: a, kind: email, to: [x@y]}, {name: a, kind: slack, url: env:S}]}": "'a' stands twice",
    "alerts: {channels: [{name: A B, kind: email, to: [x@y]}]}": "alerts.channels[0].name: String should match",
}


@pytest.mark.parametrize(("text", "problem"), BAD.items())
def test_what_can_not_be_used_is_told_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        wanted(text)
    told, *_ = refused.value.problems
    assert told.startswith("f.yaml: ")
    assert problem in told
    assert "hush" not in told


def test_two_files_may_not_both_have_them() -> None:
    with pytest.raises(ConfigError, match="another file has them already"):
        read([("a.yaml", GOOD), ("b.yaml", GOOD)])


def test_the_api_refuses_a_credential_too() -> None:
    with pytest.raises(InvalidRequest, match=r"alerts\.channels\[0\]\.url: it is a credential"):
        check_channels(Alerting(channels=(SlackChannel(name="a", url="https://hooks.slack.com/hush"),)))
    check_channels(None)


def change(table: ControlTable, asked: Configuration, now_ms: int) -> Changes:
    found = changes(table, asked, now_ms, lambda prefix: f"{prefix}_1")
    for resource in found.writes:
        table.put(resource)
    return found


def test_they_are_written_once_and_a_channel_that_stays_is_as_old_as_it_was() -> None:
    table = ControlTable()
    table.put(Organization(id="org_1", name="default"))
    assert len(change(table, wanted(GOOD), 1000).writes) == 1
    assert change(table, wanted(GOOD), 2000) == Changes((), ())
    change(table, wanted(GOOD.replace("name: mail", "name: letters")), 3000)
    alerting = table.alerting
    assert (alerting.version, dict(alerting.since_ms)) == (2, {"ops": 1000, "letters": 3000, "pager": 1000})
    assert change(table, wanted("teams: {fraud: {}}"), 4000).writes[0].kind == "team", "what isn't named stays"
    assert table.alerting == alerting
