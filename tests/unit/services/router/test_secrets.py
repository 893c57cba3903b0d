"""Credentials are looked up when needed, and again soon."""

from services.router.providers.secrets import Secrets


async def test_a_rotated_secret_is_seen_after_a_second() -> None:
    asked: list[str] = []
    values = {"os.environ/A": " one\n"}
    now_s = [0.0]

    def look_up(reference: str) -> str | None:
        asked.append(reference)
        return values.get(reference)

    secrets = Secrets(look_up, lambda: now_s[0])
    assert await secrets.of("os.environ/A") == "one"
    values["os.environ/A"] = "two"
    assert await secrets.of("os.environ/A") == "one"
    assert len(asked) == 1
    now_s[0] = 1.1
    assert await secrets.of("os.environ/A") == "two"
    assert await secrets.of("os.environ/B") is None
