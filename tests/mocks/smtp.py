"""A server for mail that keeps what it gets: what smtplib uses of RFC 5321, with STARTTLS (RFC 3207) and AUTH PLAIN."""

import asyncio
import base64
import email
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from typing import cast


@dataclass(slots=True)
class Mailbox:
    """What was taken. `refuse`: answered to DATA instead; `logins`: user and password as they came."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    refuse: str = ""
    password: str = ""
    logins: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    taken: list[tuple[list[str], EmailMessage]] = field(default_factory=list[tuple[list[str], EmailMessage]])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to: list[str] = []
        writer.write(b"220 sink\r\n")
        while line := (await reader.readline()).decode().strip():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    offers = [*(["STARTTLS"] if self.tls else []), "AUTH PLAIN"]
                    answer = "\r\n".join(("250-sink", *(f"250-{one}" for one in offers), "250 8BITMIME"))
                case "STARTTLS":
                    writer.write(b"220 go\r\n")
                    await writer.start_tls(cast("ssl.SSLContext", self.tls))
                    continue
                case "AUTH":
                    _, user, password = base64.b64decode(rest.partition(" ")[2]).decode().split("\0")
                    self.logins.append((user, password))
                    answer = "235 ok" if password == self.password else "535 no"
                case "RCPT":
                    to.append(rest.partition("<")[2].rstrip(">"))
                    answer = "250 ok"
                case "DATA":
                    if self.refuse:
                        answer = self.refuse
                    else:
                        writer.write(b"354 go\r\n")
                        text = (await reader.readuntil(b"\r\n.\r\n"))[:-3].replace(b"\r\n..", b"\r\n.")
                        self.taken.append((to, email.message_from_bytes(text, EmailMessage, policy=SMTP)))
                        to, answer = [], "250 ok"
                case "QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                case _:
                    answer = "250 ok"
            writer.write(f"{answer}\r\n".encode())
        writer.close()


@asynccontextmanager
async def mailbox(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Mailbox]:
    """Serves on loopback."""
    box = Mailbox(tls=tls)
    server = await asyncio.start_server(box.serve, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    async with server:
        yield box
