"""ClickHouse's errors, as its HTTP interface shows them."""

from typing import Final

BAD_REQUEST: Final = frozenset({6, 7, 26, 27, 33, 38, 41, 53, 62, 69, 70, 72, 89, 117, 271, 386, 456, 457})
NOT_FOUND: Final = frozenset({16, 46, 47, 50, 56, 60, 73, 81, 115})
STATUS: Final = {48: 501, 164: 403, 202: 503, 209: 408, 307: 413, 344: 501, 358: 403, 452: 403, 497: 403, 512: 403, 516: 403}
"""ClickHouse's error codes, as far as they are not 500."""


class EngineError(Exception):
    """ClickHouse refused or failed. `code` is ClickHouse's own; the message is for the client."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def http_status(self) -> int:
        """As ClickHouse answers: 4xx when the client is to blame, else 500; 503 when trying again helps."""
        if self.code in BAD_REQUEST:
            return 400
        return 404 if self.code in NOT_FOUND else STATUS.get(self.code, 500)


def refusal(code: int, message: str, name: str) -> EngineError:
    """An error in the engine's own words."""
    return EngineError(code, f"Code: {code}. DB::Exception: {message}. ({name})")
