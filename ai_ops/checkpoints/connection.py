"""The connection to the checkpoint Redis of agents. Only this module builds its address.

``LANGGRAPH_REDIS_URL`` has the address:

- ``redis://user:password@host:6379/0``, ``rediss://...`` with TLS, ``unix:///path/to/socket?db=0``;
- ``redis+sentinel://user:password@host:26379,host:26379/service/0`` for the primary that Sentinel names;
- ``redis+cluster://user:password@host:6379`` for a Redis Cluster.

``rediss+sentinel`` and ``rediss+cluster`` are the same with TLS. Options of redis-py are allowed in the query, such as
``?ssl_ca_certs=/path/to/ca.pem``. Without the variable the server is Nautobot's own, from Nautobot's variables
(``NAUTOBOT_REDIS_HOST``, ``NAUTOBOT_REDIS_PORT``, ``NAUTOBOT_REDIS_USERNAME``, ``NAUTOBOT_REDIS_PASSWORD``,
``NAUTOBOT_REDIS_SSL``, ``NAUTOBOT_REDIS_SCHEME``), in the database ``LANGGRAPH_REDIS_DB``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, unquote

import redis
import redis.asyncio
from nautobot.core.settings_funcs import is_truthy
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from ai_ops.checkpoints.key_names import compact_keys, key_parser
from ai_ops.checkpoints.logic.addresses import EXAMPLE, RESERVED_OPTIONS, RedisAddress, is_host, read_address
from ai_ops.checkpoints.logic.savers import Evidence, SaverChoice, choose_saver
from ai_ops.checkpoints.redis import saver_evidence
from ai_ops.checkpoints.redis.errors import explain
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import CheckpointStoreError, ConfigurationError
from ai_ops.logic.savers import AUTO, CLASSES, COMPACT, REDIS, VALKEY

DEFAULT_DATABASE = 2  # Nautobot's cache is in 1, Celery's queues are in 0
CONNECT_TIMEOUT = 5.0  # seconds
ANSWER_TIMEOUT = 15.0  # seconds; the longest single command takes milliseconds
REDIS_PORT = 6379
SENTINEL_PORT = 26379

Made = TypeVar("Made")


@dataclass(frozen=True)
class CheckpointRedis:
    """The checkpoint Redis, and the savers that can work with it.

    Attributes:
        address: Address without user name and password.
        database: The number of the database.
        software: ``redis`` or ``valkey``.
        version: The server's version.
        modules: Names of the loaded modules, in lower case.
        savers: LangGraph's savers by name; None if the saver works, otherwise the reason why not.
        saver: The saver that `get_checkpointer` returns, by the name of its synchronous class; None if there is none.
        reason: Reason for this saver, or for none.
    """

    address: str
    database: int
    software: str
    version: str
    modules: tuple[str, ...]
    savers: dict[str, str | None]
    saver: str | None = None
    reason: str = ""


def get_redis_url() -> str:
    """Return the address of the checkpoint Redis with user name and password. Do not log it.

    Raises:
        ConfigurationError: A variable is not a valid address.
    """
    url = os.environ.get("LANGGRAPH_REDIS_URL") or _url_of_nautobot()
    read_address(url)
    return url


def get_redis_connection(timeout: float | None = None) -> Any:
    """Return a client of the checkpoint Redis with a timeout for every call. Replies are bytes. Close it after use.

    The client is a redis.Redis, or for a cluster a redis.cluster.RedisCluster. The latter queries the nodes of the
    cluster immediately; other clients connect with the first command.

    Raises:
        ConfigurationError: A variable is not a valid address.
        CheckpointStoreError: The cluster could not be reached.
    """
    address = read_address(get_redis_url())
    # A retry depends on the work: a scan restarts, a deletion may be repeated. So the client does not retry.
    options = _options_of_calls(address) | {"retry": Retry(NoBackoff(), 0)}
    if timeout is not None:
        options |= {"socket_connect_timeout": timeout, "socket_timeout": timeout}
    return _client(address, options)


def _options_of_calls(address: RedisAddress) -> dict[str, Any]:
    """Return the client options with a timeout on every call, without the database."""
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
        **_options_of(address),
        "decode_responses": False,
    }
    if address.login:
        options |= {"username": address.username, "password": address.password}
    return options


def _client(address: RedisAddress, options: dict[str, Any]) -> Any:
    client = _without_quoting(lambda: _client_of(address, options))
    return _client_of_cluster(address, options) if address.kind == "cluster" else client


def describe_checkpoint_redis(configured: AiOpsSettings | None = None) -> CheckpointRedis:
    """Describe the checkpoint Redis: its kind, its modules, and the saver of its conversations.

    Args:
        configured: The settings, if they have already been read.

    Raises:
        ConfigurationError: A variable or a setting is invalid.
        CheckpointStoreError: Redis can't be reached, or its user may not call INFO.
    """
    described, choice, _ = _described(configured or AiOpsSettings.load())
    saver = CLASSES[choice.saver][1] if choice.saver else None
    return replace(described, saver=saver, reason=f"{choice.reason}.")


def _described(configured: AiOpsSettings) -> tuple[CheckpointRedis, SaverChoice, Evidence]:
    address = read_address(get_redis_url())
    try:
        with get_redis_connection() as client:
            is_cluster = isinstance(client, RedisCluster)
            target = {"target_nodes": client.get_default_node()} if is_cluster else {}
            server, loaded = client.info("server", **target), client.info("modules", **target)
            database = 0 if is_cluster else int(client.connection_pool.connection_kwargs.get("db") or 0)
            found = _evidence(client, configured)
    except (RedisError, RedisClusterException) as error:
        raise CheckpointStoreError(explain(error)) from error
    modules = tuple(sorted(str(module["name"]).lower() for module in loaded.get("modules", [])))
    savers = _savers(modules, database, is_cluster)
    choice = choose_saver(
        configured.checkpoint_saver, {saver: savers[name] for saver, (_, name) in CLASSES.items()}, found
    )
    described = CheckpointRedis(
        address=address.shown,
        database=database,
        software=str(server.get("server_name", "redis")),
        version=str(server.get("valkey_version") or server.get("redis_version", "unknown")),
        modules=modules,
        savers=savers,
    )
    return described, choice, found


def _evidence(client: Any, configured: AiOpsSettings) -> Evidence:
    """Return the evidence of savers in the database; none if the setting decides."""
    if configured.checkpoint_saver != AUTO:
        return Evidence()
    return saver_evidence.look(client, key_parser(configured), compact_keys(configured))


class Checkpointer(AbstractContextManager[Any], AbstractAsyncContextManager[Any]):
    """The agents' saver for a block: the asynchronous class for ``async with``, the synchronous one for ``with``."""

    def __enter__(self) -> Any:
        self._saver: AbstractContextManager[Any] = _saver(*_chosen())
        return self._saver.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> Any:
        return self._saver.__exit__(kind, error, at)

    async def __aenter__(self) -> Any:
        self._async_saver: AbstractAsyncContextManager[Any] = open_saver(*await asyncio.to_thread(_chosen))
        return await self._async_saver.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> Any:
        return await self._async_saver.__aexit__(kind, error, at)


def get_checkpointer() -> Checkpointer:
    """Return the agents' saver, ready to use, for ``async with``, or for ``with`` in a synchronous graph.

    The setting `checkpoint_saver` names it. With ``auto`` it is the saver that has conversations in the database,
    RedisSaver or ValkeySaver, and CompactRedisSaver if neither has any. See `describe_checkpoint_redis`.

    Raises:
        ConfigurationError: Raised by the block: the saver can't work there, for the reason in the message.
        CheckpointStoreError: Raised by the block: Redis can't be reached.
    """
    return Checkpointer()


def _chosen() -> tuple[str, AiOpsSettings]:
    """Choose the saver for this database, and record the choice there; return the saver and its settings."""
    configured = AiOpsSettings.load()
    if configured.checkpoint_saver == COMPACT:
        # CompactRedisSaver works on every server, so none of its facts is needed.
        return COMPACT, configured
    described, choice, found = _described(configured)
    if choice.saver is None:
        raise ConfigurationError(
            f"Agents have no saver for {described.address}: {choice.reason}. Name another one in the setting "
            f"checkpoint_saver ({', '.join(CLASSES)}). Existing conversations stay in the database, but start empty "
            "with another saver."
        )
    if choice.saver == COMPACT and not found.was_chosen and found.complete:
        with get_redis_connection() as client:
            saver_evidence.note_choice(client)
    return choice.saver, configured


@contextmanager
def _saver(chosen: str, configured: AiOpsSettings) -> Iterator[Any]:
    """Return the synchronous saver, ready to use."""
    url = get_redis_url()
    if chosen == REDIS:
        from langgraph.checkpoint.redis import RedisSaver

        with RedisSaver.from_conn_string(_resolved(url), **_prefixes(configured)) as saver:
            saver.setup()
            yield saver
    elif chosen == VALKEY:
        from langgraph_checkpoint_aws import ValkeySaver

        with ValkeySaver.from_conn_string(_resolved(url)) as saver:
            yield saver
    else:
        from langgraph_checkpoint_compact import CompactRedisSaver

        address = read_address(url)
        with _client(address, _options_of_calls(address)) as client:
            yield CompactRedisSaver(client, prefix=configured.compact_prefix)


@asynccontextmanager
async def open_saver(chosen: str, configured: AiOpsSettings) -> AsyncIterator[Any]:
    """Return the asynchronous saver, one of `ai_ops.checkpoints.logic.savers`, ready to use, for ``async with``."""
    url = get_redis_url()
    if chosen == REDIS:
        from langgraph.checkpoint.redis.aio import AsyncRedisSaver

        resolved = await asyncio.to_thread(_resolved, url)
        async with AsyncRedisSaver.from_conn_string(resolved, **_prefixes(configured)) as saver:
            yield saver
    elif chosen == VALKEY:
        from langgraph_checkpoint_aws import AsyncValkeySaver

        async with AsyncValkeySaver.from_conn_string(await asyncio.to_thread(_resolved, url)) as saver:
            yield saver
    else:
        from langgraph_checkpoint_compact import AsyncCompactRedisSaver

        async with _async_client(read_address(url)) as client:
            yield AsyncCompactRedisSaver(client, prefix=configured.compact_prefix)


def _prefixes(configured: AiOpsSettings) -> dict[str, Any]:
    return {
        "checkpoint_prefix": configured.checkpoint_prefix,
        "checkpoint_write_prefix": configured.checkpoint_write_prefix,
    }


def _savers(modules: tuple[str, ...], database: int, is_cluster: bool) -> dict[str, str | None]:
    missing = [name for name, known in (("RedisJSON", "rejson"), ("RediSearch", "search")) if known not in modules]
    full: str | None = None
    if missing:
        full = f"it needs {' and '.join(missing)}, which this server does not have"
    elif database != 0:
        full = f"RediSearch only indexes database 0, and this is database {database}"
    elif is_cluster:
        full = "RediSearch does not search across the nodes of a cluster"
    valkey: str | None = None
    if any(importlib.util.find_spec(name) is None for name in ("langgraph_checkpoint_aws", "valkey")):
        valkey = "langgraph-checkpoint-aws[valkey] is not installed"
    elif is_cluster:
        valkey = "its client does not support clusters"
    return {
        "AsyncCompactRedisSaver": None,
        "CompactRedisSaver": None,
        "AsyncRedisSaver": full,
        "RedisSaver": full,
        "AsyncShallowRedisSaver": full,
        "ShallowRedisSaver": full,
        "AsyncValkeySaver": valkey,
        "ValkeySaver": valkey,
    }


def _client_of(address: RedisAddress, options: dict[str, Any]) -> redis.Redis:
    """Return a client that connects with its first command; for a cluster, to its first node only."""
    options = {"db": address.database} | options
    if address.kind == "sentinel":
        client = _primary_of_sentinel(address, options)
    elif address.scheme == "unix":
        client = redis.Redis(unix_socket_path=unquote(address.path), **options)
    else:
        host, port = address.hosts[0]
        client = redis.Redis(host=host.strip("[]"), port=port or REDIS_PORT, ssl=address.uses_tls, **options)
    # Created as the first command would create it, so that an invalid option raises an error here.
    client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    return client


def _primary_of_sentinel(address: RedisAddress, options: dict[str, Any], kind: type[Any] = Sentinel) -> Any:
    """Return a client that asks Sentinel for the primary at each connection."""
    nodes = [(host.strip("[]"), port or SENTINEL_PORT) for host, port in address.hosts]
    if address.uses_tls:
        options["ssl"] = True
    asking = {name: value for name, value in options.items() if name not in ("db", "username")}
    return kind(nodes, sentinel_kwargs=asking).master_for(address.service, **options)


def _client_of_cluster(address: RedisAddress, options: dict[str, Any]) -> RedisCluster:
    # The client of a cluster retries after slots have moved, which is not a failure, so it keeps its own retry.
    options = {name: value for name, value in options.items() if name not in ("retry", "db")}
    (host, port), *others = address.hosts
    nodes = [ClusterNode(name.strip("[]"), number or REDIS_PORT) for name, number in others]
    url = f"redis{'s' * address.uses_tls}://{host}:{port or REDIS_PORT}"
    try:
        return RedisCluster.from_url(url, startup_nodes=nodes, **options)
    except (RedisError, RedisClusterException, OSError) as error:
        raise CheckpointStoreError(explain(error)) from error


def _async_client(address: RedisAddress) -> Any:
    """Return an asynchronous client that connects with its first command."""
    options = _options_of_calls(address)
    # Created as a synchronous client first, so that an invalid option raises an error here.
    _without_quoting(lambda: _client_of(address, dict(options)))
    if address.kind == "cluster":
        from redis.asyncio.cluster import ClusterNode as AsyncClusterNode

        nodes = [AsyncClusterNode(host.strip("[]"), port or REDIS_PORT) for host, port in address.hosts]
        of_cluster = {name: value for name, value in options.items() if name != "db"}
        return redis.asyncio.RedisCluster(startup_nodes=nodes, ssl=address.uses_tls, **of_cluster)
    options = {"db": address.database} | options
    if address.kind == "sentinel":
        return _primary_of_sentinel(address, options, AsyncSentinel)
    if address.scheme == "unix":
        return redis.asyncio.Redis(unix_socket_path=unquote(address.path), **options)
    host, port = address.hosts[0]
    return redis.asyncio.Redis(host=host.strip("[]"), port=port or REDIS_PORT, ssl=address.uses_tls, **options)


def _options_of(address: RedisAddress) -> dict[str, Any]:
    """Return the options of the address as redis-py parses them."""
    if reserved := RESERVED_OPTIONS & parse_qs(address.query, keep_blank_values=True).keys():
        raise ConfigurationError(
            f"LANGGRAPH_REDIS_URL has the option {min(reserved)}, which it must not have: remove it."
        )
    return _without_quoting(
        lambda: {
            name: value
            for name, value in parse_url(f"redis://localhost?{address.query}").items()
            if name not in ("host", "connection_class")
        }
    )


def _without_quoting(made: Callable[[], Made]) -> Made:
    """Return the result of `made`; report a refused option without redis-py's message, which quotes the option."""
    try:
        return made()
    except (TypeError, ValueError, AttributeError, RedisError):
        # Not chained either, because a traceback in a log would show it.
        pass
    raise ConfigurationError(
        "LANGGRAPH_REDIS_URL has an option after the question mark that redis-py does not accept, or not with this "
        f"value: write the address like {EXAMPLE}, options such as ?ssl_ca_certs=/path/to/ca.pem after it, and a "
        "question mark in a user name or password as %3F."
    )


def _resolved(url: str) -> str:
    """Return an address for LangGraph's savers: for Sentinel, the current primary."""
    address = read_address(url)
    if address.kind != "sentinel":
        return url
    try:
        with get_redis_connection() as client:
            host, port = client.connection_pool.get_master_address()
    except RedisError as error:
        raise CheckpointStoreError(explain(error)) from error
    login = f"{address.login}@" if address.login else ""
    query = f"?{address.query}" if address.query else ""
    return f"{address.scheme.removesuffix('+sentinel')}://{login}{host}:{port}/{address.database}{query}"


def _url_of_nautobot() -> str:
    scheme = os.environ.get("NAUTOBOT_REDIS_SCHEME") or (
        "rediss" if is_truthy(os.environ.get("NAUTOBOT_REDIS_SSL", "false")) else "redis"
    )
    if scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError("NAUTOBOT_REDIS_SCHEME must be redis, rediss or unix: change it in the environment.")
    host = os.environ.get("NAUTOBOT_REDIS_HOST", "localhost")
    if scheme != "unix" and not is_host(host):
        raise ConfigurationError(
            "NAUTOBOT_REDIS_HOST must be only the name or the address of a host: change it in the "
            "environment, or set LANGGRAPH_REDIS_URL."
        )
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
        raise ConfigurationError(f"{variable} must be a whole number: change it in the environment.")
    return int(text)
