"""The cleanup wherever Redis lives: Sentinel, Cluster, TLS, Unix socket, ACL, and which savers can work there."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives.serialization import Encoding

from ai_ops.celery_tasks import cleanup_old_checkpoints, sample_checkpoint_storage
from ai_ops.checkpointer import describe_checkpoint_redis, get_checkpointer, get_redis_url
from development import services
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.certificates import CertificateAuthority
from tests.fakes.conversations import graph, old_id, on
from tests.fakes.redis_servers import cluster_client, cluster_of_three

# The cleanup reads its pins from the database.
pytestmark = pytest.mark.django_db


@contextmanager
def server(name, folder, *options, password="secret", modules=False, port=None):
    port = port or services.free_ports(1)[0]
    service = services.redis_server(name, port, password, modules=modules, folder=Path(folder), options=options)
    service.start()
    try:
        service.wait_ready(time.monotonic() + 60)
        yield port
    finally:
        service.stop()


def fill(client, threads=20):
    for number in range(threads):
        client.set(f"checkpoint:old-{number}:{old_id(40)}", "{}")
        client.set(f"checkpoint:{{old-{number}}}::{(made := old_id(40))}", json.dumps({"thread_id": f"old-{number}"}))
        client.set(f"writes:{{old-{number}}}::{made}", "[]")
        client.lpush(f"thread:{{old-{number}}}:", made)
        client.set(f"checkpoint:new-{number}:{old_id(1)}", "{}")


def assert_cleaned(client, threads=20):
    report = cleanup_old_checkpoints(30)
    assert report["error"] is None
    assert report["processed_count"] == threads * 5
    assert report["deleted_count"] == threads * 4
    assert all(b":new-" in key for key in client.scan_iter())


def assert_agents_talk():
    """Have an asynchronous and a synchronous agent talk on one thread, with the saver of this app's choice."""

    async def talk():
        async with get_checkpointer() as saver:
            assert type(saver).__name__ == "AsyncCompactRedisSaver"
            await graph(saver).ainvoke({"said": ["hello"]}, on("talk"))

    asyncio.run(talk())
    with get_checkpointer() as saver:
        assert type(saver).__name__ == "CompactRedisSaver"
        assert graph(saver).invoke({"said": ["more"]}, on("talk"))["said"][0] == "hello"


@pytest.fixture(scope="module")
def cluster():
    """A client of three primaries that share the slots, and the port of one of them."""
    with cluster_of_three() as port, cluster_client(port) as client:
        yield client, port


def test_cluster(cluster, monkeypatch):
    client, port = cluster
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"redis+cluster://127.0.0.1:{port}")
    fill(client)
    assert len({client.get_node_from_key(key.decode()).port for key in client.scan_iter()}) == 3
    assert cleanup_old_checkpoints(30, dryrun=True)["deleted_count"] == 80
    sampled = sample_checkpoint_storage()
    assert sampled["success"], sampled["error"]
    assert (sampled["database_keys"], sampled["sized_keys"], sampled["cleanup"]["deleted_count"]) == (100, 100, 80)
    assert_cleaned(client)
    if find_spec("langgraph_checkpoint_aws"):
        assert "cluster" in describe_checkpoint_redis().savers["AsyncValkeySaver"]
    assert_agents_talk()


def test_sentinel(tmp_path, monkeypatch):
    with server("primary", tmp_path) as port:
        (sentinel_port,) = services.free_ports(1)
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f"port {sentinel_port}\nbind 127.0.0.1\ndir {tmp_path}\n"
            f"sentinel monitor agents 127.0.0.1 {port} 1\nsentinel auth-pass agents secret\n"
        )
        sentinel = services.Service(
            "sentinel",
            [str(services.valkey_binary()), str(config), "--sentinel"],
            ready=lambda: services.redis_answers(sentinel_port, ""),
            cwd="/",
        )
        sentinel.start()
        try:
            sentinel.wait_ready(time.monotonic() + 60)
            monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"redis+sentinel://:secret@127.0.0.1:{sentinel_port}/agents/2")
            with redis.Redis(port=port, password="secret", db=2) as client:
                fill(client)
                assert_cleaned(client)
            assert describe_checkpoint_redis().database == 2
            assert_agents_talk()
        finally:
            sentinel.stop()


@contextmanager
def tls_in_front_of(port, folder):
    """A port that speaks TLS and passes everything on: the embedded server is built without it."""
    authority = CertificateAuthority.make(folder)
    (folder / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    context = authority.server_context()

    async def pass_on(reader, writer):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, inner_writer), pass_on(inner_reader, writer), return_exceptions=True)

    loop = asyncio.new_event_loop()
    proxy = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield proxy.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_tls_with_a_ca_file(checkpoint_server, checkpoint_redis, tmp_path, monkeypatch, redis_retries):
    redis_retries(0.01)
    fill(checkpoint_redis)
    password = checkpoint_server.password.replace(" ", "%20")
    with tls_in_front_of(checkpoint_server.port, tmp_path) as port:
        url = f"rediss://:{password}@127.0.0.1:{port}/0"
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", url)
        assert "certificate verify failed" in cleanup_old_checkpoints(30)["error"]
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"{url}?ssl_ca_certs={tmp_path}/ca.pem")
        assert_cleaned(checkpoint_redis)


def test_a_server_that_speaks_tls_itself(tmp_path, monkeypatch, redis_retries):
    binary = shutil.which("valkey-server") or shutil.which("redis-server")
    if binary is None:
        pytest.skip("the embedded server is built without TLS, and no other is on the PATH")
    redis_retries(0.01)
    authority = CertificateAuthority.make(tmp_path)
    files = authority.server_files()
    plain, secure = services.free_ports(2)
    command = [binary, "--bind", "127.0.0.1", "--port", str(plain), "--requirepass", "secret", "--dir", str(tmp_path)]
    command += ["--tls-port", str(secure), "--tls-cert-file", files, "--tls-key-file", files]
    command += ["--tls-ca-cert-file", authority.ca_file, "--tls-auth-clients", "no", "--save", ""]
    server = services.Service("tls", command, ready=lambda: services.redis_answers(plain, "secret"), cwd="/")
    server.start()
    try:
        try:
            server.wait_ready(time.monotonic() + 60)
        except services.ServiceError as error:
            if "TLS" in str(error):
                pytest.skip(f"{binary} is built without TLS")
            raise
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"rediss://:secret@127.0.0.1:{secure}/1")
        assert "certificate verify failed" in cleanup_old_checkpoints(30)["error"]
        monkeypatch.setenv(
            "LANGGRAPH_REDIS_URL", f"rediss://:secret@127.0.0.1:{secure}/1?ssl_ca_certs={authority.ca_file}"
        )
        with redis.Redis(port=plain, password="secret", db=1) as client:
            fill(client)
            assert_cleaned(client)
            assert_agents_talk()
        url = f"rediss://:secret@127.0.0.1:{secure}/1?ssl_ca_certs={authority.ca_file}"
        with CompactRedisSaver.from_url(url) as saver:
            assert graph(saver).get_state(on("talk")).values["said"][0] == "hello"
    finally:
        server.stop()


def test_unix_socket_and_acl_user(tmp_path, monkeypatch):
    path = f"{tmp_path}/redis.sock"
    needed = "+scan +dbsize +info +type +get +getrange +lindex +lrem +exists +zrange +eval +set +unlink +hello +select"
    with ExitStack() as stack:
        port = stack.enter_context(server("socket", tmp_path, "--unixsocket", path))
        client = stack.enter_context(redis.Redis(port=port, password="secret", db=3))
        client.execute_command("ACL", "SETUSER", "sweeper", "on", ">p@ss/word", "~*", *needed.split())
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"unix://sweeper:p%40ss%2Fword@{path}?db=3")
        fill(client)
        assert_cleaned(client)


def test_nautobots_variables_and_database_two(checkpoint_server, checkpoint_redis, monkeypatch):
    monkeypatch.delenv("LANGGRAPH_REDIS_URL")
    monkeypatch.setenv("NAUTOBOT_REDIS_HOST", "127.0.0.1")
    monkeypatch.setenv("NAUTOBOT_REDIS_PORT", str(checkpoint_server.port))
    monkeypatch.setenv("NAUTOBOT_REDIS_PASSWORD", checkpoint_server.password)
    with checkpoint_server.client(2) as client:
        fill(client)
        assert_cleaned(client)
    monkeypatch.setenv("LANGGRAPH_REDIS_DB", "5")
    assert get_redis_url().endswith("/5")
    monkeypatch.setenv("LANGGRAPH_REDIS_DB", "five")
    assert "LANGGRAPH_REDIS_DB must be a whole number" in cleanup_old_checkpoints(30)["error"]


@pytest.mark.parametrize(
    "url", ["http://redis", "redis://host:port/0", "redis+sentinel://host/", "rediss+sentinel://h:26379", "nonsense"]
)
def test_an_address_that_is_none(monkeypatch, url):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", url)
    report = cleanup_old_checkpoints(30)
    assert report["success"] is False
    assert "LANGGRAPH_REDIS_URL" in report["error"]


def test_what_can_work_on_this_database(checkpoint_server, checkpoint_redis, monkeypatch):
    described = describe_checkpoint_redis()
    assert described.savers["AsyncRedisSaver"] is None
    assert described.address == f"redis://127.0.0.1:{checkpoint_server.port}/0"
    assert {"rejson", "search"} <= set(described.modules)
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2))
    assert "only indexes database 0" in describe_checkpoint_redis().savers["AsyncRedisSaver"]
