"""A process with keys leaves no core dump, and shows its memory to root alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

CRASH = """
import ctypes, os, resource
from infra import dumps
most = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
dumps.forbid()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3), flush=True)
os.abort()
"""


def test_a_crash_leaves_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", CRASH], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "(0, 0) 0\n"), done.stderr
    assert list(tmp_path.iterdir()) == []
