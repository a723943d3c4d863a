"""The credentials of a probe or agent: one HTTP header, and the characters that it may contain."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from functools import cached_property
from html.entities import name2codepoint

from ai_ops.exceptions import CredentialsError

# RFC 9110, section 5.6.2: what the name of a header is made of.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Names that say where a message goes, where it ends or what it is: with one of these a secret could make
# one request into two, or contradict what the probe itself says.
_RESERVED = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "content-type", "accept"}
)
_RESERVED_PREFIX = "mcp-"
_RESERVED_BY_MCP = frozenset({"mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name"})

HIDDEN = "(hidden)"

# Names under which secrets are usually sent, and which are none. Any other name may be the secret itself: it is, where
# name and value were swapped.
_USUAL_NAMES = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "private-token",
        "proxy-authorization",
        "token",
        "x-access-token",
        "x-api-key",
        "x-api-token",
        "x-auth-token",
        "x-token",
    }
)


@dataclass(frozen=True)
class Credentials:
    """A header with a secret in it. Neither appears in a ``repr``.

    Attributes:
        header: The header's name.
        value: What is sent in it.
        secret: The part of `value` that is secret, to be recognised where a server sends it back.

    Raises:
        CredentialsError: The header may not be sent; the message says why and holds nothing of the value.
    """

    header: str = field(repr=False)
    value: str = field(repr=False)
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.header):
            raise CredentialsError("the name of the header has characters that no header's name has")
        if self.header.lower() in _RESERVED or self.header.lower().startswith(_RESERVED_PREFIX):
            # Named only if it can't be a secret in the wrong place.
            known = self.header if self.header.lower() in _RESERVED | _RESERVED_BY_MCP else "that begins with Mcp-"
            raise CredentialsError(f"the header {known} is not for credentials")
        if any(character in self.value for character in "\r\n\0"):
            raise CredentialsError("the value has a line break or a NUL in it, which would end the header")
        if not self.value.isascii() or not self.value.isprintable() or self.value != self.value.strip():
            raise CredentialsError("the value has characters that a header can't carry, or spaces around it")
        if not self.secret:
            raise CredentialsError("the secret is empty")

    @classmethod
    def bearer(cls, token: str) -> Credentials:
        """A token as RFC 6750 sends it."""
        return cls("Authorization", f"Bearer {token}", token)

    def hide_in(self, text: str) -> str:
        """Return `text` from a server without the secret, in whatever encoding the server sent it back."""
        for needle in self._needles:
            text = _without(needle, text)
        return text

    @cached_property
    def _needles(self) -> list[str]:
        """Return the forms of the secret to search for, the longest first, since it may contain the others."""
        secrets = {self.value, self.secret}
        if self.header.lower() not in _USUAL_NAMES:
            secrets.add(self.header)
        plain = {form for secret in secrets for form in (_plain(secret), secret.translate(_SMALL).translate(_LOOSE))}
        return sorted(plain - {""}, key=len, reverse=True)


# The ways in which URLs, JSON, HTML and Python's repr() write a character; a percent sign written so again is another
# 25.
_WRITTEN = re.compile(
    r"%(?:25)*(?P<url>[0-9a-f]{2})|\\+(?:u00|x)(?P<code>[0-9a-f]{2})|&\#0*(?P<decimal>[0-9]{1,3});?"
    r"|&\#x0*(?P<hex>[0-9a-f]{1,2});?|&(?P<name>[a-z]{2,8});|\\+|\+",
    re.IGNORECASE,
)
_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
# A secret may hold what looks like a written character, which then is written itself: "%00" as "&#37;00".
_PASSES = 8
# A plus may be a space, and backslashes come and go.
_LOOSE = str.maketrans({"+": " ", "\\": ""})


def _without(needle: str, text: str) -> str:
    if needle not in _plain(text):
        return text
    plain, spans = _spread(text)
    parts, begin = [], 0
    place = plain.find(needle)
    while place >= 0:
        after = place + len(needle)
        # With the backslashes on both sides, which the plain text leaves out: they may be the secret's.
        parts += [text[begin : spans[place - 1][1] if place else 0], HIDDEN]
        begin = spans[after][0] if after < len(spans) else len(text)
        place = plain.find(needle, after)
    return "".join([*parts, text[begin:]])


def _plain(text: str) -> str:
    """Return the text decoded: lower case, a plus as a space, and without backslashes."""
    for _ in range(_PASSES):
        plain = _WRITTEN.sub(_meant, text).translate(_SMALL)
        if plain == text:
            break
        text = plain
    return text


def _meant(written: re.Match[str]) -> str:
    """Return the character that an escape stands for; the escape itself if it stands for none."""
    found = written.groupdict()
    if code := found["url"] or found["code"] or found["hex"]:
        return chr(int(code, 16)).translate(_LOOSE)
    if found["decimal"]:
        return chr(int(found["decimal"])).translate(_LOOSE)
    if found["name"]:
        return chr(name2codepoint[found["name"]]) if found["name"] in name2codepoint else written[0]
    return " " if written[0] == "+" else ""


def _spread(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the decoded text, and for each of its characters the start and end in `text`."""
    plain, spans = text, [(at, at + 1) for at in range(len(text))]
    for _ in range(_PASSES):
        following, places = _spread_once(plain)
        if following == plain:
            break
        plain, spans = following, [(spans[first][0], spans[last - 1][1]) for first, last in places]
    return plain, spans


def _spread_once(text: str) -> tuple[str, list[tuple[int, int]]]:
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    begin = 0
    for written in _WRITTEN.finditer(text):
        meant = _meant(written)
        parts += [text[begin : written.start()], meant]
        spans += ((at, at + 1) for at in range(begin, written.start()))
        spans += [written.span()] * len(meant)
        begin = written.end()
    parts.append(text[begin:])
    spans += ((at, at + 1) for at in range(begin, len(text)))
    return "".join(parts).translate(_SMALL), spans
