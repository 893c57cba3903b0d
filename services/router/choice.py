"""Which model a request goes to before anybody is asked: by the first rule that fits, the split, or the classifier. Pure.

A model that is chosen may choose on. One without a deployment that the caller's policy lets be asked, and that leads to none, is
passed over: for the next rule, the other arms of the split in proportion to their weights, the next harder tier.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import get_args

from infra.reachable import may_ask
from schemas.control import Model
from schemas.job import Job
from schemas.routing import Auto, Split, TaskType, Tier, When
from services.router.auto.base import Judged
from services.router.features import Prompt

Chosen = tuple[Model, tuple[str, ...]]
"""The model to ask, and a short sentence for each choice on the way to it."""

FARTHEST = 16
"""As often a request is led on; no sensible configuration comes near it."""

_TASKS = frozenset[str](get_args(TaskType))
_TIERS: tuple[Tier, ...] = get_args(Tier)


class Unjudged(Exception):
    """The choice depends on what the classifier says, which wasn't asked yet: most choices don't."""


def chooses(model: Model) -> bool:
    """True if the model may lead a request to another one."""
    return bool(model.rules or model.split or model.auto)


def choose(models: Mapping[str, Model], asked: Model, job: Job, prompt: Prompt, judged: Judged | None = None) -> Chosen:
    """The model for a job of `asked`; that one itself if nothing else fits. Raises Unjudged."""
    return _Way(models, job, prompt, judged).on_from(asked, (asked.name,)) or (asked, ())


class _Way:
    """The search for one job: as deep as models lead, back where a way ends at nobody who may be asked."""

    def __init__(self, models: Mapping[str, Model], job: Job, prompt: Prompt, judged: Judged | None) -> None:
        self._models, self._job, self._prompt, self._judged = models, job, prompt, judged
        self._ended = set[str]()

    def on_from(self, model: Model, way: tuple[str, ...]) -> Chosen | None:
        """Where the model leads, or itself; None if nobody may be asked at either. `way`: the names up to this one."""
        stays = any(may_ask(d, self._job.policy.data, self._job.policy.route) for d in model.deployments)
        for name, why in self._candidates(model) if len(way) <= FARTHEST else ():
            if name not in way:
                found = (
                    None if name in self._ended or name not in self._models else self.on_from(self._models[name], (*way, name))
                )
                if found:
                    return found[0], (why, *found[1])
                self._ended.add(name)
            elif stays:
                # Whoever names its own model wants to keep the request; and nothing goes round in circles.
                back = "" if name == model.name else f", which leads back to {name}: it stays with {model.name}"
                return model, (why + back,)
        return (model, ()) if stays else None

    def _candidates(self, model: Model) -> Iterator[tuple[str, str]]:
        """Names of models, the best first, and why."""
        for rule in model.rules:
            held = self._held(rule.when)
            if held is not None:
                yield rule.model, f"rule `{rule.name}`: {', '.join(held) or 'always'}"
        if model.split:
            yield from _arms(model.split, model.name, self._job)
        if model.auto:
            yield from self._tiers(model.auto)

    def _held(self, when: When) -> list[str] | None:
        """The conditions in words, or None if one of them doesn't hold. What is dear to find out comes last."""
        said = list[str]()
        for holds, words in self._conditions(when):
            if not holds:
                return None
            said.append(words)
        return said

    def _conditions(self, when: When) -> Iterator[tuple[bool, str]]:
        job, prompt = self._job, self._prompt
        caller, labels = job.caller, job.labels
        user = caller.user if when.users and caller.user in when.users else caller.identity or caller.user
        for wanted, has, word in (
            (when.lanes, job.lane.value, "lane"),
            (when.teams, caller.team, "team"),
            (when.projects, caller.project, "project"),
            (when.environments, caller.environment, "environment"),
            (when.users, user, "user"),
            (when.features, labels.feature, "feature"),
            (when.segments, labels.segment, "segment"),
            *((wanted, labels.metadata.get(name), name) for name, wanted in when.metadata.items()),
        ):
            if wanted is not None:
                yield has in wanted, f"{word} {has}"
        if when.has_tools is not None:
            yield prompt.has_tools == when.has_tools, _with("tools", when.has_tools)
        if when.has_images is not None:
            yield prompt.has_images == when.has_images, _with("images", when.has_images)
        if when.contains is not None:
            found = next((word for word in when.contains if _says(prompt.last, word)), None)
            yield found is not None, f"says “{found}”"
        if when.min_prompt_tokens is not None or when.max_prompt_tokens is not None:
            yield _within(when, prompt.tokens), f"{prompt.tokens:,} prompt tokens"
        if when.has_code is not None:
            yield prompt.has_code == when.has_code, _with("code", when.has_code)
        if when.languages is not None:
            yield prompt.language in when.languages, f"language {prompt.language}"
        if when.task_types is not None:
            task, source = self._task()
            yield task in when.task_types, f"task {task} ({source})"

    def _task(self) -> tuple[str, str]:
        """What the request wants done, and who says so."""
        told = self._job.labels.metadata.get("task_type", "")
        if told in _TASKS:
            return told, "as the caller says"
        judged = self._judgement()
        return judged.task, f"{judged.task_chance:.2f}"

    def _tiers(self, auto: Auto) -> Iterator[tuple[str, str]]:
        """From the tier that was judged upwards, then downwards: a request is rather answered too well."""
        judged = self._judgement()
        at = _TIERS.index(judged.tier)
        why = f"auto: {judged.tier} ({judged.tier_chance:.2f})"
        because = f": {', '.join(judged.because)}" if judged.because else ""
        for tier in (*_TIERS[at:], *reversed(_TIERS[:at])):
            name: str | None = getattr(auto, tier)
            if name is not None:
                yield name, why + because + ("" if tier == judged.tier else f"; served by {tier}")

    def _judgement(self) -> Judged:
        if self._judged is None:
            raise Unjudged
        return self._judged


def _arms(split: Split, model: str, job: Job) -> Iterator[tuple[str, str]]:
    """The arms in the order in which this caller gets them.

    Weighted rendezvous hashing: each arm draws -ln(u) / weight from its own hash, and the least one wins. So the share of an arm
    is that of its weight, also among those that are left when others are passed over; and when one weight grows, callers only
    move to that arm, from each other one in proportion.
    """
    weights = defaultdict[str, float](float)
    for arm in split.arms:
        weights[arm.model] += arm.weight
    name, total = split.name or model, sum(weights.values())
    by, who = _stuck_to(split, job)

    def drawn(arm: str) -> float:
        digest = blake2b("\x1f".join((name, by, who, arm)).encode(errors="replace"), digest_size=8).digest()
        # The 53 bits that a float holds, and never nought.
        return -math.log(((int.from_bytes(digest) >> 11) + 0.5) / 2**53) / weights[arm]

    for arm in sorted(weights, key=drawn):
        yield arm, f"split `{name}`: arm {arm} ({100 * weights[arm] / total:.3g} %), {_STICKS[by]}"


_STICKS = {"user": "sticky by user", "key": "sticky by key", "team": "sticky by team", "request": "by chance"}


def _stuck_to(split: Split, job: Job) -> tuple[str, str]:
    """What a caller's way sticks to. Where no user is known, the key stands for one."""
    caller = job.caller
    match split.sticky:
        case "user":
            user = caller.user or caller.identity
            return ("user", user) if user else ("key", caller.key_id)
        case "key":
            return "key", caller.key_id
        case "team":
            return "team", caller.team
        case "request":
            return "request", job.id


def _within(when: When, tokens: int) -> bool:
    least, most = when.min_prompt_tokens, when.max_prompt_tokens
    return (least is None or tokens >= least) and (most is None or tokens <= most)


def _says(text: str, word: str) -> bool:
    """True for a whole word, in any case; in scripts without spaces anywhere."""
    letters = r"[0-9a-z\u00df-\u024f]"
    return re.search(rf"(?<!{letters}){re.escape(word.casefold())}(?!{letters})", text.casefold()) is not None


def _with(thing: str, has: bool) -> str:
    return thing if has else f"no {thing}"
