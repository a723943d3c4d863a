"""Unique names under which agents see the tools of several servers."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Sequence

# The longest name of a tool that the interfaces of models take.
MAX_NAME_CHARACTERS = 64
_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9_-]+")
_DIGEST_CHARACTERS = 8


def distinct_names(tools: Sequence[tuple[Hashable, str, str]], *, always: bool = False) -> list[str]:
    """Give each tool a unique name, prefixed with its server's name if two tools have the same name.

    Args:
        tools: Of each tool its server's key, its server's name and its own name.
        always: Whether all of them get the name of their server.

    Returns:
        The names, in the order of `tools`. They don't depend on that order.
    """
    servers_of: dict[str, set[Hashable]] = {}
    for key, _, name in tools:
        servers_of.setdefault(name, set()).add(key)
    wanted = [_prefixed(server, name) if always or len(servers_of[name]) > 1 else name for _, server, name in tools]
    taken = Counter(wanted)
    return [
        each if taken[each] == 1 or each == name else _shortened(each, f"{key}\0{name}")
        for each, (key, _, name) in zip(wanted, tools, strict=True)
    ]


def _prefixed(server: str, name: str) -> str:
    prefix = _OTHER_CHARACTERS.sub("_", server).strip("_") or "server"
    full = f"{prefix}_{name}"
    return full if len(full) <= MAX_NAME_CHARACTERS else _shortened(full, f"{server}\0{name}")


def _shortened(name: str, unique: str) -> str:
    digest = hashlib.sha256(unique.encode(errors="backslashreplace")).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{name[: MAX_NAME_CHARACTERS - _DIGEST_CHARACTERS - 1]}_{digest}"
