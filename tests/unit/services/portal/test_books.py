"""The books, when they can't be read."""

import pytest

from schemas.errors import Unavailable
from services.portal.books import Books, EventsAsked, without_hashes


@pytest.mark.parametrize("url", ["", "http://somebody:secret@127.0.0.1:9"])
async def test_who_asks_while_they_are_away_is_told_so_without_a_secret(url: str) -> None:
    books = Books(url)
    for asked in (books.job("job_1"), books.documents({"team/fraud": 1}), books.events(EventsAsked(), None)):
        with pytest.raises(Unavailable) as told:
            await asked
        assert told.value.fault().code == "books_unavailable"
        assert "secret" not in told.value.message
    await books.close()


async def test_who_wants_no_document_needs_no_books() -> None:
    assert await Books("").documents({}) == []


def test_no_hash_of_a_secret_is_shown() -> None:
    key = {"id": "key_1", "sha256": "a", "old": [{"sha256": "b", "until_ms": 1}], "policy": {"models": ["m"]}}
    assert without_hashes(key) == {"id": "key_1", "old": [{"until_ms": 1}], "policy": {"models": ["m"]}}  # pyright: ignore[reportArgumentType]
