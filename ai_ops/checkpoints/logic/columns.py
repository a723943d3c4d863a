"""Keys of the usual shapes in columns, one for each kind: to process all keys of a kind at once is fastest."""

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
        document: The first part of the keys of documents, up to a colon.
        before: The text between this colon and the thread's id.
        after: The text after the thread's id; empty if the id of a checkpoint follows.
        pointer: The first part of the keys of pointers; empty if the layout has none.
        satellites: The families of the keys that belong to checkpoints, by their first part.
    """

    document: bytes
    before: bytes
    after: bytes
    pointer: bytes
    satellites: Mapping[bytes, int]

    def has_all(self, stems: Collection[bytes], text: bytes) -> bool:
        """Return whether all stems are of this layout; the arguments are those of `names_in`."""
        if not self.after:
            return b":" not in text
        return text.count(b"\n" + self.before) >= len(stems) and text.count(self.after + b"\n") >= len(stems)

    def names_in(self, stems: Collection[bytes], text: bytes) -> dict[bytes, bytes]:
        """Return the ids of the threads of this layout, by stem.

        Args:
            stems: The stems.
            text: All stems as one text, with a line break before and after each. A search of the text takes a fraction
                of a search of each stem.
        """
        own = stems
        is_of_all = self.has_all(stems, text)
        if not self.after:
            if not is_of_all:
                own = [stem for stem in stems if b":" not in stem]
            return _bare(dict(zip(own, own, strict=True)), text)
        if not is_of_all:
            own = [stem for stem in stems if stem.endswith(self.after) and stem.startswith(self.before)]
        name = itemgetter(slice(len(self.before), -len(self.after)))
        names = list(map(name, own))
        return _bare(dict(zip(own, names, strict=True)), b"".join(names))


class Column:
    """The keys of one kind.

    Args:
        head: The first part of the keys, up to a colon.
        keys: The keys, sorted.
        parts_after_id: The number of parts, each after a colon, that follow the checkpoint's id; None for keys without
            an id.
    """

    def __init__(self, head: bytes, keys: list[bytes], parts_after_id: int | None) -> None:
        self.keys = keys
        self._head = head + b":"
        self._begin = len(self._head)
        self._parts_after_id = parts_after_id

    @cached_property
    def checkpoints(self) -> list[bytes]:
        """Return the stem of each key, with a colon and the id if the key has an id."""
        if self._parts_after_id:
            return [key.rsplit(b":", self._parts_after_id)[0][self._begin :] for key in self.keys]
        return list(map(itemgetter(slice(self._begin, None)), self.keys))

    @cached_property
    def stems(self) -> list[bytes]:
        """Return the stem of each key: the part that all keys of its thread have in common."""
        if self._parts_after_id is None:
            return self.checkpoints
        if self._parts_after_id:
            return list(map(itemgetter(slice(-1 - ID_BYTES)), self.checkpoints))
        return list(map(itemgetter(slice(self._begin, -1 - ID_BYTES)), self.keys))

    @cached_property
    def _are_last(self) -> list[bool]:
        """Return for each key whether it is the last of its stem.

        This is only correct for keys that end in ids: then the keys of a stem are consecutive.
        """
        return [*map(ne, self.stems, islice(self.stems, 1, None)), True] if self.stems else []

    @cached_property
    def threads(self) -> list[bytes]:
        """Return the stems, each once; only for keys that end in ids."""
        return list(compress(self.stems, self._are_last))

    def newest(self, stems: Collection[bytes]) -> list[bytes]:
        """Return the newest id of each of these stems, in the order of the keys; only for keys that end in ids."""
        return self._ids(compress(self.keys, self._are_last), stems)

    def oldest(self, stems: Collection[bytes]) -> list[bytes]:
        """Return the oldest id of each of these stems, in the order of the keys; only for keys that end in ids."""
        return self._ids(compress(self.keys, chain((True,), self._are_last)), stems)

    def _ids(self, keys: Iterable[bytes], stems: Collection[bytes]) -> list[bytes]:
        if len(stems) < len(self.threads):
            keys = compress(keys, map(stems.__contains__, self.threads))
        return list(map(itemgetter(slice(-ID_BYTES, None)), keys))

    @cached_property
    def counts(self) -> Counter[bytes]:
        """Return the number of keys of each stem."""
        if self._parts_after_id:
            return Counter(self.stems)
        ends = list(compress(count(1), self._are_last))
        return Counter(dict(zip(self.threads, map(sub, ends, chain((0,), ends)), strict=False)))

    @cached_property
    def distinct(self) -> frozenset[bytes]:
        """Return the checkpoints, each once."""
        return frozenset(self.checkpoints)

    @cached_property
    def stem_set(self) -> frozenset[bytes]:
        """Return the stems, each once."""
        return frozenset(self.stems)

    @cached_property
    def _text(self) -> bytes:
        """Return all keys as one text, with a line break before each."""
        return b"\n".join([b"", *self.keys])

    def is_aligned_with(self, documents: Column) -> bool:
        """Return whether the keys differ from those of the documents only in their first part."""
        if self._parts_after_id != documents._parts_after_id or len(self.keys) != len(documents.keys):
            return False
        return self._text == documents._text.replace(b"\n" + documents._head, b"\n" + self._head)

    def are_all_of(self, documents: Column) -> bool:
        """Return whether the checkpoint of each key has a document."""
        # Mostly each document has exactly one key here.
        return self.checkpoints == documents.checkpoints or documents.distinct.issuperset(self.checkpoints)

    def repeated(self) -> list[bytes]:
        """Return the keys that occur more than once."""
        others = islice(self.keys, 1, None)
        return list(compress(others, map(eq, self.keys, islice(self.keys, 1, None))))

    def without(self, stems: Container[bytes]) -> list[bytes]:
        """Return the keys of all stems except these."""
        return [key for key, stem in zip(self.keys, self.stems, strict=True) if stem not in stems]

    def names_of(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return the ids, without braces, of the threads of some of the keys."""
        return [key[self._begin :].partition(b":")[0].strip(b"{}") for key in keys]

    def of(self, stems: Container[bytes]) -> list[bytes]:
        """Return the keys of these stems."""
        return list(compress(self.keys, map(stems.__contains__, self.stems)))

    def chosen(self, stems: Collection[bytes]) -> tuple[list[bool], list[int]]:
        """Return for each key whether it has one of these stems, and the ends of the stems' keys.

        Args:
            stems: The stems, in the order of the keys.

        Returns:
            A flag for each key; and a 0, followed for each stem by the number of chosen keys up to its last one.
        """
        flags = list(map(stems.__contains__, self.stems))
        if not self._parts_after_id:
            ends = [0, *compress(accumulate(flags), map(and_, flags, self._are_last))]
            if len(ends) > len(stems):
                return flags, ends
        return flags, list(accumulate(map(self.counts.__getitem__, stems), initial=0))


NO_KEYS = Column(b"", [], None)


class LayoutThreads:
    """The threads of one layout that have documents.

    Args:
        layout: The layout.
        columns: The columns of all kinds, by the first part of their keys.
        names: The threads' ids by their stems.
    """

    def __init__(self, layout: Layout, columns: Mapping[bytes, Column], names: dict[bytes, bytes]) -> None:
        self.documents = columns.get(layout.document, NO_KEYS)
        self.names = names
        self._pointers = columns.get(layout.pointer, NO_KEYS)
        self._satellites = {head: columns[head] for head in layout.satellites if head in columns}
        self._layout = layout

    @cached_property
    def aligned(self) -> list[Column]:
        """Return the columns that have one key for each document, in the same order."""
        return [column for column in self._satellites.values() if column.is_aligned_with(self.documents)]

    def complete(self) -> dict[bytes, bytes]:
        """Return the ids of the threads that have a pointer, or need none, by stem."""
        if not self._layout.pointer:
            return self.names
        pointers = self._pointers.stem_set
        if pointers.issuperset(self.names):
            return self.names
        return {stem: name for stem, name in self.names.items() if stem in pointers}

    def names_without_document(self) -> list[bytes]:
        """Return the ids, without braces, of threads with a key whose thread or checkpoint has no document."""
        names, documents = self.names, self.documents
        found: list[bytes] = []
        if not self._pointers.stem_set <= names.keys():
            found = self._pointers.names_of(self._pointers.without(names))
        for column in self._satellites.values():
            if len(names) == len(documents.threads) and column in self.aligned:
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
        alike = [self.documents, *self.aligned]
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
        # Each stem has at most one layout, and mostly all have the same.
        for place in sorted(own, key=lambda place: not layouts[place].has_all(stems, text)):
            names[place] = layouts[place].names_in(stems, text) if left else {}
            left -= len(names[place])
    return [LayoutThreads(layout, columns, names[place]) for place, layout in enumerate(layouts)]


def _bare(names: dict[bytes, bytes], text: bytes) -> dict[bytes, bytes]:
    """Return the names without colons and braces, which are unambiguous; `text` has all of them."""
    if _is_bare(text):
        return names
    return {stem: name for stem, name in names.items() if _is_bare(name)}


def _is_bare(text: bytes) -> bool:
    return not (b":" in text or b"{" in text or b"}" in text)
