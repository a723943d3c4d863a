"""The credentials of a probe or an agent: an HTTP header, and its allowed characters."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.entities import html5

from ai_ops.exceptions import CredentialsError

# The characters of a header's name (RFC 9110, section 5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Names that decide the destination, the end or the type of a message. With one of these a secret could split a request
# in two, or contradict the probe's own headers.
_RESERVED = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "content-type", "accept"}
)
_RESERVED_PREFIX = "mcp-"
_RESERVED_BY_MCP = frozenset({"mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name"})

HIDDEN = "(hidden)"

# Names that usually contain secrets, and are no secrets themselves. Any other name may be the secret itself, if name
# and value were swapped.
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
        value: The header's value.
        secret: The secret part of `value`, to recognise it if a server sends it back.

    Raises:
        CredentialsError: The header may not be sent, for the reason in the message, which has no part of the value.
    """

    header: str = field(repr=False)
    value: str = field(repr=False)
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.header):
            raise CredentialsError("the name of the header has characters that no header's name has")
        if self.header.lower() in _RESERVED or self.header.lower().startswith(_RESERVED_PREFIX):
            # Shown only if it can't be a misplaced secret.
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
        """Return the credentials for a token, as in RFC 6750."""
        return cls("Authorization", f"Bearer {token}", token)

    def hide_in(self, text: str) -> str:
        """Return `text` from a server without the secret, in any encoding."""
        found = _joined(_plain(text))
        for needle in self._needles:
            if needle in found:
                text = _without(needle, text)
                found = _joined(_plain(text))
        return text

    @cached_property
    def _needles(self) -> list[str]:
        """Return the forms of the secret to search for, the longest first, since it may contain the others."""
        secrets = {self.value, self.secret, *_parts(self.value)}
        if self.header.lower() not in _USUAL_NAMES:
            secrets.add(self.header)
        encoded = {form for secret in secrets for form in _encoded(secret)}
        # A form may itself look like an escape, and is then also searched for without decoding.
        plain = {form for each in secrets | encoded for form in (_plain(each), each.translate(_FOLDED))}
        return sorted({_joined(form) for form in plain} - {""}, key=len, reverse=True)


# Separators of the parts of a value, such as "Token abc", "Basic abc" and "session=abc; id=def".
_SEPARATORS = re.compile(r"""[\s,;=:"]+""")
# A shorter part is a word, or is easily guessed.
_SHORTEST_PART = 6
_SCHEMES = frozenset({"apikey", "api-key", "basic", "bearer", "digest", "negotiate", "secret", "session", "token"})


def _parts(value: str) -> Iterator[str]:
    """Return the parts of a header's value that a server may send back alone."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "basic":
        yield from _user_and_password(rest)
    for part in (rest, *_SEPARATORS.split(value)):
        if len(part) >= _SHORTEST_PART and part.lower() not in _SCHEMES:
            yield part


def _user_and_password(packed: str) -> Iterator[str]:
    """Yield the decoded user name and password of Basic authentication (RFC 7617), and the password alone."""
    try:
        both = base64.b64decode(packed).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return
    yield both
    yield both.partition(":")[2]


# The base64 of fewer bytes has too few characters that do not depend on the neighbouring bytes.
_SHORTEST_ENCODED = 6


def _encoded(secret: str) -> Iterator[str]:
    """Yield the secret in hexadecimal, and in base64 at each possible offset in a longer text."""
    data = secret.encode()
    if len(data) < _SHORTEST_ENCODED:
        return
    yield data.hex()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(data).decode().rstrip("=")
        for before in range(3):
            written = encode(bytes(before) + data).decode()
            # Without the characters that also depend on the neighbouring bytes.
            yield written[-(-8 * before // 6) : 8 * (before + len(data)) // 6]


# ASCII characters by their HTML names in lower case.
_NAMED = {
    name[:-1].lower(): meant
    for name, meant in html5.items()
    if name.endswith(";") and meant.isascii() and not meant.isspace()
}
# Escaped control characters become Unicode's pictures of them, because a secret may look like an escape.
_PICTURES = 0x2400
# The escapes of characters in URLs, JSON, HTML and Python's repr(). Escaping the percent sign again adds another 25.
_WRITTEN = re.compile(
    r"%(?:25)*(?:u00)?(?P<url>[0-9a-f]{2})|\\+(?:u0{6}|u00|u\{0*|x)(?P<code>[0-9a-f]{2})\}?|&\#0*(?P<decimal>[0-9]{1,3});?"
    r"|&\#x0*(?P<hex>[0-9a-f]{1,2});?|&(?P<name>[a-z]{2,31});|\\+|\+",
    re.IGNORECASE,
)
# Maximum number of decodings. A secret may contain text that looks like an escape, and a server may escape it again:
# "%00" as "&#37;00".
_PASSES = 8


class _Folded(dict[int, str]):
    """Maps a character to its form without case, width and style, a plus to a space, and a backslash to nothing.

    The keys are ordinals, as `str.translate` requires.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = folded = character if character.isspace() else _folded(character)
        return folded


def _folded(character: str) -> str:
    return unicodedata.normalize("NFKC", character).casefold()


# Marks at which a text may be wrapped or joined. Other invisible characters are not skipped: a model can read some of
# them, and a server could hide them in its secret.
_MARKS = frozenset("\u00ad\u180e\u200b\u200c\u200d\u2060\ufeff")


class _Gaps(dict[int, str]):
    """Maps white space, control characters and marks to nothing, because a wrapped text may have them anywhere."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        is_gap = character.isspace() or character in _MARKS or unicodedata.category(character) == "Cc"
        self[code] = kept = "" if is_gap else character
        return kept


_FOLDED = _Folded({ord("+"): " ", ord("\\"): ""})
_GAPS = _Gaps()


def _joined(plain: str) -> str:
    return plain.translate(_GAPS)


def _without(needle: str, text: str) -> str:
    plain, spans = _spread(text)
    places = [at for at, character in enumerate(plain) if _GAPS[ord(character)]]
    joined = _joined(plain)
    parts, begin = [], 0
    place = joined.find(needle)
    while place >= 0:
        first, after = places[place], places[place + len(needle) - 1] + 1
        # Including the backslashes on both sides, which the plain text omits and which may belong to the secret.
        parts += [text[begin : spans[first - 1][1] if first else 0], HIDDEN]
        begin = spans[after][0] if after < len(spans) else len(text)
        place = joined.find(needle, place + len(needle))
    return "".join([*parts, text[begin:]])


def _plain(text: str) -> str:
    """Return the text decoded and folded: lower case, a plus as a space, and without backslashes."""
    for _ in range(_PASSES):
        plain = _WRITTEN.sub(_meant, text).translate(_FOLDED)
        if plain == text:
            break
        text = plain
    return text


def _meant(written: re.Match[str]) -> str:
    """Return the character that an escape stands for; the escape itself if it stands for none."""
    found = written.groupdict()
    if digits := found["url"] or found["code"] or found["hex"]:
        return _character(int(digits, 16))
    if found["decimal"]:
        return _character(int(found["decimal"]))
    if found["name"]:
        return _NAMED.get(found["name"].lower(), written[0])
    return " " if written[0] == "+" else ""


def _character(code: int) -> str:
    return chr(code + _PICTURES if code < ord(" ") else code).translate(_FOLDED)


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

    def put(meant: str, start: int, end: int) -> None:
        folded = meant.translate(_FOLDED)
        parts.append(folded)
        spans.extend([(start, end)] * len(folded))

    begin = 0
    for written in _WRITTEN.finditer(text):
        for at in range(begin, written.start()):
            put(text[at], at, at + 1)
        put(_meant(written), *written.span())
        begin = written.end()
    for at in range(begin, len(text)):
        put(text[at], at, at + 1)
    return "".join(parts), spans
