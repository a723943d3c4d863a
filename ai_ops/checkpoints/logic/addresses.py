"""Parsing of Redis addresses, without quoting parts that may be secret.

A parser ends a password at the first character that is not percent-encoded, reads the rest as a host, a port or a
database, and quotes it in its error. This module recognises the fault by its form, and its error names the character.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from ai_ops.exceptions import ConfigurationError

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
EXAMPLE = "redis://:password@redis.example.com:6379/0"
# The characters that end a part of an address, with their escapes inside a user name or password.
SPECIAL = {"/": "%2F", "?": "%3F", "#": "%23", "[": "%5B", "]": "%5D"}
# Options that the app sets itself, and an address must not have.
RESERVED_OPTIONS = frozenset({
    "decode_responses", "encoding", "encoding_errors", "retry", "retry_on_error", "connection_class", "host", "port",
    "path", "url", "credential_provider", "connection_pool", "redis_connect_func", "parser_class", "startup_nodes",
})  # fmt: skip

_SCHEME = re.compile(r"([a-z+]+)://(.*)", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?)(?::([0-9]{1,5}))?")
_LABEL_LENGTH = 63  # characters of a host name (RFC 1035, section 2.3.4); for longer names Python raises its own error


@dataclass(frozen=True)
class RedisAddress:
    """The parts of a Redis address.

    Attributes:
        scheme: One of `SCHEMES`.
        login: User name and password as written, without the "@"; may be empty. Secret.
        hosts: Host and port of each server as written; None for a missing port.
        path: The path: a database, a service and a database, or a socket's path.
        query: The options for redis-py as written. They may be secret.
    """

    scheme: str
    login: str = field(repr=False)
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    query: str = field(repr=False)

    @property
    def kind(self) -> str:
        """Return the kind of connection: "sentinel", "cluster", or "" for a direct connection."""
        return self.scheme.partition("+")[2]

    @property
    def uses_tls(self) -> bool:
        """Return whether the connection is encrypted."""
        return self.scheme.startswith("rediss")

    @property
    def shown(self) -> str:
        """Return the address without user name, password and options."""
        hosts = ",".join(host if port is None else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{hosts}{self.path}"

    @property
    def username(self) -> str | None:
        """Return the decoded user name."""
        return unquote(self.login.partition(":")[0]) or None

    @property
    def password(self) -> str | None:
        """Return the decoded password."""
        return unquote(self.login.partition(":")[2]) or None

    @property
    def service(self) -> str:
        """Return the name of the service for Sentinel."""
        return self.path.strip("/").partition("/")[0]

    @property
    def database(self) -> int:
        """Return the number of the database in the path."""
        last = self.path.rpartition("/")[2]
        return int(last) if last.isdigit() else 0


def read_address(url: str, variable: str = "LANGGRAPH_REDIS_URL") -> RedisAddress:
    """Parse an address.

    Args:
        url: The address.
        variable: Name of the variable, for the message.

    Raises:
        ConfigurationError: The address is invalid, for the reason in the message, which has no part of the address.
    """
    match = _SCHEME.fullmatch(url)
    if match is None or match[1] not in SCHEMES:
        raise ConfigurationError(
            f"{variable} must begin with one of {', '.join(f'{each}://' for each in SCHEMES)}: for example {EXAMPLE}."
        )
    scheme, rest = match[1], match[2]
    if not rest.isprintable():
        raise _unusable(variable, "it has a line break or another control character", "percent-encode it, or remove it")
    if "#" in rest:
        raise _unencoded(variable, "#")
    login, rest = _split_login(scheme, rest, variable)
    rest, _, query = rest.partition("?")
    hosts, slash, path = rest.partition("/")
    if scheme == "unix":
        return RedisAddress(scheme, login, (), _socket_path(hosts, slash + path, variable), query)
    address = RedisAddress(scheme, login, tuple(_hosts(hosts, scheme, variable)), slash + path, query)
    _check_path(address, variable)
    return address


def is_host(text: str) -> bool:
    """Return whether `text` is exactly the name or the address of a host."""
    match = _HOST.fullmatch(text)
    return match is not None and match[2] is None and _has_possible_labels(text)


def _split_login(scheme: str, rest: str, variable: str) -> tuple[str, str]:
    """Return user name, password, and the rest."""
    if "@" not in rest or (scheme == "unix" and rest.startswith("/")):
        return "", rest
    login, _, rest = rest.rpartition("@")
    for character in SPECIAL:
        if character in login:
            raise _unencoded(variable, character)
    return login, rest


def _hosts(text: str, scheme: str, variable: str) -> list[tuple[str, int | None]]:
    found: list[tuple[str, int | None]] = []
    for each in text.split(",") if "+" in scheme else [text]:
        match = _HOST.fullmatch(each)
        if not text and "+" not in scheme:
            # redis-py would use localhost.
            return [("localhost", None)]
        if match is None or not _has_possible_labels(match[1]) or not 0 <= int(match[2] or 0) <= 65_535:
            raise _unusable(
                variable,
                "host or port is not valid",
                "after the last @ write them as redis.example.com:6379, and before it percent-encode "
                + ", ".join(f"{character} as {code}" for character, code in SPECIAL.items()),
            )
        found.append((match[1], int(match[2]) if match[2] else None))
    return found


def _has_possible_labels(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    return host.startswith("[") or all(0 < len(label) <= _LABEL_LENGTH for label in labels)


def _socket_path(before: str, path: str, variable: str) -> str:
    if before or not path.strip("/") or "\x00" in unquote(path):
        raise _unusable(variable, "it has no path of a socket", "write it like unix:///run/redis/redis.sock?db=0")
    return path


def _check_path(address: RedisAddress, variable: str) -> None:
    parts = address.path.strip("/").split("/")
    if address.kind == "sentinel":
        if not parts[0] or len(parts) > 2 or not all(part.isdigit() for part in parts[1:]):
            raise _unusable(
                variable,
                "it must name hosts and a service",
                "write it like redis+sentinel://:password@host:26379,host:26379/service/0",
            )
    elif len(parts) > 1 or not (parts[0].isdigit() or not parts[0]):
        raise _unusable(variable, "the path is not the number of a database", f"write it like {EXAMPLE}")


def _unencoded(variable: str, character: str) -> ConfigurationError:
    return _unusable(
        variable,
        f"it has a {character} in the wrong place",
        f"in a user name, a password or an option, write it as {SPECIAL[character]}",
    )


def _unusable(variable: str, why: str, what_to_do: str) -> ConfigurationError:
    return ConfigurationError(f"{variable} is not a valid address, because {why}: {what_to_do}.")
