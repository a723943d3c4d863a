"""What an MCP server's address may look like; each refusal is a sentence that says what to do.

Nautobot's own URL validator refuses underscores in host names, which container names are full of, and
lets through a port that no client can open, so the address is taken apart here.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ValidationError

URL_EXAMPLE = "http://mcp.example.com:8000"

# A label of a host name. The underscore is not in RFC 1123, but container runtimes put it into host names.
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_MAX_HOST_LENGTH = 253


def validate_server_url(url: str) -> None:
    """Raise ValidationError unless `url` is http(s) with a host, and without credentials, query or fragment."""
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValidationError("Remove the spaces and control characters from the URL.")
    parts = _split(url)
    if parts.scheme not in ("http", "https"):
        raise ValidationError(f"Enter a URL that starts with http:// or https://, such as {URL_EXAMPLE}.")
    if "@" in parts.netloc:
        # A URL is shown on pages, in change logs and in webhooks: no place for a secret.
        raise ValidationError("Leave user name and password out of the URL: everybody can read it.")
    if not _is_host(parts):
        raise ValidationError(f"Enter a URL with a valid host name or IP address, such as {URL_EXAMPLE}.")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValidationError("Leave ? and # out of the URL: the paths below are appended to it.")


def validate_path(path: str) -> None:
    """Raise ValidationError unless `path` is something that can be appended to a server's URL."""
    if any(char.isspace() or not char.isprintable() for char in path):
        raise ValidationError("Remove the spaces and control characters from the path.")
    if "://" in path:
        raise ValidationError("Enter the path alone, such as /health: it is appended to the URL.")
    if "#" in path:
        raise ValidationError("Leave # out of the path: it is never sent to a server.")


def validate_ca_file(path: str) -> None:
    """Raise ValidationError unless `path` is absolute: workers and agents run in different folders."""
    if not path.startswith("/") or not path.isprintable():
        raise ValidationError("Enter the absolute path of a PEM file, such as /etc/ssl/certs/internal-ca.pem.")


def _split(url: str) -> SplitResult:
    """Take `url` apart; a port is read here because reading it is what raises."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        # "Invalid IPv6 URL", "Port out of range 0-65535", a host that changes under normalization
        raise ValidationError(
            f"Enter a URL that can be read, such as {URL_EXAMPLE}. This one can't be: {error}."
        ) from error
    if port == 0:
        raise ValidationError("Enter a port from 1 to 65535, or leave it out.")
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
    if labels[-1].isdigit():
        # Only an IPv4 address ends in a number; 10.0.0.999 would otherwise pass for a name.
        return _is_ipv4(ascii_host)
    return all(_HOST_LABEL.fullmatch(label) for label in labels)


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
