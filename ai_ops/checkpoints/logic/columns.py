"""Keys of the usual shapes in columns, one for each kind: what is worked out for all of them at once costs least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from functools import cached_property
from itertools import accumulate, chain, compress, count, islice
from operator import eq, itemgetter, ne, sub
from typing import NamedTuple

from ai_ops.checkpoints.logic.keys import Family
from ai_ops.checkpoints.logic.whole_threads import ID_BYTES, Share, WholeThreads


class Layout(NamedTuple):
    """The keys that a saver writes for a thread without subgraphs.

    Attributes:
        document: What its documents begin with, up to a colon.
        before: What stands between that and the thread's id.
        behind: What stands behind the thread's id; empty where the id of a checkpoint follows.
        pointer: What its pointers begin with; empty where it has none.
        satellites: The families of what belongs to checkpoints, by what the keys begin with.
    """

    document: bytes
    before: bytes
    behind: bytes
    pointer: bytes
    satellites: Mapping[bytes, int]

    def names_in(self, stems: Collection[bytes]) -> dict[bytes, bytes]:
        """Return the threads' ids by those of the stems that are of this layout."""
        # Looking at all together takes a fraction of looking at each.
        text = b"\n".join([b"", *stems, b""])
        if not self.behind:
            own = stems if b":" not in text else [stem for stem in stems if b":" not in stem]
            return _bare(dict(zip(own, own, strict=True)))
        if b":" not in text:
            return {}
        own = stems
        if text.count(b"\n" + self.before) < len(stems) or text.count(self.behind + b"\n") < len(stems):
            own = [stem for stem in stems if stem.endswith(self.behind) and stem.startswith(self.before)]
        name = itemgetter(slice(len(self.before), -len(self.behind)))
        return _bare(dict(zip(own, map(name, own), strict=True)))


class Column:
    """The keys of one kind.

    Args:
        head: What they begin with, up to a colon.
        keys: The keys, sorted.
        behind_id: How many parts follow the checkpoint's id in each, colons between them; None where it has no id.
    """

    def __init__(self, head: bytes, keys: list[bytes], behind_id: int | None) -> None:
        self.keys = keys
        self._head = head + b":"
        self._begin = len(self._head)
        self._behind_id = behind_id

    @cached_property
    def checkpoints(self) -> list[bytes]:
        """Of each key its stem, and where the key has an id a colon and the id."""
        if self._behind_id:
            return [key.rsplit(b":", self._behind_id)[0][self._begin :] for key in self.keys]
        return list(map(itemgetter(slice(self._begin, None)), self.keys))

    @cached_property
    def stems(self) -> list[bytes]:
        """Of each key the part that all keys of its thread have in common."""
        if self._behind_id is None:
            return self.checkpoints
        if self._behind_id:
            return list(map(itemgetter(slice(-1 - ID_BYTES)), self.checkpoints))
        return list(map(itemgetter(slice(self._begin, -1 - ID_BYTES)), self.keys))

    @cached_property
    def _are_last(self) -> list[bool]:
        """Of each key whether it is the last one of its stem; where keys end in ids, those of a stem are neighbors."""
        return [*map(ne, self.stems, islice(self.stems, 1, None)), True] if self.stems else []

    @cached_property
    def threads(self) -> list[bytes]:
        """The stems, each once, where keys end in ids."""
        return list(compress(self.stems, self._are_last))

    def newest(self, stems: Container[bytes]) -> list[bytes]:
        """Return the newest id of each of these stems, in the order of the keys, where keys end in ids."""
        return self._ids(compress(self.keys, self._are_last), stems)

    def oldest(self, stems: Container[bytes]) -> list[bytes]:
        """Return the oldest id of each of these stems, in the order of the keys, where keys end in ids."""
        return self._ids(compress(self.keys, chain((True,), self._are_last)), stems)

    def _ids(self, keys: Iterable[bytes], stems: Container[bytes]) -> list[bytes]:
        chosen = compress(keys, map(stems.__contains__, self.threads))
        return list(map(itemgetter(slice(-ID_BYTES, None)), chosen))

    @cached_property
    def counts(self) -> Counter[bytes]:
        """The number of keys of each stem."""
        if self._behind_id:
            return Counter(self.stems)
        ends = list(compress(count(1), self._are_last))
        return Counter(dict(zip(self.threads, map(sub, ends, chain((0,), ends)), strict=False)))

    @cached_property
    def distinct(self) -> frozenset[bytes]:
        """The checkpoints, each once."""
        return frozenset(self.checkpoints)

    @cached_property
    def _text(self) -> bytes:
        """All keys without their head, one per line."""
        return b"\n".join([b"", *self.keys]).replace(b"\n" + self._head, b"\n")

    def is_beside(self, documents: Column) -> bool:
        """Return whether the keys are those of the documents but for what they begin with."""
        return self is documents or (self._behind_id == documents._behind_id and self._text == documents._text)

    def are_all_of(self, documents: Column) -> bool:
        """Return whether the checkpoint of each key has a document."""
        # Most have exactly one.
        return self.checkpoints == documents.checkpoints or documents.distinct.issuperset(self.checkpoints)

    def repeated(self) -> list[bytes]:
        """Return the keys that are there more than once."""
        others = islice(self.keys, 1, None)
        return list(compress(others, map(eq, self.keys, islice(self.keys, 1, None))))

    def without(self, stems: Container[bytes]) -> list[bytes]:
        """Return the keys of other stems than these."""
        return [key for key, stem in zip(self.keys, self.stems, strict=True) if stem not in stems]

    def names_of(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return the ids, without braces, of the threads that some of the keys are of."""
        return [key[self._begin :].partition(b":")[0].strip(b"{}") for key in keys]

    def of(self, stems: Container[bytes]) -> list[bytes]:
        """Return the keys of these stems."""
        return list(compress(self.keys, map(stems.__contains__, self.stems)))

    def chosen(self, stems: Collection[bytes]) -> tuple[list[bool], list[int]]:
        """Return of each key whether it is of these stems, and where the keys of each end among those, after a 0.

        Args:
            stems: The stems, in the order of the keys.
        """
        flags = list(map(stems.__contains__, self.stems))
        return flags, list(accumulate(map(self.counts.__getitem__, stems), initial=0))


NO_KEYS = Column(b"", [], None)


class LayoutThreads:
    """The threads of one layout that have documents.

    Args:
        layout: The layout.
        columns: The columns of all kinds, by what their keys begin with.
    """

    def __init__(self, layout: Layout, columns: Mapping[bytes, Column]) -> None:
        self.documents = columns.get(layout.document, NO_KEYS)
        self.names = layout.names_in(self.documents.threads)
        self._pointers = columns.get(layout.pointer, NO_KEYS)
        self._satellites = {head: columns[head] for head in layout.satellites if head in columns}
        self._layout = layout

    def complete(self) -> dict[bytes, bytes]:
        """Return the ids by the stems of the threads that have a pointer, or need none."""
        if not self._layout.pointer:
            return self.names
        pointers = set(self._pointers.stems)
        if pointers.issuperset(self.names):
            return self.names
        return {stem: name for stem, name in self.names.items() if stem in pointers}

    def strangers(self) -> list[bytes]:
        """Return the ids, without braces, of the threads with a key whose thread or checkpoint has no document."""
        names, documents = self.names, self.documents
        found = self._pointers.names_of(self._pointers.without(names))
        for column in self._satellites.values():
            if column.is_beside(documents) and len(names) == len(documents.threads):
                continue
            if not (column.are_all_of(documents) and all(map(names.__contains__, column.stems))):
                rows = zip(column.keys, column.checkpoints, column.stems, strict=True)
                known = documents.distinct
                odd = [key for key, each, stem in rows if each not in known or stem not in names]
                found += column.names_of(odd)
        return found

    def whole(self, policies: Mapping[bytes, str]) -> WholeThreads:
        """Return threads with all their keys.

        Args:
            policies: The names of their policies by stem, in the order of the keys.
        """
        shares = []
        flags, ends = self.documents.chosen(policies)
        for head, column in {self._layout.document: self.documents, **self._satellites}.items():
            family = self._layout.satellites.get(head, Family.DOCUMENT)
            own, at = (flags, ends) if column.is_beside(self.documents) else column.chosen(policies)
            shares.append(Share(family, list(compress(column.keys, own)), at))
        names = list(map(self.names.__getitem__, policies))
        return WholeThreads(names, list(policies.values()), self._pointers.of(policies), tuple(shares))


def _bare(names: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the names that can't be taken for one with a namespace, or in braces."""
    if _are_bare(names.values()):
        return names
    return {stem: name for stem, name in names.items() if _are_bare((name,))}


def _are_bare(names: Iterable[bytes]) -> bool:
    """Return whether no name can be taken for one with a namespace, or in braces."""
    text = b"".join(names)
    return not (b":" in text or b"{" in text or b"}" in text)
