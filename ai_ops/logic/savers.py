"""Names of LangGraph's savers, and the prefix of the keys of CompactRedisSaver, as settings and options give them."""

from __future__ import annotations

import re

# The values of the setting `checkpoint_saver`, and the classes of each: the asynchronous and the synchronous one.
AUTO, COMPACT, REDIS, VALKEY = "auto", "compact", "redis", "valkey"
CLASSES = {
    COMPACT: ("AsyncCompactRedisSaver", "CompactRedisSaver"),
    REDIS: ("AsyncRedisSaver", "RedisSaver"),
    VALKEY: ("AsyncValkeySaver", "ValkeySaver"),
}
# Those that agents got before there was a choice, in the order in which they were tried.
OLDER = (REDIS, VALKEY)

# The default beginning of the keys of CompactRedisSaver.
DEFAULT_PREFIX = "lgc"
_PREFIX = re.compile(r"[A-Za-z0-9_.\-~:/@,+=]+")
# The beginnings of the keys of other savers; the package refuses these too.
_OTHERS = ("checkpoint", "writes", "write_keys", "write_registry", "thread")


def is_prefix(text: object) -> bool:
    """Return whether the saver takes `text` as its prefix."""
    return isinstance(text, str) and bool(_PREFIX.fullmatch(text)) and not text.startswith(_OTHERS)
