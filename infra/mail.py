"""Mail as it leaves: one message to one server, by smtplib in a thread. STARTTLS or TLS, unless it is said otherwise."""

import asyncio
import smtplib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import httpx

TIMEOUT_S: Final = 15.0

# Of its own: a server that hangs holds a thread, and files need threads too.
_THREADS = ThreadPoolExecutor(2, thread_name_prefix="mail")

Security = Literal["starttls", "tls", "none"]
_SCHEMES: Final[dict[str, tuple[Security, int]]] = {
    "smtp": ("starttls", 587),
    "smtps": ("tls", 465),
    "smtp+plain": ("none", 25),
}


class Unsent(Exception):
    """The server didn't take it. A sentence; nothing of the credentials is in it."""


@dataclass(frozen=True, slots=True)
class MailServer:
    """Who takes our mail."""

    host: str
    port: int
    user: str
    security: Security


def mail_server(url: str) -> MailServer:
    """The server that SLUICE_SMTP names. Raises ValueError that says how to write it."""
    parts = urlsplit(url)
    try:
        security, port = _SCHEMES[parts.scheme]
        server = MailServer(parts.hostname or "", parts.port or port, unquote(parts.username or ""), security)
    except (KeyError, ValueError):
        raise ValueError("SLUICE_SMTP: write smtp://[user@]host[:port], smtps://… or smtp+plain://host[:port]") from None
    if not server.host or parts.path.strip("/") or parts.query:
        raise ValueError("SLUICE_SMTP: it names a server only: smtp://[user@]host[:port]")
    if parts.password is not None:
        raise ValueError("SLUICE_SMTP: the password doesn't stand there; SLUICE_SMTP_PASSWORD refers to it (env:NAME, file:NAME)")
    if server.user and server.security == "none":
        raise ValueError("SLUICE_SMTP: without TLS nobody logs in; write smtp:// or smtps://")
    return server


async def send_mail(server: MailServer, password: str, message: EmailMessage, tls: ssl.SSLContext | None = None) -> None:
    """Gives a message to a server. `tls`: the certificates that are trusted. Raises Unsent."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(_THREADS, _send, server, password, message, tls)


def _send(server: MailServer, password: str, message: EmailMessage, tls: ssl.SSLContext | None) -> None:
    where = f"{server.host}:{server.port}"
    try:
        with _connected(server, tls) as smtp:
            if server.user:
                smtp.login(server.user, password)
            smtp.send_message(message)
    except smtplib.SMTPAuthenticationError:
        raise Unsent(f"{where} refuses our user name or password") from None
    except smtplib.SMTPRecipientsRefused as error:
        raise Unsent(f"{where} refuses all recipients ({len(error.recipients)})") from None
    except smtplib.SMTPResponseException as error:
        raise Unsent(f"{where} answered {error.smtp_code}") from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise Unsent(f"{where} can't be reached, or didn't take it ({type(error).__name__})") from None


def _connected(server: MailServer, tls: ssl.SSLContext | None) -> smtplib.SMTP:
    trusted = None if server.security == "none" else tls or httpx.create_ssl_context()
    if server.security == "tls":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_S, context=trusted, local_hostname=_our_name())
    smtp = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S, local_hostname=_our_name())
    if server.security == "starttls":
        try:
            smtp.starttls(context=trusted)
        except BaseException:
            smtp.close()
            raise
    return smtp


def _our_name() -> str:
    """Not the fully qualified one, for which smtplib would ask a name server that may hang."""
    name = socket.gethostname()
    return name if name.isascii() and name else "localhost"


def our_address() -> str:
    """From whom mail comes where nobody has said it."""
    return f"sluice@{_our_name()}"
