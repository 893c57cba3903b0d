"""Server-sent events out of bytes, wherever those are cut (WHATWG HTML, "Interpreting an event stream"). Pure.

Only the data of an event is given: names, ids and comments say nothing in OpenAI's streams.
"""

_END = b"\n\n"


class LineTooLong(ValueError):
    """An event that never ends."""


class EventSplitter:
    """Feed it bytes; it gives the data of each event that is complete. Holds at most `most_bytes` of an incomplete one."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rest = bytearray()
        self._after_cr = False

    def feed(self, data: bytes) -> list[str]:
        """The data of the events that `data` completes. Raises LineTooLong, or UnicodeDecodeError for what is no UTF-8."""
        looked_at = max(0, len(self._rest) - 1)
        self._rest += self._newlines(data)
        end = self._rest.rfind(_END, looked_at)
        if end < 0:
            if len(self._rest) > self._most_bytes:
                raise LineTooLong(f"an event of more than {self._most_bytes} bytes")
            return []
        complete = bytes(self._rest[:end])
        del self._rest[: end + len(_END)]
        return _events(complete)

    def close(self) -> list[str]:
        """The event that the end of the stream completes: some servers leave out the last empty line."""
        rest, self._rest = bytes(self._rest), bytearray()
        return _events(rest)

    def _newlines(self, data: bytes) -> bytes:
        """The data with each end of a line as one LF: a CR may be the half of a CRLF that was cut in two."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" not in data:
            return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _events(complete: bytes) -> list[str]:
    found = (_data(event) for event in complete.split(_END))
    return [data for data in found if data is not None]


def _data(event: bytes) -> str | None:
    """The data of one event, or None if it has none."""
    lines: list[bytes] = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines).decode() if lines else None
