"""The names of keys and of the fields in a thread's hash.

A thread has two keys, in the same slot of a cluster:

    <prefix>:{<thread>}        hash with all data
    <prefix>:{<thread>}:ids    sorted set of its checkpoints, <namespace>|<id>, all with the score 0

The fields of the hash:

    n                                       the id of the newest checkpoint
    p                                       the number of writes to the thread
    s                                       the seal: no other program has changed the thread; see `scripts`
    c|<namespace>|<id>                      a checkpoint
    w|<namespace>|<id>                      its pending writes
    o|<length>|<namespace>|<id>|<index>|<task>   a large pending write
    v|<namespace>|<channel>|<version>       a value
    l|<log>                                 a log, which stores several versions of a value
    k|<log>|<number>                        a portion of a log

Threads, namespaces, channels and versions are percent-escaped, so that names are never ambiguous.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote

from langgraph_checkpoint_compact.errors import DamagedThreadError

SAFE = ":/@,+=~"
_SAFE_TEXT = re.compile(r"[A-Za-z0-9_.\-~:/@,+=]*").fullmatch
# A percent sign that begins no escape: no escaped thread id looks like this.
_EMPTY_THREAD = "%"

ChannelVersion = str | int | float


def escape(text: str) -> str:
    """Return `text` with all characters escaped that have a meaning in names."""
    return text if _SAFE_TEXT(text) else quote(text, safe=SAFE, errors="surrogatepass")


def unescape(text: str) -> str:
    """Return the text from the result of `escape`."""
    return unquote(text, errors="surrogatepass")


escape_often = lru_cache(maxsize=4096)(escape)


def check_prefix(prefix: str) -> str:
    """Return `prefix`; raise ValueError if keys with it would be ambiguous."""
    if not prefix or not _SAFE_TEXT(prefix):
        raise ValueError(f"The prefix {prefix!r} can't be used: take letters, digits and any of _ . - ~ : / @ , + =")
    if prefix.startswith(("checkpoint", "writes", "write_keys", "write_registry", "thread")):
        raise ValueError(f"The prefix {prefix!r} can't be used: keys of other checkpoint savers begin like it.")
    return prefix


def thread_keys(prefix: str, thread_id: object) -> tuple[bytes, bytes]:
    """Return the two keys of a thread."""
    key = f"{prefix}:{{{escape(str(thread_id)) or _EMPTY_THREAD}}}".encode()
    return key, key + b":ids"


def ids_pattern(prefix: str) -> bytes:
    """Return the pattern for SCAN that matches the second key of every thread."""
    return f"{prefix}:{{*}}:ids".encode()


def thread_of(prefix: str, ids_key: bytes) -> str:
    """Return the thread id from the name of a thread's second key."""
    escaped = ids_key.decode()[len(prefix) + 2 : -len("}:ids")]
    return "" if escaped == _EMPTY_THREAD else unescape(escaped)


def member(namespace: str, checkpoint_id: str) -> bytes:
    """Return the name of a checkpoint in its thread."""
    return f"{escape_often(namespace)}|{checkpoint_id}".encode("utf-8", "surrogatepass")


def split_member(name: bytes) -> tuple[str, str]:
    """Return the namespace and the id from the name of a checkpoint.

    Raises:
        DamagedThreadError: It is not UTF-8, so this package has not written it.
    """
    namespace, _, checkpoint_id = name.partition(b"|")
    try:
        return unescape(namespace.decode()), checkpoint_id.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DamagedThreadError(f"The name of the checkpoint {name[:100]!r} is not UTF-8.") from error


def value_name(channel: str, version: ChannelVersion) -> str:
    """Return the name of a value in its namespace, as in a checkpoint's list of values."""
    kind = "s" if isinstance(version, str) else "i" if isinstance(version, int) else "f"
    return f"{escape_often(channel)}|{kind}{escape(str(version))}"


def split_value_name(name: str) -> tuple[str, ChannelVersion]:
    """Return the channel and the version from the name of a value."""
    channel, _, tagged = name.partition("|")
    text = unescape(tagged[1:]) if "%" in tagged else tagged[1:]
    version: ChannelVersion = text if tagged[0] == "s" else int(text) if tagged[0] == "i" else float(text)
    return unescape(channel) if "%" in channel else channel, version


def value_field(namespace: str, name: str) -> bytes:
    """Return the field of a value."""
    return f"v|{escape_often(namespace)}|{name}".encode()
