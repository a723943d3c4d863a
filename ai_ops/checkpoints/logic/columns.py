"""Keys of the usual shapes in columns, one for each kind: what is worked out for all of them at once costs least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from functools import cached_property
from itertools import accumulate, compress, islice
from operator import eq, itemgetter
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
        if not self.behind:
            # Looking at all together takes a fraction of looking at each.
            own = stems if b":" not in b"".join(stems) else [stem for stem in stems if b":" not in stem]
            found = dict(zip(own, own, strict=True))
        else:
            own = [stem for stem in stems if stem.endswith(self.behind) and stem.startswith(self.before)]
            name = itemgetter(slice(len(self.before), -len(self.behind)))
            found = dict(zip(own, map(name, own), strict=True))
        if _are_bare(found.values()):
            return found
        return {stem: name for stem, name in found.items() if _are_bare((name,))}


class Column:
    """The keys of one kind.

    Args:
        head: What they begin with, up to a colon.
        keys: The keys, sorted.
        behind_id: How many parts follow the checkpoint's id in each, colons between them; None where it has no id.
    """

    def __init__(self, head: bytes, keys: list[bytes], behind_id: int | None) -> None:
        self.keys = keys
        self._begin = len(head) + 1
        self._behind_id = behind_id
        # Of each key what all keys of its thread have in common.
        self.stems = self.checkpoints
        if behind_id is not None:
            self.stems = list(map(itemgetter(slice(-1 - ID_BYTES)), self.checkpoints))

    @cached_property
    def checkpoints(self) -> list[bytes]:
        """Of each key its stem, and where the key has an id a colon and the id."""
        if self._behind_id:
            return [key.rsplit(b":", self._behind_id)[0][self._begin :] for key in self.keys]
        return list(map(itemgetter(slice(self._begin, None)), self.keys))

    @cached_property
    def newest(self) -> dict[bytes, bytes]:
        """The key with the newest id of each stem, where keys end in ids."""
        # The last of a stem counts, and sorted keys of one stem are in the order of their ids.
        return dict(zip(self.stems, self.keys, strict=True))

    @cached_property
    def oldest(self) -> dict[bytes, bytes]:
        """The key with the oldest id of each stem, where keys end in ids."""
        return dict(zip(reversed(self.stems), reversed(self.keys), strict=True))

    @cached_property
    def counts(self) -> Counter[bytes]:
        """The number of keys of each stem."""
        return Counter(self.stems)

    @cached_property
    def distinct(self) -> frozenset[bytes]:
        """The checkpoints, each once."""
        return frozenset(self.checkpoints)

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
        if all(map(stems.__contains__, self.stems)):
            return []
        return [key for key, stem in zip(self.keys, self.stems, strict=True) if stem not in stems]

    def names_of(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return the ids, without braces, of the threads that some of the keys are of."""
        return [key[self._begin :].partition(b":")[0].strip(b"{}") for key in keys]

    def of(self, stems: Container[bytes]) -> list[bytes]:
        """Return the keys of these stems."""
        return list(compress(self.keys, map(stems.__contains__, self.stems)))

    def share(self, family: int, stems: Collection[bytes]) -> Share:
        """Return the keys of these stems, whose order is that of the keys."""
        chosen = list(map(stems.__contains__, self.stems))
        counts = Counter(compress(self.stems, chosen))
        ends = accumulate(map(counts.__getitem__, stems), initial=0)
        return Share(family, list(compress(self.keys, chosen)), list(ends))


NO_KEYS = Column(b"", [], None)


class LayoutThreads:
    """The threads of one layout that have documents.

    Args:
        layout: The layout.
        columns: The columns of all kinds, by what their keys begin with.
    """

    def __init__(self, layout: Layout, columns: Mapping[bytes, Column]) -> None:
        self.documents = columns.get(layout.document, NO_KEYS)
        self.names = layout.names_in(self.documents.newest)
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
        names = self.names
        found = self._pointers.names_of(self._pointers.without(names))
        for column in self._satellites.values():
            if not (column.are_all_of(self.documents) and all(map(names.__contains__, column.stems))):
                rows = zip(column.keys, column.checkpoints, column.stems, strict=True)
                known = self.documents.distinct
                odd = [key for key, each, stem in rows if each not in known or stem not in names]
                found += column.names_of(odd)
        return found

    def whole(self, policies: Mapping[bytes, str]) -> WholeThreads:
        """Return threads with all their keys.

        Args:
            policies: The names of their policies by stem, in the order of the keys.
        """
        satellites = self._layout.satellites
        return WholeThreads(
            [self.names[stem] for stem in policies],
            list(policies.values()),
            self._pointers.of(policies),
            (
                self.documents.share(Family.DOCUMENT, policies),
                *(column.share(satellites[head], policies) for head, column in self._satellites.items()),
            ),
        )


def _are_bare(names: Iterable[bytes]) -> bool:
    """Return whether no name can be taken for one with a namespace, or in braces."""
    text = b"".join(names)
    return not (b":" in text or b"{" in text or b"}" in text)
