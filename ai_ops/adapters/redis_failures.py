"""The one map from what Redis, or its client, says to a sentence on what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ai_ops.core.foreign_text import printable

SAID_CHARACTERS = 300  # of a server's or a client's own words

# What an ACL must allow; the documentation of the installation has the same list, with INFO, which is optional.
COMMANDS = (
    "SCAN", "DBSIZE", "TYPE", "GET", "GETRANGE", "LINDEX", "LREM", "EXISTS", "ZRANGE", "JSON.GET", "EVAL", "SET",
    "UNLINK", "SELECT",
)  # fmt: skip


def explain(error: Exception) -> str:
    """Explain an error of Redis, its client or the network, with the action to take, in a sentence."""
    said = printable(str(error).rstrip("."), SAID_CHARACTERS)
    for applies, sentence in _SENTENCES:
        if applies(error, said):
            return sentence.format(said=said)
    return f"The checkpoint Redis refused a command ({said}): see its log; the next run goes on from here."


def _is(*kinds: type[Exception], words: Sequence[str] = ()) -> Callable[[Exception, str], bool]:
    """Whether an error is one of these, or says one of these words: inside a script every error is a plain one."""
    return lambda error, said: isinstance(error, kinds) or any(word in said for word in words)


_SENTENCES: tuple[tuple[Callable[[Exception, str], bool], str], ...] = (
    (
        _is(AuthenticationError, words=("WRONGPASS", "NOAUTH")),
        "The checkpoint Redis refused the user name or password ({said}): "
        "check LANGGRAPH_REDIS_URL, or NAUTOBOT_REDIS_USERNAME and NAUTOBOT_REDIS_PASSWORD.",
    ),
    (
        # Redis 7.0 says the second and third of what a script may not do, later ones the first.
        _is(NoPermissionError, words=("ACL failure", "can't run this command", "can't access at least one")),
        "The checkpoint Redis user lacks a permission ({said}): grant it with ACL SETUSER; the cleanup needs "
        f"{', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}, and INFO for memory_limit_mb.",
    ),
    (
        _is(words=("DB index is out of range", "Invalid Database", "invalid DB index")),
        "The checkpoint Redis has no such database ({said}): "
        "set LANGGRAPH_REDIS_DB, or the number at the end of LANGGRAPH_REDIS_URL, to one that it has.",
    ),
    (
        _is(ReadOnlyError, words=("READONLY",)),
        "The checkpoint Redis is a read-only replica ({said}): "
        "point LANGGRAPH_REDIS_URL at the primary, or at Sentinel.",
    ),
    (
        _is(words=("NOREPLICAS",)),
        "The checkpoint Redis takes no writes while it has too few replicas ({said}): bring its replicas back, or "
        "lower min-replicas-to-write. The next run goes on from here.",
    ),
    (
        _is(BusyLoadingError, words=("LOADING",)),
        "The checkpoint Redis is still loading its data ({said}): run the cleanup again when it has finished.",
    ),
    (
        _is(words=("CERTIFICATE_VERIFY_FAILED",)),
        "The certificate of the checkpoint Redis is not trusted ({said}): name the file of the authority that signed "
        "it at the end of LANGGRAPH_REDIS_URL, as ?ssl_ca_certs=/path/to/ca.pem, and the server by the name in it.",
    ),
    (
        _is(words=("SSL", "TLSV1", "ssl_")),
        "No TLS connection to the checkpoint Redis came about ({said}): check that it speaks TLS on this port, which "
        "client certificate it asks for, and the ssl_ options of LANGGRAPH_REDIS_URL.",
    ),
    (
        _is(RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError),
        "The checkpoint Redis can't be reached ({said}): check that it runs and that LANGGRAPH_REDIS_URL, "
        "or NAUTOBOT_REDIS_HOST and NAUTOBOT_REDIS_PORT, name it. The next run goes on from here.",
    ),
)


def is_about_the_value(error: RedisError) -> bool:
    """Whether the error says something of one key's value rather than of the server or the user."""
    if isinstance(error, NoPermissionError | ReadOnlyError | BusyLoadingError) or not isinstance(error, ResponseError):
        return False
    text = str(error)
    if "unknown command 'JSON." in text:
        # Without RedisJSON there are no JSON documents: whatever the key holds, it is none.
        return True
    return "WRONGTYPE" in text or "wrong kind of value" in text or "wrong Redis type" in text or "Path" in text
