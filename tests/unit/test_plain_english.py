"""Plain English, for readers whose second language it is: words that neither code nor documentation has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CODE = ("ai_ops", "langgraph_checkpoint_compact", "development", "tests")
# Each with the words to write instead.
AVOIDED = {
    r"\b(some|any|no)body\b": "name the user, the operator, the run, the worker or the process",
    r"\bwhoever\b": "name the user, the run or the process",
    r"\bmend(s|ed|ing)?\b": "write fix, retry or repair",
    r"\bwhat is done to\b": "name the action",
}
# A function or a property does something: its docstring says it as a command.
NO_COMMAND = re.compile(r"(The|A|An|All|Any|Each|Every|Of|Those|These|This|It|There|As|Nothing|Takes|Gives)\b")
# The account of that name on Unix.
THE_ACCOUNT = re.compile(r"""["']nobody["']|user nobody|\bnobody(\.pw_|\b = )""")
QUESTIONS = re.compile(r"(What|Which|How|Who|Whose|Whether|When|Where)\b")
# Any quoted text that begins so, as each such docstring is.
QUESTIONS_QUOTED = re.compile(rf"""["'][\s\\]*{QUESTIONS.pattern}""")


def sources() -> Iterator[Path]:
    for folder in (*CODE, "docs"):
        for path in (PROJECT / folder).rglob("*"):
            if path.suffix in {".py", ".md", ".html"}:
                yield path
    yield from (PROJECT / name for name in ("README.md", "tasks.py"))


def is_exempt(path: Path) -> bool:
    """Return whether a file is generated, or has the words as data."""
    is_generated = "migrations" in path.parts or (PROJECT / "ai_ops" / "docs") in path.parents
    return is_generated or path == Path(__file__)


PATHS = sorted(path for path in sources() if not is_exempt(path))


def test_there_is_something_to_read():
    assert len(PATHS) > 200


@pytest.mark.parametrize("pattern", AVOIDED)
def test_a_word_is_avoided(pattern):
    word = re.compile(pattern, re.IGNORECASE)
    found = [
        f"{path.relative_to(PROJECT)}:{number}: {line.strip()}"
        for path in PATHS
        if word.search(text := path.read_text())
        for number, line in enumerate(text.splitlines(), 1)
        if word.search(THE_ACCOUNT.sub("", line))
    ]
    assert found == [], f"Instead {AVOIDED[pattern]}."


def test_a_docstring_begins_with_a_command_or_a_noun():
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{path.relative_to(PROJECT)}: {documented}"
        for path in PATHS
        # To parse all of the code takes a second.
        if path.suffix == ".py" and QUESTIONS_QUOTED.search(text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, kinds) and QUESTIONS.match(documented := ast.get_docstring(node) or "")
    ]
    assert found == []


def test_the_docstring_of_a_function_begins_with_a_command():
    found = [
        f"{path.relative_to(PROJECT)}: {documented}"
        for path in PATHS
        if path.suffix == ".py" and (PROJECT / "tests") not in path.parents
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if NO_COMMAND.match(documented := ast.get_docstring(node) or "")
    ]
    assert found == []


def test_a_heading_names_its_subject():
    heading = re.compile(r"^#+ (.*)$", re.MULTILINE)
    found = [
        f"{path.relative_to(PROJECT)}: {title}"
        for path in PATHS
        # A page of questions has questions for headings.
        if path.suffix == ".md" and path.name != "faq.md"
        for title in heading.findall(path.read_text())
        if QUESTIONS.match(title) and title != "How-tos"
    ]
    assert found == []
