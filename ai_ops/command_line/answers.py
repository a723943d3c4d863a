"""The answer of a command: an exit code, data for scripts, and sentences and tables for a terminal."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from ai_ops.logic.foreign_text import printable

# Exit codes, for scripts.
WELL, NEEDS_YOU, NOT_KNOWN = 0, 1, 2
# Rich folds a longer cell. Without rich the cell is cut.
CELL_CHARACTERS = 60
GAP = "  "


@dataclass(frozen=True)
class Table:
    """Rows and column headings; any cell may hold foreign text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class Answer:
    """The answer of a command.

    Attributes:
        code: The exit code: WELL, NEEDS_YOU or NOT_KNOWN.
        data: The data that ``--json`` prints.
        lines: Sentences, shown before the tables.
        tables: Tables, shown after the lines. Tables without rows are omitted.
    """

    code: int
    data: Any
    lines: tuple[str, ...] = ()
    tables: tuple[Table, ...] = field(default=())


def as_json(answer: Answer) -> str:
    """Return the data as JSON, indented."""
    return json.dumps(answer.data, indent=2, cls=DjangoJSONEncoder, ensure_ascii=False)


def as_text(answer: Answer, width: int | None = None) -> str:
    """Return the sentences, and the tables as columns of plain text."""
    width = width or shutil.get_terminal_size().columns
    parts = [textwrap.fill(printable(line), width) for line in answer.lines]
    return "\n".join([*parts, *(_columns(table) for table in answer.tables if table.rows)])


def print_tables(answer: Answer, stream: Any) -> bool:
    """Print the answer as tables with rich. Return False, and print nothing, if rich is not installed."""
    try:
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text
    except ImportError:
        return False
    console = Console(file=stream, highlight=False)
    for line in answer.lines:
        console.print(Text(printable(line)))
    for table in answer.tables:
        if not table.rows:
            continue
        drawn = RichTable(*table.columns, title=table.title or None, title_justify="left")
        for row in table.rows:
            # As Text, because rich would read brackets in a name as markup.
            drawn.add_row(*(Text(cell) for cell in _cells(row)))
        console.print(drawn)
    return True


def _columns(table: Table) -> str:
    rows = [tuple(_cut(cell) for cell in _cells(row)) for row in table.rows]
    widths = [max(map(len, column)) for column in zip(table.columns, *rows, strict=True)]
    lines = [_line(table.columns, widths), _line(["-" * width for width in widths], widths)]
    lines += [_line(row, widths) for row in rows]
    return "\n".join(["", *([table.title] if table.title else []), *lines])


def _cells(row: Iterable[Any]) -> list[str]:
    return ["" if value is None else printable(str(value)) for value in row]


def _cut(cell: str) -> str:
    return cell if len(cell) <= CELL_CHARACTERS else f"{cell[: CELL_CHARACTERS - 1]}…"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
