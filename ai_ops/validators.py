"""Validators of an MCP server's address. Each error says what to do.

Nautobot's own URL validator refuses underscores in host names, which are common in container names, and accepts invalid
ports. So this module parses the address itself.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

import idna
from django.core.exceptions import ValidationError

URL_EXAMPLE = "http://mcp.example.com:8000"

# A label of a host name. The underscore is not in RFC 1123, but container runtimes use it in host names.
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_MAX_HOST_LENGTH = 253
# A host whose last label is a number is an IPv4 address to clients: 2852039166, 0xa9fea9fe, 0251.0376.0251.0376 and
# 169.16689662 are all 169.254.169.254 to getaddrinfo(). See "ends in a number" at url.spec.whatwg.org.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def validate_server_url(url: str) -> None:
    """Raise ValidationError unless `url` is http(s) with a host, and without credentials, query or fragment."""
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValidationError("Remove the spaces and control characters from the URL.")
    parts = _split(url)
    if parts.scheme not in ("http", "https"):
        raise ValidationError(f"Enter a URL that starts with http:// or https://, such as {URL_EXAMPLE}.")
    if "@" in parts.netloc:
        # A URL is shown on pages, in change logs and in webhooks, so it must not contain a secret.
        raise ValidationError("Remove the user name and the password from the URL, because every user can read it.")
    if not _is_host(parts):
        raise ValidationError(f"Enter a URL with a valid host name or IP address, such as {URL_EXAMPLE}.")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValidationError("Remove ? and # from the URL, because the paths below are appended to it.")


def validate_path(path: str) -> None:
    """Raise ValidationError unless `path` can be appended to a server's URL."""
    if any(char.isspace() or not char.isprintable() for char in path):
        raise ValidationError("Remove the spaces and control characters from the path.")
    if "://" in path:
        raise ValidationError("Enter only the path, such as /health: it is appended to the URL.")
    if "#" in path:
        raise ValidationError("Remove # from the path, because it is never sent to a server.")


def validate_ca_file(path: str) -> None:
    """Raise ValidationError unless `path` is absolute, because workers and agents run in different folders."""
    if not path.startswith("/") or not path.isprintable():
        raise ValidationError("Enter the absolute path of a PEM file, such as /etc/ssl/certs/internal-ca.pem.")


def _split(url: str) -> SplitResult:
    """Parse `url`. The port is read too, because only reading it raises an error."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        # "Invalid IPv6 URL", "Port out of range 0-65535", a host that changes under normalization
        raise ValidationError(f"Enter a valid URL, such as {URL_EXAMPLE}. This URL is not valid: {error}.") from error
    if port == 0:
        raise ValidationError("Enter a port from 1 to 65535, or remove the port.")
    return parts


def _is_host(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    if "[" in parts.netloc:
        return _is_ipv6(host)
    try:
        ascii_host = host.encode("idna").decode("ascii").removesuffix(".")
    except UnicodeError:
        return False
    if not ascii_host or len(ascii_host) > _MAX_HOST_LENGTH:
        return False
    labels = ascii_host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # In the only spelling that all clients read in the same way.
        return _is_ipv4(host.removesuffix("."))
    return all(_HOST_LABEL.fullmatch(label) for label in labels) and _is_known_to_clients(host)


def _is_known_to_clients(host: str) -> bool:
    """Return whether HTTP clients can read the international parts of `host`, which follow IDNA 2008."""
    try:
        for label in host.lower().removesuffix(".").split("."):
            if label.startswith("xn--"):
                idna.ulabel(label)
            elif not label.isascii():
                idna.alabel(label)
    except idna.IDNAError:
        return False
    return True


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_ipv6(host: str) -> bool:
    if "%" in host:
        # A scope id would be another spelling of the address, and its interface exists only on this machine.
        return False
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
