"""The largest of many."""

from hypothesis import given
from hypothesis import strategies as st

from ai_ops.logic.largest import Largest


@given(st.lists(st.integers()), st.integers(1, 8))
def test_the_largest_stay_in_their_order_whatever_the_order_of_adding(numbers, size):
    largest = Largest[int](size)
    for number in numbers:
        threshold = largest.threshold
        would_stay = threshold is None or number > threshold
        before = list(largest)
        largest.add(number)
        assert (list(largest) != before) <= would_stay
    assert list(largest) == sorted(numbers, reverse=True)[:size]
    assert len(largest) == min(size, len(numbers))
