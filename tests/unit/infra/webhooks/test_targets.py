"""G32: webhooks can't reach inside. Which URLs and addresses are refused."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infra.webhooks.targets import MAX_URL, Refused, Target, judge, parse
from schemas.policy import WebhookPolicy

ANY = WebhookPolicy()
INSIDE = WebhookPolicy(internal=("hooks.internal", "10.0.0.1", "tools.internal:6379", "[fd00::1]:8443"))

ODD = [
    "https://127.1/",
    "https://127.0.1/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0X7F.1/",
    "https://2130706433/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.0.0.01/",
    "https://127.0.0.0x1/",
    "https://0/",
    "https://1.2.3.4.5/",
    "https://256.1.1.1/",
    "https://example.0x/",
    "https://127.0.0.1.0/",
    "https://2852039166/",
]
MALFORMED = [
    "",
    "hooks.example",
    "//hooks.example/",
    "ftp://hooks.example/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "javascript:alert(1)",
    "https://",
    "https:///path",
    "https:hooks.example",
    "https://?x",
    "https://:443/",
    "https://.example/",
    "https://a..example/",
    "https://-a.example/",
    "https://exa mple/",
    "https://hooks.example/a b",
    "https://hooks.example/\r\nx-injected: 1",
    "https://hooks.example\t.evil/",
    "https://hooks.example\\.evil/",
    "https:\\\\hooks.example/",
    "https://hooks.example#@evil.example/",
    "https://hooks.example/#x",
    "https://ex%61mple.com/",
    "https://127.0.0.1%00.example/",
    "https://１２７.0.0.1/",
    "https://bücher.example/",
    "https://ⓔxample.com/",
    "https://127。0。0。1/",
    "https://[::1",
    "https://::1/",
    "https://[::1]evil/",
    "https://evil[::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[v1.x]/",
    "https://[127.0.0.1]/",
    "https://hooks.example:x/",
    "https://hooks.example:-1/",
    "https://hooks.example:+443/",
    "https://hooks.example:443:443/",
    f"https://{'a' * 64}.example/",
    f"https://{'a.' * 130}example/",
    f"https://hooks.example/{'a' * MAX_URL}",
]
USERINFO = [
    "https://hooks.example@127.0.0.1/",
    "https://hooks.example:443@127.0.0.1/",
    "https://user:password@hooks.example/",
    "https://@hooks.example/",
    "https://a@b@hooks.example/",
]
PORTS = ["https://hooks.example:6379/", "https://hooks.example:22/", "https://hooks.example:0/", "https://hooks.example:65536/"]


@pytest.mark.parametrize("url", [*ODD, *MALFORMED, *USERINFO, *PORTS, "http://hooks.example/"])
def test_g32_what_two_readers_might_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        parse(url, ANY)


@pytest.mark.parametrize("url", [*ODD, *MALFORMED, *USERINFO])
def test_g32_no_policy_allows_a_malformed_url(url: str) -> None:
    hosts = ("hooks.example", "127.0.0.1", "127.1", "0x7f000001", "2130706433", "0", "0177.0.0.1", "[::1]", "::1", "")
    with pytest.raises(Refused):
        parse(url, WebhookPolicy(only=hosts, internal=hosts))


ALLOWED = {
    "https://hooks.example": Target("https", "hooks.example", 443, "/", False),
    "https://hooks.example:/": Target("https", "hooks.example", 443, "/", False),
    "HTTPS://Hooks.Example.:8443/A?b=%20&c": Target("https", "hooks.example", 8443, "/A?b=%20&c", False),
    "https://hooks.example?x=1": Target("https", "hooks.example", 443, "/?x=1", False),
    "https://hooks.example//a/../b": Target("https", "hooks.example", 443, "//a/../b", False),
    "https://xn--bcher-kva.example/": Target("https", "xn--bcher-kva.example", 443, "/", False),
    "https://93.184.215.14/": Target("https", "93.184.215.14", 443, "/", False),
    "https://[2606:2800:21F::1]:8443/": Target("https", "2606:2800:21f::1", 8443, "/", False),
    "http://hooks.internal/": Target("http", "hooks.internal", 80, "/", True),
    "http://tools.internal:6379/": Target("http", "tools.internal", 6379, "/", True),
    "https://tools.internal/": Target("https", "tools.internal", 443, "/", False),
    "https://[FD00::1]:8443/": Target("https", "fd00::1", 8443, "/", True),
}


@pytest.mark.parametrize("url", ALLOWED)
def test_what_may_be_reached_is_read_as_it_is_meant(url: str) -> None:
    assert parse(url, INSIDE) == ALLOWED[url]


def test_g32_an_internal_host_is_so_at_its_usual_ports_only() -> None:
    with pytest.raises(Refused, match="port 6379"):
        parse("http://hooks.internal:6379/", INSIDE)


def test_g32_a_list_of_hosts_is_exhaustive() -> None:
    only = WebhookPolicy(only=("hooks.example", "other.example:9443"), internal=("hooks.internal",))
    for url in ("https://hooks.example/", "https://hooks.example:8443/", "https://other.example:9443/", "http://hooks.internal/"):
        parse(url, only)
    for url in ("https://evil.example/", "https://a.hooks.example/", "https://hooks.example.evil/", "https://other.example/"):
        with pytest.raises(Refused, match=r"webhooks\.only"):
            parse(url, only)
    with pytest.raises(Refused, match=r"webhooks\.only"):
        parse("https://hooks.example/", WebhookPolicy(only=()))


SECRET = "token=c0ffee"


@pytest.mark.parametrize("url", [*ODD, *MALFORMED, *USERINFO, *PORTS])
def test_g34_a_refusal_repeats_nothing_that_may_be_secret(url: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(f"{url}?{SECRET}", ANY)
    assert SECRET not in str(refused.value)
    assert "password" not in str(refused.value) or "user name or password" in str(refused.value)


NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "0.1.2.3",
    "::1",
    "::7f00:1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "2001:db8::1",
    "2001::1",
    "64:ff9b:1::a00:1",
    "100::1",
    "5f00::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
]
PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:2800:21f::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]

OUTSIDE_TARGET = Target("https", "hooks.example", 443, "/", internal=False)
INSIDE_TARGET = Target("https", "hooks.internal", 443, "/", internal=True)


@pytest.mark.parametrize("address", NEVER + PRIVATE)
def test_g32_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Refused, match=r"hooks\.example is or leads to"):
        judge(OUTSIDE_TARGET, [address])


@pytest.mark.parametrize("address", NEVER)
def test_g32_no_policy_opens_the_clouds_metadata(address: str) -> None:
    with pytest.raises(Refused, match="no webhook goes there"):
        judge(INSIDE_TARGET, [address])


@pytest.mark.parametrize("address", PRIVATE)
def test_a_policy_opens_a_private_address(address: str) -> None:
    judge(INSIDE_TARGET, [address])


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_none_of_those(address: str) -> None:
    judge(OUTSIDE_TARGET, [address])


@pytest.mark.parametrize("address", NEVER + PRIVATE)
def test_g32_one_bad_address_among_good_ones_is_enough(address: str) -> None:
    with pytest.raises(Refused):
        judge(OUTSIDE_TARGET, [PUBLIC[0], address, PUBLIC[1]])


def test_g32_a_refusal_of_a_name_does_not_tell_its_address() -> None:
    """Or anybody could ask us for the addresses of internal names."""
    with pytest.raises(Refused) as refused:
        judge(OUTSIDE_TARGET, ["10.11.12.13"])
    assert "10.11.12.13" not in str(refused.value)


NOT_PUBLIC = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/3",
    )
]


@st.composite
def insiders(draw: st.DrawFn) -> IPv4Address:
    network = draw(st.sampled_from(NOT_PUBLIC))
    return IPv4Address(int(network.network_address) + draw(st.integers(0, network.num_addresses - 1)))


@given(insiders(), st.sampled_from(["{}", "::ffff:{}", "64:ff9b::{}", "::{}"]))
def test_g32_no_form_of_an_inner_address_goes_through(address: IPv4Address, form: str) -> None:
    with pytest.raises(Refused):
        judge(OUTSIDE_TARGET, [form.format(address)])


@given(insiders(), st.integers(0, 2**80 - 1))
def test_g32_no_tunnel_to_an_inner_address_goes_through(address: IPv4Address, rest: int) -> None:
    with pytest.raises(Refused):
        judge(OUTSIDE_TARGET, [str(IPv6Address(0x2002 << 112 | int(address) << 80 | rest))])


@given(st.ip_addresses(v=6))
def test_g32_of_ipv6_only_what_was_given_out_goes_through(address: IPv6Address) -> None:
    assume(address not in IPv6Network("64:ff9b::/96") and address.ipv4_mapped is None)
    if address not in IPv6Network("2000::/3"):
        with pytest.raises(Refused):
            judge(OUTSIDE_TARGET, [str(address)])


@given(st.ip_addresses(v=4))
def test_g32_a_number_in_any_other_form_than_the_plain_one_is_no_host(address: IPv4Address) -> None:
    a, b, c, d = address.packed
    forms = {
        str(int(address)),
        hex(int(address)),
        oct(int(address)).replace("o", ""),
        f"{a}.{b}.{c * 256 + d}",
        f"{a}.{b * 65536 + c * 256 + d}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
    }
    for form in forms - {str(address)}:
        with pytest.raises(Refused):
            parse(f"https://{form}/", ANY)
    assert parse(f"https://{address}/", ANY).host == str(address)


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_comes_is_refused_or_read_never_raised(host: str, path: str) -> None:
    for url in (host, f"https://{host}/{path}", f"https://hooks.example{host}", f"https://hooks.example:{host}/"):
        try:
            target = parse(url, ANY)
        except Refused:
            continue
        assert target.where.isascii()
        assert not set(target.host + target.path) & set(" \r\n\\#")
