"""The smallest question to a loopback port."""

import asyncio


async def ask(port: int, request: bytes, timeout_s: float = 1.0) -> bytes:
    """Send `request` to 127.0.0.1:`port`, return the first bytes of the answer; b"" when nobody answers in time.

    Does not raise.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                return await reader.read(1024)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
