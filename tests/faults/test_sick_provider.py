"""G26: half of one deployment's calls fail; nobody sees it, nobody waits beyond the configured times, and nothing storms."""

from pathlib import Path

from tests.faults.sick import FAULTS, TIMEOUT_S, run

REQUESTS, AT_ONCE, SEED = 500, 64, 1
MOST_CALLS = 3


async def test_2000_clients_see_no_error(tmp_path: Path) -> None:
    found = await run(tmp_path, REQUESTS, AT_ONCE, SEED)
    assert sum(seen.requests for seen in found) == len(FAULTS) * REQUESTS == 2000
    assert not [seen.errors for seen in found if seen.errors]
    for seen in found:
        assert seen.calls[f"mock-sick-{seen.kind}"] > 0, "the sick one was never asked, so nothing was shown"
        # Each call has its time, and a job makes at most so many.
        assert max(seen.seconds) < MOST_CALLS * TIMEOUT_S + 1
        assert seen.calls_a_request <= 1.2
