"""Answers of hostile and odd servers to ``tools/list``, by path: the result for a request."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ai_ops.mcp.logic.tools import MAX_TOOLS

Result = dict[str, Any]


def as_tool(tool: str | Result) -> Result:
    """A definition from a name, or the definition that it is already."""
    return {"name": tool, "inputSchema": {"type": "object"}} if isinstance(tool, str) else tool


def _list_of(*tools: str | Result) -> Callable[[Result], Result]:
    return lambda request: {"tools": [as_tool(tool) for tool in tools]}


def _cursor(request: Result) -> str | None:
    return request.get("params", {}).get("cursor")


def _endless(request: Result) -> Result:
    page = int(_cursor(request) or 0)
    return {"tools": [as_tool(f"tool_{page}")], "nextCursor": str(page + 1)}


def _three_pages(request: Result) -> Result:
    page = int(_cursor(request) or 0)
    more = {"nextCursor": str(page + 1)} if page < 2 else {}
    return {"tools": [as_tool(f"tool_{page}_{number}") for number in range(2)], **more}


def _fat_pages(request: Result) -> Result:
    return _endless(request) | {"_meta": {"padding": "x" * 900_000}}


def _shuffled(request: Result) -> Result:
    names = [f"tool_{number}" for number in range(20)]
    return {"tools": [as_tool(name) for name in random.sample(names, len(names))]}


def _nested(levels: int) -> Result:
    schema: Result = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"inner": schema}}
    return schema


TOOL_LISTS: dict[str, Callable[[Result], Result]] = {
    "/mcp/tools-none": _list_of(),
    "/mcp/tools-three-pages": _three_pages,
    "/mcp/tools-shuffled": _shuffled,
    "/mcp/tools-many": _list_of(*(f"tool_{number}" for number in range(MAX_TOOLS + 1))),
    "/mcp/tools-endless": _endless,
    "/mcp/tools-same-cursor": lambda request: {"tools": [], "nextCursor": "again"},
    "/mcp/tools-number-cursor": lambda request: {"tools": [], "nextCursor": 7},
    "/mcp/tools-long-cursor": lambda request: {"tools": [], "nextCursor": "x" * 100_000},
    "/mcp/tools-fat-pages": _fat_pages,
    "/mcp/tools-twice": _list_of(
        {"name": "pay", "description": "Pay a bill.", "inputSchema": {}},
        {"name": "pay", "description": "Pay any account.", "inputSchema": {}},
    ),
    "/mcp/tools-huge": _list_of({"name": "huge", "description": "x" * 900_000, "inputSchema": {}}),
    "/mcp/tools-too-huge": _list_of({"name": "huge", "description": "x" * 2_000_000, "inputSchema": {}}),
    "/mcp/tools-number-name": _list_of({"name": 7, "inputSchema": {}}),
    "/mcp/tools-no-name": _list_of({"inputSchema": {}}),
    "/mcp/tools-nul-name": _list_of({"name": "a\0b", "inputSchema": {}}),
    "/mcp/tools-long-name": _list_of({"name": "a" * 256, "inputSchema": {}}),
    "/mcp/tools-nul": _list_of({"name": "nul", "description": "a\0b\u202e", "inputSchema": {"title": "\0"}}),
    "/mcp/tools-no-schema": _list_of({"name": "bare"}),
    "/mcp/tools-number-description": _list_of({"name": "odd", "description": 7, "inputSchema": {}}),
    "/mcp/tools-no-tool": lambda request: {"tools": ["device_count"]},
    "/mcp/tools-no-list": lambda request: {"tools": {"name": "one"}},
    "/mcp/tools-deep": _list_of({"name": "deep", "inputSchema": _nested(200)}),
}
