"""The one header by which a probe or an agent proves who it is; what may be in it is decided here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ai_ops.exceptions import CredentialsError

# RFC 9110, section 5.6.2: what the name of a header is made of.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Names that say where a message goes, where it ends or what it is: with one of these a secret could make
# one request into two, or contradict what the probe itself says.
_RESERVED = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "content-type", "accept"}
)
_RESERVED_PREFIX = "mcp-"

HIDDEN = "(hidden)"


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

    header: str
    value: str = field(repr=False)
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.header):
            raise CredentialsError("the name of the header has characters that no header's name has")
        if self.header.lower() in _RESERVED or self.header.lower().startswith(_RESERVED_PREFIX):
            raise CredentialsError(f"the header {self.header} is not for credentials")
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
        """Return `text` without the secret, for text that came from outside."""
        return text.replace(self.value, HIDDEN).replace(self.secret, HIDDEN)
