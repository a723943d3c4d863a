"""Facts that a key alone gives."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_ops.checkpoints.logic.keys import Family, KeyParser, KeyPrefixes, split_stem

NOW = 1_780_000_000.0  # 2026-05-28
V6 = b"1ec9414c-232a-6b00-b3c8-9e6bdeced846"  # RFC 9562, A.5: 2022-02-22 14:22:22-05:00
V7 = b"017f22e2-79b0-7cc3-98c4-dc0c0c07398f"  # RFC 9562, A.6: the same moment
V1 = b"c232ab00-9414-11ec-b3c8-9f6bdeced846"  # RFC 9562, A.1: the same moment
V4 = b"919108f7-52d1-4320-9bac-f847db4148a8"  # RFC 9562, A.3
ULID = b"01ARZ3NDEKTSV4RRFFQ69G5FAV"  # the ULID specification's example: 2016
MOMENT = 1_645_557_742.0
TASK = b"0d3b4d3e-7c1f-5a10-9a3e-2d1b0c9f8e7d"


@pytest.mark.parametrize(
    ("checkpoint_id", "time"),
    [
        (V6, MOMENT),
        (V7, MOMENT),
        (V1, MOMENT),
        (V4, None),
        (b"01FWHE4YDGFK1SHH6W1G60EECF", MOMENT),
        (ULID, None),  # before LangGraph
        (b"00000000-0000-0000-0000-000000000000", None),
        (b"2022-02-22T19:22:22+00:00", MOMENT),
        (b"2022-02-22T14:22:22.000000-05:00", MOMENT),
        (b"2022-02-22T19:22:22Z", MOMENT),
        (b"2022-02-22 19:22:22", MOMENT),
        (b"0001-01-01T00:00:00+14:00", None),
        (b"9999-12-31T23:59:59-12:00", None),
        (b"2019-12-31T23:59:59Z", None),
        (b"2026-05-30T23:59:59Z", None),  # the day after tomorrow
        (b"2022-13-45T99:99:99", None),
        (b"", None),
        (b"weird", None),
    ],
)
def test_time_of_an_id(checkpoint_id: bytes, time: float | None) -> None:
    assert KeyParser(NOW).time_of(checkpoint_id) == (pytest.approx(time) if time else None)


@pytest.mark.parametrize(
    ("key", "family", "thread", "namespace", "checkpoint_id"),
    [
        (b"checkpoint:t:__empty__:" + V6, Family.DOCUMENT, b"t", b"__empty__", V6),
        (b"checkpoint:a:b:c:__empty__:" + V6, Family.DOCUMENT, b"a:b:c", b"__empty__", V6),
        (b"checkpoint:a:b:child:" + TASK + b":" + V6, Family.DOCUMENT, b"a:b", b"child:" + TASK, V6),
        (b"checkpoint:a:b:child:" + V6, Family.DOCUMENT, b"a:b", b"child", V6),
        (
            b"checkpoint:a:x:" + TASK + b"|y:" + TASK + b":" + V6,
            Family.DOCUMENT,
            b"a",
            b"x:" + TASK + b"|y:" + TASK,
            V6,
        ),
        (b"checkpoint:t::" + V6, Family.DOCUMENT, b"t", b"", V6),
        (b"checkpoint:{a}:b}:ns:" + V6, Family.DOCUMENT, b"{a}:b}", b"ns", V6),
        (b"checkpoint:{a:b}::" + V6, Family.DOCUMENT, b"{a:b}", b"", V6),
        (b"checkpoint:t:" + V6, Family.DOCUMENT, b"t", b"", V6),
        (b"checkpoint:t:2024-01-02T03:04:05.678+00:00", Family.DOCUMENT, b"t", b"", b"2024-01-02T03:04:05.678+00:00"),
        (b"checkpoint:t:", Family.DOCUMENT, b"t", b"", b""),
        (b"checkpoint_latest:a:b:__empty__", Family.POINTER, b"a:b", b"__empty__", b""),
        (b"checkpoint_write:a:b:__empty__:" + V6 + b":" + TASK + b":-3", Family.WRITE, b"a:b", b"__empty__", V6),
        (b"write_keys_zset:a:b:__empty__:" + V6, Family.REGISTRY, b"a:b", b"__empty__", V6),
        (b"write_registry:a:__empty__:shallow", Family.REGISTRY, b"a", b"__empty__", b"shallow"),
        (b"checkpoint_blob:a:__empty__:branch:to:x:0001.5", Family.BLOB, b"a", b"__empty__", b""),
        (b"writes:{a}:ns:" + V6, Family.WRITE, b"{a}", b"ns", V6),
        (b"thread:{a}:", Family.POINTER, b"{a}", b"", b""),
    ],
)
def test_layouts(key: bytes, family: int, thread: bytes, namespace: bytes, checkpoint_id: bytes) -> None:
    parsed = KeyParser(NOW).parse(key)
    assert parsed is not None
    assert parsed[:4] == (family, thread, namespace, checkpoint_id)
    assert parsed.key == key


@pytest.mark.parametrize(
    "key", [b"celery", b"checkpoints:a:b", b"writes:a:b", b"thread:a", b"", b":", b"\xff", b"session:checkpoint:a"]
)
def test_keys_of_others(key: bytes) -> None:
    assert KeyParser(NOW).parse(key) is None


def test_custom_prefixes_with_colons() -> None:
    parser = KeyParser(NOW, KeyPrefixes("app:cp", "app:cp:w"))
    document, write = parser.parse(b"app:cp:t:__empty__:" + V6), parser.parse(b"app:cp:w:t:__empty__:" + V6 + b":k:0")
    assert document is not None
    assert write is not None
    assert (document.family, write.family) == (Family.DOCUMENT, Family.WRITE)
    assert parser.parse(b"checkpoint:t:__empty__:" + V6) is None
    assert document.key in KeyPrefixes("app:cp", "app:cp:w").owners_of(write.key, V6)


@pytest.mark.parametrize("key", [b"checkpoint:\xff:" + V6, b"checkpoint:" + b"x" * 70_000 + b":" + V6])
def test_keys_no_saver_writes_have_no_time(key: bytes) -> None:
    parsed = KeyParser(NOW).parse(key)
    assert parsed is not None
    assert parsed.time is None


def test_a_megabyte_of_colons_takes_no_time() -> None:
    for stem in (b"a:" * 500_000, b"a|" * 500_000, b"a:b|" * 250_000, b"x:" + b"a|" * 30_000 + b":"):
        split_stem(stem[:65_000])
        KeyParser(NOW).parse(b"checkpoint:" + stem)


def test_javascripts_first_checkpoint_has_a_time_though_its_id_has_no_variant() -> None:
    first = V6[:19] + b"ffff" + V6[23:]
    assert KeyParser(NOW).time_of(first) == KeyParser(NOW).time_of(V6) is not None
    assert KeyParser(NOW).time_of(V6[:14] + b"4" + first[15:]) is None


# What the end of a key was told by before, in quadratic time.
LEVEL = rb"[^:|]+(?::[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?"
NAMESPACE_AT_END = re.compile(rb"^(.+?):(" + LEVEL + rb"(?:\|" + LEVEL + rb")*)$", re.DOTALL)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from((b":", b"|", b"a", b"b\n", TASK, b":" + TASK)), max_size=9).map(b"".join))
def test_a_namespace_is_found_at_the_end_of_a_key(stem):
    match = NAMESPACE_AT_END.match(stem)
    expected = (match[1], match[2], False) if match else (stem, b"", False)
    if b":" in stem and not stem.endswith(b":"):
        assert split_stem(stem) == expected


@pytest.mark.parametrize(
    "piece", [b":", b"|", b"a|", b"a:", b":a|", b"a:" + TASK + b"|", b"{a}:", b"}:", b"__empty__:"]
)
@pytest.mark.parametrize("head", [b"checkpoint", b"checkpoint_latest", b"checkpoint_blob", b"writes", b"thread"])
def test_the_time_a_key_takes_grows_with_its_length_alone(monkeypatch, head, piece):
    monkeypatch.setattr("ai_ops.checkpoints.logic.keys.MAX_KEY_BYTES", 1 << 20)
    parser = KeyParser(NOW)

    def seconds(size: int) -> float:
        key = head + b":" + (piece * size)[:size] + b"x"
        times = []
        for _ in range(3):
            started = time.process_time()
            parser.parse(key)
            times.append(time.process_time() - started)
        return min(times)

    # Sixteen times as long takes sixteen times the time, not 256 times; a millisecond is noise.
    assert seconds(320_000) < 64 * seconds(20_000) + 0.02
