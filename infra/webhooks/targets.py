"""Where a webhook may go (RELIABILITY.md G32). Pure: a URL, a policy and addresses in, a verdict out.

A name says nothing: what counts is every address that it leads to, at the moment of sending. Nothing outside the addresses given
to the public is reached unless the policy names the host; nothing at all of those at which clouds keep their credentials.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from schemas.policy import WebhookPolicy

MAX_URL = 2048
PORTS = frozenset({80, 443, 8443})

_MAX_HOST = 253
_DEFAULT_PORTS = {"https": 443, "http": 80}
_PLAIN = re.compile(r'[!"$-\[\]-~]+')
"""Printable ASCII without space, backslash and `#`: where two readers of a URL disagree, one of these is mostly the reason."""

_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5})?)?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_GIVEN_OUT = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
_PROTOCOLS = ip_network("192.0.0.0/24")
_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
"""AWS, Google and others; Alibaba; Azure (an address as public as any); Oracle; AWS and Google by IPv6."""

Address = IPv4Address | IPv6Address


class Refused(Exception):
    """A webhook may not go there, now or later. A sentence for whoever asked; of the URL it names host and port at most."""


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint as a URL names it. `host` is as it is looked up; `internal`: it may be at a private address."""

    scheme: str
    host: str
    port: int
    path: str
    internal: bool

    @property
    def where(self) -> str:
        """Host and port: all of a URL that may be shown."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(url: str, policy: WebhookPolicy) -> Target:
    """The endpoint that a URL names, as far as the policy allows it and its addresses don't matter. Raises Refused."""
    parts = _split(url)
    found = _PLACE.fullmatch(parts.netloc)
    if found is None:
        raise Refused("the host of the URL is malformed; write https://host/path")
    literal, name, digits = found.groups()
    host = _literal(literal) if literal else _name(name)
    port = int(digits) if digits else _DEFAULT_PORTS[parts.scheme]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, host, port, path, internal=_is_named(policy.internal, host, port))
    _check(target, policy)
    return target


def judge(target: Target, addresses: Collection[str]) -> None:
    """Raises Refused unless a webhook may be sent to every address that the target leads to."""
    for address in addresses:
        kind, is_never = _kind(_meant(ip_address(address)))
        if kind and is_never:
            raise Refused(f"{target.host} is or leads to {kind}; no webhook goes there")
        if kind and not target.internal:
            raise Refused(
                f"{target.host} is or leads to {kind}; webhooks go to public addresses, "
                f"unless the policy's webhooks.internal names {target.where}"
            )


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL:
        raise Refused(f"the URL is longer than {MAX_URL} characters")
    if not _PLAIN.fullmatch(url):
        raise Refused(
            "the URL may hold printable ASCII only, and no space, backslash or #; write others percent-encoded, names as xn--…"
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Refused("the host of the URL is malformed; write https://host/path") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise Refused("the URL must begin with https://")
    if "@" in parts.netloc:
        raise Refused("the URL may not hold a user name or password; events are signed, so that the endpoint can check them")
    return parts


def _literal(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise Refused(f"[{text[:64]}] is no IPv6 address") from None


def _name(text: str) -> str:
    """A host name, or an IPv4 address in its one plain form: 127.1, 0x7f000001 and 2130706433 are others of 127.0.0.1."""
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise Refused(f"{host[:64]!r} is no host name")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise Refused(f"{host[:64]!r} is an address in an odd form; write it as four decimal numbers") from None
    return host


def _check(target: Target, policy: WebhookPolicy) -> None:
    only, internal = policy.only, policy.internal
    if only is not None and not target.internal and not _is_named(only, target.host, target.port):
        raise Refused(f"{target.where} is not on the list of hosts that the policy allows (webhooks.only)")
    if target.scheme == "http" and not target.internal:
        raise Refused(f"{target.where} must be asked by https; http is for hosts that the policy's webhooks.internal names")
    if target.port not in PORTS and not _is_named_with_port((*(only or ()), *internal), target.host, target.port):
        raise Refused(
            f"port {target.port} is none that webhooks go to (80, 443, 8443); a policy allows others as host:port, "
            "in webhooks.only or webhooks.internal"
        )


def _is_named(entries: Collection[str], host: str, port: int) -> bool:
    return _is_named_with_port(entries, host, port) or any(entry.lower() in (host, f"[{host}]") for entry in entries)


def _is_named_with_port(entries: Collection[str], host: str, port: int) -> bool:
    return any(entry.lower() in (f"{host}:{port}", f"[{host}]:{port}") for entry in entries)


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address is only another form of (mapped, 6to4, NAT64); else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _kind(address: Address) -> tuple[str, bool]:
    """What an address is that is not public, and whether no policy can allow it; empty for a public one."""
    if address in _METADATA:
        return "a cloud's metadata address", True
    if address.is_link_local:
        return "a link-local address, where clouds keep their metadata", True
    if address.is_multicast or address.is_unspecified:
        return "an address of no single machine", True
    if address.is_loopback:
        return "a loopback address", False
    if isinstance(address, IPv4Address) and address.is_reserved:
        return "a reserved address", True
    if not address.is_global or address in _PROTOCOLS or (isinstance(address, IPv6Address) and address not in _GIVEN_OUT):
        return "a private or reserved address", False
    return "", False
