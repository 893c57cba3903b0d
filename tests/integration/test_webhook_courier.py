"""G32 on real sockets: a try connects to the address that was checked, and to no other."""

import datetime
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from infra.webhooks.courier import Answered, Courier
from infra.webhooks.lookup import Unreachable, resolve
from infra.webhooks.targets import Refused, parse
from schemas.policy import WebhookPolicy
from tests.integration.endpoints import receiving, trapping

HEADERS = {"content-type": "application/json", "user-agent": "Sluice", "webhook-id": "evt_1"}


class Names:
    """Addresses of a name that nobody else knows, one answer after the other; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        assert host == "hooks.test"
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def inside(port: int) -> WebhookPolicy:
    return WebhookPolicy(internal=(f"hooks.test:{port}", f"127.0.0.1:{port}"))


async def test_g32_a_name_that_flips_after_the_check_gains_nothing() -> None:
    """The name leads to 127.0.0.1 when it is checked and to the trap, at the same port, ever after."""
    async with receiving() as receiver, trapping("127.0.0.2", receiver.port) as trap:
        names, policy = Names(["127.0.0.1"], ["127.0.0.2"]), inside(receiver.port)
        target = parse(f"http://hooks.test:{receiver.port}/a?b=%20&c", policy)
        assert await Courier(names).send(target, HEADERS, b"{}") == Answered(200)
        assert (names.asked, trap.connections) == (1, 0)
        (posted,) = receiver.posted
    assert (posted.path, posted.body) == ("/a?b=%20&c", b"{}")
    assert posted.headers["host"] == f"hooks.test:{receiver.port}"
    assert posted.headers.items() >= HEADERS.items()
    assert "cookie" not in posted.headers


async def test_g32_a_listener_inside_hears_nothing_of_whatever_form() -> None:
    async with trapping() as trap:
        policy = WebhookPolicy(only=tuple(f"{host}:{trap.port}" for host in ("127.0.0.1", "[::1]", "hooks.test", "localhost")))
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "localhost", "hooks.test", "127.1", "2130706433", "0x7f000001"):
            courier = Courier(Names(["127.0.0.1"]) if host == "hooks.test" else resolve)
            with pytest.raises(Refused):
                await courier.send(parse(f"https://{host}:{trap.port}/", policy), HEADERS, b"{}")
        assert trap.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_g32_a_redirect_leads_nowhere(status: int) -> None:
    async with receiving() as receiver, trapping() as trap:
        receiver.statuses, receiver.headers = [status], {"location": f"http://127.0.0.1:{trap.port}/"}
        target = parse(f"http://127.0.0.1:{receiver.port}/", inside(receiver.port))
        assert (await Courier().send(target, HEADERS, b"{}")).status == status
        assert trap.connections == 0


async def test_g32_a_proxy_of_the_environment_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as receiver, trapping() as trap:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{trap.port}")
        monkeypatch.setenv("no_proxy", "")
        target = parse(f"http://127.0.0.1:{receiver.port}/", inside(receiver.port))
        assert await Courier().send(target, HEADERS, b"{}") == Answered(200)
        assert trap.connections == 0


async def test_retry_after_is_told_as_it_came() -> None:
    async with receiving() as receiver:
        receiver.statuses, receiver.headers = [503], {"retry-after": "7"}
        target = parse(f"http://127.0.0.1:{receiver.port}/", inside(receiver.port))
        assert await Courier().send(target, HEADERS, b"{}") == Answered(503, "7")


async def test_g34_a_failure_tells_nothing_of_the_url_but_the_host() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        target = parse(f"http://127.0.0.1:{port}/secret?token=secret", inside(port))
        with pytest.raises(Unreachable) as failure:
            await Courier().send(target, HEADERS, b"{}")
    assert f"127.0.0.1:{port}" in str(failure.value)
    assert "secret" not in str(failure.value)
    assert failure.value.__suppress_context__


async def test_an_endpoint_that_hangs_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        target = parse(f"http://127.0.0.1:{port}/", inside(port))
        with pytest.raises(Unreachable, match=r"within 0\.2 s"):
            await Courier(timeout_s=0.2).send(target, HEADERS, b"{}")


async def test_what_is_no_http_is_no_answer() -> None:
    async with trapping() as trap:
        target = parse(f"http://127.0.0.1:{trap.port}/", inside(trap.port))
        with pytest.raises(Unreachable):
            await Courier().send(target, HEADERS, b"{}")


def certificate(folder: Path, name: str) -> Path:
    """A certificate for a name, with its key, that is its own authority."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return path


@pytest.mark.parametrize(("name", "is_trusted"), [("hooks.test", True), ("other.test", False)])
async def test_the_certificate_is_checked_for_the_name_not_for_the_address(tmp_path: Path, name: str, is_trusted: bool) -> None:
    path = certificate(tmp_path, name)
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(path))
    served.load_cert_chain(path)
    async with receiving(tls=served) as receiver:
        target = parse(f"https://hooks.test:{receiver.port}/", inside(receiver.port))
        courier = Courier(Names(["127.0.0.1"]), tls=trusted)
        if is_trusted:
            assert await courier.send(target, HEADERS, b"{}") == Answered(200)
        else:
            with pytest.raises(Unreachable, match="certificate"):
                await courier.send(target, HEADERS, b"{}")
            assert receiver.posted == []


async def test_a_certificate_of_nobody_we_know_is_refused(tmp_path: Path) -> None:
    path, served = certificate(tmp_path, "hooks.test"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(path)
    async with receiving(tls=served) as receiver:
        target = parse(f"https://hooks.test:{receiver.port}/", inside(receiver.port))
        with pytest.raises(Unreachable, match="certificate"):
            await Courier(Names(["127.0.0.1"])).send(target, HEADERS, b"{}")
        assert receiver.posted == []
