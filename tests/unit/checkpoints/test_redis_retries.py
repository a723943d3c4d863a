"""Retries of a Redis that is away: how often, after how long, and when not at all."""

from __future__ import annotations

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ai_ops.checkpoints.redis.client import RetryingRedis
from ai_ops.exceptions import CheckpointStoreError


@pytest.fixture
def waited():
    """The seconds of each wait, which takes no time."""
    return []


@pytest.fixture
def away(waited):
    """A client of a server that is not there, with these delays."""
    # The port of tcpmux: a connection is refused at once.
    client = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    return lambda delays=None: RetryingRedis(client, waited.append, None, delays)


ASK = {
    "a command": lambda redis: redis.size(),
    "a scan": lambda redis: list(redis.scan(lambda: None)),
    "a script": lambda redis: (redis.script("return 1", [], []), redis.settle()),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
def test_it_tries_for_about_ten_seconds_and_ever_more_seldom(away, waited, ask):
    with pytest.raises(CheckpointStoreError):
        ask(away())
    assert 9 < sum(waited) < 12
    assert waited == sorted(waited)
    assert waited[0] < 0.5, "a connection that was only cut is there again at once"


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
@pytest.mark.parametrize("delays", [(), (0.5, 7.0)])
def test_the_delays_may_be_others(away, waited, ask, delays):
    with pytest.raises(CheckpointStoreError):
        ask(away(delays))
    assert waited == list(delays)


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
def test_after_stop_retrying_it_does_not_try_again(away, waited, ask):
    stopped = away()
    stopped.stop_retrying()
    with pytest.raises(CheckpointStoreError):
        ask(stopped)
    assert waited == []
