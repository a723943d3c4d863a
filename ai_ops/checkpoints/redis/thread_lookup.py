"""Look-up of the keys of one thread by their names, without a scan of the database.

Pointers and lists name the newest checkpoints, and each checkpoint names its parent. The checkpoints also contain the
names of namespaces, because the namespace of a subgraph has the name of its node. The search index of RedisSaver has
every checkpoint of a thread, including other branches, if Redis has the index and its user may search it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from ai_ops.checkpoints.logic.keys import CheckpointKey, KeyParser
from ai_ops.checkpoints.logic.values import first_found, json_in
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.exceptions import CheckpointStoreError
from ai_ops.logic.batches import batches

# Limits of one look-up. A conversation has fewer checkpoints.
MAX_CHECKPOINTS = 10_000
MAX_NAMESPACES = 500
ASKED_AT_ONCE = 500
ROOTS = (b"__empty__", b"")
# The ASCII characters that end a word in a query.
_NO_WORD = re.compile(r"([\x00-/:-@\[-^`{-\x7f])")


class ThreadLookup:
    """Finds the keys of a thread.

    Args:
        store: The Redis with the keys.
        parser: Parses keys.
    """

    def __init__(self, store: CheckpointStore, parser: KeyParser) -> None:
        self._store = store
        self._redis = store.redis
        self._parser = parser
        self._head = parser.prefixes.checkpoint.encode()

    def keys(self, name: bytes) -> tuple[list[CheckpointKey], bool]:
        """Return the keys of the thread with this id, and whether they certainly include all its checkpoints."""
        found: dict[bytes, None] = {}
        indexed = self._indexed(name)
        self._add_namespaces(name, ROOTS, found)
        pointed = {key for key in found if key.startswith(self._head + b":")}
        # An index without these checkpoints has split the name, for example at a comma, or has another prefix. Savers
        # without pointers also have blobs, which no index contains.
        complete = bool(pointed) and pointed <= set(indexed) and any(map(self._is_pointer, found))
        if complete:
            # An index ignores case, and splits names at commas.
            own = [key for key in self._store.complete(self._parsed(indexed)) if key.thread == name]
            found.update(dict.fromkeys(key.key for key in own))
            self._add_writes([key.key for key in own], found)
            self._add_namespaces(name, sorted({key.namespace for key in own} - set(ROOTS)), found)
        return list(self._store.complete(self._parsed(found))), complete

    def _is_pointer(self, key: bytes) -> bool:
        return key.startswith(self._head + b"_latest:")

    def _parsed(self, keys: Iterable[bytes]) -> list[CheckpointKey]:
        return [parsed for key in keys if (parsed := self._parser.parse(key)) is not None]

    def _add_namespaces(self, name: bytes, spaces: Sequence[bytes], found: dict[bytes, None]) -> None:
        """Look up namespaces, and those of subgraphs below them."""
        waiting, seen = list(spaces), set(spaces)
        while waiting and len(seen) <= MAX_NAMESPACES:
            documents: list[bytes] = []
            for space in waiting:
                documents += self._of_namespace(name, space, found)
            waiting = [space for space in self._below(name, documents, found) if space not in seen]
            seen.update(waiting)

    def _indexed(self, name: bytes) -> list[bytes]:
        """Search RedisSaver's index, which has the name of the prefix, for the checkpoints of the thread.

        Empty if there is no index, or if the user may not search it.
        """
        words = _NO_WORD.sub(r"\\\1", name.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        query = b"@thread_id:{" + words + b"}"
        reply = self._allowed(("FT.SEARCH", self._head, query, "NOCONTENT", "LIMIT", 0, MAX_CHECKPOINTS))
        if isinstance(reply, dict):
            # In version 3 of the protocol of Redis, the parts of the reply have names.
            return [each[b"id"] for each in reply.get(b"results", ())]
        return reply[1:] if isinstance(reply, list) else []

    def _allowed(self, command: Sequence[Any]) -> Any:
        """Send a command; return None if Redis does not know it, or the user may not call it."""
        try:
            (reply,) = self._redis.ask([command])
        except CheckpointStoreError as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            return None
        return reply

    def _of_namespace(self, name: bytes, space: bytes, found: dict[bytes, None]) -> list[bytes]:
        """Look up one namespace in the layouts of RedisSaver, the shallow savers and ValkeySaver."""
        stem = name + b":" + space
        pointer = self._head + b"_latest:" + stem
        documents = self._line(pointer, found)
        alone = [self._head + b":" + stem, *([self._head + b":" + name] if not space else [])]
        registries = [b"write_keys_zset:" + stem + b":shallow", b"write_registry:" + stem + b":shallow"]
        found.update(dict.fromkeys(self._existing([*alone, *registries])))
        for braced in (b"{" + name + b"}:" + space, stem):
            documents += self._list(braced, found)
        self._add_writes(documents, found)
        return documents

    def _line(self, pointer: bytes, found: dict[bytes, None]) -> list[bytes]:
        """Follow a pointer, and then each checkpoint to its parent."""
        heads = self._store.heads([pointer])
        if pointer not in heads:
            return []
        found[pointer] = None
        documents: list[bytes] = []
        at, stem = heads[pointer].key, heads[pointer].key[: -len(heads[pointer].checkpoint_id) or None]
        while at and at not in found and len(documents) < MAX_CHECKPOINTS:
            links = self._store.lineage([at]).get(at)
            if links is None:
                break
            found[at] = None
            documents.append(at)
            at = stem + links.parent_id if links.parent_id else b""
        return documents

    def _list(self, stem: bytes, found: dict[bytes, None]) -> list[bytes]:
        """Read ValkeySaver's list of the checkpoints of a namespace."""
        key = b"thread:" + stem
        ids = self._allowed(("LRANGE", key, 0, MAX_CHECKPOINTS - 1))
        if not isinstance(ids, list) or not ids:
            return []
        found[key] = None
        names = [b":" + each for each in dict.fromkeys(ids)]
        documents = self._existing([b"checkpoint:" + stem + each for each in names])
        found.update(dict.fromkeys([*documents, *self._existing([b"writes:" + stem + each for each in names])]))
        return documents

    def _add_writes(self, documents: Sequence[bytes], found: dict[bytes, None]) -> None:
        """Look up the lists of writes of RedisSaver's checkpoints, and the writes in them."""
        heads = len(self._head) + 1
        registries = [b"write_keys_zset:" + key[heads:] for key in documents if key.startswith(self._head + b":")]
        for some in batches(registries, ASKED_AT_ONCE):
            replies = self._redis.ask([("ZRANGE", key, 0, 1000) for key in some])
            for key, members in zip(some, replies, strict=True):
                if members:
                    found[key] = None
                    found.update(dict.fromkeys(self._existing(members)))

    def _below(self, name: bytes, documents: Iterable[bytes], found: dict[bytes, None]) -> list[bytes]:
        """Return the namespaces that subgraphs of these checkpoints may have, by the names of nodes and tasks."""
        spaces: dict[bytes, None] = {}
        tasks = {key.rsplit(b":", 2)[1] for key in found if key.startswith(self._parser.prefixes.write.encode() + b":")}
        for key, reading in self._redis.read(list(documents)[:ASKED_AT_ONCE], "$.checkpoint.versions_seen"):
            seen = first_found(json_in(reading.text)) if reading.is_document else None
            parsed = self._parser.parse(key)
            if not isinstance(seen, dict) or parsed is None:
                continue
            base = b"" if parsed.namespace in ROOTS else parsed.namespace + b"|"
            for node in seen:
                if not node.startswith("__"):
                    spaces[base + node.encode()] = None
                    spaces.update((base + node.encode() + b":" + task, None) for task in tasks)
        return list(spaces)

    def _existing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the keys that exist."""
        there: list[bytes] = []
        for some in batches(keys, ASKED_AT_ONCE):
            replies = self._redis.ask([("EXISTS", key) for key in some])
            there += [key for key, exists in zip(some, replies, strict=True) if exists]
        return there
