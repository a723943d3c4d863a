"""A run's numbers say what has gone, and its log names what stood in the way."""

from __future__ import annotations

import resource
import tempfile

import pytest

from ai_ops.celery_tasks import cleanup_old_checkpoints, sample_checkpoint_storage
from ai_ops.checkpoints.redis.deleter import Deleter
from tests.fakes.cleanups import cleaned
from tests.fakes.conversations import old_id


@pytest.fixture
def client(checkpoint_server):
    client = checkpoint_server.client(3)
    client.unlink(*(client.keys() or ["none"]))
    return client


def test_a_thread_of_which_nothing_went_is_kept(client):
    client.hset(f"checkpoint:t:{old_id(60)}", "a", "b")
    run = cleaned(client)
    assert (run.tally.threads_deleted, run.tally.threads_kept, run.tally.unfixable) == (0, 1, 1)
    assert not run.tally.largest


def test_checkpoints_of_which_nothing_went_are_not_trimmed(client):
    client.hset(f"checkpoint:t:{old_id(60)}", "a", "b")
    client.set(f"checkpoint:t:{old_id(1)}", "{}")
    run = cleaned(client)
    assert (run.tally.trimmed, run.tally.threads_kept, run.tally.unfixable) == (0, 1, 1)


@pytest.mark.parametrize("pointer", ["checkpoint_latest:t:__empty__", "thread:{t}:"])
def test_a_key_of_another_kind_in_the_way_is_named_and_is_no_conversation_that_went_on(client, pointer):
    document = f"checkpoint:{{t}}::{old_id(60)}" if "{" in pointer else f"checkpoint:t:__empty__:{old_id(60)}"
    client.set(document, "{}")
    client.hset(pointer, "a", "b")
    run = cleaned(client)
    assert (run.tally.changed, run.tally.threads_deleted, run.tally.threads_kept) == (0, 0, 1)
    assert run.tally.unfixable_names == [repr(pointer)]
    assert client.exists(document, pointer) == 2


def test_what_is_refused_leaves_its_room_to_the_next(client, monkeypatch):
    for number in range(6):
        each = old_id(60)
        client.set(f"checkpoint:t{number}:__empty__:{each}", "{}")
        client.set(f"checkpoint_latest:t{number}:__empty__", f"checkpoint:t{number}:__empty__:{each}")
    original, refused = Deleter._drop_pointers, []

    def two_went_on(self, deletions, *args):
        for deletion in deletions:
            if len(refused) < 2 and deletion.thread not in refused:
                refused.append(deletion.thread)
                name = deletion.thread.decode()
                client.set(f"checkpoint_latest:{name}:__empty__", f"checkpoint:{name}:__empty__:{old_id(0)}")
        return original(self, deletions, *args)

    monkeypatch.setattr(Deleter, "_drop_pointers", two_went_on)
    run = cleaned(client, max_deletions=6)
    assert (run.tally.threads_deleted, run.tally.deleted, run.tally.changed) == (3, 6, 2)
    assert run.limit_reached
    monkeypatch.undo()
    run = cleaned(client, max_deletions=2)
    assert (run.tally.threads_deleted, run.limit_reached) == (1, False)


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["no folder", "no room"])
def test_a_spool_without_room_is_told_and_nothing_is_lost(checkpoint_redis, monkeypatch, caplog, tmp_path, reason):
    monkeypatch.setattr("ai_ops.checkpoints.redis.key_spool.MEMORY_BYTES", 0)
    monkeypatch.setattr("ai_ops.checkpoints.redis.key_spool.UNSEEN_KEYS", 1)
    keys = {f"checkpoint:user-{number}:{old_id(60)}": "{}" for number in range(2000)}
    checkpoint_redis.mset(keys)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if reason == "no folder":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        report, sample = cleanup_old_checkpoints(30), sample_checkpoint_storage()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for each in (report, sample):
        assert each["success"] is False
        assert "set TMPDIR to a folder with more" in each["error"]
    assert any(line.startswith("❌ Checkpoint cleanup failed: ") for line in caplog.messages)
    assert checkpoint_redis.dbsize() == 2000
