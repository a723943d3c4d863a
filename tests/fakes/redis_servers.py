"""Redis servers of all kinds that a test may ask for, each for the length of a block."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis
from redis.cluster import ClusterNode, RedisCluster

from development import services

START_SECONDS = 30


@contextmanager
def started(service: services.Service) -> Iterator[None]:
    """Run a service for the length of the block."""
    service.start()
    try:
        service.wait_ready(time.monotonic() + START_SECONDS)
        yield
    finally:
        service.stop()


@contextmanager
def plain_server(name: str, *options: str, password: str = "", modules: bool = False, port: int = 0) -> Iterator[int]:
    """A Valkey on loopback; gives its port."""
    port = port or services.free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix=f"ai-ops-{name}-") as folder:
        # RediSearch has been seen to crash after FLUSHALL where no rule makes the server save.
        service = services.redis_server(
            name, port, password, modules=modules, persist=modules, folder=Path(folder), options=options
        )
        with started(service):
            yield port


def debian_redis() -> Path | None:
    """The redis-server that the system's packages have installed, if any."""
    found = shutil.which("redis-server", path="/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    return Path(found) if found else None


@contextmanager
def debian_server(*options: str, password: str = "") -> Iterator[int]:
    """The system's own redis-server on loopback; gives its port."""
    binary = debian_redis()
    if binary is None:
        raise services.ServiceError("No redis-server is installed.")
    (port,) = services.free_ports(1)
    with tempfile.TemporaryDirectory(prefix="ai-ops-debian-redis-") as folder:
        command: Sequence[str] = [str(binary), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
        command = [*command, "--save", "", *(["--requirepass", password] if password else []), *options]
        service = services.Service(
            "debian-redis",
            command,
            ready=lambda: services.redis_answers(port, password),
            cwd="/",
            log=Path(folder) / "server.log",
        )
        with started(service):
            yield port


def cluster_ports(count: int) -> list[int]:
    """Free ports for nodes of a cluster, whose bus listens 10,000 above each."""
    # Linux gives ports below 61,000 to outgoing connections, one of which could take that of the bus.
    ports = [
        port
        for port in random.sample(range(51_000, 55_000), 100)
        if not services.is_taken(port) and not services.is_taken(port + 10_000)
    ]
    if len(ports) < count:
        raise services.ServiceError(f"A cluster needs {count} free ports from 51000 to 55000, and those 10000 above.")
    return ports[:count]


@contextmanager
def cluster_of_three() -> Iterator[int]:
    """Three primaries that share the slots, made without any tool but the server itself; gives a port."""
    ports = cluster_ports(3)
    with ExitStack() as stack:
        for number, port in enumerate(ports):
            stack.enter_context(plain_server(f"cluster-{number}", "--cluster-enabled", "yes", port=port))
        clients = [stack.enter_context(redis.Redis(port=port)) for port in ports]
        step = 16384 // 3 + 1
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * step, min((number + 1) * step, 16384) - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port in ports[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        deadline = time.monotonic() + START_SECONDS
        while not all(each.cluster("info")["cluster_state"] == "ok" for each in clients):
            if time.monotonic() > deadline:
                raise services.ServiceError("The cluster's nodes did not find each other.")
            time.sleep(0.05)
        yield ports[0]


@contextmanager
def cluster_client(port: int) -> Iterator[RedisCluster]:
    """A client of that cluster."""
    with RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", port)]) as client:
        yield client
