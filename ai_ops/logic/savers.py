"""Names of LangGraph's savers, and the prefix of the keys of CompactRedisSaver, as settings and options give them."""

from __future__ import annotations

import re

# What the setting `checkpoint_saver` takes, and the classes of each: the asynchronous and the synchronous one.
AUTO, COMPACT, REDIS, VALKEY = "auto", "compact", "redis", "valkey"
CLASSES = {
    COMPACT: ("AsyncCompactRedisSaver", "CompactRedisSaver"),
    REDIS: ("AsyncRedisSaver", "RedisSaver"),
    VALKEY: ("AsyncValkeySaver", "ValkeySaver"),
}
# Those that agents got before there was a choice, in the order in which they were tried.
OLDER = (REDIS, VALKEY)

# What the keys of CompactRedisSaver begin with, unless told otherwise.
DEFAULT_PREFIX = "lgc"
_PREFIX = re.compile(r"[A-Za-z0-9_.\-~:/@,+=]+")
# What the keys of other savers begin with; the package refuses these too.
_OTHERS = ("checkpoint", "writes", "write_keys", "write_registry", "thread")


def is_prefix(text: object) -> bool:
    """Whether the saver takes `text` as its prefix."""
    return isinstance(text, str) and bool(_PREFIX.fullmatch(text)) and not text.startswith(_OTHERS)
