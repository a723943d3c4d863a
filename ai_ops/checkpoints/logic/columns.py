"""Keys of the usual shapes in columns, one for each kind: what is worked out for all of them at once costs least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain, compress, count, islice
from operator import and_, eq, itemgetter, ne, sub
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

    def has_all(self, stems: Collection[bytes], text: bytes) -> bool:
        """Return whether all stems are of this layout; the arguments are those of `names_in`."""
        if not self.behind:
            return b":" not in text
        return text.count(b"\n" + self.before) >= len(stems) and text.count(self.behind + b"\n") >= len(stems)

    def names_in(self, stems: Collection[bytes], text: bytes) -> dict[bytes, bytes]:
        """Return the threads' ids by those of the stems that are of this layout.

        Args:
            stems: The stems.
            text: The same with a line break before and behind each: looking at all together takes a fraction of
                looking at each.
        """
        own = stems
        is_of_all = self.has_all(stems, text)
        if not self.behind:
            if not is_of_all:
                own = [stem for stem in stems if b":" not in stem]
            return _bare(dict(zip(own, own, strict=True)), text)
        if not is_of_all:
            own = [stem for stem in stems if stem.endswith(self.behind) and stem.startswith(self.before)]
        name = itemgetter(slice(len(self.before), -len(self.behind)))
        names = list(map(name, own))
        return _bare(dict(zip(own, names, strict=True)), b"".join(names))


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

    def newest(self, stems: Collection[bytes]) -> list[bytes]:
        """Return the newest id of each of these stems, in the order of the keys, where keys end in ids."""
        return self._ids(compress(self.keys, self._are_last), stems)

    def oldest(self, stems: Collection[bytes]) -> list[bytes]:
        """Return the oldest id of each of these stems, in the order of the keys, where keys end in ids."""
        return self._ids(compress(self.keys, chain((True,), self._are_last)), stems)

    def _ids(self, keys: Iterable[bytes], stems: Collection[bytes]) -> list[bytes]:
        if len(stems) < len(self.threads):
            keys = compress(keys, map(stems.__contains__, self.threads))
        return list(map(itemgetter(slice(-ID_BYTES, None)), keys))

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
    def stem_set(self) -> frozenset[bytes]:
        """The stems, each once."""
        return frozenset(self.stems)

    @cached_property
    def _text(self) -> bytes:
        """All keys, a line break before each."""
        return b"\n".join([b"", *self.keys])

    def is_beside(self, documents: Column) -> bool:
        """Return whether the keys are those of the documents but for what they begin with."""
        if self._behind_id != documents._behind_id or len(self.keys) != len(documents.keys):
            return False
        return self._text == documents._text.replace(b"\n" + documents._head, b"\n" + self._head)

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
        if not self._behind_id:
            ends = [0, *compress(accumulate(flags), map(and_, flags, self._are_last))]
            if len(ends) > len(stems):
                return flags, ends
        return flags, list(accumulate(map(self.counts.__getitem__, stems), initial=0))


NO_KEYS = Column(b"", [], None)


class LayoutThreads:
    """The threads of one layout that have documents.

    Args:
        layout: The layout.
        columns: The columns of all kinds, by what their keys begin with.
        names: The threads' ids by their stems.
    """

    def __init__(self, layout: Layout, columns: Mapping[bytes, Column], names: dict[bytes, bytes]) -> None:
        self.documents = columns.get(layout.document, NO_KEYS)
        self.names = names
        self._pointers = columns.get(layout.pointer, NO_KEYS)
        self._satellites = {head: columns[head] for head in layout.satellites if head in columns}
        self._layout = layout

    @cached_property
    def beside(self) -> list[Column]:
        """The columns that have one key for each document, in the same order."""
        return [column for column in self._satellites.values() if column.is_beside(self.documents)]

    def complete(self) -> dict[bytes, bytes]:
        """Return the ids by the stems of the threads that have a pointer, or need none."""
        if not self._layout.pointer:
            return self.names
        pointers = self._pointers.stem_set
        if pointers.issuperset(self.names):
            return self.names
        return {stem: name for stem, name in self.names.items() if stem in pointers}

    def strangers(self) -> list[bytes]:
        """Return the ids, without braces, of the threads with a key whose thread or checkpoint has no document."""
        names, documents = self.names, self.documents
        found: list[bytes] = []
        if not self._pointers.stem_set <= names.keys():
            found = self._pointers.names_of(self._pointers.without(names))
        for column in self._satellites.values():
            if len(names) == len(documents.threads) and column in self.beside:
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
        alike = [self.documents, *self.beside]
        for head, column in {self._layout.document: self.documents, **self._satellites}.items():
            family = self._layout.satellites.get(head, Family.DOCUMENT)
            own, at = (flags, ends) if column in alike else column.chosen(policies)
            shares.append(Share(family, list(compress(column.keys, own)), at))
        names = list(map(self.names.__getitem__, policies))
        return WholeThreads(names, list(policies.values()), self._pointers.of(policies), tuple(shares))


def layout_threads(layouts: Sequence[Layout], columns: Mapping[bytes, Column]) -> list[LayoutThreads]:
    """Return the threads of each layout."""
    names: dict[int, dict[bytes, bytes]] = {}
    for document in {layout.document for layout in layouts}:
        stems = columns.get(document, NO_KEYS).threads
        text = b"\n".join([b"", *stems, b""])
        own = [place for place, layout in enumerate(layouts) if layout.document == document]
        left = len(stems)
        # No stem is of two layouts, and mostly all are of one.
        for place in sorted(own, key=lambda place: not layouts[place].has_all(stems, text)):
            names[place] = layouts[place].names_in(stems, text) if left else {}
            left -= len(names[place])
    return [LayoutThreads(layout, columns, names[place]) for place, layout in enumerate(layouts)]


def _bare(names: dict[bytes, bytes], text: bytes) -> dict[bytes, bytes]:
    """Return the names that can't be taken for one with a namespace, or in braces; `text` has all of them."""
    if _is_bare(text):
        return names
    return {stem: name for stem, name in names.items() if _is_bare(name)}


def _is_bare(text: bytes) -> bool:
    return not (b":" in text or b"{" in text or b"}" in text)
