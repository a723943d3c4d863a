"""Unique names under which agents see the tools of several servers."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Collection, Hashable, Sequence

# The maximum length of a tool's name in the interfaces of models.
MAX_NAME_CHARACTERS = 64
_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9_-]+")
_DIGEST_CHARACTERS = 8


def distinct_names(tools: Sequence[tuple[Hashable, str, str]], *, always: bool = False) -> list[str]:
    """Give each tool a unique name, prefixed with its server's name if two tools have the same name.

    Args:
        tools: The server's key, the server's name and the name of each tool. Two tools of a server with the same name
            count as one tool, and get one name.
        always: Whether all tools get the name of their server as a prefix.

    Returns:
        The names in the order of `tools`. They do not depend on this order.
    """
    servers_of: dict[str, set[Hashable]] = {}
    for key, _, name in tools:
        servers_of.setdefault(name, set()).add(key)
    wanted = {
        (key, name): _prefixed(server, name) if always or len(servers_of[name]) > 1 else name
        for key, server, name in tools
    }
    often = Counter(wanted.values())
    names = {tool: each for tool, each in wanted.items() if often[each] == 1 or each == tool[1]}
    taken = set(names.values())
    for tool in sorted(wanted.keys() - names.keys(), key=str):
        names[tool] = _unused(wanted[tool], tool, taken)
        taken.add(names[tool])
    return [names[key, name] for key, _, name in tools]


def _unused(name: str, tool: tuple[Hashable, str], taken: Collection[str]) -> str:
    """Return an unused name, because a server may list a tool under the prefixed name of another tool."""
    key, own = tool
    tries = (_shortened(name, f"{key}\0{own}" + f"\0{number}" * bool(number)) for number in itertools.count())
    return next(each for each in tries if each not in taken)


def _prefixed(server: str, name: str) -> str:
    prefix = _OTHER_CHARACTERS.sub("_", server).strip("_") or "server"
    full = f"{prefix}_{name}"
    return full if len(full) <= MAX_NAME_CHARACTERS else _shortened(full, f"{server}\0{name}")


def _shortened(name: str, unique: str) -> str:
    digest = hashlib.sha256(unique.encode(errors="backslashreplace")).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{name[: MAX_NAME_CHARACTERS - _DIGEST_CHARACTERS - 1]}_{digest}"
