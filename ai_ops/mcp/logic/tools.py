"""Tools of a server: their definitions, their hashes, and the differences between a list and the approved one.

An agent's model reads a tool's name, description and schemas, and its client what the annotations hint at, such as
whether the tool destroys anything. A server that changes them under the same name changes what the agents do ("rug
pull", "tool poisoning"): so all of a definition is hashed. What can't be read does not hide the rest: it is listed
under a name of its own, and so is a change to be approved.
Follows modelcontextprotocol.io/specification/2025-11-25/server/tools. No network, no database.
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

# As many pages as the agents' client reads.
MAX_PAGES = 1_000
# All pages together. A server with a hundred tools lists some 200 KB.
MAX_LIST_BYTES = 2 * 1024 * 1024
# The rows that one server may fill. What a model could choose among is far less.
MAX_TOOLS = 10_000
# A schema that a person wrote is ten levels deep at most; some parsers give up at a thousand.
MAX_SCHEMA_DEPTH = 64

# Begins the name under which something that can't be compared as a tool is kept.
UNREADABLE = "(unreadable) "
MAX_UNREADABLE_NAME = 200

# These have a part of their own in what is shown of a definition.
_SHOWN_APART = frozenset({"name", "description", "inputSchema"})

# Of a definition this much is kept to be shown. The hash is of all of it.
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
        hash: SHA-256, in hexadecimal, of all of its definition as canonical JSON: keys sorted, no white space, ASCII.
            Optional parts that are null are left out; a missing description is an empty one.
        definition: The same for people: description, schemas and all else, without characters that can't be seen,
            cut off at MAX_KEPT_CHARACTERS.
        excerpt: The beginning of its description, in one line.
    """

    name: str
    hash: str
    definition: str
    excerpt: str


@dataclass(frozen=True)
class KnownTool:
    """A tool in earlier lists; a hash is empty where there was no such tool.

    Attributes:
        hash: As it was listed last.
        approved_hash: As it was approved.
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
    """Reads a list of tools page by page, and keeps of each page no more than is needed.

    The order of tools does not matter. A name that is listed more than once, each time differently, is one
    tool whose definition is all of them: which one an agent would call is not known.

    Args:
        hide: Takes out of a text what must not be kept, as credentials that a server sends back.
    """

    def __init__(self, hide: Callable[[str], str] = str) -> None:
        self._hide = hide
        self._listed: dict[str, dict[str, _Definition]] = defaultdict(dict)
        self._cursors: set[str] = set()
        self._count = 0

    def add(self, result: Message) -> str | None:
        """Read a page; give the cursor of the next one, None where it was the last.

        Raises:
            ProtocolViolation: It is no list, or more than is read.
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
        """The tools read so far, by name."""
        return tuple(_tool([same[key] for key in sorted(same)]) for _, same in sorted(self._listed.items()))

    def _next(self, cursor: Any) -> str | None:
        if cursor is None or cursor == "":
            return None
        if not isinstance(cursor, str):
            raise ProtocolViolation("gave a cursor that is no text")
        if cursor in self._cursors:
            raise ProtocolViolation("gave the same cursor again, so that its list would never end")
        self._cursors.add(cursor)
        if len(self._cursors) >= MAX_PAGES:
            raise ProtocolViolation(f"went on after {MAX_PAGES} pages of its list")
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

    Time is divided into stretches of `interval` that begin at another moment for each server, so that those of
    a large fleet are not all listed in the same run. A run that comes late leaves no stretch out, and after an
    outage a server is asked once. A time that lies ahead by more than `interval` is from a wrong clock, and is
    no time.

    Args:
        asked: When they were asked for last, in seconds since 1970; None for never.
        now: The same for now.
        interval: Seconds.
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
    # As the specification has it a missing description, or any optional part that is null, is the same as none.
    told = {key: value for key, value in raw.items() if value is not None} | {
        "description": raw.get("description") or ""
    }
    shown = _hidden_mapping(told, lambda text: text if text in _SHOWN_APART else hide(text), hide)
    return _Definition(shown["name"], _sha256(_canonical(shown)), _readable(shown), _excerpt(shown["description"]))


def _flaw(raw: Any, hide: Callable[[str], str]) -> str | None:
    """Return why a listed entry can't be compared as a tool; None if it can."""
    if not isinstance(raw, Mapping):
        return "it is no tool"
    name = raw.get("name")
    if not isinstance(name, str):
        return "it has no name"
    name = hide(name)
    if not name.isprintable() or not 0 < len(name) <= MAX_TOOL_NAME_CHARACTERS or name != name.strip():
        return f"its name is not 1 to {MAX_TOOL_NAME_CHARACTERS} printable characters"
    if name.startswith(UNREADABLE):
        return f"its name begins with {UNREADABLE.strip()}, as those of tools that can't be read do here"
    if not isinstance(raw.get("description"), str | None):
        return "its description is no text"
    if not isinstance(raw.get("inputSchema"), Mapping):
        return "it has no input schema"
    if _is_deeper(raw, MAX_SCHEMA_DEPTH + 1):
        return f"a part of it is more than {MAX_SCHEMA_DEPTH} levels deep"
    return None


def _unreadable(raw: Any, flaw: str, hide: Callable[[str], str]) -> _Definition:
    """Return a tool for an unreadable entry, under a name that no readable tool has."""
    # A value nested too deep for JSON's own recursion is shown by its beginning, and hashed whole.
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
    told = tool["description"][: MAX_KEPT_CHARACTERS + 1] or "(none)"
    lines = ["Description:", *_indented(told), "Input schema:", *_indented(_laid_out(tool["inputSchema"]))]
    if rest := {key: value for key, value in tool.items() if key not in _SHOWN_APART}:
        # Before the schemas: what hints at harm must not be what is cut off.
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
    """Return a mapping without secrets, and with as many parts: behind a secret key another could hide."""
    shown: dict[str, Any] = {}
    for key, each in sorted(value.items()):
        hidden = hide_key(key)
        if hidden != key:
            names = (f"{hidden} {number}" if number else hidden for number in itertools.count())
            hidden = next(name for name in names if name not in shown and name not in value)
        shown[hidden] = _hidden(each, hide)
    return shown


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether lists and objects are nested deeper than `levels`; without recursion, which has a limit itself."""
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
