"""Where a probe, or an agent, may connect to: a decision about one IP address.

Private ranges are where MCP servers live and are allowed. Never allowed is what only this machine, its
link or its cloud answers on: a server's address is typed in by people, and whoever may enter one must not
thereby get to read a cloud's metadata through Nautobot.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_Address = IPv4Address | IPv6Address

# Metadata and host agents of clouds that are in no range of their own: AWS over IPv6, Azure, Alibaba.
# The others answer on 169.254.169.254, which is link-local.
CLOUD_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "168.63.129.16", "100.100.100.200")))

_THIS_NETWORK = IPv4Network("0.0.0.0/8")
# Deprecated by RFC 3879, and still routed to whatever is on the link by some systems.
_SITE_LOCAL = IPv6Network("fec0::/10")
# IPv6 addresses that carry an IPv4 address: RFC 4291 section 2.5.5.1 and RFC 6052 section 2.1, in the last 32 bits.
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_UNSPECIFIED_OR_LOOPBACK = frozenset(map(IPv6Address, ("::", "::1")))


def refusal(address: str, *, allow_loopback: bool = False) -> str | None:
    """Say why nothing may be sent to `address`, or None if it may.

    An IPv6 address that carries an IPv4 address (mapped, compatible, 6to4, NAT64, Teredo) is judged by
    what it carries, since that is where the packets end.

    Args:
        address: An IP address as a resolver gives it, with a scope or without.
        allow_loopback: Whether 127/8 and ::1 may be used.

    Returns:
        A clause such as "169.254.169.254 is a link-local address".

    Raises:
        ValueError: It is no IP address.
    """
    parsed = ip_address(address)
    for each in _carried(parsed) or (parsed,):
        if kind := _forbidden_kind(each, allow_loopback):
            return f"{address} is {kind}" if each is parsed else f"{address} carries {each}, {kind}"
    return None


def _carried(address: _Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses inside an IPv6 address; none for most."""
    if isinstance(address, IPv4Address) or address in _UNSPECIFIED_OR_LOOPBACK:
        return ()
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.sixtofour:
        return (address.sixtofour,)
    if address.teredo:
        return address.teredo
    if address in _COMPATIBLE or address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


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
