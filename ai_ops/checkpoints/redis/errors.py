"""The mapping of errors of Redis and its client to sentences with advice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ai_ops.logic.foreign_text import printable

MESSAGE_CHARACTERS = 300  # characters of a server's or a client's own message

# Commands that an ACL must allow; the page on installation has the same list, with INFO and STRLEN, which are optional.
COMMANDS = (
    "SCAN", "DBSIZE", "TYPE", "GET", "GETRANGE", "LINDEX", "LREM", "EXISTS", "ZRANGE", "JSON.GET", "EVAL", "SET",
    "UNLINK", "SELECT",
    # For the threads of CompactRedisSaver.
    "HGET", "HMGET", "HSTRLEN", "HLEN", "HKEYS", "HSET", "HDEL", "HINCRBY", "ZCARD", "ZREM", "ZRANGEBYLEX", "PTTL",
)  # fmt: skip


# Prefixes of errors of CompactRedisSaver's scripts for a damaged thread, or a thread of a newer version.
OF_COMPACT_SAVER = ("LGCDAMAGED", "LGCNEWER")


def explain(error: Exception) -> str:
    """Return a sentence about an error of Redis, its client or the network, with advice."""
    # Redis repeats the arguments of an unknown command, which for AUTH are the password.
    text = printable(str(error).partition(", with args beginning with")[0].rstrip("."), MESSAGE_CHARACTERS)
    for applies, sentence in SENTENCES:
        if applies(error, text):
            return sentence.format(text=text)
    return f"The checkpoint Redis refused a command ({text}): see its log; the next run continues from here."


def _is(
    *kinds: type[Exception], words: Sequence[str] = (), without: str | None = None
) -> Callable[[Exception, str], bool]:
    """Return whether an error has one of these types or words. Errors of scripts have no types."""

    def applies(error: Exception, text: str) -> bool:
        is_other = without is not None and without in text
        return not is_other and (isinstance(error, kinds) or any(word in text for word in words))

    return applies


# The first matching entry is used. Tests provoke each of them with real servers.
SENTENCES: tuple[tuple[Callable[[Exception, str], bool], str], ...] = (
    (
        _is(words=("unknown command", "Unknown Redis command")),
        "The checkpoint Redis does not know a command ({text}): look for rename-command in its configuration; the "
        f"cleanup needs {', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}.",
    ),
    (
        _is(AuthenticationError, words=("WRONGPASS", "NOAUTH")),
        "The checkpoint Redis refused the user name or password ({text}): "
        "check LANGGRAPH_REDIS_URL, or NAUTOBOT_REDIS_USERNAME and NAUTOBOT_REDIS_PASSWORD.",
    ),
    (
        # For commands of scripts Redis 7.0 uses the second and third text, later versions the first.
        _is(NoPermissionError, words=("ACL failure", "can't run this command", "can't access at least one")),
        "The checkpoint Redis user lacks a permission ({text}): grant it with ACL SETUSER; the cleanup needs "
        f"{', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}, and INFO for memory_limit_mb.",
    ),
    (
        _is(words=("DB index is out of range", "Invalid Database", "invalid DB index")),
        "The checkpoint Redis has no such database ({text}): set LANGGRAPH_REDIS_DB, or the number at the end of "
        "LANGGRAPH_REDIS_URL, to one that it has.",
    ),
    (
        _is(MasterDownError, words=("MASTERDOWN",)),
        "The checkpoint Redis is a replica that has lost its primary ({text}): "
        "point LANGGRAPH_REDIS_URL at the primary, or at Sentinel.",
    ),
    (
        _is(ReadOnlyError, words=("READONLY",)),
        "The checkpoint Redis is a read-only replica ({text}): point LANGGRAPH_REDIS_URL at the primary, or at "
        "Sentinel.",
    ),
    (
        _is(
            MovedError,
            ClusterCrossSlotError,
            ClusterDownError,
            words=("MOVED", "CROSSSLOT", "CLUSTERDOWN", "non local key"),
        ),
        "The checkpoint Redis is a cluster, or a part of one ({text}): begin LANGGRAPH_REDIS_URL with "
        "redis+cluster://. If it begins so already, check with CLUSTER INFO whether all slots are served.",
    ),
    (
        _is(words=("NOREPLICAS",)),
        "The checkpoint Redis refuses writes while it has too few replicas ({text}): restart its replicas, or "
        "lower min-replicas-to-write. The next run continues from here.",
    ),
    (
        _is(words=("MISCONF",)),
        "The checkpoint Redis refuses writes while it can't save its data ({text}): check its log, and free space on "
        "its disk. The next run continues from here.",
    ),
    (
        _is(OutOfMemoryError, words=("OOM ",)),
        "The checkpoint Redis has no memory left ({text}): raise its maxmemory, or delete data. "
        "The next run continues from here.",
    ),
    (
        _is(words=("BUSY ",)),
        "The checkpoint Redis is busy with a script of another client ({text}): wait for its end, or send SCRIPT KILL. "
        "The next run continues from here.",
    ),
    (
        _is(BusyLoadingError, words=("LOADING",)),
        "The checkpoint Redis is still loading its data ({text}): run the cleanup again when it has finished.",
    ),
    (
        _is(words=("max number of clients",)),
        "The checkpoint Redis accepts no more clients ({text}): raise its maxclients, or find the clients with many "
        "connections with CLIENT LIST. The next run continues from here.",
    ),
    (
        _is(InvalidResponse),
        "The server at the address of the checkpoint Redis is not a Redis, or speaks TLS ({text}): check the host and "
        "port in LANGGRAPH_REDIS_URL, or NAUTOBOT_REDIS_HOST and NAUTOBOT_REDIS_PORT; for TLS write rediss://.",
    ),
    (
        _is(words=("certificate has expired", "certificate is not yet valid")),
        "The certificate of the checkpoint Redis has expired, or is not valid yet ({text}): renew it, and compare the "
        "clocks of both machines.",
    ),
    (
        _is(words=("certificate is not valid for", "ostname mismatch")),
        "The certificate of the checkpoint Redis is for another name ({text}): use the name in the certificate in "
        "LANGGRAPH_REDIS_URL.",
    ),
    (
        _is(words=("CERTIFICATE_VERIFY_FAILED",)),
        "The certificate of the checkpoint Redis is not trusted ({text}): add the CA file at the end of "
        "LANGGRAPH_REDIS_URL, as ?ssl_ca_certs=/path/to/ca.pem, and use the name in the certificate as the host.",
    ),
    (
        # A connection without TLS and without a Unix socket needs no file.
        _is(words=("X509", "PEM", "Error 2 connecting", "Error 13 connecting"), without="unix:"),
        "A file for TLS to the checkpoint Redis can't be read ({text}): check ssl_ca_certs, ssl_certfile and "
        "ssl_keyfile in LANGGRAPH_REDIS_URL, and whether the worker may read the files.",
    ),
    (
        _is(words=("SSL", "TLSV1", "ssl_", "_ssl.c")),
        "The TLS connection to the checkpoint Redis failed ({text}): check that it speaks TLS on this port, the client "
        "certificate that it requires, and the ssl_ options of LANGGRAPH_REDIS_URL.",
    ),
    (
        _is(words=("closed by server", "reset by peer", "Broken pipe")),
        "The checkpoint Redis can't be reached, because it closes the connection ({text}): check that it runs; if it "
        "speaks TLS on this port, LANGGRAPH_REDIS_URL must begin with rediss:// and have the client certificate that "
        "the server requires. The next run continues from here.",
    ),
    (
        _is(RedisTimeoutError),
        "The checkpoint Redis can't be reached in time ({text}): check that it runs, that no firewall blocks the "
        "connection and, if LANGGRAPH_REDIS_URL begins with rediss://, that it speaks TLS on this port. "
        "The next run continues from here.",
    ),
    (
        _is(RedisConnectionError, RedisClusterException, OSError),
        "The checkpoint Redis can't be reached ({text}): check that it runs and that LANGGRAPH_REDIS_URL, "
        "or NAUTOBOT_REDIS_HOST and NAUTOBOT_REDIS_PORT, name it. The next run continues from here.",
    ),
)


def is_about_the_value(error: RedisError) -> bool:
    """Return whether the error is about the value of a key, not about the server or the user."""
    if isinstance(error, NoPermissionError | ReadOnlyError | BusyLoadingError) or not isinstance(error, ResponseError):
        return False
    text = str(error)
    if "unknown command 'JSON." in text:
        # Without RedisJSON there are no JSON documents, so the key has another type.
        return True
    if any(sign in text for sign in OF_COMPACT_SAVER):
        return True
    return "WRONGTYPE" in text or "wrong kind of value" in text or "wrong Redis type" in text or "Path" in text
