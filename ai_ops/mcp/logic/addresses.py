"""The decision whether a probe or an agent may connect to an IP address.

Private ranges are allowed, because MCP servers use them. Addresses that only this machine, its link or its cloud can
reach are forbidden: users enter the addresses of servers, and must not be able to read a cloud's metadata through
Nautobot.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_Address = IPv4Address | IPv6Address

# Metadata, credentials and host agents of clouds outside the ranges below. Other clouds use 169.254.169.254, which is
# link-local. Sources: each cloud's documentation, and cloud-init's data sources.
CLOUD_METADATA = frozenset(
    map(
        ip_address,
        (
            "fd00:ec2::254",  # AWS, instance metadata
            "fd00:ec2::23",  # AWS, credentials of EKS pods
            "fd20:ce::254",  # Google
            "168.63.129.16",  # Azure
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle, before 169.254.169.254
            "fd00:c1::a9fe:a9fe",  # Oracle
            "fd00:42::42",  # Scaleway
            "fd00:a9fe:a9fe::1",  # Akamai
        ),
    )
)

_THIS_NETWORK = IPv4Network("0.0.0.0/8")
# Deprecated by RFC 3879, but some systems still route them to hosts on the link.
_SITE_LOCAL = IPv6Network("fec0::/10")
# IPv6 addresses that carry an IPv4 address: RFC 4291 section 2.5.5.1 and RFC 6052 section 2.1, in the last 32 bits.
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
# The last 64 bits of an ISATAP address begin with this (RFC 5214 section 6.1) in any network, followed by an IPv4
# address.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
_UNSPECIFIED_OR_LOOPBACK = frozenset(map(IPv6Address, ("::", "::1")))


def refusal(address: str, *, allow_loopback: bool = False) -> str | None:
    """Return the reason why `address` is forbidden, as a clause; None if it is allowed.

    An IPv6 address that carries an IPv4 address (mapped, compatible, 6to4, NAT64, Teredo, ISATAP) is judged by the IPv4
    address, which receives the packets. An address with a scope id (``%eth0``) is forbidden: outside of link-local
    addresses a scope has no meaning, and would be a second name of an address.

    Args:
        address: An IP address from a resolver, with or without a scope.
        allow_loopback: Whether 127/8 and ::1 may be used.

    Returns:
        A clause such as "169.254.169.254 is a link-local address".

    Raises:
        ValueError: The text is not an IP address.
    """
    bare, scope, _ = address.partition("%")
    parsed = ip_address(bare)
    for each in _carried(parsed) or (parsed,):
        if kind := _forbidden_kind(each, allow_loopback):
            return f"{address} is {kind}" if each is parsed else f"{address} carries {each}, {kind}"
    return f"{address} has a scope id, which no server's address needs" if scope else None


def _carried(address: _Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses inside an IPv6 address; most have none."""
    if isinstance(address, IPv4Address) or address in _UNSPECIFIED_OR_LOOPBACK:
        return ()
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.sixtofour:
        return (address.sixtofour,)
    if address.teredo:
        return address.teredo
    if address in _COMPATIBLE or address in _NAT64:
        return (_last_32_bits(address),)
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        return (_last_32_bits(address),)
    return ()


def _last_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)


def _forbidden_kind(address: _Address, allow_loopback: bool) -> str | None:
    if address in CLOUD_METADATA:
        return "an address of a cloud's metadata service"
    if address.is_loopback:
        return None if allow_loopback else "a loopback address, which allow_loopback does not allow"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address in _THIS_NETWORK or address.is_unspecified:
        return "an address of no host"
    if address in _SITE_LOCAL:
        return "a site-local address"
    if address.is_reserved:
        return "a reserved address"
    return None
