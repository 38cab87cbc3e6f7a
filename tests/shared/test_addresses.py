"""Which addresses may be reached: public ones only, whatever disguise a private one wears."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.addresses import Forbidden, Pin, Reach, pin


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd12:3456::1", "private"),
        ("fec0::1", "private"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("192.0.0.170", "reserved"),
        ("192.0.2.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("198.51.100.1", "reserved"),
        ("203.0.113.1", "reserved"),
        ("192.88.99.1", "reserved"),
        ("2001:db8::1", "reserved"),
        ("3fff::1", "reserved"),
        ("4000::1", "reserved"),
        ("::ffff:127.0.0.1", "mapped"),
        ("::ffff:8.8.8.8", "mapped"),
        ("::ffff:0:127.0.0.1", "mapped"),
        ("::127.0.0.1", "mapped"),
        ("64:ff9b::10.0.0.1", "mapped"),
        ("64:ff9b::8.8.8.8", "mapped"),
        ("64:ff9b:1::a00:1", "mapped"),
        ("2002:7f00:1::", "mapped"),
        ("2002:0a00:0001::1", "mapped"),
        ("2001:0:7f00:1::", "mapped"),
        ("199.36.153.8", "internal"),
    ],
)
def test_what_is_not_public_is_refused_and_named(address: str, reason: str) -> None:
    assert Reach().objection(ip_address(address)) == reason
    with pytest.raises(Forbidden, match=reason):
        pin([address], Reach())


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001::1", "172.32.0.1"])
def test_public_addresses_are_reachable(address: str) -> None:
    assert Reach().objection(ip_address(address)) is None


@given(st.ip_addresses(v=4))
def test_every_ipv4_address_we_allow_the_standard_library_calls_global(address: IPv4Address) -> None:
    if Reach().objection(address) is None:
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_gets_through_in_the_clothes_of_an_ipv6_one(address: IPv4Address) -> None:
    number = int(address)
    for disguise in (
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(number),
        IPv6Address(0x64FF9B << 96 | number),
        IPv6Address(0x2002 << 112 | number << 80),
        IPv6Address(0x20010000 << 96 | number << 64 | number ^ 0xFFFFFFFF),
    ):
        assert Reach().objection(disguise) is not None


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_we_allow_is_global_unicast(address: IPv6Address) -> None:
    if Reach().objection(address) is None:
        assert address in ip_network("2000::/3")
        assert address.is_global


def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    reach = Reach.of(allow=["127.0.0.0/30"])
    assert reach.objection(ip_address("127.0.0.1")) is None
    assert reach.objection(ip_address("127.0.0.4")) == "loopback"
    assert reach.objection(ip_address("::ffff:127.0.0.1")) == "mapped"


def test_a_refused_network_wins_over_an_allowed_one() -> None:
    reach = Reach.of(allow=["10.0.0.0/8"], refuse=["10.1.0.0/16", "8.8.8.0/24"])
    assert reach.objection(ip_address("10.0.0.1")) is None
    assert reach.objection(ip_address("10.1.0.1")) == "internal"
    assert reach.objection(ip_address("8.8.8.8")) == "internal"


def test_of_several_addresses_only_the_reachable_ones_are_pinned_ipv4_first() -> None:
    pins = pin(["2606:4700::1", "10.0.0.1", "8.8.8.8", "fe80::1%eth0"], Reach())
    assert [p.text for p in pins] == ["8.8.8.8", "2606:4700::1"]


def test_an_address_with_a_scope_is_refused() -> None:
    with pytest.raises(Forbidden, match="link-local"):
        pin(["8.8.8.8%eth0"], Reach())


def test_nobody_but_the_judge_makes_a_pin() -> None:
    with pytest.raises(TypeError, match=r"addresses\.pin"):
        Pin(ip_address("127.0.0.1"), object())
