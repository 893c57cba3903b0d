"""The harness against a stand-in for `sluice`: it starts, measures, judges and leaves nothing behind."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.bench import Spread, bench, missed_bars, show, spreads
from benchmarks.processes import cpu_seconds, descendants, labels, memory
from benchmarks.scenarios import Size
from benchmarks.subject import StartError

_SIZE = Size(single=20, streams=10, connections=4, busy_s=0.2, quiet=2, quiet_pause_s=0.02)
_STAND_IN = """#!{python}
import json, os, sys
from pathlib import Path
words = sys.argv[1:]
data = Path(words[words.index("--data-dir") + 1])
if words[0] == "up":
    config = Path(words[words.index("--config") + 1]).read_text()
    assert "model_name: mock" in config
    port = words[words.index("--port") + 1]
    data.mkdir()
    pids = dict.fromkeys({parts!r}, os.getpid())
    (data / "endpoints.json").write_text(json.dumps({{"http": "http://127.0.0.1:" + port, "pids": pids}}))
    code = "import sys; from benchmarks import mock_provider as m; p = m.MockProvider; "
    code += "sys.argv = ['x'] + sys.argv[1:]; "
    code += "p.base_url = property(lambda self: 'http://127.0.0.1:%d' % self.port); m.main()"
    os.execv(sys.executable, [sys.executable, "-c", code, "--port", port])
if words[:2] == ["keys", "create"]:
    assert "bench" in words
    print(json.dumps({{"id": "key_1", "key": "sk-sl-1"}}))
"""


def _stand_in(folder: Path, text: str) -> Path:
    path = folder / "sluice"
    path.write_text(text)
    path.chmod(0o755)
    return path


async def test_one_mode_from_start_to_table(tmp_path: Path) -> None:
    text = _STAND_IN.format(python=sys.executable, parts=["ingress", "router"])
    folder = tmp_path / "run"
    folder.mkdir()
    result = await bench(_stand_in(tmp_path, text), folder, processes=False, runs=2, size=_SIZE)
    assert result.errors == {}
    measured = {
        "added_p50_ms",
        "stream_added_first_token_p50_ms",
        "busy_rps",
        "quiet_added_p50_ms",
        "cpu_us/ingress+router",
        "pss_mb/ingress+router",
    }
    assert measured <= result.metrics.keys()
    # The stand-in answers by itself: nothing reaches the provider, and the harness sees it.
    assert result.metrics["provider_calls_per_answer"].high == 0
    assert "provider_calls_per_answer" in result.missed
    with (tmp_path / "out").open("w") as out:
        show(result, Console(file=out, width=120))
    assert "ingress+router" in (tmp_path / "out").read_text()


async def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    sluice = _stand_in(tmp_path, "#!/bin/sh\necho no such luck >&2\nexit 3\n")
    with pytest.raises(StartError, match="no such luck"):
        await bench(sluice, tmp_path, processes=True, runs=1, size=_SIZE)


def test_medians_are_judged() -> None:
    metrics = spreads([{"added_p50_ms": 4, "busy_rps": 400}, {"added_p50_ms": 5}, {"added_p50_ms": 9}])
    assert metrics["added_p50_ms"] == Spread(5, 4, 9)
    assert missed_bars(metrics) == ["busy_rps"]


def test_processes_are_read_from_proc() -> None:
    stat = json.loads(Path("/proc/self/stat").read_text().split()[0])
    assert stat in descendants(stat)
    assert cpu_seconds(stat) > 0
    assert memory(stat).rss_mb >= memory(stat).pss_mb > 0
    assert memory(2**30).pss_mb == 0 == cpu_seconds(2**30)
    assert labels(stat, {"a": stat, "b": 2**30})[stat] == "a"
