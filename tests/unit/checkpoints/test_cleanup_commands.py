"""The commands that the documentation tells an administrator to allow, compared with those of the cleanup."""

from __future__ import annotations

import re
from pathlib import Path

from redis.exceptions import NoPermissionError, ResponseError

from ai_ops.checkpoints.redis.errors import COMMANDS, explain

INSTALL = Path(__file__).parents[3] / "docs" / "admin" / "install.md"


def test_the_documented_acl_allows_what_the_message_names() -> None:
    line = next(line for line in INSTALL.read_text().splitlines() if line.startswith("ACL SETUSER"))
    assert {word.upper() for word in re.findall(r"\+(\S+)", line)} == {*COMMANDS, "INFO", "STRLEN"}
    message = explain(NoPermissionError("no"))
    assert all(command in message for command in COMMANDS)


def test_a_database_that_is_not_there_is_called_that() -> None:
    assert "LANGGRAPH_REDIS_DB" in explain(ResponseError("DB index is out of range"))
