"""What processes cost, read from /proc (Linux): CPU of all their threads, resident and proportional memory."""

import os
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes. PSS counts a page shared by n processes as 1/n, so that it may be added up; RSS may not.

    Of a process that has forbidden dumps (infra/dumps.py) only root may know the PSS; for anybody else it is the RSS.
    """

    rss_mb: float
    pss_mb: float


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads, also ended ones; 0 when it is gone (proc(5))."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def memory(pid: int) -> Memory:
    """Memory of a process; zeros when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        rss_mb = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
        return Memory(rss_mb, rss_mb)
    except OSError:
        return Memory(0.0, 0.0)
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return Memory(kilobytes["Rss"] / 1024, kilobytes["Pss"] / 1024)


def descendants(root: int) -> set[int]:
    """`root` and everything it started, directly or not, that is alive now."""
    parents = {pid: int(fields[1]) for pid in _all_pids() if (fields := _stat(pid))}
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def labels(root: int, named: Mapping[str, int]) -> dict[int, str]:
    """A name for each process below `root` or named: the parts it runs, else its command."""
    parts: dict[int, list[str]] = {}
    for name, pid in named.items():
        parts.setdefault(pid, []).append(name)
    labelled = {pid: _join(names) for pid, names in parts.items()}
    for pid in descendants(root) - labelled.keys():
        labelled[pid] = "up" if pid == root else f"{_command(pid)} {pid}"
    return labelled


def cpu_by_label(labelled: Mapping[int, str]) -> dict[str, float]:
    """CPU seconds so far of each labelled process."""
    return {label: cpu_seconds(pid) for pid, label in labelled.items()}


def _join(names: Iterable[str]) -> str:
    names = sorted(names)
    return "+".join(names) if len(names) < 4 else f"one process of {len(names)} parts"


def _stat(pid: int) -> list[str]:
    # The command, in brackets, may hold anything: what follows the last bracket begins with the state.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def _all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
