"""Whatever keeps a Redis from being cleaned up: one sentence says what it is and what to do about it.

Servers answer differently inside scripts, and each version in its own words: Debian's Redis and Valkey are both asked.
"""

from __future__ import annotations

import datetime
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from ai_ops.celery_tasks import cleanup_old_checkpoints
from ai_ops.checkpoints.redis.errors import SENTENCES, explain
from development import services
from tests.fakes.certificates import CertificateAuthority
from tests.fakes.conversations import old_id
from tests.fakes.redis_servers import cluster_ports, debian_redis, debian_server, plain_server
from tests.waiting import until

pytestmark = pytest.mark.django_db

PASSWORD = "s3cret"
NEEDED = "+scan +dbsize +info +type +get +getrange +lindex +lrem +exists +zrange +eval +set +unlink +hello +select"


@dataclass(frozen=True)
class Server:
    """A server with a thread that is to go, and a way to configure it."""

    port: int
    admin: redis.Redis

    def url(self, user: str = "", password: str = PASSWORD, scheme: str = "redis", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{user}:{password}@{host}:{self.port}/0"

    @contextmanager
    def configured(self, **options: str) -> Iterator[str]:
        names = {name.replace("_", "-"): value for name, value in options.items()}
        before = {name: self.admin.config_get(name)[name] for name in names}
        self._configure(names)
        try:
            yield self.url()
        finally:
            self._configure(before)

    def _configure(self, options: dict[str, str]) -> None:
        if options:
            self.admin.execute_command("CONFIG", "SET", *(word for each in options.items() for word in each))


@pytest.fixture(autouse=True)
def impatient(monkeypatch, redis_retries):
    monkeypatch.setattr("ai_ops.checkpoints.connection.ANSWER_TIMEOUT", 0.5)
    redis_retries(0.01)


@pytest.fixture(scope="module", params=["debian redis", "valkey"])
def server(request):
    if request.param == "valkey":
        running = plain_server("sentences", "--enable-protected-configs", "yes", password=PASSWORD)
    elif debian_redis() is None:
        pytest.skip("no redis-server of the system is installed")
    else:
        running = debian_server("--enable-protected-configs", "yes", password=PASSWORD)
    with running as port, redis.Redis(port=port, password=PASSWORD) as admin:
        fill(admin)
        yield Server(port, admin)


def fill(client: redis.Redis) -> None:
    made = old_id(40)
    client.set(f"checkpoint:{{t}}::{made}", "{}")
    client.set(f"writes:{{t}}::{made}", "[]")
    client.rpush("thread:{t}:", made)
    client.set(f"checkpoint:plain:{made}", "{}")


def error_of(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", url)
    report = cleanup_old_checkpoints(30)
    assert report["success"] is False
    error = report["error"]
    assert PASSWORD not in error
    assert re.fullmatch(r"[A-Z].*\.", error), error
    return error


@contextmanager
def as_user(server: Server, *rules: str) -> Iterator[str]:
    server.admin.execute_command("ACL", "SETUSER", "limited", "on", f">{PASSWORD}", *rules)
    try:
        yield server.url("limited")
    finally:
        server.admin.acl_deluser("limited")


@contextmanager
def a_replica(server: Server, **options: str) -> Iterator[str]:
    with server.configured(**options):
        server.admin.replicaof("127.0.0.1", 1)
        try:
            yield server.url()
        finally:
            server.admin.replicaof("NO", "ONE")


@contextmanager
def busy(server: Server) -> Iterator[str]:
    def run() -> None:
        with redis.Redis(port=server.port, password=PASSWORD) as client, pytest.raises(redis.ResponseError):
            client.eval("while true do end", 0)

    with server.configured(lua_time_limit="1"):
        running = threading.Thread(target=run)
        running.start()
        until(lambda: is_busy(server.admin), "the script")
        try:
            yield server.url()
        finally:
            server.admin.script_kill()
            running.join()


def is_busy(client: redis.Redis) -> bool:
    try:
        return not client.ping()
    except redis.ResponseError:
        return True


@contextmanager
def unable_to_save(server: Server) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="ai-ops-gone-")
    with server.configured(dir=folder, save="3600 1"):
        shutil.rmtree(folder)
        server.admin.bgsave()
        until(lambda: server.admin.info("persistence")["rdb_last_bgsave_status"] != "ok", "the save that fails")
        yield server.url()


@contextmanager
def crowded(server: Server) -> Iterator[str]:
    with server.configured(maxclients="1"):
        yield server.url()


@contextmanager
def always(url: str) -> Iterator[str]:
    yield url


STATES: dict[str, tuple[Callable[[Server], AbstractContextManager[str]], str]] = {
    "WRONGPASS": (lambda server: always(server.url(password="wrong")), "refused the user name or password.*check LANG"),
    "NOAUTH": (lambda server: always(f"redis://127.0.0.1:{server.port}"), "refused the user name or password"),
    "no such user": (lambda server: always(server.url("nobody")), "refused the user name or password"),
    "no commands": (lambda server: as_user(server, "~*", "+hello"), "lacks a permission.*ACL SETUSER"),
    "no command in scripts": (
        lambda server: as_user(server, "~*", *NEEDED.replace("+unlink", "").split()),
        "lacks a permission.*ACL SETUSER",
    ),
    "no keys": (lambda server: as_user(server, "~other:*", *NEEDED.split()), "lacks a permission.*ACL SETUSER"),
    "keys of a prefix alone": (
        lambda server: as_user(server, "~checkpoint*", "~writes*", *NEEDED.split()),
        "lacks a permission.*ACL SETUSER",
    ),
    "READONLY": (a_replica, "is a read-only replica.*primary"),
    "MASTERDOWN": (
        lambda server: a_replica(server, replica_serve_stale_data="no"),
        "replica that has lost its primary",
    ),
    "NOREPLICAS": (lambda server: server.configured(min_replicas_to_write="1"), "too few replicas.*min-replicas"),
    "MISCONF": (unable_to_save, "can't save.*its disk"),
    "BUSY": (busy, "busy with a script.*SCRIPT KILL"),
    "max clients": (crowded, "accepts no more clients.*maxclients"),
}


@pytest.mark.parametrize("state", STATES)
def test_the_sentence_names_what_is_wrong_and_what_to_do(server, monkeypatch, state):
    enter, sentence = STATES[state]
    with enter(server) as url:
        assert re.search(sentence, error_of(monkeypatch, url))
    assert server.admin.dbsize() == 4, "nothing is lost"


def test_a_redis_that_is_full_is_cleaned_up(server, monkeypatch):
    copy = {key: server.admin.dump(key) for key in server.admin.scan_iter()}
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", server.url())
    with server.configured(maxmemory="1"):
        with pytest.raises(redis.OutOfMemoryError):
            server.admin.set("x", "y")
        report = cleanup_old_checkpoints(30)
    for key, value in copy.items():
        server.admin.restore(key, 0, value, replace=True)
    assert (report["error"], report["deleted_count"]) == (None, 4)


def test_a_redis_that_still_loads_its_data_is_named(tmp_path, monkeypatch):
    if debian_redis() is None:
        pytest.skip("no redis-server of the system is installed")
    with debian_server("--dir", str(tmp_path)) as port, redis.Redis(port=port) as client:
        client.mset({f"key:{number}": "x" for number in range(20_000)})
        client.save()
    # A millisecond a key; it answers in between.
    (port,) = services.free_ports(1)
    command = [str(debian_redis()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path)]
    command += ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024", "--save", ""]
    loading = services.Service("loading", command, ready=lambda: listens(port), cwd="/", log=tmp_path / "log")
    loading.start()
    try:
        loading.wait_ready(time.monotonic() + 60)
        assert "still loading its data" in error_of(monkeypatch, f"redis://127.0.0.1:{port}/0")
    finally:
        loading.stop()


def listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def test_a_command_that_was_renamed_is_named(monkeypatch):
    with plain_server("renamed", "--rename-command", "EVAL", "") as port:
        with redis.Redis(port=port) as client:
            client.set(f"checkpoint:user-1:{old_id(60)}", "{}")
        error = error_of(monkeypatch, f"redis://127.0.0.1:{port}/0")
    assert re.search("does not know a command.*EVAL.*rename-command", error)


def test_the_arguments_of_a_command_that_is_not_known_are_not_told(server):
    # As a server says of HELLO or AUTH, where these were renamed.
    with pytest.raises(redis.ResponseError) as raised:
        server.admin.execute_command("NO-HELLO", "3", "AUTH", "default", PASSWORD)
    assert PASSWORD in str(raised.value)
    error = explain(raised.value)
    assert re.search("does not know a command.*NO-HELLO.*rename-command", error)
    assert PASSWORD not in error


@pytest.mark.parametrize("slots", ["none", "other"])
def test_a_node_of_a_cluster_is_named(monkeypatch, slots):
    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    with plain_server("node", *options, port=cluster_ports(1)[0]) as port:
        with redis.Redis(port=port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            until(lambda: client.cluster("info")["cluster_state"] == "ok", "the cluster")
            fill(client)
            client.set(f"checkpoint:{{other}}::{old_id(40)}", "{}")
            if slots == "none":
                client.execute_command("CLUSTER", "DELSLOTSRANGE", 0, 16383)
        error = error_of(monkeypatch, f"redis://127.0.0.1:{port}/0")
    assert re.search(r"cluster.*redis\+cluster://", error)


def test_a_port_that_nothing_listens_on_and_a_name_that_nothing_has(monkeypatch):
    (port,) = services.free_ports(1)
    for host in (f"127.0.0.1:{port}", "no-such-host.invalid:6379"):
        error = error_of(monkeypatch, f"redis://:{PASSWORD}@{host}/0")
        assert re.search("can't be reached.*check that it runs", error)


@pytest.mark.parametrize(
    "banner", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail ESMTP\r\n"]
)
def test_something_that_is_no_redis_is_named(monkeypatch, banner):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(banner)

        threading.Thread(target=answer, daemon=True).start()
        error = error_of(monkeypatch, f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        listener.shutdown(socket.SHUT_RDWR)
    assert "is not a Redis" in error


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """Debian's Redis with TLS: the server, its plain port, and the authority of its certificate."""
    if debian_redis() is None:
        pytest.skip("no redis-server of the system is installed, and the embedded one is built without TLS")
    authority = CertificateAuthority.make(tmp_path_factory.mktemp("tls"))
    (tls_port,) = services.free_ports(1)
    files = authority.server_files()
    options = ["--tls-port", str(tls_port), "--tls-cert-file", files, "--tls-key-file", files]
    options += ["--tls-ca-cert-file", authority.ca_file, "--tls-auth-clients", "no"]
    with debian_server(*options, password=PASSWORD) as port, redis.Redis(port=port, password=PASSWORD) as admin:
        yield Server(tls_port, admin), port, authority


def secure_url(server: Server, authority: CertificateAuthority | None, host: str = "127.0.0.1") -> str:
    trusting = f"?ssl_ca_certs={authority.ca_file}" if authority else ""
    return server.url(scheme="rediss", host=host) + trusting


def test_a_certificate_that_is_trusted_works_and_one_that_is_not_is_named(secure, monkeypatch):
    server, _, authority = secure
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", secure_url(server, authority))
    assert cleanup_old_checkpoints(30)["error"] is None
    error = error_of(monkeypatch, secure_url(server, None))
    assert re.search("certificate.*is not trusted.*ssl_ca_certs", error)
    assert "check that it runs" not in error


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"valid_for": datetime.timedelta(days=-1)}, "certificate.*has expired.*renew"),
        ({"address": "127.0.0.9"}, "certificate.*another name"),
    ],
)
def test_a_certificate_that_is_old_or_of_another_server_is_named(secure, monkeypatch, options, sentence):
    server, _, authority = secure
    files = authority.server_files(**options)
    with server.configured(tls_cert_file=files, tls_key_file=files):
        error = error_of(monkeypatch, secure_url(server, authority))
    assert re.search(sentence, error)


def test_a_client_certificate_that_is_missing_is_named(secure, monkeypatch):
    server, _, authority = secure
    with server.configured(tls_auth_clients="yes"):
        error = error_of(monkeypatch, secure_url(server, authority))
    # The server's alert gets lost where the client has sent its first command before.
    assert re.search("(TLS connection to the checkpoint Redis failed|closes the connection).*client certificate", error)


def test_tls_and_none_mixed_up_are_named(secure, monkeypatch):
    server, plain, authority = secure
    error = error_of(monkeypatch, secure_url(Server(plain, server.admin), authority))
    assert re.search("speaks TLS on this port", error)
    error = error_of(monkeypatch, server.url())
    assert re.search("speaks TLS on this port.*rediss://", error)


@pytest.mark.parametrize("name", ["/nowhere/ca.pem", "garbage"])
def test_a_file_of_authorities_that_can_not_be_read_is_named(secure, monkeypatch, tmp_path, name):
    server, _, _ = secure
    path = name if name.startswith("/") else str(tmp_path / name)
    if name == "garbage":
        Path(path).write_text("no certificate")
    error = error_of(monkeypatch, server.url(scheme="rediss") + f"?ssl_ca_certs={path}")
    assert "ssl_ca_certs" in error


def test_the_documentation_has_every_sentence():
    page = (services.PROJECT / "docs/admin/troubleshooting.md").read_text()
    for _, sentence in SENTENCES:
        assert f"`{sentence.partition(' ({text}')[0]}`" in page
