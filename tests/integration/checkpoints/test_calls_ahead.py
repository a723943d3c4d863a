"""Calls to a real server that are sent ahead: which are waited for, in what order, and what a refusal leaves."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.compact_plan import expired_thread
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.redis.client import RetryingRedis
from ai_ops.checkpoints.redis.compact_store import CompactStore
from ai_ops.checkpoints.redis.pipelining import CALLS_AT_ONCE, CallsAhead, packed
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import talk

BLOCKS = packed(["BLPOP", "gate", 0])


@pytest.fixture
def calls(checkpoint_redis):
    ahead = CallsAhead(checkpoint_redis, lambda action: action())
    yield ahead
    checkpoint_redis.rpush("gate", "end")
    ahead.settle()


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


def test_one_call_too_many_waits_for_the_oldest_alone(calls, checkpoint_redis):
    checkpoint_redis.rpush("gate", "open")
    first, second, *_ = [calls.add(command) for command in (BLOCKS, *map(echo, range(1, CALLS_AT_ONCE)))]
    calls.add(echo(CALLS_AT_ONCE))
    assert first.value == [b"gate", b"open"]
    assert second.value is None


@pytest.mark.parametrize("waits", ["add", "wait_for", "settle"])
def test_a_refused_call_is_an_error_after_all_others_have_their_answers(calls, waits):
    answers = [calls.add(command) for command in (packed(["EVAL", "return {err = 'NO way'}", 0]), echo(1), echo(2))]
    with pytest.raises(ResponseError, match="NO way"):
        {"add": lambda: calls.add(echo(3)), "wait_for": lambda: calls.wait_for(answers[0]), "settle": calls.settle}[
            waits
        ]()
    assert [each.value for each in answers] == [None, b"1", b"2"]
    again = calls.add(echo(4))
    calls.settle()
    assert again.value == b"4"


def test_nothing_is_waited_for_between_a_look_and_a_deletion(checkpoint_redis, monkeypatch):
    """The next look is on its way while the client decides, and so is the deletion while it counts."""
    saver = CompactRedisSaver(checkpoint_redis)
    for number in range(4):
        talk(saver, f"t-{number}", 40)
    redis = RetryingRedis(checkpoint_redis, lambda seconds: None, None)
    keys = CompactKeys()
    store = CompactStore(redis, keys, KeyParser(0))
    threads = list(keys.threads_in(checkpoint_redis.keys("lgc:*")))
    received, receive = [], CallsAhead._receive
    monkeypatch.setattr(CallsAhead, "_receive", lambda self, most: (received.append(most), receive(self, most)))
    looks = store.look_ahead(threads[:2], 0.0)
    later = store.look_ahead(threads[2:], 0.0)
    assert received == []
    found = looks()
    assert received == [1], "the first look alone"
    outcomes = store.apply([expired_thread(look, 0.0) for look in found], dryrun=False)
    assert received == [1]
    assert [each.deleted for each in outcomes()] == [2, 2]
    assert len(later()) == 2
    assert received == [1, 0]
    redis.settle()
