"""The Redis that agents keep their checkpoints in: the one place where its address is put together.

``LANGGRAPH_REDIS_URL`` names it:

- ``redis://user:password@host:6379/0``, ``rediss://...`` with TLS, ``unix:///path/to/socket?db=0``;
- ``redis+sentinel://user:password@host:26379,host:26379/service/0`` for the primary that Sentinel names;
- ``redis+cluster://user:password@host:6379`` for a Redis Cluster.

``rediss+sentinel`` and ``rediss+cluster`` are the same with TLS. What redis-py takes in a URL's query works here
too, such as ``?ssl_ca_certs=/path/to/ca.pem``. Without the variable it is the server Nautobot itself uses, in
the variables Nautobot knows (``NAUTOBOT_REDIS_HOST``, ``NAUTOBOT_REDIS_PORT``, ``NAUTOBOT_REDIS_USERNAME``,
``NAUTOBOT_REDIS_PASSWORD``, ``NAUTOBOT_REDIS_SSL``, ``NAUTOBOT_REDIS_SCHEME``), in the database
``LANGGRAPH_REDIS_DB``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

import redis
from nautobot.core.settings_funcs import is_truthy
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from ai_ops.adapters.redis_failures import explain
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import CheckpointStoreError, ConfigurationError

DEFAULT_DATABASE = 2  # Nautobot's cache is in 0, Celery's queues are in 1
CONNECT_TIMEOUT = 5.0  # seconds
ANSWER_TIMEOUT = 15.0  # seconds; the longest single command takes milliseconds
SENTINEL_PORT = 26379
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


@dataclass(frozen=True)
class CheckpointRedis:
    """Which Redis the checkpoints are in, and what can work on it.

    Attributes:
        address: Its address without user name and password.
        database: The number of the database.
        software: ``redis`` or ``valkey``.
        version: The server's version.
        modules: Names of the loaded modules, in small letters.
        savers: LangGraph's savers by name; None where one can work, else why not.
    """

    address: str
    database: int
    software: str
    version: str
    modules: tuple[str, ...]
    savers: dict[str, str | None]


def get_redis_url() -> str:
    """The address of the checkpoint Redis, user name and password included: not for logs.

    Raises:
        ConfigurationError: A variable holds something that is no address.
    """
    url = os.environ.get("LANGGRAPH_REDIS_URL") or _url_of_nautobot()
    if urlsplit(url).scheme not in SCHEMES:
        raise ConfigurationError(
            f"LANGGRAPH_REDIS_URL must begin with one of {', '.join(f'{each}://' for each in SCHEMES)}: "
            "for example redis://:password@redis.example.com:6379/0."
        )
    return url


def get_redis_connection() -> Any:
    """A client of the checkpoint Redis, with a timeout on every call; replies are bytes. Close it after use.

    It is a redis.Redis, or a redis.cluster.RedisCluster for a cluster, which asks for the cluster's nodes now;
    the others connect with the first command.

    Raises:
        ConfigurationError: A variable holds something that is no address.
        CheckpointStoreError: The cluster could not be reached.
    """
    url = get_redis_url()
    options: dict[str, Any] = {
        "decode_responses": False,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
        # Who retries must know what was being done: a scan begins anew, a deletion may be repeated.
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        if "+sentinel" in url:
            return _primary_of_sentinel(urlsplit(url), options)
        if "+cluster" in url:
            # A cluster's client retries where the slots have moved, which is no failure: it keeps its own way.
            del options["retry"]
            return RedisCluster.from_url(url.replace("+cluster", "", 1), **options)
        return redis.Redis.from_url(url, **options)
    except ValueError as error:
        raise ConfigurationError(
            f"LANGGRAPH_REDIS_URL is no usable address ({error}): "
            "write it like redis://:password@redis.example.com:6379/0."
        ) from error
    except RedisError as error:
        raise CheckpointStoreError(explain(error)) from error


def describe_checkpoint_redis() -> CheckpointRedis:
    """Ask the checkpoint Redis what it is.

    Raises:
        ConfigurationError: A variable holds something that is no address.
        CheckpointStoreError: It can't be reached, or its user may not call INFO.
    """
    url = get_redis_url()
    parts = urlsplit(url)
    try:
        with get_redis_connection() as client:
            is_cluster = isinstance(client, RedisCluster)
            target = {"target_nodes": client.get_default_node()} if is_cluster else {}
            server, loaded = client.info("server", **target), client.info("modules", **target)
            database = 0 if is_cluster else int(client.connection_pool.connection_kwargs.get("db") or 0)
    except RedisError as error:
        raise CheckpointStoreError(explain(error)) from error
    modules = tuple(sorted(str(module["name"]).lower() for module in loaded.get("modules", [])))
    return CheckpointRedis(
        address=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
        database=database,
        software=str(server.get("server_name", "redis")),
        version=str(server.get("valkey_version") or server.get("redis_version", "unknown")),
        modules=modules,
        savers=_savers(modules, database, is_cluster),
    )


@asynccontextmanager
async def get_checkpointer() -> AsyncIterator[Any]:
    """Give agents the saver that can work on this Redis, set up; for ``async with``.

    AsyncRedisSaver where it can work, else AsyncValkeySaver if langgraph-checkpoint-aws is installed.

    Raises:
        ConfigurationError: Neither can work; the message says why and what the choices are.
        CheckpointStoreError: Redis can't be reached.
    """
    described = await asyncio.to_thread(describe_checkpoint_redis)
    url, configured = get_redis_url(), AiOpsSettings.load()
    if described.savers["AsyncRedisSaver"] is None:
        from langgraph.checkpoint.redis.aio import AsyncRedisSaver

        async with AsyncRedisSaver.from_conn_string(
            await asyncio.to_thread(_resolved, url),
            checkpoint_prefix=configured.checkpoint_prefix,
            checkpoint_write_prefix=configured.checkpoint_write_prefix,
        ) as saver:
            yield saver
    elif described.savers["AsyncValkeySaver"] is None:
        from langgraph_checkpoint_aws import AsyncValkeySaver

        async with AsyncValkeySaver.from_conn_string(await asyncio.to_thread(_resolved, url)) as saver:
            yield saver
    else:
        raise ConfigurationError(
            f"No LangGraph saver can work on {described.address}. AsyncRedisSaver: "
            f"{described.savers['AsyncRedisSaver']}. AsyncValkeySaver: {described.savers['AsyncValkeySaver']}. "
            "Choices: a server with RedisJSON and RediSearch (any Redis 8) and its database 0 in "
            "LANGGRAPH_REDIS_URL, or the extra nautobot-app-ai-ops[valkey]."
        )


def _savers(modules: tuple[str, ...], database: int, is_cluster: bool) -> dict[str, str | None]:
    missing = [name for name, known in (("RedisJSON", "rejson"), ("RediSearch", "search")) if known not in modules]
    full: str | None = None
    if missing:
        full = f"it needs {' and '.join(missing)}, which this server does not have"
    elif database != 0:
        full = f"RediSearch indexes database 0 only, and this is database {database}"
    elif is_cluster:
        full = "RediSearch does not search across the nodes of a cluster"
    valkey: str | None = None
    if any(importlib.util.find_spec(name) is None for name in ("langgraph_checkpoint_aws", "valkey")):
        valkey = "langgraph-checkpoint-aws[valkey] is not installed"
    elif is_cluster:
        valkey = "its client knows no cluster"
    return {
        "AsyncRedisSaver": full,
        "RedisSaver": full,
        "AsyncShallowRedisSaver": full,
        "ShallowRedisSaver": full,
        "AsyncValkeySaver": valkey,
        "ValkeySaver": valkey,
    }


def _primary_of_sentinel(parts: SplitResult, options: dict[str, Any]) -> redis.Redis:
    """A client that asks Sentinel for the primary whenever it connects."""
    nodes, service, database = _sentinel_parts(parts)
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    if ca_file := dict(pair.partition("=")[::2] for pair in parts.query.split("&")).get("ssl_ca_certs"):
        options["ssl_ca_certs"] = unquote(ca_file)
    credentials = {"username": _decoded(parts.username), "password": _decoded(parts.password)}
    sentinel = Sentinel(nodes, sentinel_kwargs={**options, "password": credentials["password"]}, **options)
    primary: redis.Redis = sentinel.master_for(service, db=database, **credentials)
    return primary


def _sentinel_parts(parts: SplitResult) -> tuple[list[tuple[str, int]], str, int]:
    service, _, database = parts.path.strip("/").partition("/")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not service or not all(hosts):
        raise ValueError("it must name hosts and a service: redis+sentinel://:password@host:26379,host:26379/service/0")
    pairs = [host.partition(":") for host in hosts]
    return [(name, int(port or SENTINEL_PORT)) for name, _, port in pairs], service, int(database or 0)


def _resolved(url: str) -> str:
    """An address that LangGraph's savers understand: what Sentinel names now in place of Sentinel."""
    if "+sentinel" not in url:
        return url
    parts = urlsplit(url)
    _, _, database = _sentinel_parts(parts)
    with get_redis_connection() as client:
        host, port = client.connection_pool.get_master_address()
    login = parts.netloc.rpartition("@")[0]
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme.removesuffix('+sentinel')}://{login}{'@' * bool(login)}{host}:{port}/{database}{query}"


def _decoded(text: str | None) -> str | None:
    return unquote(text) if text else None


def _url_of_nautobot() -> str:
    scheme = os.environ.get("NAUTOBOT_REDIS_SCHEME") or (
        "rediss" if is_truthy(os.environ.get("NAUTOBOT_REDIS_SSL", "false")) else "redis"
    )
    host = os.environ.get("NAUTOBOT_REDIS_HOST", "localhost")
    port = _number("NAUTOBOT_REDIS_PORT", 6379)
    database = _number("LANGGRAPH_REDIS_DB", DEFAULT_DATABASE)
    user = quote(os.environ.get("NAUTOBOT_REDIS_USERNAME", ""), safe="")
    password = quote(os.environ.get("NAUTOBOT_REDIS_PASSWORD", ""), safe="")
    credentials = f"{user}:{password}@" if user or password else ""
    if scheme == "unix":
        return f"unix://{credentials}{host}?db={database}"
    return f"{scheme}://{credentials}{host}:{port}/{database}"


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdigit():
        raise ConfigurationError(f"{variable} must be a whole number, not {text!r}: change it in the environment.")
    return int(text)
