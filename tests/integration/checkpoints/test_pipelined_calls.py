"""Pipelined calls to a real server: their waits, their order, and the state after a refusal."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.compact_plan import expired_thread
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.redis.client import RetryingRedis
from ai_ops.checkpoints.redis.compact_store import CompactStore
from ai_ops.checkpoints.redis.pipelining import BYTES_QUEUED, CALLS_AT_ONCE, CALLS_QUEUED, PipelinedCalls, packed
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import talk
from tests.waiting import until

BLOCKS = packed(["BLPOP", "gate", 0])
REFUSED = packed(["EVAL", "return {err = 'NO way'}", 0])


@pytest.fixture
def calls(checkpoint_redis):
    calls = PipelinedCalls(checkpoint_redis, lambda action: action())
    yield calls
    checkpoint_redis.rpush("gate", "end")
    calls.settle()


def echo(number):
    return packed(["ECHO", number])


def test_calls_are_sent_without_waiting_for_those_that_redis_is_at_work_on(calls, checkpoint_redis):
    blocked = calls.add(BLOCKS)
    others = [calls.add(echo(number)) for number in range(1, CALLS_AT_ONCE)]
    assert [each.value for each in (blocked, *others)] == [None] * CALLS_AT_ONCE
    checkpoint_redis.rpush("gate", "open")
    calls.wait_for(others[0])
    assert blocked.value == [b"gate", b"open"]
    assert [each.value for each in others[:2]] == [b"1", None], "nothing waits for what comes later"
    calls.settle()
    assert [each.value for each in others] == [b"%d" % number for number in range(1, CALLS_AT_ONCE)]


def test_more_calls_wait_in_this_process_until_redis_has_answered(calls, checkpoint_redis):
    first, *_ = [calls.add(command) for command in (BLOCKS, *map(echo, range(1, CALLS_AT_ONCE)))]
    later = calls.add(packed(["INCR", "later"]))
    calls.proceed()
    assert (first.value, calls._sent) == (None, CALLS_AT_ONCE)
    checkpoint_redis.rpush("gate", "open")
    until(lambda: calls.proceed() or later.value is not None, "the answer")
    assert (first.value, later.value) == ([b"gate", b"open"], 1)


@pytest.mark.parametrize(
    ("number", "size"), [(CALLS_AT_ONCE + CALLS_QUEUED - 1, 1), (CALLS_AT_ONCE, BYTES_QUEUED // CALLS_AT_ONCE - 100)]
)
def test_one_call_too_many_waits_for_the_oldest(calls, checkpoint_redis, number, size):
    """The calls without an answer have a limit on their number, and one on their bytes."""
    first = calls.add(BLOCKS)
    for _ in range(number):
        calls.add(packed(["ECHO", b"x" * size]))
    assert first.value is None
    checkpoint_redis.rpush("gate", "open")
    calls.add(packed(["ECHO", b"x" * 1000]))
    assert first.value == [b"gate", b"open"]


@pytest.mark.parametrize("waits", ["proceed", "wait_for", "settle"])
def test_a_refused_call_is_an_error_after_all_that_were_sent_have_their_answers(calls, checkpoint_redis, waits):
    answers = [calls.add(command) for command in (BLOCKS, REFUSED, echo(1))]
    checkpoint_redis.rpush("gate", "open")
    with pytest.raises(ResponseError, match="NO way"):
        {
            "proceed": lambda: until(calls.proceed, "the refusal"),
            "wait_for": lambda: calls.wait_for(answers[1]),
            "settle": calls.settle,
        }[waits]()
    assert [each.value for each in answers] == [[b"gate", b"open"], None, b"1"]
    again = calls.add(echo(4))
    calls.settle()
    assert again.value == b"4"


def test_a_call_after_a_refused_one_is_never_sent(calls, checkpoint_redis):
    *_, last = [calls.add(command) for command in (BLOCKS, REFUSED, echo(1), echo(2), packed(["INCR", "later"]))]
    checkpoint_redis.rpush("gate", "open")
    with pytest.raises(ResponseError, match="NO way"):
        calls.wait_for(last)
    calls.settle()
    assert (last.value, checkpoint_redis.get("later")) == (None, None)


def test_only_calls_that_were_sent_may_have_been_executed_twice(checkpoint_redis):
    tries = []

    def retry(action):
        while True:
            try:
                return action()
            except RedisConnectionError:
                tries.append(1)

    calls = PipelinedCalls(checkpoint_redis, retry)
    answers = [calls.add(command) for command in (BLOCKS, *map(echo, range(CALLS_AT_ONCE + 1)))]
    until(lambda: checkpoint_redis.info("clients")["blocked_clients"], "the blocked call")
    checkpoint_redis.client_kill_filter(_id=blocked_client(checkpoint_redis))
    checkpoint_redis.rpush("gate", "open")
    calls.settle()
    assert tries == [1]
    assert [each.repeated for each in answers] == [True] * CALLS_AT_ONCE + [False] * 2
    assert [each.value for each in answers[1:]] == [b"%d" % number for number in range(CALLS_AT_ONCE + 1)]


def blocked_client(client):
    return next(each["id"] for each in client.client_list() if each["cmd"] == "blpop")


def test_nothing_is_waited_for_between_a_look_and_a_deletion(checkpoint_redis):
    """The next look is on its way while the client decides, and so is the deletion while it counts."""
    saver = CompactRedisSaver(checkpoint_redis)
    for number in range(4):
        talk(saver, f"t-{number}", 40)
    redis = RetryingRedis(checkpoint_redis, lambda seconds: None, None)
    keys = CompactKeys()
    store = CompactStore(redis, keys, KeyParser(0))
    threads = list(keys.threads_in(checkpoint_redis.keys("lgc:*")))

    @contextmanager
    def not_waited_for():
        # Redis answers after ten seconds if the code waits for it.
        blocked = redis._calls.add(packed(["BLPOP", "gate", 10]))
        yield
        assert blocked in redis._calls._calls
        checkpoint_redis.rpush("gate", "open")

    with not_waited_for():
        looks = store.look_ahead(threads[:2], 0.0)
        later = store.look_ahead(threads[2:], 0.0)
    found = looks()
    with not_waited_for():
        outcomes = store.apply([expired_thread(look, 0.0) for look in found], dryrun=False)
    assert [each.deleted for each in outcomes()] == [2, 2]
    assert len(later()) == 2
    redis.settle()
