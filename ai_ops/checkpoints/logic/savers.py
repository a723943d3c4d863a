"""The choice of the agents' saver: by the setting, the existing conversations, and the server's abilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ai_ops.logic.savers import AUTO, CLASSES, COMPACT, OLDER


@dataclass(frozen=True)
class Evidence:
    """The result of a search of the database.

    Attributes:
        savers: The savers with conversations in the database, each with the name of a key as evidence.
        was_chosen: Whether this app has recorded that it chose COMPACT.
        keys: Number of scanned keys.
        complete: Whether all keys were scanned, or enough to decide.
        trouble: The reason why the search failed, as a sentence; empty if it succeeded.
    """

    savers: Mapping[str, str] = field(default_factory=dict)
    was_chosen: bool = False
    keys: int = 0
    complete: bool = True
    trouble: str = ""

    @property
    def is_decided(self) -> bool:
        """Return whether more keys can't change the choice."""
        return COMPACT in self.savers if self.was_chosen else any(saver in self.savers for saver in OLDER)


@dataclass(frozen=True)
class SaverChoice:
    """The saver for a database.

    Attributes:
        saver: COMPACT, REDIS or VALKEY; None if the right one can't work there.
        reason: The reason for this saver, or for none, as a sentence without a full stop.
    """

    saver: str | None
    reason: str


def choose_saver(configured: str, able: Mapping[str, str | None], found: Evidence) -> SaverChoice:
    """Choose the saver for a database.

    A conversation must continue with its saver. So if the search is incomplete, the saver that older versions chose is
    kept.

    Args:
        configured: The setting `checkpoint_saver`.
        able: For each saver None if it can work there, otherwise the reason why not.
        found: The evidence in the database; unused if the setting names a saver.
    """
    if configured != AUTO:
        return _named(configured, f'the setting checkpoint_saver is "{configured}"', able)
    if found.was_chosen and (COMPACT in found.savers or not any(saver in found.savers for saver in OLDER)):
        return _named(COMPACT, "this app has chosen it for this database before", able)
    if older := [saver for saver in OLDER if saver in found.savers]:
        return _of_those(older, found.savers, able)
    if found.trouble:
        return _first_able(f"the database could not be sampled ({found.trouble})", able)
    if not found.complete:
        return _first_able(f"the first {found.keys:,} keys belong to no older saver, and the search ended there", able)
    return _named(COMPACT, "no older saver has conversations there", able)


def _named(saver: str, why: str, able: Mapping[str, str | None]) -> SaverChoice:
    if (reason := able[saver]) is None:
        return SaverChoice(saver, why)
    return SaverChoice(None, f"{why}, but {CLASSES[saver][1]} can't work there: {reason}")


def _of_those(older: list[str], keys: Mapping[str, str], able: Mapping[str, str | None]) -> SaverChoice:
    """Return the saver of the existing conversations."""
    saver = next((each for each in older if able[each] is None), older[0])
    why = " and ".join(f"{CLASSES[each][1]} has conversations there, such as {keys[each]}" for each in older)
    return _named(saver, why, able)


def _first_able(why: str, able: Mapping[str, str | None]) -> SaverChoice:
    saver = next(each for each in (*OLDER, COMPACT) if able[each] is None)
    return SaverChoice(saver, f"{why}, so that it is the first of those that can work there")
