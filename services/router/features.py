"""What a request says of itself: length, code, tools, pictures, language. Pure, and rough where it judges a text."""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import cast

from infra import tokens
from schemas.base import JsonObject
from schemas.job import Api

_CODE_CHARACTERS = 16_384
_LANGUAGE_CHARACTERS = 2_000

GIST_CHARACTERS = 4_000
"""As much is judged: the embedder reads 256 tokens, and where a text goes on for pages its first ones tell."""

_ENOUGH = 80


class Prompt:
    """The request; each of its features is worked out when it is first asked for, and then known."""

    def __init__(self, api: Api, body: JsonObject) -> None:
        self._api, self._body = api, body

    @cached_property
    def tokens(self) -> int:
        """Of the whole prompt, as our tokenizer counts them."""
        return tokens.prompt_tokens(self._api, self._body)

    @cached_property
    def has_tools(self) -> bool:
        return bool(self._body.get("tools") or self._body.get("functions"))

    @cached_property
    def has_images(self) -> bool:
        contents = (message.get("content") for message in self._messages)
        return any(_is_image(part) for content in contents if isinstance(content, list) for part in content)

    @cached_property
    def has_code(self) -> bool:
        """True if anybody but the system speaks in code, as far as the last 16,384 characters tell."""
        said = (tokens.content_text(m.get("content")) for m in self._messages if m.get("role") not in ("system", "developer"))
        return has_code("\n".join(said)[-_CODE_CHARACTERS:] if self._messages else self.last)

    @cached_property
    def language(self) -> str:
        """Of the user's last message."""
        return language(self.last)

    @cached_property
    def last(self) -> str:
        """The user's last message; of a request without messages its input."""
        return next(self._from_user(), "")

    @cached_property
    def gist(self) -> str:
        """What is judged: the user's last message, and what stood before it where it is short ("and in French?")."""
        texts, length = list[str](), 0
        for text in self._from_user():
            texts.append(text)
            length += len(text)
            if length >= _ENOUGH:
                break
        return "\n".join(reversed(texts))[:GIST_CHARACTERS]

    @cached_property
    def _messages(self) -> list[JsonObject]:
        given = self._body.get("messages")
        return [message for message in given if isinstance(message, dict)] if isinstance(given, list) else []

    def _from_user(self) -> Iterator[str]:
        """Texts of the user, the last one first."""
        if not self._messages:
            given = self._body.get("input")
            yield given if isinstance(given, str) else "\n".join(_texts(given))
        for message in reversed(self._messages):
            if message.get("role") == "user":
                yield tokens.content_text(message.get("content"))


def _is_image(part: object) -> bool:
    return isinstance(part, dict) and cast("JsonObject", part).get("type") == "image_url"


def _texts(given: object) -> Iterator[str]:
    if isinstance(given, list):
        yield from (one for one in cast("list[object]", given) if isinstance(one, str))


_CODE = re.compile(
    r"""
    ^[ \t]*```                                              # a fence
    | ^[ \t]*(?:async[ ])?def[ ]\w+\(                       # Python
    | ^[ \t]*(?:from[ ][\w.]+[ ]import[ ][\w*{(]|import[ ][\w.{*]+(?:[ ]as[ ]\w+)?;?[ \t]*$)
    | ^[ \t]*for[ ]\w+(?:,[ ]?\w+)?[ ]in[ ][^\n]{1,80}:[ \t]*(?:$|\w[\w.]*\()
    | ^[ \t]*(?:if|elif|while)[ ][^\n]{0,80}(?:[=!<>]=|[<>(])[^\n]{0,80}:[ \t]*$
    | ^[ \t]*class[ ]\w+(?:\([\w., ]*\)|[ ][\w ]{1,80})?[ ]?[:{][ \t]*$
    | ^Traceback[ ]\(most
    | ^[ \t]*(?:if|for|while|switch|catch)[ ]?\([^\n]{1,120}[{;][ \t]*$   # C, Java, JavaScript
    | \b(?:public|private|protected|static|export|async)[ ](?:[\w<>\[\]]{1,40}[ ]){1,3}\w{1,80}[({]
    | \bfunction\b[ ]?\w*\([^)\n]{0,80}\)[ ]?\{
    | \bfunc[ ]\w+\( | \bfn[ ]\w+[<(]
    | \b(?:const|var|auto|int|float|double|char|bool|String)[ ]\w+(?:\[\])?[ ]?=[ ]?[^=\s]
    | \blet[ ]\w+[ ]?=[^\n]{1,80};
    | \)[ ]?=>[ ]?[\w({] | =>[ ]?\{
    | ^[ \t]*\#(?:include|define|ifdef)\b | ^\#!/
    | ^[ \t]*</?[a-z][a-z0-9]*(?:[ ][a-z-]+="[^"\n]{0,200}")*[ ]?/?>        # markup
    | \bSELECT\b[^;?]{1,300}?\bFROM\b | \bCREATE[ ]TABLE\b | \bINSERT[ ]INTO\b
    | ^[ \t]*(?:\w+\.)*(?:print|printf|println|log|puts)\([^\n]
    | [;{][ \t]*\n[ \t]*(?:\}|\w+[ ]?[.=(])
    | ^[ \t]*[\w.]+[ ]=[ ][\w.]+[(\[]                      # an assignment of a call
    | ^\$[ ]\w+                                             # a shell
    """,
    re.MULTILINE | re.VERBOSE,
)


def has_code(text: str) -> bool:
    """True for a fence, or a line that is typical of a programming language. A word such as "Python" alone is none."""
    return _CODE.search(text) is not None


_SCRIPTS = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af\u1100-\u11ff]"),
    "zh": re.compile(r"[\u3400-\u9fff]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
}
"""Japanese first: it is written with Chinese signs too. Other languages in these scripts are taken for these."""

_STOP_WORDS = {
    "de": "aber als am auch auf aus bei bitte das dass dem den der des die dies ein eine einen einer es für hat ich im in "
    "ist kann mir mit nach nicht noch oder sich sie sind so über um und uns von vor was welche wenn wer wie wir wird "
    "zu zum zur",
    "en": "a about an and are as at be but by can do does for from have how i in is it me my not of on or please should "
    "that the this to was we what when where which who why will with would you your",
    "es": "al como con cómo cuál cuándo de del dónde el ella en entre es esta este hay la las lo los me mi muy más no o "
    "para pero por qué que se si sin sobre su también un una y ya está son favor",
    "fr": "à au aux avec c'est ce cette comment dans de des du elle en est et il je j'ai l'on la le les leur ma mais mon ne "
    "nous ou où par pas plus pour quel quelle qu'est que qui sa se ses son sont sur un une vous",
    "it": "al alla anche che chi ci come con cosa da dal dei del della delle di e è gli ho i il in la le lo ma mi nel nella "
    "non o per perché più quale quando questo se si sono su sul un una uno",
    "nl": "aan al als bij dat de deze die dit door een en er geen had heb heeft het hij hoe ik in is je kan maar me met "
    "mijn naar niet of om ons ook op over te tot uit van voor waar was wat we welke wie wij zijn",
    "pl": "a ale bardzo był być co czy dla do gdzie i ile ja jak jaka jaki jakie jest jestem już ma mi mnie na nie o od "
    "oraz po przez proszę są się ta tak tego ten to tym w we z za ze że",
    "pt": "a ao aos as com como da das de do dos e é ela ele em entre está eu foi isso isto mais mas me meu minha muito na "
    "não nas no nos o os ou para pela pelo por qual quando que quem se seu sua são também um uma você",
    "tr": "ama ben bir bu da daha de değil en gibi hangi için ile ise kadar ki mı mi mu mü mıdır nasıl ne neden nedir o "
    "olarak olan sen şu var ve veya ya yok",
}
_SIGNS = {"de": "äß", "es": "ñ¿¡", "fr": "çèêœ", "pl": "ąęłńśźż", "pt": "ãõ", "tr": "ğışİ"}
_WORDS = {code: frozenset(words.split()) for code, words in _STOP_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


def language(text: str) -> str:
    """ISO 639-1 code of one of fourteen languages, or "" if nothing tells: by script, else by its commonest words and letters.

    Rough: a few words may be taken for those of another language, and a language that isn't known for one that is.
    """
    prose = _FENCED.sub(" ", text[:_LANGUAGE_CHARACTERS])
    letters = sum(map(str.isalpha, prose))
    for code, script in _SCRIPTS.items():
        # A fifth: text in other scripts is often mixed with names and words in Latin letters.
        if len(script.findall(prose)) * 5 > letters:
            return code
    words = [word.casefold() for word in _WORD.findall(prose)]
    scores = {code: float(sum(word in known for word in words)) for code, known in _WORDS.items()}
    for code, signs in _SIGNS.items():
        scores[code] += 0.6 * sum(1 for word in words if not set(signs).isdisjoint(word))
    best = max(scores, key=scores.__getitem__)
    return best if scores[best] > 0 else ""
