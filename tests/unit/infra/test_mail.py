"""Mail: to whom it is given, how, and what is said where it isn't taken."""

from email.message import EmailMessage

import pytest

from infra.mail import MailServer, Unsent, mail_server, send_mail
from tests.mocks.smtp import mailbox

GOOD = {
    "smtp://mail.corp.example": MailServer("mail.corp.example", 587, "", "starttls"),
    "smtp://sluice%40corp.example@mail.corp.example:2525": MailServer(
        "mail.corp.example", 2525, "sluice@corp.example", "starttls"
    ),
    "smtps://ops@mail.corp.example": MailServer("mail.corp.example", 465, "ops", "tls"),
    "smtp+plain://127.0.0.1": MailServer("127.0.0.1", 25, "", "none"),
}
BAD = {
    "mail.corp.example": "write smtp://",
    "http://mail.corp.example": "write smtp://",
    "smtp://": "names a server only",
    "smtp://mail:port": "write smtp://",
    "smtp://mail/path": "names a server only",
    "smtp://ops:hunter2@mail": "SLUICE_SMTP_PASSWORD",
    "smtp+plain://ops@mail": "without TLS nobody logs in",
}


def message() -> EmailMessage:
    found = EmailMessage()
    found["Subject"], found["From"], found["To"] = "s", "sluice@corp.example", "ada@corp.example, bob@corp.example"
    found.set_content("hello\n.\nbye")
    return found


@pytest.mark.parametrize(("url", "server"), GOOD.items())
def test_a_server_is_named_by_an_url(url: str, server: MailServer) -> None:
    assert mail_server(url) == server


@pytest.mark.parametrize(("url", "why"), BAD.items())
def test_what_names_none_says_how_to_write_it_and_repeats_no_password(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        mail_server(url)
    assert "hunter2" not in str(refused.value)


async def test_a_message_arrives_at_all_who_are_named() -> None:
    async with mailbox() as box:
        await send_mail(MailServer("127.0.0.1", box.port, "", "none"), "", message())
    [(to, got)] = box.taken
    assert to == ["ada@corp.example", "bob@corp.example"]
    assert got.get_content().splitlines() == ["hello", ".", "bye"]


async def test_a_login_is_made_and_its_refusal_repeats_no_password() -> None:
    async with mailbox() as box:
        box.password = "right"
        server = MailServer("127.0.0.1", box.port, "ops", "none")
        await send_mail(server, "right", message())
        with pytest.raises(Unsent, match="refuses our user name or password") as refused:
            await send_mail(server, "hunter2", message())
    assert box.logins[0] == ("ops", "right")
    assert "hunter2" not in str(refused.value)


async def test_a_server_without_tls_gets_nothing_where_tls_is_asked_for() -> None:
    async with mailbox() as box:
        with pytest.raises(Unsent):
            await send_mail(MailServer("127.0.0.1", box.port, "ops", "starttls"), "secret", message())
    assert (box.taken, box.logins) == ([], [])


async def test_who_does_not_take_it_is_told_of() -> None:
    async with mailbox() as box:
        box.refuse = "452 full"
        with pytest.raises(Unsent, match="answered 452"):
            await send_mail(MailServer("127.0.0.1", box.port, "", "none"), "", message())
        port = box.port
    with pytest.raises(Unsent, match="can't be reached"):
        await send_mail(MailServer("127.0.0.1", port, "", "none"), "", message())
