"""The quick way decides what the thorough way decides, on whatever mix of keys."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_ops.checkpoints.logic.deletion import Deletion
from ai_ops.checkpoints.logic.fast_path import QuickKeys, _first_tick_at, _id_at
from ai_ops.checkpoints.logic.keys import (
    EARLIEST,
    FUTURE_TOLERANCE,
    UUID_EPOCH,
    CheckpointKey,
    Family,
    KeyParser,
    KeyPrefixes,
)
from ai_ops.checkpoints.logic.lookups import Facts, threads_to_examine, trimmable
from ai_ops.checkpoints.logic.plan import CleanupPlan, make_plan
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.logic.threads import group_threads, possible_stubs
from ai_ops.logic.policies import FOREVER, Policy, PolicyIndex

NOW = 1_780_000_000.0
NAMES = (
    b"a", b"b", b"a:b", b"{a}", b"{a", b"a}", b"{a}:b", b"__empty__", b"a:__empty__", b"x|y", b"user-1", b"user-1-2",
    b"thread", b"a b", b"\xc3\xa4", b"\xff", b"a\nb", b"shallow", b"-3",
)  # fmt: skip
NAMESPACES = (b"__empty__", b"", b"child", b"child:0d3b4d3e-7c1f-5a10-9a3e-2d1b0c9f8e7d", b"a|b")
PREFIXES = (KeyPrefixes(), KeyPrefixes("app:cp", "app:cp:w"), KeyPrefixes("a", "a:b"), KeyPrefixes("w", "writes"))
DAYS = (-2.0, -1.0, -0.5, 0.0, 0.02, 1.0, 10.0, 20.0, 30.0, 31.0, 60.0, 90.0, 4000.0)


def uuid6(days: float, ticks: int = 0, tail: int = 0) -> bytes:
    text = f"{int((NOW - days * DAY) * 1e7) + UUID_EPOCH + ticks:015x}"
    return f"{text[:8]}-{text[8:12]}-6{text[12:]}-8000-{tail:012x}".encode()


ids = st.one_of(
    st.builds(uuid6, st.sampled_from(DAYS), st.integers(-3, 3), st.integers(0, 1)),
    st.builds(uuid6, st.sampled_from(DAYS)).map(bytes.upper),
    st.sampled_from([b"919108f7-52d1-4320-9bac-f847db4148a8", b"2026-05-01T00:00:00", b"", b"shallow", b"strange"]),
)


@st.composite
def some_keys(draw: st.DrawFn, prefixes: KeyPrefixes) -> list[bytes]:
    """The keys of one thread, perhaps not all of them."""
    name, space = draw(st.sampled_from(NAMES)), draw(st.sampled_from(NAMESPACES))
    layout, made = draw(st.sampled_from(("plain", "redis", "valkey", "braces"))), draw(st.lists(ids, max_size=3))
    checkpoint, write = prefixes.checkpoint.encode(), prefixes.write.encode()
    stem, keys = name + b":" + space, []
    for each in made:
        if layout == "plain":
            keys.append(checkpoint + b":" + name + b":" + each)
        elif layout == "redis":
            keys += [checkpoint + b":" + stem + b":" + each, b"write_keys_zset:" + stem + b":" + each]
            keys.append(write + b":" + stem + b":" + each + b":task:" + draw(st.sampled_from((b"0", b"-3"))))
        elif layout == "valkey":
            stem = b"{" + name + b"}:" + space
            keys += [head + b":" + stem + b":" + each for head in (b"checkpoint", b"writes")]
        else:
            keys += [b"checkpoint:{" + name + b":" + each, b"checkpoint_blob:" + stem + b":c:" + each]
    if layout == "redis":
        keys.append(checkpoint + b"_latest:" + stem)
    elif layout == "valkey":
        keys.append(b"thread:{" + name + b"}:" + space)
    if keys and draw(st.booleans()):
        keys.remove(draw(st.sampled_from(keys)))
    return keys + keys[: draw(st.integers(0, 1))]


classes = st.none() | st.lists(
    st.builds(
        Policy,
        name=st.sampled_from(("p", "q", "r")),
        patterns=st.lists(st.sampled_from(("a", "a*", "{*", "*|y", "user-1", "?:b", "*")), min_size=1, max_size=2).map(
            tuple
        ),
        retention=st.none() | st.sampled_from((3600.0, 10 * DAY, 90 * DAY, FOREVER)),
        pending_retention=st.none() | st.sampled_from((3600.0, 30 * DAY, FOREVER)),
        trim_live_threads=st.none() | st.booleans(),
        keep_last=st.none() | st.integers(1, 3),
        max_checkpoints=st.none() | st.integers(1, 2),
    ),
    min_size=1,
    max_size=3,
).map(PolicyIndex)


@st.composite
def populations(draw: st.DrawFn) -> tuple[list[bytes], KeyPrefixes, RetentionPolicy]:
    prefixes = draw(st.sampled_from(PREFIXES))
    threads = draw(st.lists(some_keys(prefixes), max_size=6))
    policy = RetentionPolicy(
        draw(st.sampled_from((30, 10))) * DAY,
        draw(st.sampled_from((10, 30, 90))) * DAY,
        trim_live_threads=draw(st.booleans()),
        keep_last=draw(st.integers(1, 3)),
        thread_pattern=draw(st.sampled_from((None, "a*", "user-[0-9]", "{*"))),
        pinned=draw(st.frozensets(st.sampled_from(("a", "a:b", "{a}", "x|y", "user-1")), max_size=2)),
        prefixes=prefixes,
        pinned_globs=draw(st.frozensets(st.sampled_from(("user-*", "[{x]*")), max_size=1)),
        classes=draw(classes),
    )
    return draw(st.permutations([key for keys in threads for key in keys])), prefixes, policy


def goes(deletions: Iterable[Deletion]) -> list[tuple[object, ...]]:
    """Deletions without the order that a scan happens to have."""
    return sorted(
        (each.thread, each.reason.value, each.guards, sorted(each.owners), sorted(each.list_entries), each.size,
         [(family, sorted(keys)) for family, keys in each.keys.items() if keys], each.namespaces, each.last_activity,
         each.policy)
        for each in deletions
    )  # fmt: skip


def questions(keys: list[CheckpointKey], policy: RetentionPolicy) -> tuple[set[bytes], set[bytes]]:
    """Return the questions to Redis about these threads."""
    threads = group_threads(keys)
    stubs = {document.key for document in possible_stubs(threads, NOW)}
    spaces = [
        space
        for held, some in policy.group_by_policy(threads)
        for space in trimmable(threads_to_examine(some, held, NOW), held, NOW)
    ]
    return stubs, {document.key for space in spaces for document in space.documents.values()}


def _bare(keys: Iterable[bytes]) -> list[bytes]:
    return sorted(key.replace(b"{", b"").replace(b"}", b"") for key in keys)


def planned(keys: list[CheckpointKey], policy: RetentionPolicy) -> CleanupPlan:
    """The plan for threads of several policies."""
    plans = [make_plan(some, Facts(), held, NOW) for held, some in policy.group_by_policy(group_threads(keys))]
    return CleanupPlan(
        tuple(each for plan in plans for each in plan.deletions),
        sum(plan.kept_threads for plan in plans),
        tuple(each for plan in plans for each in plan.unfixable),
        {name: blobs for plan in plans for name, blobs in plan.ownerless_blobs.items()},
        tuple(each for plan in plans for each in plan.over_limits),
    )


@settings(max_examples=int(os.environ.get("AI_OPS_EXAMPLES", "150")), deadline=None)
@given(populations())
def test_the_quick_way_decides_as_the_thorough_way_does(
    population: tuple[list[bytes], KeyPrefixes, RetentionPolicy],
) -> None:
    keys, prefixes, policy = population
    parser, quick = KeyParser(NOW, prefixes), QuickKeys(KeyParser(NOW, prefixes))
    parsed = [key for key in map(parser.parse, keys) if key is not None]
    whole = planned(parsed, policy)

    threads = quick.threads_of(keys)
    text = b"\n".join(key for key, thread in zip(keys, threads, strict=True) if thread)
    others = [parser.parse(key) for key, thread in zip(keys, threads, strict=True) if not thread]
    apart = [key for key in others if key is not None]
    first = quick.decide(text, {key.thread.strip(b"{}") for key in apart}, policy, NOW)
    left = [*apart, *(key for key in map(parser.parse, first.rest) if key is not None)]
    rest = planned(left, policy)

    assert goes([*chain(*first.expired), *rest.deletions]) == goes(whole.deletions)
    assert first.kept_threads.total() + rest.kept_threads == whole.kept_threads
    assert rest.over_limits == whole.over_limits
    # Of two savers' documents with one id in a namespace the one that comes last is named.
    assert _bare(rest.unfixable) == _bare(whole.unfixable)
    assert dict(rest.ownerless_blobs) == dict(whole.ownerless_blobs)
    assert questions(left, policy) == questions(parsed, policy)


def test_a_plain_key_of_a_thread_that_another_saver_goes_on_with_is_not_decided_apart_from_it() -> None:
    parser = KeyParser(NOW)
    of_redis = [b"checkpoint:a:b:__empty__:" + uuid6(1), b"checkpoint_latest:a:b:__empty__"]
    keys = [key for key in map(parser.parse, [*of_redis, b"checkpoint:a:b:" + uuid6(60)]) if key]
    policy = RetentionPolicy(30 * DAY, 30 * DAY, trim_live_threads=False)
    assert not make_plan(group_threads(keys), Facts(), policy, NOW).deletions


@settings(max_examples=150, deadline=None)
@given(populations())
def test_a_recognised_key_needs_no_reading_and_is_filed_with_its_thread(
    population: tuple[list[bytes], KeyPrefixes, RetentionPolicy],
) -> None:
    keys, prefixes, _ = population
    parser = KeyParser(NOW, prefixes)
    for key, thread in zip(keys, QuickKeys(KeyParser(NOW, prefixes)).threads_of(keys), strict=True):
        parsed = parser.parse(key)
        if not thread or parsed is None:
            continue
        assert parsed.thread.strip(b"{}") == thread
        assert parsed.family != Family.BLOB
        assert parsed.time is not None or parsed.family in (Family.POINTER, Family.WRITE)


plain_names = st.sampled_from((b"a", b"user-1", b"user-1-2", b"a b", b"x|y", b"a" * 500)) | st.sampled_from(
    (*NAMES, b"", b"a" * 501, b"a\x7f", b"a\x00")
)


# Not an id: then the ids of a batch are checked one by one.
ILL_FORMED = b"checkpoint:z:" + b"-" * 36


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.builds(lambda name, made: b"checkpoint:" + name + b":" + made, plain_names, ids), max_size=3)
    | populations().map(lambda population: population[0])
)
def test_a_key_is_recognised_among_others_as_alone(keys: list[bytes]) -> None:
    quick = QuickKeys(KeyParser(NOW))
    alone = [quick.threads_of([key])[0] for key in keys]
    assert quick.threads_of(keys) == alone
    assert quick.threads_of([*keys, ILL_FORMED]) == [*alone, b""]


@pytest.mark.parametrize(
    "keys",
    [
        [b"checkpoint:a", uuid6(1) + b":checkpoint:b:" + uuid6(1)],
        [b"checkpoint:a:" + uuid6(1), b"checkpoint:" + uuid6(1), b"b:checkpoint:c:" + uuid6(1)],
        [b"checkpoint", uuid6(1) + b":a:checkpoint:b:" + uuid6(1)],
        [b"checkpoint:a:" + uuid6(1), b"checkpoint:b:" + uuid6(4000)],
        [b"checkpoint:a:" + uuid6(1), b"checkpoint::" + uuid6(1)],
        [b"checkpoint:a:" + uuid6(1), b"checkpoint:" + b"b" * 501 + b":" + uuid6(1)],
        [b"checkpoint:a:" + uuid6(1)[:-1], b"checkpoint:b:" + uuid6(1) + b"0"],
        [b"checkpoint:a:" + uuid6(1), b"checkpoint:b:" + uuid6(1).replace(b"-8", b"-7")],
        [b"checkpoint:a:" + uuid6(1), b"checkpoint:b:" + uuid6(1).replace(b"-6", b"-4")],
        [b"checkpoint:a:" + uuid6(1), b"checkpoint:b:" + uuid6(1).replace(b"-", b"0")],
        [b"checkpoint:a:" + uuid6(1), b"writes:b:" + uuid6(1)],
        [b"checkpoint:a:" + uuid6(1), b"other:b:" + uuid6(1)],
    ],
)
def test_keys_that_only_look_like_plain_ones_together_are_taken_apart_alone(keys: list[bytes]) -> None:
    quick = QuickKeys(KeyParser(NOW))
    alone = [quick.threads_of([key, ILL_FORMED])[0] for key in keys]
    assert quick.threads_of(keys) == alone
    assert quick.threads_of([*keys, ILL_FORMED]) == [*alone, b""]


@given(st.floats(EARLIEST, NOW + FUTURE_TOLERANCE), st.integers(-5, 5))
def test_ids_compare_as_their_times_do(time: float, ticks: int) -> None:
    tick = _first_tick_at(time) + ticks
    text = f"{tick:015x}"
    made = f"{text[:8]}-{text[8:12]}-6{text[12:]}-8000-000000000000".encode()
    assert (made >= _id_at(time)) == ((tick - UUID_EPOCH) / 1e7 >= time)


@pytest.mark.parametrize("keys", [[], [b""], [b"", b"\n", b""], [b"a\nb", b"checkpoint:a:" + uuid6(1), b"\n"]])
def test_every_key_has_an_answer_of_its_own(keys: list[bytes]) -> None:
    assert QuickKeys(KeyParser(NOW)).threads_of(keys) == [
        b"a" if key.startswith(b"checkpoint") else b"" for key in keys
    ]


@pytest.mark.parametrize(
    ("key", "thread"),
    [
        (b"checkpoint:t:" + uuid6(1), b"t"),
        (b"checkpoint:t:__empty__:" + uuid6(1), b"t"),
        (b"checkpoint:{t}::" + uuid6(1), b"t"),
        (b"checkpoint_write:t:__empty__:" + uuid6(1) + b":task:-3", b"t"),
        (b"checkpoint_latest:t:__empty__", b"t"),
        (b"thread:{t}:", b"t"),
        (b"checkpoint:t:" + uuid6(-2), b""),  # of the future
        (b"checkpoint:t:" + uuid6(4000), b""),  # of the past
        (b"checkpoint:user:1:" + uuid6(1), b""),
        (b"checkpoint:t:", b""),
        (b"session:t:" + uuid6(1), b""),
    ],
)
def test_the_usual_shapes_are_recognised(key: bytes, thread: bytes) -> None:
    assert QuickKeys(KeyParser(NOW)).threads_of([key]) == [thread]


@pytest.mark.parametrize(
    ("days", "decided"), [(0.01, "kept"), (2.0, "for values to tell"), (40.0, "goes"), (29.0, "for values to tell")]
)
def test_a_valkey_thread_whose_two_names_are_of_two_policies_is_decided_where_both_agree(
    days: float, decided: str
) -> None:
    made = uuid6(days)
    keys = [b"checkpoint:{a}::" + made, b"writes:{a}::" + made, b"thread:{a}:"]
    policies = PolicyIndex([Policy("short", ("a",), retention=3600.0)])
    policy = RetentionPolicy(30 * DAY, 30 * DAY, classes=policies)
    result = QuickKeys(KeyParser(NOW)).decide(b"\n".join(keys), (), policy, NOW)
    goes = list(chain(*result.expired))
    found = "goes" if goes else "for values to tell" if result.rest else "kept"
    assert found == decided
    assert [each.policy for each in goes] == ["short"] * (decided == "goes")
    assert result.kept_threads["short"] == (decided == "kept")


@pytest.mark.parametrize(
    "odd",
    [
        b"checkpoint_write:a:__empty__",
        b"writes:{a}:",
        b"write_keys_zset:a:__empty__:" + uuid6(61),
        b"checkpoint_latest:a:__empty__:" + uuid6(60) + b":task:0",
        b"thread:{a}::" + uuid6(60) + b":task:0",
        b"checkpoint_write:a:__empty__:" + uuid6(61) + b":task:0",
    ],
)
@pytest.mark.parametrize("ages", [(60,), (60, 62), (60, 61.5, 62)])
def test_a_thread_with_a_key_that_is_of_no_checkpoint_of_it_is_left_to_the_plan(
    odd: bytes, ages: tuple[float, ...]
) -> None:
    of_redis = [b"checkpoint_latest:a:__empty__", *(b"checkpoint:a:__empty__:" + uuid6(age) for age in ages)]
    of_valkey = [b"thread:{a}:", *(b"checkpoint:{a}::" + uuid6(age) for age in ages)]
    keys = [*(of_valkey if b"{" in odd else of_redis), odd]
    policy = RetentionPolicy(30 * DAY, 30 * DAY)
    whole = QuickKeys(KeyParser(NOW)).decide(b"\n".join(keys[:-1]), (), policy, NOW)
    assert (whole.rest, len(list(chain(*whole.expired)))) == ([], 1)
    result = QuickKeys(KeyParser(NOW)).decide(b"\n".join(keys), (), policy, NOW)
    assert (sorted(result.rest), result.expired) == (sorted(keys), [])


def test_the_caller_has_a_turn_between_the_steps() -> None:
    turns: list[int] = []
    text = b"checkpoint:t:" + uuid6(60)
    QuickKeys(KeyParser(NOW)).decide(text, (), RetentionPolicy(30 * DAY, 30 * DAY), NOW, lambda: turns.append(1))
    assert len(turns) == 5
