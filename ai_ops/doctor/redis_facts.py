"""Bounded, read-only queries of the doctor to the checkpoint Redis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from redis.cluster import RedisCluster
from redis.exceptions import ResponseError

from ai_ops.checkpoints.redis.errors import COMMANDS

# Pages of a scan after which a database counts as one without checkpoints: a hundred thousand keys.
MOST_PAGES = 100
SCAN_COUNT = 1000
# Number of databases of the same server that are searched. By default a server has 16.
MOST_DATABASES = 16
DEFAULT_PORT = 6379

# Redis 7 and Valkey answer for the user that runs the script. They call none of the commands.
ASK_ACL = """
local refused = {}
for _, each in ipairs(cjson.decode(ARGV[1])) do
    local known, allowed = pcall(redis.acl_check_cmd, unpack(each))
    if known and not allowed then refused[#refused + 1] = each[1] end
end
return refused
"""
# No saver writes this key, and this module does not write it either.
KEY = "checkpoint:ai-ops-doctor"
# Arguments to ask about, by command. All other commands take a key and two more arguments.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "SCAN": ("0",),
    "DBSIZE": (),
    "INFO": (),
    "SELECT": ("0",),
    "EVAL": ("return 1", "0"),
    # Commands whose arguments are all keys.
    "EXISTS": (KEY,),
    "UNLINK": (KEY,),
}


def has_keys(client: Any, prefixes: Sequence[bytes]) -> bool:
    """Return whether a bounded scan finds a key that begins with one of `prefixes`."""
    cursor: Any = 0
    for _ in range(MOST_PAGES):
        cursor, keys = client.scan(cursor, count=SCAN_COUNT)
        if any(key.startswith(tuple(prefixes)) for key in keys):
            return True
        if cursor == 0:
            return False
    return False


def databases_with(client: Any, prefixes: Sequence[bytes], own: int) -> list[int]:
    """Return the other databases of the server that have such keys; none for a cluster, which has a single database."""
    if isinstance(client, RedisCluster):
        return []
    numbers = [int(name[2:]) for name in client.info("keyspace") if name.startswith("db")]
    found = []
    for number in [each for each in numbers if each != own][:MOST_DATABASES]:
        with client.client() as one, suppress(ResponseError):
            one.execute_command("SELECT", number)
            if has_keys(one, prefixes):
                found.append(number)
            one.execute_command("SELECT", own)
    return found


def refused_commands(client: Any, prefixes: Iterable[str]) -> list[str]:
    """Return the commands that the user of `client` may not call, and the keys that it may not delete.

    Raises:
        redis.exceptions.ResponseError: The server can't answer, such as one before Redis 7, or refuses the script.
    """
    asked = [[name, *ARGUMENTS.get(name, (KEY, "1", "1"))] for name in (*COMMANDS, "INFO")]
    refused = [_text(name) for name in client.eval(ASK_ACL, 0, json.dumps(asked))]
    by_prefix = [["UNLINK", f"{prefix}ai-ops-doctor"] for prefix in prefixes]
    if "UNLINK" not in refused:
        for command, key in by_prefix:
            if client.eval(ASK_ACL, 0, json.dumps([[command, key]])):
                refused.append(f"{command} {key.removesuffix('ai-ops-doctor')}*")
    return refused


def server_and_database(url: str) -> str:
    """Return the host, port and database of an address, without credentials."""
    parts = urlsplit(url)
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}/{parts.path.strip('/') or 0}"


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
