"""Tools of a server: their definitions, their hashes, and the differences between a list and the approved one.

An agent's model reads a tool's name, description and schemas. The agent's client reads its annotations, for example
whether the tool deletes anything. A server that changes them under the same name changes the actions of agents ("rug
pull", "tool poisoning"), so the hash covers the whole definition. An unreadable entry does not hide the others: it gets
a name of its own, and is a change that needs an approval.

This module follows modelcontextprotocol.io/specification/2025-11-25/server/tools. It uses no network and no database.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ai_ops.logic.limits import MAX_TOOL_NAME_CHARACTERS
from ai_ops.mcp.logic.protocol import Message, ProtocolViolation

# The same number of pages as in the agents' client.
MAX_PAGES = 1_000
# Limit on all pages together. The list of a server with a hundred tools has about 200 KB.
MAX_LIST_BYTES = 2 * 1024 * 1024
# Maximum number of rows for one server. A model can choose among far fewer tools.
MAX_TOOLS = 10_000
# Handwritten schemas have at most ten levels. Some parsers fail at a thousand.
MAX_SCHEMA_DEPTH = 64

# Prefix of the names of unreadable entries.
UNREADABLE = "(unreadable) "
MAX_UNREADABLE_NAME = 200

# Keys with a part of their own in the text of a definition.
_SHOWN_APART = frozenset({"name", "description", "inputSchema"})

# Maximum length of the stored text of a definition. The hash covers the whole definition.
MAX_KEPT_CHARACTERS = 8 * 1024
MAX_EXCERPT_CHARACTERS = 200
CUT_OFF = "\n(the rest is not kept; it is part of the hash)"


class ToolState(StrEnum):
    """States of a tool against the approved ones."""

    APPROVED = "approved"
    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True)
class Tool:
    """A tool as a server lists it.

    Attributes:
        name: Its name, printable.
        hash: SHA-256, in hexadecimal digits, of its whole definition as canonical JSON: sorted keys, no white space,
            ASCII. Optional parts that are null are omitted; a missing description counts as an empty one.
        definition: The definition as readable text (description, schemas, other parts) with invisible characters as
            escapes, cut at MAX_KEPT_CHARACTERS.
        excerpt: The beginning of its description, on one line.
    """

    name: str
    hash: str
    definition: str
    excerpt: str


@dataclass(frozen=True)
class KnownTool:
    """A tool in earlier lists; a hash is empty if there was no such tool.

    Attributes:
        hash: Hash of the last listed definition.
        approved_hash: Hash of the approved definition.
    """

    hash: str
    approved_hash: str

    @property
    def state(self) -> ToolState:
        """Return its state against the approved list."""
        if self.hash == self.approved_hash:
            return ToolState.APPROVED
        if not self.approved_hash:
            return ToolState.ADDED
        return ToolState.CHANGED if self.hash else ToolState.REMOVED


class ToolReader:
    """Reads a list of tools page by page, and keeps only the necessary parts of each page.

    The order of tools does not matter. Several different entries with one name are one tool, and its definition
    consists of all of them, because an agent may call any of them.

    Args:
        hide: Removes parts of a text that must not be stored, such as credentials that a server sends back.
    """

    def __init__(self, hide: Callable[[str], str] = str) -> None:
        self._hide = hide
        self._listed: dict[str, dict[str, _Definition]] = defaultdict(dict)
        self._cursors: set[str] = set()
        self._count = 0

    def add(self, result: Message) -> str | None:
        """Read a page; return the cursor of the next page, None for the last page.

        Raises:
            ProtocolViolation: The page has no list of tools, or exceeds a limit.
        """
        tools = result.get("tools")
        if not isinstance(tools, list):
            raise ProtocolViolation("answered tools/list without a list of tools")
        if self._count + len(tools) > MAX_TOOLS:
            raise ProtocolViolation(f"listed more than {MAX_TOOLS:,} tools")
        for raw in tools:
            self._count += 1
            definition = _definition(raw, self._hide)
            self._listed[definition.name][definition.canonical_hash] = definition
        return self._next(result.get("nextCursor"))

    def tools(self) -> tuple[Tool, ...]:
        """Return the tools read so far, ordered by name."""
        return tuple(_tool([same[key] for key in sorted(same)]) for _, same in sorted(self._listed.items()))

    def _next(self, cursor: Any) -> str | None:
        if cursor is None or cursor == "":
            return None
        if not isinstance(cursor, str):
            raise ProtocolViolation("sent a cursor that is not a text")
        if cursor in self._cursors:
            raise ProtocolViolation("sent the same cursor again, so its list would never end")
        self._cursors.add(cursor)
        if len(self._cursors) >= MAX_PAGES:
            raise ProtocolViolation(f"sent a list of more than {MAX_PAGES} pages")
        return cursor


def is_among(name: str, kept: Collection[str]) -> bool:
    """Return whether the tool `name` is among the `kept` names, which mark unreadable tools."""
    return name in kept or f"{UNREADABLE}{visible(name)[:MAX_UNREADABLE_NAME]}".strip() in kept


def set_hash(hashes: Mapping[str, str]) -> str:
    """Return one hash for a set of tools, from the hash of each by its name, independent of their order."""
    present = sorted((name, value) for name, value in hashes.items() if value)
    return _sha256(_canonical(present))


def is_due(asked: float | None, now: float, interval: float, server: uuid.UUID) -> bool:
    """Return whether the listing of a server's tools is due.

    Time is divided into intervals with a different start for each server, so that one run does not list a whole large
    fleet. A late run skips no interval, and after an outage there is one listing. A time in the future by more than
    `interval` is from a wrong clock, and does not count.

    Args:
        asked: Time of the last listing, in seconds since 1970; None without one.
        now: The present, in seconds since 1970.
        interval: Seconds between two listings.
        server: The server's id.
    """
    if asked is None or asked > now + interval:
        return True
    offset = server.int % int(interval)
    return (asked + offset) // interval < (now + offset) // interval


@dataclass(frozen=True)
class _Definition:
    name: str
    canonical_hash: str
    shown: str
    excerpt: str


def _definition(raw: Any, hide: Callable[[str], str]) -> _Definition:
    if flaw := _flaw(raw, hide):
        return _unreadable(raw, flaw, hide)
    # According to the specification, a missing description is the same as an empty one, and null the same as no value.
    given = {key: value for key, value in raw.items() if value is not None} | {
        "description": raw.get("description") or ""
    }
    shown = _hidden_mapping(given, lambda text: text if text in _SHOWN_APART else hide(text), hide)
    return _Definition(shown["name"], _sha256(_canonical(shown)), _readable(shown), _excerpt(shown["description"]))


def _flaw(raw: Any, hide: Callable[[str], str]) -> str | None:
    """Return why a listed entry can't be compared as a tool; None if it can."""
    if not isinstance(raw, Mapping):
        return "it is not an object"
    name = raw.get("name")
    if not isinstance(name, str):
        return "it has no name"
    name = hide(name)
    if not name.isprintable() or not 0 < len(name) <= MAX_TOOL_NAME_CHARACTERS or name != name.strip():
        return f"its name is not 1 to {MAX_TOOL_NAME_CHARACTERS} printable characters"
    if name.startswith(UNREADABLE):
        return f"its name begins with {UNREADABLE.strip()}, the prefix of unreadable tools"
    if not isinstance(raw.get("description"), str | None):
        return "its description is not a text"
    if not isinstance(raw.get("inputSchema"), Mapping):
        return "it has no input schema"
    if _is_deeper(raw, MAX_SCHEMA_DEPTH + 1):
        return f"a part of it is more than {MAX_SCHEMA_DEPTH} levels deep"
    return None


def _unreadable(raw: Any, flaw: str, hide: Callable[[str], str]) -> _Definition:
    """Return a tool for an unreadable entry, under a name that no readable tool has."""
    # A value that is nested too deeply for JSON's recursion is shown without its inner levels, and hashed completely.
    written = _canonical(_hidden(_cut_at_depth(raw), hide))
    name = raw.get("name") if isinstance(raw, Mapping) else None
    called = visible(hide(name))[:MAX_UNREADABLE_NAME] if isinstance(name, str) else ""
    digest = _sha256("".join(_canonical(hide(each)) for each in _flattened(raw)))
    shown = f"Can't be read, since {flaw}. Agents may load it all the same. It is listed as:\n  {visible(written)}"
    label = f"{UNREADABLE}{called}".strip() + f" #{digest[:10]}" * (not called.strip())
    return _Definition(label, digest, _kept(shown), _excerpt(f"Can't be read, since {flaw}."))


def _flattened(value: Any) -> Iterator[str]:
    """Return all parts of a value as texts in a fixed order, without recursion."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, Mapping):
            yield f"{{{len(each)}"
            stack += [part for key in sorted(each, reverse=True) for part in (each[key], key)]
        elif isinstance(each, list):
            yield f"[{len(each)}"
            stack += reversed(each)
        else:
            yield f"{type(each).__name__} {each}"


def _cut_at_depth(value: Any, levels: int = MAX_SCHEMA_DEPTH) -> Any:
    if not isinstance(value, Mapping | list):
        return value
    if not levels:
        return "..."
    if isinstance(value, Mapping):
        return {key: _cut_at_depth(each, levels - 1) for key, each in sorted(value.items())}
    return [_cut_at_depth(each, levels - 1) for each in value]


def _tool(same: list[_Definition]) -> Tool:
    """Build the tool of a name from all entries that the server lists under it."""
    first = same[0]
    if len(same) == 1:
        return Tool(first.name, first.canonical_hash, first.shown, first.excerpt)
    shown = "\n\nListed again under the same name:\n\n".join(each.shown for each in same)
    together = _sha256(_canonical([each.canonical_hash for each in same]))
    return Tool(first.name, together, _kept(shown), first.excerpt)


def _kept(text: str) -> str:
    return text if len(text) <= MAX_KEPT_CHARACTERS else text[:MAX_KEPT_CHARACTERS] + CUT_OFF


def _excerpt(description: str) -> str:
    words = " ".join(description[: 2 * MAX_EXCERPT_CHARACTERS].split())
    text = visible(words)
    return text if len(text) <= MAX_EXCERPT_CHARACTERS else text[:MAX_EXCERPT_CHARACTERS] + "..."


def _readable(tool: Mapping[str, Any]) -> str:
    description = tool["description"][: MAX_KEPT_CHARACTERS + 1] or "(none)"
    lines = ["Description:", *_indented(description), "Input schema:", *_indented(_laid_out(tool["inputSchema"]))]
    if rest := {key: value for key, value in tool.items() if key not in _SHOWN_APART}:
        # Before the schemas, because annotations about harm must not be cut off.
        lines = ["Annotations and all else:", *_indented(_laid_out(rest)), *lines]
    return _kept("\n".join(lines))


def _indented(text: str) -> Iterator[str]:
    return (f"  {visible(line)}" for line in text.split("\n"))


def _laid_out(schema: Mapping[str, Any]) -> str:
    """Return the beginning of a schema, one line per part, up to the length that is kept."""
    parts: list[str] = []
    room = MAX_KEPT_CHARACTERS + 1
    for part in json.JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).iterencode(schema):
        parts.append(part[:room])
        room -= len(part)
        if room < 0:
            break
    return "".join(parts)


def visible(text: str) -> str:
    """Return `text` with invisible characters and direction marks as escapes.

    Such characters can hide instructions: a model reads them, and a user does not see them.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _hidden(value: Any, hide: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return _hidden_mapping(value, hide, hide)
    return [_hidden(each, hide) for each in value] if isinstance(value, list) else value


def _hidden_mapping(
    value: Mapping[str, Any], hide_key: Callable[[str], str], hide: Callable[[str], str]
) -> dict[str, Any]:
    """Return a mapping with secrets hidden and each key distinct, so that a secret key does not hide another."""
    shown: dict[str, Any] = {}
    for key, each in sorted(value.items()):
        hidden = hide_key(key)
        if hidden != key:
            names = (f"{hidden} {number}" if number else hidden for number in itertools.count())
            hidden = next(name for name in names if name not in shown and name not in value)
        shown[hidden] = _hidden(each, hide)
    return shown


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether lists and objects are nested deeper than `levels`, without recursion, which has its own limit."""
    layer = [value]
    for _ in range(levels):
        layer = [inner for each in layer for inner in _parts(each)]
        if not layer:
            return False
    return True


def _parts(value: Any) -> Iterable[Any]:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return (each for each in parts if isinstance(each, Mapping | list))


def _canonical(value: Any) -> str:
    """Return canonical JSON: sorted keys, no white space, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()
