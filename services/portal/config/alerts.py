"""`alerts` of a sluice.yaml: rules and channels. Pure."""

from collections import Counter

from pydantic import ValidationError

from schemas.alerting import Alerting, EmailChannel, SlackChannel, WebhookChannel
from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from services.portal.config.findings import Findings
from services.portal.config.references import is_reference, wrong_with
from services.portal.config.shape import SPELLING, explain, unknown

_OURS = {"kind", "name", "version", "since_ms"}


def alerting(path: str, written: JsonObject, found: Findings) -> Alerting | None:
    """What is written under `alerts`; None where it can't be used."""
    given: JsonObject = {name: value for name, value in written.items() if name not in _OURS}
    try:
        read = Alerting.model_validate(given)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        found.problems += [explain("", _plain(e["loc"]), e["msg"], f"{path}.") for e in errors]
        return None
    known: JsonObject = read.model_dump(mode="json", exclude=_OURS)
    found.problems += [f"{where}: no such member; {SPELLING}{guess}" for where, guess in unknown(path, {**written}, known)]
    found.problems += [f"{path}.{problem}" for problem in problems(read)]
    return read


def check_channels(read: Alerting | None) -> None:
    """Raises InvalidRequest for channels that can't be used."""
    if read is not None and (wrong := problems(read)):
        raise InvalidRequest(f"alerts.{wrong[0]}.", param="alerts")


def problems(read: Alerting) -> list[str]:
    """What is wrong with channels beyond their shape, each with its place. Nothing of what is secret is repeated."""
    told = [
        f"channels: {name!r} stands twice; give each a name of its own"
        for name, n in Counter(channel.name for channel in read.channels).items()
        if n > 1
    ]
    for number, channel in enumerate(read.channels):
        match channel:
            case WebhookChannel(url=url, secret=secret):
                told += _reference(f"channels[{number}].secret", secret)
                if is_reference(url):
                    told += _reference(f"channels[{number}].url", url)
                elif not url.startswith(("https://", "http://")):
                    told.append(f"channels[{number}].url: write https://host/path, or a reference such as env:NAME")
            case SlackChannel(url=url):
                told += _reference(f"channels[{number}].url", url)
            case EmailChannel():
                pass
    return told


def _reference(path: str, text: str) -> list[str]:
    if not is_reference(text):
        return [f"{path}: it is a credential, so write a reference to it: env:NAME, file:NAME or vault:PATH#FIELD"]
    wrong = wrong_with(text)
    return [f"{path}: {wrong}"] if wrong else []


def _plain(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Without the kind of channel, which pydantic puts behind its number."""
    numbered = len(location) > 2 and location[0] == "channels"
    return (*location[:2], *location[3:]) if numbered else location
