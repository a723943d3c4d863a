"""A bounded search for savers with conversations in a database, by their unique keys."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.keys import VALKEY_LIST, CheckpointKey, Family, KeyParser, is_langgraph_id
from ai_ops.checkpoints.logic.savers import Evidence
from ai_ops.checkpoints.redis.errors import explain
from ai_ops.logic.foreign_text import printable
from ai_ops.logic.savers import COMPACT, REDIS, VALKEY

# It records that COMPACT was chosen, for later choices with newer keys of another saver.
CHOICE_KEY = b"ai-ops:checkpoint-saver"
# Maximum number of keys. An agent waits for a tenth of a second on an idle server. Most searches end within the first
# thousand keys.
MAX_KEYS = 200_000
MAX_SECONDS = 2.0
SCAN_COUNT = 1000
# Number of keys of each kind to read among each thousand keys, because names alone are no evidence.
LOOKED_AT = 20
POINTER_BYTES = 8192
SHOWN_CHARACTERS = 120

_REDIS_TYPES = {
    Family.POINTER: b"string",
    Family.DOCUMENT: b"ReJSON-RL",
    Family.WRITE: b"ReJSON-RL",
    Family.BLOB: b"ReJSON-RL",
}


def look(client: Any, parser: KeyParser, compact: CompactKeys) -> Evidence:
    """Search the keys of a database until they decide, or there are too many.

    Args:
        client: A client of the database, with ``decode_responses=False``.
        parser: Parses keys of the older savers.
        compact: Parses keys of the compact saver.
    """
    savers: dict[str, str] = {}
    deadline = time.monotonic() + MAX_SECONDS
    seen, was_chosen = 0, False
    try:
        was_chosen = _noted(client)
        for keys in _scanned(client):
            seen += len(keys)
            _look_at(client, keys, parser, compact, savers)
            if Evidence(savers, was_chosen).is_decided:
                break
            if seen >= MAX_KEYS or time.monotonic() > deadline:
                return Evidence(savers, was_chosen, seen, complete=False)
    except (RedisError, RedisClusterException) as error:
        return Evidence(savers, was_chosen, seen, complete=False, trouble=explain(error).rstrip("."))
    return Evidence(savers, was_chosen, seen)


def note_choice(client: Any) -> None:
    """Record in the database that COMPACT was chosen; a failure has no effect now."""
    try:
        client.set(CHOICE_KEY, COMPACT)
    except (RedisError, RedisClusterException):
        return


def _noted(client: Any) -> bool:
    if client.type(CHOICE_KEY) != b"string":
        return False
    return bool(client.getrange(CHOICE_KEY, 0, len(COMPACT)) == COMPACT.encode())


def _scanned(client: Any) -> Iterator[list[bytes]]:
    """Yield all keys of all primaries; a key may come twice."""
    is_cluster = isinstance(client, RedisCluster)
    nodes: list[Any] = [node.redis_connection for node in client.get_primaries()] if is_cluster else [client]
    for node in nodes:
        cursor = None
        while cursor != 0:
            cursor, keys = node.scan(cursor or 0, count=SCAN_COUNT)
            yield keys


def _look_at(
    client: Any, keys: Sequence[bytes], parser: KeyParser, compact: CompactKeys, savers: dict[str, str]
) -> None:
    """Add the savers for which some keys are evidence."""
    own = [key for key in keys if compact.is_hash(key)][:LOOKED_AT]
    parsed = [each for key in keys if (each := parser.parse(key)) is not None]
    lists = [each for each in parsed if each.key.startswith(VALKEY_LIST)][:LOOKED_AT]
    others = list(_first_of_each_family(each for each in parsed if each.family in _REDIS_TYPES and each not in lists))
    types = _asked(client, [("TYPE", key) for key in [*own, *(each.key for each in [*lists, *others])]])
    kinds = iter(types)
    _add(savers, COMPACT, [key for key in own if next(kinds) == b"hash"])
    of_valkey = [each.key for each in lists if next(kinds) == b"list"]
    of_redis = [each for each in others if next(kinds) == _REDIS_TYPES[each.family]]
    heads = _asked(client, [("LINDEX", key, 0) for key in of_valkey])
    _add(savers, VALKEY, [key for key, head in zip(of_valkey, heads, strict=True) if is_langgraph_id(head or b"")])
    pointers = [each.key for each in of_redis if each.family == Family.POINTER]
    named = _asked(client, [("GETRANGE", key, 0, POINTER_BYTES) for key in pointers])
    heads = [key for key, text in zip(pointers, named, strict=True) if _is_document(parser.parse(text or b""))]
    _add(savers, REDIS, [*heads, *(each.key for each in of_redis if each.family != Family.POINTER)])


def _first_of_each_family(parsed: Iterable[CheckpointKey]) -> Iterator[CheckpointKey]:
    counts = dict.fromkeys(_REDIS_TYPES, 0)
    for each in parsed:
        counts[each.family] += 1
        if counts[each.family] <= LOOKED_AT:
            yield each


def _is_document(key: CheckpointKey | None) -> bool:
    return key is not None and key.family == Family.DOCUMENT


def _add(savers: dict[str, str], saver: str, keys: Sequence[bytes]) -> None:
    if keys:
        savers.setdefault(saver, printable(keys[0], SHOWN_CHARACTERS))


def _asked(client: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Send commands together; return None for an error about a value."""
    if not commands:
        return []
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute()
        return replies
