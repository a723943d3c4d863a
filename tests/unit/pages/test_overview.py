"""The overview's first line, stale facts, and the facts that need the operator."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ops.overview import logic
from ai_ops.overview.logic import Health, Level, Machine, Outage, ServerFacts, headline, machine_state, needs

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
TEN_MINUTES = timedelta(minutes=10)
ALL_WELL = dict.fromkeys(logic.NEEDS, 0)
FRESH = Health(True, NOW - timedelta(minutes=4), TEN_MINUTES)


def ago(**length):
    return NOW - timedelta(**length)


@pytest.mark.parametrize(
    ("counts", "health", "unchecked", "level", "sentence"),
    [
        ({}, FRESH, 0, Level.SUCCESS, "All well"),
        ({"down": 1}, FRESH, 0, Level.DANGER, "1 thing needs you"),
        ({"down": 40, "incidents": 1, "tools": 2}, FRESH, 0, Level.DANGER, "3 things need you"),
        ({"certificates": 2}, FRESH, 0, Level.WARNING, "1 thing needs you"),
        (
            {},
            replace(FRESH, ended=ago(minutes=25)),
            0,
            Level.UNKNOWN,
            "Not known: the last health check ended 25 min ago",
        ),
        ({}, replace(FRESH, ended=None), 0, Level.UNKNOWN, "Not known: no health check has finished yet"),
        # What needs the operator is said too, and is not hidden by what is not known.
        (
            {"schedules": 1},
            replace(FRESH, ended=ago(minutes=25)),
            0,
            Level.WARNING,
            "Not known: the last health check ended 25 min ago. 1 thing needs you",
        ),
        ({}, FRESH, 1, Level.UNKNOWN, "Not known: 1 server was not checked in time"),
        ({}, FRESH, 1200, Level.UNKNOWN, "Not known: 1,200 servers were not checked in time"),
        # Without a server to check there is nothing that a check would have said.
        ({}, Health(False), 0, Level.SUCCESS, "All well"),
        ({}, None, 0, Level.UNKNOWN, "Nothing needs you; you may not view the servers"),
        ({"dead_letters": 2}, None, 0, Level.DANGER, "1 thing needs you"),
    ],
)
def test_the_first_line(counts, health, unchecked, level, sentence):
    found = headline(needs(ALL_WELL | counts), health, NOW, unchecked=unchecked)
    assert (found.level, found.sentence) == (level, sentence)


@given(
    st.dictionaries(st.sampled_from(sorted(logic.NEEDS)), st.none() | st.integers(0, 3)),
    st.none() | st.integers(0, 200_000),
    st.none() | st.integers(1, 200_000),
    st.integers(0, 2),
)
def test_green_is_said_only_of_what_is_fresh_and_needs_nobody(counts, minutes, every, unchecked):
    ended = None if minutes is None else NOW - timedelta(minutes=minutes)
    period = None if every is None else timedelta(minutes=every)
    said = headline(needs(counts), Health(True, ended, period), NOW, unchecked=unchecked)
    if said.level == Level.SUCCESS:
        assert ended is not None
        assert NOW - ended <= 2 * max(period or logic.UNSCHEDULED, logic.LEAST_SLACK)
        assert not unchecked
        assert not any(counts.values())
    waiting = sum(bool(count) for count in counts.values())
    numbers = [int(number) for number in re.findall(r"(\d+) things? needs? you", said.sentence)]
    assert numbers == ([waiting] if waiting else [])


def test_what_needs_the_operator_is_in_order_and_without_what_may_not_be_seen():
    found = needs({"tools": 1, "down": 2, "dead_letters": None, "schedules": 0})
    assert [(need.name, need.count, need.level) for need in found] == [
        ("servers down", 2, Level.DANGER),
        ("tool changed", 1, Level.DANGER),
        ("schedules late, paused or broken", 0, Level.SUCCESS),
    ]


def test_a_stale_count_of_none_is_not_green_and_one_of_some_is_as_urgent_as_ever():
    assert [need.level for need in needs({"down": 0, "incidents": 3}, stale=("down", "incidents"))] == [
        Level.UNKNOWN,
        Level.DANGER,
    ]


@pytest.mark.parametrize(
    ("every", "fresh", "stale"),
    [
        (timedelta(minutes=1), timedelta(minutes=6), timedelta(minutes=6, seconds=1)),
        (TEN_MINUTES, timedelta(minutes=20), timedelta(minutes=20, seconds=1)),
        (timedelta(hours=1), timedelta(hours=2), timedelta(hours=2, seconds=1)),
        (timedelta(days=1), timedelta(hours=25), timedelta(hours=25, seconds=1)),
        (None, timedelta(hours=2), timedelta(hours=2, seconds=1)),
    ],
)
def test_a_result_is_stale_when_the_one_after_the_next_is_due(every, fresh, stale):
    assert not logic.is_stale(NOW - fresh, every, NOW)
    assert logic.is_stale(NOW - stale, every, NOW)


def test_what_was_never_found_is_stale():
    assert logic.is_stale(None, TEN_MINUTES, NOW)


WORKING = Machine("health", ago(minutes=4), TEN_MINUTES, NOW + TEN_MINUTES, "active")


@pytest.mark.parametrize(
    ("machine", "level", "word"),
    [
        (WORKING, Level.SUCCESS, "On time"),
        (replace(WORKING, late=True), Level.DANGER, "Late"),
        (replace(WORKING, standing="broken"), Level.DANGER, "Broken"),
        (replace(WORKING, standing="paused"), Level.WARNING, "Paused"),
        (replace(WORKING, standing="held"), Level.WARNING, "Waits for approval"),
        (replace(WORKING, standing="finished"), Level.UNKNOWN, "No schedule"),
        (replace(WORKING, standing=None, every=None), Level.UNKNOWN, "No schedule"),
        (replace(WORKING, last_success=None), Level.UNKNOWN, "Not run yet"),
        (replace(WORKING, last_success=ago(minutes=21)), Level.WARNING, "No success in time"),
    ],
)
def test_how_a_kind_of_maintenance_runs(machine, level, word):
    assert machine_state(machine, NOW) == (level, word)


def test_a_machine_that_is_started_and_does_not_succeed_says_what_to_look_for():
    said = logic.why_no_success(replace(WORKING, last_success=ago(minutes=21)), NOW)
    assert said == "It is due every 10 min: see why its last runs did not succeed."
    assert logic.why_no_success(WORKING, NOW) is None
    assert logic.why_no_success(replace(WORKING, late=True, why="No worker."), NOW) == "No worker."


HTTP = ServerFacts(True, "Healthy", ago(minutes=4))


@pytest.mark.parametrize(
    ("server", "state"),
    [
        (HTTP, "Up"),
        (replace(HTTP, status="Unhealthy"), "Down"),
        (replace(HTTP, status="Unhealthy", checked=ago(days=3)), "Down"),
        (replace(HTTP, checked=ago(minutes=21)), "Not checked in time"),
        (replace(HTTP, checked=ago(minutes=21), check_interval=30), "Up"),
        (replace(HTTP, checked=ago(minutes=61), check_interval=30), "Not checked in time"),
        (replace(HTTP, known=False), "Not checked in time"),
        (replace(HTTP, checked=None, created=ago(minutes=1)), "Not checked yet"),
        (replace(HTTP, status="Unhealthy", checked=None, created=ago(minutes=20)), "Not checked yet"),
        (replace(HTTP, status="Unhealthy", checked=None, created=ago(minutes=21)), "Not checked in time"),
        (replace(HTTP, checked=None, created=None), "Not checked in time"),
        (replace(HTTP, status="Vulnerable"), "Vulnerable"),
        (replace(HTTP, status="Maintenance", checked=None), "Maintenance"),
        (replace(HTTP, is_http=False, status="Unhealthy", checked=None), "Never checked (STDIO)"),
    ],
)
def test_where_a_server_stands(server, state):
    assert logic.server_state(server, TEN_MINUTES, NOW) == state


def test_the_newest_outage_that_nobody_has_acknowledged_comes_first():
    outages = [
        Outage("never well"),
        Outage("acknowledged", ago(minutes=1), "ada"),
        Outage("old", ago(days=2)),
        Outage("new", ago(minutes=5)),
    ]
    assert [each.server for each in logic.first_outages(outages, 3)] == ["new", "old", "never well"]


def test_flapping_servers_and_those_that_failed_within_a_day_are_the_troubled_ones():
    one_failure = "1" * 20 + "0"
    servers = {
        "well": HTTP,
        "a failure two days ago": replace(HTTP, last_failure=ago(days=2), recent="0" * 21),
        "one failure": replace(HTTP, last_failure=ago(hours=9), recent=one_failure),
        "a later one": replace(HTTP, last_failure=ago(hours=2), recent=one_failure),
        "down": replace(HTTP, last_failure=ago(minutes=4), recent="0" * 21),
        "flapping": replace(HTTP, flapping=True, last_failure=ago(hours=2), recent="1" * 21),
    }
    assert logic.most_troubled(servers, NOW, 4) == ["flapping", "down", "a later one", "one failure"]
    assert logic.most_troubled(servers, NOW, 1) == ["flapping"]


@pytest.mark.parametrize(
    ("opened", "last_ok", "since"),
    [
        (ago(hours=1), ago(hours=2), ago(hours=1)),
        # It was well again for a while, beside others of the same incident.
        (ago(hours=2), ago(hours=1), ago(hours=1)),
        (None, ago(hours=1), ago(hours=1)),
        (None, None, None),
    ],
)
def test_since_when_a_server_is_down(opened, last_ok, since):
    assert logic.down_since(opened, last_ok) == since


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (1000, 1250, "250 more than 2 d ago (+25 %)"),
        (1000, 900, "100 less than 2 d ago (-10 %)"),
        (1000, 1000, "the same as 2 d ago"),
        (0, 70, "70 more than 2 d ago"),
        (None, 70, None),
    ],
)
def test_a_trend_in_words(first, last, said):
    assert logic.trend(first, last, timedelta(days=2)) == said
