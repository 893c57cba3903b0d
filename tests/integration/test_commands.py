"""The command as it is installed says what its forks say, by which the other suites try it."""

import asyncio
from asyncio.subprocess import PIPE

import pytest

from tests.system import SLUICE, Result, System, environment


@pytest.mark.parametrize("words", [("models", "list"), ("models", "show", "nobody"), ("models", "list", "--nothing")])
async def test_the_installed_command_says_the_same(system: System, words: tuple[str, ...]) -> None:
    line = (SLUICE, *words, "--data-dir", system.data_dir)
    process = await asyncio.create_subprocess_exec(*line, stdout=PIPE, stderr=PIPE, env=environment())
    (out, err), forked = await asyncio.gather(process.communicate(), system.run(*words))
    assert forked == Result(process.returncode or 0, out.decode(), err.decode())
    assert forked.out or forked.status
