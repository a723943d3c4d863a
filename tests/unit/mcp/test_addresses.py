"""Decisions on the addresses to ask, without a network."""

import ipaddress

import pytest

from ai_ops.mcp.logic.addresses import refusal

ALLOWED = [
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "8.8.8.8",
    "fd00::1",
    "fd00:ec2::253",
    "2001:4860::8888",
    # carry an address that is allowed
    "::ffff:10.0.0.1",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]
FORBIDDEN = [
    ("169.254.169.254", "a link-local address"),
    ("169.254.0.1", "a link-local address"),
    ("fe80::1", "a link-local address"),
    ("fe80::1%eth0", "a link-local address"),
    ("fd00:ec2::254", "metadata"),
    ("168.63.129.16", "metadata"),
    ("100.100.100.200", "metadata"),
    ("192.0.0.192", "metadata"),
    ("fd20:ce::254", "metadata"),
    ("fd00:ec2::23", "metadata"),
    ("fd00:42::42", "metadata"),
    ("fd00:c1::a9fe:a9fe", "metadata"),
    ("fd00:a9fe:a9fe::1", "metadata"),
    # spelled otherwise
    ("FD00:0EC2:0:0:0:0:0:0254", "metadata"),
    ("fd00:ec2::0.0.2.84", "metadata"),
    ("fd00:ec2::254%1", "metadata"),
    ("fd00:ec2::254%251", "metadata"),
    ("::ffff:169.254.169.254%eth0", "a link-local address"),
    ("::ffff:a9fe:a9fe", "a link-local address"),
    ("fd00::1%1", "a scope id"),
    ("2001:4860::8888%eth0", "a scope id"),
    ("::ffff:10.0.0.1%2", "a scope id"),
    # translated as RFC 2765 had it
    ("::ffff:0:169.254.169.254", "a reserved address"),
    ("224.0.0.1", "a multicast address"),
    ("239.255.255.250", "a multicast address"),
    ("ff02::1", "a multicast address"),
    ("240.0.0.1", "a reserved address"),
    ("255.255.255.255", "a reserved address"),
    ("4000::1", "a reserved address"),
    # translators of a network's own, RFC 8215: where in it an IPv4 address is (RFC 6052), each of them decides
    ("64:ff9b:1::a9fe:a9fe", "a reserved address"),
    ("64:ff9b:1::10.0.0.1", "a reserved address"),
    ("64:ff9b:1:a9fe:a9:fe00::", "a reserved address"),
    ("64:ff9b:1:ffff:a9:fea9:fe00:0", "a reserved address"),
    ("64:ff9b:2::a9fe:a9fe", "a reserved address"),
    # 6to4 of a metadata service that is no link-local address
    ("2002:a83f:8110::1", "metadata"),
    ("64:ff9b::6464:64c8", "metadata"),
    ("0.0.0.0", "an address of no host"),
    ("0.1.2.3", "an address of no host"),
    ("::", "an address of no host"),
    ("fec0::1", "a site-local address"),
    ("127.0.0.1", "a loopback address"),
    ("127.9.9.9", "a loopback address"),
    ("::1", "a loopback address"),
]
# How an IPv6 address carries an IPv4 one: mapped, compatible, 6to4, NAT64, Teredo (server, then client inverted).
CARRIERS = {
    "mapped": lambda v4: f"::ffff:{v4}",
    "compatible": lambda v4: f"::{v4}",
    "6to4": lambda v4: ipaddress.IPv6Address((0x2002 << 112) | (int(v4) << 80)),
    "NAT64": lambda v4: f"64:ff9b::{v4}",
    "ISATAP": lambda v4: ipaddress.IPv6Address((0xFD000000 << 96) | (0x5EFE << 32) | int(v4)),
    "ISATAP of a public address": lambda v4: ipaddress.IPv6Address((0x20014860 << 96) | (0x2005EFE << 32) | int(v4)),
    "Teredo server": lambda v4: ipaddress.IPv6Address((0x20010000 << 96) | (int(v4) << 64) | 0xF7F7F7F7),
    "Teredo client": lambda v4: ipaddress.IPv6Address((0x20010000 << 96) | (0x08080808 << 64) | (int(v4) ^ 0xFFFFFFFF)),
}


@pytest.mark.parametrize("address", ALLOWED)
def test_private_and_public_addresses_are_asked(address):
    assert refusal(address) is None


@pytest.mark.parametrize(("address", "words"), FORBIDDEN)
def test_what_only_the_machine_its_link_or_its_cloud_answers_on_is_never_asked(address, words):
    assert words in refusal(address)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(
    "address", [address for address, _ in FORBIDDEN if ":" not in address and address != "0.0.0.0"]
)
def test_an_ipv6_address_is_judged_by_the_ipv4_address_it_carries(carrier, address):
    carried = str(CARRIERS[carrier](ipaddress.IPv4Address(address)))
    assert f"{carried} carries {address}" in refusal(carried)
    assert f"carries {address}" in refusal(f"{carried}%eth0")


def test_loopback_is_asked_only_where_a_setting_says_so():
    for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
        assert refusal(address) is not None
        assert refusal(address, allow_loopback=True) is None
    for address in ("169.254.169.254", "0.0.0.0", "::", "::1%lo"):
        assert refusal(address, allow_loopback=True) is not None


def test_what_is_no_address_is_an_error_and_not_allowed():
    with pytest.raises(ValueError, match="does not appear to be"):
        refusal("mcp.example.com")


@pytest.mark.parametrize("address", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "", "%1"])
def test_an_address_that_is_spelled_as_no_resolver_does_is_an_error_too(address):
    with pytest.raises(ValueError, match=r"does not appear to be|permitted"):
        refusal(address)
