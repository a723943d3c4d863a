"""The order of turns, for any number of takers."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ai_ops.mcp.logic.turns import Turns


@given(
    places=st.lists(st.sampled_from("abc"), max_size=40),
    at_once=st.integers(1, 4),
    takers=st.integers(1, 10),
    dice=st.randoms(use_true_random=False),
)
def test_each_is_taken_once_and_no_place_has_too_many(places, at_once, takers, dice):
    turns, taken, busy = Turns(places, at_once), [], []
    idle = takers
    while True:
        while idle and (number := turns.take()) is not None:
            taken.append(number)
            busy.append(number)
            idle -= 1
            assert max(Counter(places[each] for each in busy).values()) <= at_once
        if not busy:
            break
        # One ends, and its taker goes on; those that got nothing before are done for good.
        idle = 1
        turns.give_back(busy.pop(dice.randrange(len(busy))))
    assert sorted(taken) == list(range(len(places)))


def test_after_a_stop_there_is_nothing_to_take():
    turns = Turns("aaab", 1)
    first = turns.take()
    turns.stop()
    turns.give_back(first)
    assert turns.take() is None
