"""Erasures: whole threads of each layout, verified, recorded, and guarded against late writes; with the real savers."""

from __future__ import annotations

import hashlib

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings
from django.urls import reverse
from langgraph.checkpoint.redis import RedisSaver
from langgraph.checkpoint.redis.shallow import ShallowRedisSaver
from langgraph.graph import END, START, StateGraph
from langgraph.store.redis import RedisStore
from nautobot.apps.testing import APITestCase
from nautobot.extras.models import Job, JobResult, ScheduledJob

from ai_ops.celery_tasks import cleanup_old_checkpoints, cleanup_user_checkpoints, erase_threads, pin_thread
from ai_ops.checkpoints.erased_names import conceal_options
from ai_ops.checkpoints.erasure import erase_late_writes
from ai_ops.exceptions import ErasureError, RunOptionsError
from ai_ops.models import MaintenanceRun, ThreadErasure
from ai_ops.runs.requests import repeat_run, request_run
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes import jobs
from tests.fakes.conversations import Dialogue, days_ago, graph, old_id, on
from tests.fakes.runs import FreeHold
from tests.integration.checkpoints.test_checkpoint_property import valkey_saver

pytestmark = pytest.mark.django_db

SAVERS = ("redis", "shallow", "valkey", "compact")
HOLD = FreeHold()


@pytest.fixture
def make(checkpoint_server, checkpoint_redis, monkeypatch):
    """Gives a saver of a kind, and the client of its database."""
    monkeypatch.setattr("ai_ops.checkpoints.erasure.SECONDS_BETWEEN_ROUNDS", 0.0)

    def of_kind(kind):
        if kind == "valkey":
            monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2))
            client = checkpoint_server.client(2)
            return valkey_saver(checkpoint_server), client
        if kind == "compact":
            return CompactRedisSaver(checkpoint_redis), checkpoint_redis
        saver = (RedisSaver if kind == "redis" else ShallowRedisSaver)(redis_client=checkpoint_redis)
        saver.setup()
        return saver, checkpoint_redis

    return of_kind


def keys_of(client, *threads):
    return {key for key in client.scan_iter() if any(thread.encode() in key for thread in threads)}


@pytest.mark.parametrize("kind", SAVERS)
def test_all_of_a_thread_goes_whatever_its_age_and_what_it_is_at(make, kind):
    saver, client = make(kind)
    for name in ("person-1", "person-1-b", "other", "person-10"):
        graph(saver, subgraph=True, asks=True).invoke({"said": ["hello"]}, on(name))
    kept = keys_of(client, "other", "person-10") | keys_of(client, "person-1-b")
    report = erase_threads(["person-1", "is not there"], reason="a request")
    assert (report["success"], report["verified"], report["thread_count"]) == (True, True, 1), report
    assert report["deleted_count"] == sum(report["deleted_by_family"].values()) > 0
    assert not graph(saver, asks=True).get_state(on("person-1")).values
    assert set(client.scan_iter()) == kept
    record = ThreadErasure.objects.get()
    assert (record.thread_ids, record.verified, record.deleted_count, record.error) == (
        ["person-1", "is not there"], True, report["deleted_count"], ""
    )  # fmt: skip
    again = erase_threads(["person-1"], reason="a request")
    assert (again["deleted_count"], again["verified"]) == (0, True)


def test_a_pattern_takes_all_layouts_at_once_and_a_dry_run_takes_none(make, checkpoint_redis):
    graph(make("redis")[0]).invoke({"said": ["hello"]}, on("user-7-a"))
    graph(make("compact")[0]).invoke({"said": ["hello"]}, on("user-7-b"))
    checkpoint_redis.set(f"checkpoint:user-7-c:{old_id(0)}", "{}")
    checkpoint_redis.set("checkpoint:user-7-d:no time at all", "{}")
    checkpoint_redis.set(f"checkpoint:user-77-c:{old_id(0)}", "{}")
    checkpoint_redis.set("checkpoint_latest:user-7-a:nothing", "checkpoint:user-7-a:nothing:x")
    count = checkpoint_redis.dbsize()
    dry = erase_threads(thread_pattern="user-7-*", reason="why", dryrun=True)
    assert checkpoint_redis.dbsize() == count
    assert not ThreadErasure.objects.exists()
    assert cleanup_user_checkpoints("7") == dry["deleted_count"] == count - 1
    assert [key.decode().split(":")[1] for key in checkpoint_redis.scan_iter()] == ["user-77-c"]
    assert cleanup_user_checkpoints("7") == 0


def test_pinned_threads_stay_unless_said_so(make, checkpoint_redis):
    saver, _ = make("redis")
    for name in ("case-1", "case-2", "user-1"):
        graph(saver).invoke({"said": ["hello"]}, on(name))
    pin_thread("case-1")
    pin_thread("case-*", is_glob=True)
    report = erase_threads(["case-1", "case-2", "user-1"], reason="why")
    assert (report["success"], report["verified"], report["thread_count"]) == (False, False, 1)
    assert report["pinned_threads"] == ["case-1", "case-2"]
    assert "2 of the threads are pinned" in report["error"]
    assert ThreadErasure.objects.get().error == report["error"]
    assert erase_threads(thread_pattern="case-*", reason="why", include_pinned=True)["verified"]
    assert not checkpoint_redis.dbsize()


def test_a_key_that_may_be_of_another_thread_stays_and_is_told(checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:a:b:{old_id(0)}", "{}")
    report = erase_threads(["a"], reason="why")
    assert (report["success"], report["uncertain_keys"], checkpoint_redis.dbsize()) == (False, 1, 1)
    assert erase_threads(["a:b"], reason="why")["verified"]


def test_items_of_the_store_go_with_their_namespace_and_those_below(make, checkpoint_server, checkpoint_redis):
    index = {"dims": 2, "embed": lambda texts: [[len(text), 1.0] for text in texts], "fields": ["said"]}
    with RedisStore.from_conn_string(checkpoint_server.url(0), index=index) as store:
        store.setup()
        for space in (("users", "42"), ("users", "42", "notes"), ("users", "421"), ("others",)):
            store.put(space, "key", {"said": "secret"})
        report = erase_threads(store_namespaces=[["users", "42"]], reason="why")
        assert report["deleted_by_family"] == {"store items": 4}, "two items and their vectors"
        assert report["verified"]
        assert store.get(("users", "42"), "key") is None
        assert [each.namespace for each in store.search(("users",), query="secret")] == [["users", "421"]] or [
            each.namespace for each in store.search(("users",), query="secret")
        ] == [("users", "421")]
        left = [checkpoint_redis.json().get(key)["prefix"] for key in checkpoint_redis.scan_iter("store:*")]
        assert sorted(each.replace("\\", "") for each in left) == ["others", "users.421"]


@pytest.mark.parametrize("kind", ["redis", "valkey", "compact"])
def test_a_writer_in_the_middle_of_a_turn_does_not_bring_a_thread_back_and_a_new_conversation_lives(make, kind):
    saver, client = make(kind)
    erased = []

    def first(state):
        if state["said"][-1] == "erase me":
            erased.append(erase_threads(["person"], reason="in the middle"))
        return {"said": ["first"]}

    builder = StateGraph(Dialogue)
    builder.add_node("first", first)
    builder.add_node("second", lambda state: {"said": ["second"]})
    builder.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)
    app = builder.compile(checkpointer=saver)
    app.invoke({"said": ["a secret"]}, on("person"))
    said = app.invoke({"said": ["erase me"]}, on("person"))["said"]
    assert erased[0]["deleted_count"]
    assert "a secret" in said, "the writer goes on with what it has read"
    assert keys_of(client, "person"), "and writes it back"

    assert erase_late_writes(HOLD, lambda: None) > 0
    assert not app.get_state(on("person")).values
    assert not keys_of(client, "person")
    assert ThreadErasure.objects.get().late_count > 0

    assert app.invoke({"said": ["anew"]}, on("person"))["said"] == ["anew", "first", "second"]
    assert erase_late_writes(HOLD, lambda: None) == 0
    assert app.get_state(on("person")).values["said"] == ["anew", "first", "second"]


def test_a_shallow_savers_late_turn_counts_as_a_new_conversation_and_another_erasure_takes_it(make):
    """Its only document does not say what it was made from, so that nothing tells the two apart."""
    saver, client = make("shallow")
    builder = StateGraph(Dialogue)

    def first(state):
        if state["said"][-1] == "erase me":
            erase_threads(["person"], reason="in the middle")
        return {"said": ["first"]}

    builder.add_node("first", first)
    builder.add_node("second", lambda state: {"said": ["second"]})
    builder.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)
    app = builder.compile(checkpointer=saver)
    app.invoke({"said": ["a secret"]}, on("person"))
    app.invoke({"said": ["erase me"]}, on("person"))
    (key,) = [key for key in client.scan_iter("checkpoint:person*") if client.type(key) == b"ReJSON-RL"]
    assert not client.json().get(key).get("parent_checkpoint_id")
    erase_late_writes(HOLD, lambda: None)
    assert app.get_state(on("person")).values
    assert erase_threads(["person"], reason="once more")["verified"]
    assert not keys_of(client, "person")


@pytest.mark.parametrize("kind", SAVERS)
def test_late_writes_with_a_time_before_the_erasure_go(make, kind):
    saver, client = make(kind)
    erase_threads(["person"], thread_pattern="user-1-*", reason="why")
    with days_ago(0.5):
        for name in ("person", "user-1-x", "other"):
            graph(saver).invoke({"said": ["late"]}, on(name))
    assert erase_late_writes(HOLD, lambda: None) > 0
    assert not keys_of(client, "person", "user-1-x")
    assert keys_of(client, "other")


def test_records_have_hashes_where_set_and_the_guard_still_knows_the_threads(make, checkpoint_redis):
    saver, client = make("redis")
    with override_settings(PLUGINS_CONFIG={"ai_ops": {"erasure_ids": "sha256", "erasure_guard_days": 1}}):
        graph(saver).invoke({"said": ["hello"]}, on("person"))
        assert erase_threads(["person"], reason="why")["verified"]
        record = ThreadErasure.objects.get()
        assert record.thread_ids == [hashlib.sha256(b"person").hexdigest()]
        assert "person" not in str(record.guard)
        assert "person" not in str(MaintenanceRun.objects.values_list())
        with days_ago(0.5):
            graph(saver).invoke({"said": ["late"]}, on("person"))
        assert erase_late_writes(HOLD, lambda: None) > 0
        assert not keys_of(client, "person")
        ThreadErasure.objects.update(guarded_until="2020-01-01T00:00:00Z")
        assert erase_late_writes(HOLD, lambda: None) == 0
        assert ThreadErasure.objects.get().guard == {}


SHA256 = {"ai_ops": {"erasure_ids": "sha256"}}
DIGEST = "sha256:" + hashlib.sha256(b"person").hexdigest()


@pytest.fixture
def asked_for(db, django_capture_on_commit_callbacks):
    """Gives the run of an erasure that was asked for, and done by its Job."""
    Job.objects.filter(module_name="ai_ops.jobs.erasure").update(enabled=True)
    jobs.see_workers(default=1)
    user = get_user_model().objects.create(username="ann", is_superuser=True)

    def done(**options):
        with django_capture_on_commit_callbacks(execute=True):
            run = request_run("erasure", {"reason": "why", **options}, user)
        run.refresh_from_db()
        return run

    return done


def kept_of(run):
    """All that Nautobot keeps of a run and its Job."""
    result = JobResult.objects.get(pk=run.job_result_id)
    return str([run.options, run.counters, run.error, result.task_kwargs, result.task_args, result.result, result.meta])


def test_a_run_and_its_job_keep_no_name_where_records_have_hashes(make, asked_for):
    saver, client = make("redis")
    graph(saver).invoke({"said": ["hello"]}, on("person"))
    with override_settings(PLUGINS_CONFIG=SHA256):
        run = asked_for(thread_ids=["person"], thread_pattern="person-*", store_namespaces=["person"])
    assert run.state == "succeeded", run.error
    assert not keys_of(client, "person")
    assert "person" not in kept_of(run)
    assert run.options["thread_ids"] == [DIGEST]
    assert JobResult.objects.get(pk=run.job_result_id).task_kwargs["thread_ids"] == DIGEST
    logged = JobResult.objects.get(pk=run.job_result_id).job_log_entries.values_list("message", flat=True)
    assert not [line for line in logged if "person" in line]
    with pytest.raises(RunOptionsError, match="give the name"):
        repeat_run(run)
    assert erase_threads([DIGEST], reason="why")["error"].endswith("give the names.")


def test_a_run_that_failed_keeps_the_names_until_it_is_done(make, asked_for, monkeypatch, redis_retries):
    make("redis")
    with override_settings(PLUGINS_CONFIG=SHA256), monkeypatch.context() as away:
        away.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/0")
        redis_retries()
        run = asked_for(thread_ids=["person"])
    assert run.options["thread_ids"] == ["person"], "another try needs them"
    assert "person" not in str(JobResult.objects.get(pk=run.job_result_id).task_kwargs)
    MaintenanceRun.objects.filter(pk=run.pk).update(state="dead")
    with override_settings(PLUGINS_CONFIG=SHA256):
        conceal_options(MaintenanceRun.objects.create(name="redrive", kind="erasure", parent=run).pk)
    run.refresh_from_db()
    assert run.options["thread_ids"] == [DIGEST]


def test_the_schedule_with_which_an_erasure_was_approved_keeps_no_name(asked_for):
    run = asked_for(thread_ids=["person"])
    job = Job.objects.get(module_name="ai_ops.jobs.erasure")
    schedule = ScheduledJob.create_schedule(job, run.owner, job_kwargs={"thread_ids": "person", "reason": "why"})
    schedule.celery_kwargs |= {"ai_ops_run": str(run.pk)}
    schedule.save()
    conceal_options(run.pk)
    schedule.refresh_from_db()
    assert schedule.kwargs == {"thread_ids": DIGEST, "reason": "why"}


def test_by_default_a_run_keeps_what_was_asked_for(make, asked_for):
    make("redis")
    run = asked_for(thread_ids=["person"])
    assert run.options["thread_ids"] == ["person"]
    assert JobResult.objects.get(pk=run.job_result_id).task_kwargs["thread_ids"] == "person"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"thread_ids": ["a"], "reason": ""},
        {"thread_ids": ["a"], "reason": "x" * 256},
        {"thread_ids": [""]},
        {"thread_ids": "person"},
        {"thread_ids": ["a\0b"]},
        {"thread_pattern": "*a" * 11},
        {"thread_pattern": ""},
        {"store_namespaces": [""]},
    ],
)
def test_what_can_not_be_erased_is_refused_with_a_sentence(checkpoint_redis, asked):
    checkpoint_redis.set(f"checkpoint:a:{old_id(0)}", "{}")
    report = erase_threads(**{"reason": "why", **asked})
    assert report["success"] is False
    assert report["error"].endswith(".")
    assert checkpoint_redis.dbsize() == 1


def test_a_redis_that_is_away_is_told_and_recorded(monkeypatch, redis_retries):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/0")
    redis_retries()
    report = erase_threads(["a"], reason="why")
    assert (report["success"], report["verified"]) == (False, False)
    assert ThreadErasure.objects.get().error == report["error"]
    with pytest.raises(ErasureError):
        cleanup_user_checkpoints("1")


def test_a_cleanup_does_not_bring_anything_back(make):
    saver, client = make("redis")
    graph(saver).invoke({"said": ["hello"]}, on("person"))
    erase_threads(["person"], reason="why")
    assert cleanup_old_checkpoints(30)["deleted_count"] == 0
    assert not client.dbsize()


class RestTest(APITestCase):
    def test_an_erasure_takes_a_permission_of_its_own(self):
        url = reverse("plugins-api:ai_ops-api:thread-erase")
        body = {"thread_ids": ["person"], "reason": "why"}
        self.add_permissions("extras.run_job")
        for missing in ("ai_ops.view_checkpointstoragesnapshot", "ai_ops.add_threaderasure"):
            refused = self.client.post(url, body, format="json", **self.header)
            self.assertHttpStatus(refused, 403)
            assert missing in refused.data["detail"]
            self.add_permissions(missing)
        for broken in (
            {"thread_ids": ["person"]},
            {"reason": "why"},
            {**body, "x": 1},
            {**body, "thread_ids": "p"},
            [],
        ):
            with self.subTest(broken):
                self.assertHttpStatus(self.client.post(url, broken, format="json", **self.header), 400)
