"""Values of wrong types in the functions that a Python shell calls: refused in a sentence, and nothing is deleted."""

import pytest
from django.utils import timezone

from ai_ops import celery_tasks as tasks
from ai_ops.exceptions import AiOpsError, RunOptionsError
from ai_ops.models import ThreadErasure
from ai_ops.runs.options import checked_options

pytestmark = pytest.mark.django_db

LONG = "x" * 3_000_000
ODD = (
    -5,
    2.5,
    b"x",
    [],
    ["x"],
    [b"x"],
    {},
    {"x": 1},
    object(),
    "x\0",
    LONG,
    "\ud800",
    timezone.now(),
    None,
    True,
    10**5000,
)
# By function: what it is called with, and for each argument the values of the table that are valid.
CALLS = (
    (
        tasks.cleanup_old_checkpoints,
        {},
        {"retention_days": [None, 2.5], "dryrun": [True], "pinned_threads": [[], ["x"]]},
    ),
    (
        tasks.cleanup_old_checkpoints,
        {},
        {"thread_pattern": [None], "trial_policy": [None], "on_thread": [None]},
    ),
    (tasks.erase_threads, {"reason": "a test"}, {"thread_ids": [["x"]], "thread_pattern": []}),
    (
        tasks.erase_threads,
        {"reason": "a test", "thread_ids": ["x"]},
        {"store_namespaces": [[], ["x"]], "dryrun": [True]},
    ),
    (tasks.erase_threads, {"reason": "a test", "thread_ids": ["x"]}, {"include_pinned": [True]}),
    (tasks.erase_threads, {"thread_ids": ["x"]}, {"reason": []}),
    (tasks.explain_thread, {}, {"thread_id": [-5, "x\0", LONG, "\ud800"]}),
    (tasks.find_threads, {}, {"pattern": []}),
    (tasks.cleanup_user_checkpoints, {}, {"user_id": [-5]}),
    (tasks.move_conversations, {}, {"source": [], "pattern": [], "dryrun": [True]}),
    (tasks.perform_mcp_health_checks, {}, {"shard": [None]}),
    (tasks.check_mcp_server_health, {}, {"server_id": []}),
)
CASES = [(function, usual, name, valid) for function, usual, names in CALLS for name, valid in names.items()]


def error_of(function, arguments):
    try:
        report = function(**arguments)
    except AiOpsError as error:
        return str(error)
    return report["error"] if isinstance(report, dict) else None


@pytest.mark.parametrize(
    ("function", "usual", "name", "valid"), CASES, ids=lambda each: getattr(each, "__name__", None)
)
def test_a_wrong_type_is_refused_in_a_sentence(checkpoint_redis, function, usual, name, valid):
    checkpoint_redis.set("checkpoint:user-x-1:1f0aa56b-6b3e-6000-8000-000000000000", "{}")
    for value in ODD:
        if any(type(value) is type(each) and value == each for each in valid):
            continue
        error = error_of(function, usual | {name: value})
        assert error, (name, str(type(value)))
        assert len(error) < 500
        assert not {"<", "object at", "Traceback"} & set(error.split()), error
    assert checkpoint_redis.dbsize() == 1
    assert not ThreadErasure.objects.exists()


def test_no_flag_of_another_type_deletes(checkpoint_redis):
    """None, a 0 or an empty text is no dry run for Python, and the call would delete."""
    key = "checkpoint:user-1-a:1ec9414c-232a-6b00-b3c8-9e6bdeced846"
    checkpoint_redis.set(key, "{}")
    for dryrun in (None, 0, "", "no", []):
        for call in (
            lambda dryrun=dryrun: tasks.cleanup_old_checkpoints(dryrun=dryrun),
            lambda dryrun=dryrun: tasks.erase_threads(["user-1-a"], reason="a test", dryrun=dryrun),
        ):
            assert "dryrun must be" in call()["error"]
    assert checkpoint_redis.exists(key)


def test_a_request_has_no_text_that_the_database_can_not_store():
    for reason in ("x\0", "\ud800", LONG):
        with pytest.raises(RunOptionsError, match="reason must be a text of at most 255 characters, without"):
            checked_options("erasure", {"thread_ids": ["x"], "reason": reason}, None)
