"""Names of LangGraph's savers, and the key prefix of CompactRedisSaver, for settings and options."""

from __future__ import annotations

import re

# The values of the setting `checkpoint_saver`, each with its asynchronous and its synchronous class.
AUTO, COMPACT, REDIS, VALKEY = "auto", "compact", "redis", "valkey"
CLASSES = {
    COMPACT: ("AsyncCompactRedisSaver", "CompactRedisSaver"),
    REDIS: ("AsyncRedisSaver", "RedisSaver"),
    VALKEY: ("AsyncValkeySaver", "ValkeySaver"),
}
# The savers that older versions of the app tried, in this order.
OLDER = (REDIS, VALKEY)

# The default prefix of the keys of CompactRedisSaver.
DEFAULT_PREFIX = "lgc"
_PREFIX = re.compile(r"[A-Za-z0-9_.\-~:/@,+=]+")
# Prefixes of the keys of other savers. The package refuses these too.
_OTHERS = ("checkpoint", "writes", "write_keys", "write_registry", "thread")


def is_prefix(text: object) -> bool:
    """Return whether the saver accepts `text` as its prefix."""
    return isinstance(text, str) and bool(_PREFIX.fullmatch(text)) and not text.startswith(_OTHERS)
