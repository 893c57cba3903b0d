"""What is told about files: what is wrong, what has no effect, and what is otherwise than it looks. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.portal.config.reasons import granted, missing
from services.portal.config.shape import likely

NO_EFFECT = "not supported; it has no effect"


@dataclass(slots=True)
class Findings:
    """Each names file and path. `unset`: references to the environment that lead nowhere on this machine."""

    problems: list[str] = field(default_factory=list[str])
    unset: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    def strangers(self, path: str, section: str, members: Mapping[str, object] | None, known: Iterable[str]) -> None:
        """Members of a section of LiteLLM's that mean nothing here: none is ignored in silence."""
        for member in members or {}:
            if reason := granted(section, member):
                self.notes.append(f"{path}.{member}: {reason}")
            elif reason := missing(section, member):
                self.warnings.append(f"{path}.{member}: {reason}; it has no effect")
            else:
                self.warnings.append(f"{path}.{member}: {NO_EFFECT}{likely(member, known)}")
