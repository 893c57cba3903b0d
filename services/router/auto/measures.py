"""What can be measured of a text without understanding it: the classifier's features beside the embedding. Pure."""

import re
from dataclasses import dataclass
from math import log1p

from infra import tokens
from services.router.features import has_code, language


@dataclass(frozen=True, slots=True)
class Measure:
    """A feature: its value, and in words what it says; no words for what is not there."""

    value: float
    words: str


_MARKS = {
    "maths": r"[=+×÷^√∑∫≤≥∈∀]|\b(?:prove|proof|theorem|integral|derivative|equation|matrix|polynomial|probability"
    r"|integers?|primes?|percent|beweise?n?|gleichung|ableitung|wahrscheinlichkeit|démontre[rz]?|équation"
    r"|probabilité|demuestra|ecuación|докажите|найди)\b|证明|多少|解方程",
    "thought": r"\b(?:prove|proof|derive|design|architect\w*|strateg\w+|analy[sz]e\w*|compare|evaluate|trade-?offs?"
    r"|justif\w+|argue\w*|critical\w*|rigorous\w*|synthes\w+|assumptions?|counter\w+|hypothes[ei]s"
    r"|consisten\w+|contradict\w*|optimi[sz]e\w*|debug|concurren\w+|race|invariants?|guarantees?|distributed"
    r"|uncertain\w*|weigh|defend|implications|interplay|entwirf|beweise?n?|begründe\w*|bewerte\w*|abwäg\w*"
    r"|berücksichtige\w*|démontre[rz]?|conce[vz]\w*|justifi\w+|analysez?|demuestra|analiza\w*|justifica\w*"
    r"|докажите|проанализируй|обоснуй)\b|证明|设计|分析|论证|推演|权衡",
    "lookup": r"\b(?:what(?:'s| is| are| does| was)|who|when|where|which|define|definition|meaning|capital|name|how many"
    r"|how much|yes or no|was (?:ist|heißt)|wer|wann|wo|quelle?|qui|cuál|cuánt\w+|quién|qué|quanto|chi|wat is"
    r"|сколько|кто|какая)\b|什么|哪|几",
    "conditions": r"\b(?:must|at least|at most|exactly|without|no more than|only|each|every|under \d+|keep|should|including"
    r"|with)\b",
    "translate": r"\b(?:translat\w+|übersetz\w*|tradui\w*|traduc\w*|traduz\w*|vertaal|przetłumacz|çevir|локализ\w+"
    r"|переве\w+|localise|how do you say|in (?:french|german|spanish|english|italian|japanese|polish))\b|翻译|译成"
    r"|訳し|翻訳|번역|ترجم",
    "summarise": r"\b(?:summar\w+|tl;?dr|sum up|gist|condense|shorten|takeaways|abstract|synthesi[sz]\w*|distil|fasse"
    r"|zusammen|résume\w*|resume|riassumi|изложени\w+|кратко)\b|概括|总结|要約",
    "classify": r"\b(?:classif\w+|categor\w+|label|sentiment|spam|positive|negative|intent|toxic|tag|decide (?:if|whether)"
    r"|rate|which (?:class|category)|assess|ordne|klassifizier\w*|kategorie|classe|clasifica\w*|позитивн\w+"
    r"|отзыв)\b|正面|负面|属于",
    "extract": r"\b(?:extract\w*|pull out|list (?:all|the|every)|find (?:all|the)|parse|json|csv|table of|give me (?:all"
    r"|only)|nenne|ermittle|extrais|extrae|estrai)\b|提取|抜き出",
    "write": r"\b(?:write|draft|compose|rewrite|rephrase|slogan|email|letter|story|poem|essay|speech|post|grammar"
    r"|polite|schreibe?|formuliere|écri[st]|rédige[rz]?|escribe|redacta|scrivi|schrijf|напиши|escreva)\b|写|撰写"
    r"|書いて",
    "program": r"\b(?:python|java|javascript|typescript|rust|go|sql|regex|bash|git|css|html|api|code|function|script|bug"
    r"|class|query|docker\w*|kubectl|c\+\+|c#|pandas|react|json|implement\w*|compil\w+|refactor\w*|unit tests?"
    r"|programm?\w*|funktion|fonction)\b|函数|代码",
}
_WORDS = {
    "maths": "maths",
    "thought": "asks for thought",
    "lookup": "a question of fact",
    "conditions": "conditions",
    "translate": "to translate",
    "summarise": "to sum up",
    "classify": "to classify",
    "extract": "to extract",
    "write": "to write",
    "program": "about programs",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _MARKS.items()}
_ITEMS = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])[ ]", re.MULTILINE)

NAMES = ("tokens", "lines", "items", "digits", "questions", "code", "foreign", *_MARKS)
"""In the order of `measure`. Weights name those that they were trained on."""


def measure(text: str) -> tuple[Measure, ...]:
    """One for each of NAMES. Counts are taken by their logarithm: the tenth condition says less than the first."""
    lowered, count, tongue = text.lower(), tokens.count(text), language(text)
    items, code = len(_ITEMS.findall(text)), has_code(text)
    digits = sum(map(str.isdigit, text)) / max(1, len(text))
    return (
        Measure(log1p(count), f"{count:,} token{'s' * (count != 1)}"),
        Measure(log1p(text.count("\n")), "many lines" if text.count("\n") else ""),
        Measure(log1p(items), "a list" if items else ""),
        Measure(digits, "numbers" if digits else ""),
        Measure(log1p(text.count("?") + text.count("？")), "questions" if "?" in text else ""),
        Measure(float(code), "code" if code else ""),
        Measure(float(tongue not in ("en", "")), f"language {tongue}" if tongue not in ("en", "") else ""),
        *(_marked(name, lowered) for name in _MARKS),
    )


def _marked(name: str, text: str) -> Measure:
    found = len(set(_PATTERNS[name].findall(text)))
    return Measure(log1p(found), _WORDS[name] if found else "")
