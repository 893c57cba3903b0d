"""G26: half of one deployment's calls fail; nobody sees it, and nothing storms. How long anybody waits the runner prints."""

from pathlib import Path

from tests.faults.sick import FAULTS, run

REQUESTS, AT_ONCE, SEED = 500, 64, 1


async def test_2000_clients_see_no_error(tmp_path: Path) -> None:
    found = await run(tmp_path, REQUESTS, AT_ONCE, SEED)
    assert sum(seen.requests for seen in found) == len(FAULTS) * REQUESTS == 2000
    assert not [seen.errors for seen in found if seen.errors]
    for seen in found:
        assert seen.calls[f"mock-sick-{seen.kind}"] > 0, "the sick one was never asked, so nothing was shown"
        assert seen.calls_a_request <= 1.2
