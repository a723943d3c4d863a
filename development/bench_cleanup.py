"""Benchmark of the checkpoint cleanup, against Redis itself, against a simple loop and against the library.

``python -m development.bench_cleanup`` prints one line of JSON per case. Every measured run has the same
data on the same embedded server. Half of the threads are old, and the cleanup deletes them whole.

- `floor_batched_s`: SCAN of the database with COUNT 1000, and UNLINK of as many keys as the cleanup deletes, 100 keys
  in each as the cleanup does. `floor_s` is the same with one key in each UNLINK, in pipelines of 500; for small cases.
- `median_of_runs`: number of alternate runs of `floor_batched_s` and the cleanup; their times are medians. Each run has
  a new process, which has to connect and to get its memory from the system.
- `ratio_to_floor_batched`, `ratio_to_floor`, `ours_s`, and `keys_per_s`.
- `naive_s`: one GET or JSON.GET and one DEL per key; `library_s`: the saver's `delete_thread` for each old thread. If
  `sampled` is set, they ran on that many threads, and their times are scaled.
- `ping_idle_p99_ms`, `ping_p99_ms`: another client's PING every millisecond, before and during the cleanup.
- `ping_busy_p99_ms`: the same while two processes are busy without Redis, as many as cleanup and server are: on two
  cores the PING waits for those even if Redis is idle.
- `rss_growth_mib`: peak memory of the process that ran the cleanup over that of the smallest size.

With ``--policies 50`` it only compares a run with this number of retention policies to one without, in turns:
`policies_ratio` of the times, `policies_cpu_ratio` of the CPU times. It fails if the first is over its limit.

With ``--turns 1000`` it only cleans one thread of CompactRedisSaver with this number of turns, three checkpoints each:
half of it, all but its last turn, the whole thread with its seal and without. `longest_script_ms` is the longest call
in Redis's own record, and `script_ms` the median of the slowest kind of call. It fails if the median is over its limit;
the longest call may have been interrupted by other programs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from ai_ops.checkpoints.cleanup import CleanupRun
from ai_ops.checkpoints.logic.keys import UUID_EPOCH, KeyParser
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.logic.batches import batches
from ai_ops.logic.policies import Policy, PolicyIndex
from development import services
from development.bench_saver import Conversation
from langgraph_checkpoint_compact import CompactRedisSaver
from langgraph_checkpoint_compact.documents import StoredCheckpoint

FLOOR_KEYS = 100  # in one UNLINK, as in the cleanup
# Number of alternate runs of floor and cleanup, by the seconds that writing the data took; their medians are compared.
# Each run loads the data again. A long case varies less.
RUNS = {10.0: 7, 40.0: 3}
SMALL = 10_000  # threads up to which the floor with one key in each UNLINK is measured too
SAMPLE = 2_000  # maximum number of threads for the measurement of the slow ways
# Runs with policies and without, in turns, because a run may take 50 percent longer than the previous one.
POLICY_RUNS = 15
# Limit on the time with fifty policies, as a ratio to the time without.
POLICIES_LIMIT = 1.15
# Limit on one call in a long thread, in milliseconds.
SCRIPT_LIMIT = 5.0
# By name: the age in days from which checkpoints are deleted, and whether the thread is sealed. Half of a long thread
# is 60 days old, its last turn is one day old, and the rest 40 days.
LONG = {
    "half of a long thread": (50.0, True),
    "all but the last turn": (30.0, True),
    "a long thread": (0.5, True),
    "a long thread without a seal": (0.5, False),
}
SAVE_SECONDS = 300.0  # limit on the time to write the server's file, or to load it
SLOW_SECONDS = 10.0  # after which the library has deleted enough
OLD_DAYS, NEW_DAYS = 60, 1
COMPACT_DOCUMENT = StoredCheckpoint([], "", ("msgpack", b"x" * 800), ("msgpack", b"\x80"), []).encode()
VALUE = json.dumps({"v": 1, "channel_values": {"said": ["hello " * 20]}})


def checkpoint_id(days_old: float, number: int) -> str:
    """Return an id of version 6 as LangGraph makes them."""
    ticks = int((time.time() - days_old * DAY) * 1e7) + UUID_EPOCH + number
    text = f"{ticks:015x}"
    return f"{text[:8]}-{text[8:12]}-6{text[12:]}-8000-{uuid.uuid4().hex[:12]}"


def plain_thread(number: int, days: float) -> Iterator[tuple[Any, ...]]:
    """Return two string keys."""
    for each in (0.01, 0.0):
        yield ("SET", f"checkpoint:user-{number}:{checkpoint_id(days + each, number)}", VALUE)


def valkey_thread(number: int, days: float) -> Iterator[tuple[Any, ...]]:
    """Return two checkpoints with their writes, and the list."""
    for each in (0.01, 0.0):
        name, made = f"{{user-{number}}}", checkpoint_id(days + each, number)
        yield ("SET", f"checkpoint:{name}::{made}", VALUE)
        yield ("SET", f"writes:{name}::{made}", "[]")
        yield ("LPUSH", f"thread:{name}:", made)


def redis_saver_thread(number: int, days: float) -> Iterator[tuple[Any, ...]]:
    """Return two checkpoints with a write each, their registries, and the pointer."""
    stem = f"user-{number}:__empty__"
    for each in (0.01, 0.0):
        made, task = checkpoint_id(days + each, number), uuid.uuid4()
        names = {"thread_id": f"user-{number}", "checkpoint_ns": "__empty__", "checkpoint_id": made}
        document = names | {"checkpoint": json.loads(VALUE), "metadata": "{}", "has_writes": True, "step": 1}
        write = f"checkpoint_write:{stem}:{made}:{task}:0"
        yield ("JSON.SET", f"checkpoint:{stem}:{made}", "$", json.dumps(document))
        yield ("JSON.SET", write, "$", json.dumps(names | {"task_id": str(task), "idx": 0, "channel": "said"}))
        yield ("ZADD", f"write_keys_zset:{stem}:{made}", 0, write)
        yield ("SET", f"checkpoint_latest:{stem}", f"checkpoint:{stem}:{made}")


def compact_thread(number: int, days: float) -> Iterator[tuple[Any, ...]]:
    """Return fifteen checkpoints of a kilobyte in the two keys of CompactRedisSaver."""
    key = f"lgc:{{user-{number}}}"
    made = [checkpoint_id(days + each / 1000, number) for each in range(15, 0, -1)]
    fields = [word for each in made for word in (f"c||{each}", COMPACT_DOCUMENT, f"v||said|s{each}", VALUE)]
    seal = f"1 15 {len(fields) // 2 + 3} 15 |{made[-1]}"
    yield ("HSET", key, "n", made[-1], "p", 15, "s", seal, *fields)
    yield ("ZADD", f"{key}:ids", *(word for each in made for word in (0, f"|{each}")))


LAYOUTS: dict[str, Callable[[int, float], Iterator[tuple[Any, ...]]]] = {
    "plain": plain_thread,
    "ValkeySaver": valkey_thread,
    "RedisSaver": redis_saver_thread,
    "CompactRedisSaver": compact_thread,
}


class Client(redis.Redis):
    """A client that knows its server."""

    server: services.Service


def emptied(client: Client, layout: str) -> None:
    """Delete all data, and create the indexes of the library again if it has any."""
    if layout != "RedisSaver":
        client.flushall()
        return
    # With entries in an index, FLUSHALL sometimes hangs the embedded server.
    client.server.stop()
    client.server.start()
    client.server.wait_ready(time.monotonic() + 30)
    library_saver(client).setup()


def fill(client: Client, layout: str, threads: int) -> list[bytes]:
    """Write the conversations, and a file for `refill`; return the keys of the old ones."""
    saved = Path(client.config_get("dir")["dir"]) / client.config_get("dbfilename")["dbfilename"]
    saved.unlink(missing_ok=True)
    emptied(client, layout)
    old: dict[bytes, None] = {}
    for numbers in batches(range(threads), 200):
        with client.pipeline(transaction=False) as pipeline:
            for number in numbers:
                is_old = number % 2 == 0
                for command in LAYOUTS[layout](number, OLD_DAYS if is_old else NEW_DAYS):
                    pipeline.execute_command(*command)
                    if is_old:
                        old[command[1].encode()] = None
            pipeline.execute()
    client.save()
    return list(old)


def refill(client: Client, layout: str) -> None:
    """Load the conversations of `fill` from the server's file again: writing them takes ten times as long."""
    client.server.stop()
    client.server.start()
    client.server.wait_ready(time.monotonic() + SAVE_SECONDS)
    indexes = client.execute_command("FT._LIST") if layout == "RedisSaver" else ()
    while any(float(client.ft(index.decode()).info()["percent_indexed"]) < 1 for index in indexes):
        time.sleep(0.1)


def library_saver(client: redis.Redis) -> Any:
    """Return the saver for the comparison with its own deletion."""
    from langgraph.checkpoint.redis import RedisSaver

    return RedisSaver(redis_client=client)


def scan(client: redis.Redis) -> Iterator[list[bytes]]:
    """Scan the whole database as fast as the client can."""
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, count=1000)
        yield keys
        if cursor == 0:
            return


def floor(client: redis.Redis, old: list[bytes], keys_per_command: int) -> float:
    """Return the seconds to read all keys and delete the old ones, without decisions.

    The ids of CompactRedisSaver are not in its keys: reading them takes one HGET per thread.
    """
    started = time.perf_counter()
    for keys in scan(client):
        if not keys or not keys[0].startswith(b"lgc:"):
            continue
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                if key.endswith(b"}"):
                    pipeline.hget(key, "n")
            pipeline.execute()
    for batch in batches(batches(old, keys_per_command), 500 if keys_per_command == 1 else 5):
        with client.pipeline(transaction=False) as pipeline:
            for keys in batch:
                pipeline.unlink(*keys)
            pipeline.execute()
    return time.perf_counter() - started


def fresh_floor(port: int, old: list[bytes], keys_per_command: int, answers: Any) -> None:
    """Measure the floor in its own process; return the seconds."""
    with redis.Redis(port=port) as client:
        answers.put(floor(client, old, keys_per_command))


def naive(client: redis.Redis, limit: int) -> tuple[float, int]:
    """Return the seconds of a loop that reads each key and deletes the old ones, and the number of keys read."""
    started, seen = time.perf_counter(), 0
    parser = KeyParser(time.time())
    for key in client.scan_iter():
        if seen == limit:
            break
        seen += 1
        kind = client.type(key)
        if kind == b"ReJSON-RL":
            client.json().get(key)
        elif kind == b"string":
            client.get(key)
        elif kind == b"hash":
            made = parser.time_of(client.hget(key, "n") or b"")
            client.delete(key, key + b":ids") if (made or time.time()) < time.time() - 30 * DAY else None
        parsed = parser.parse(key)
        if parsed and (parsed.time or time.time()) < time.time() - 30 * DAY:
            client.delete(key)
    return time.perf_counter() - started, seen


def library(client: redis.Redis, layout: str, threads: int, limit: int) -> float | None:
    """Return the seconds that the library's `delete_thread` takes for all old threads; None if it has no such method.

    It measures the first `limit` threads, and scales the time.
    """
    if layout == "plain":
        return None
    if layout == "RedisSaver":
        saver = library_saver(client)
        saver.setup()
    elif layout == "CompactRedisSaver":
        saver = CompactRedisSaver(client)
    else:
        import valkey
        from langgraph_checkpoint_aws.checkpoint.valkey import ValkeySaver

        address = client.connection_pool.connection_kwargs
        saver = ValkeySaver(valkey.Valkey(port=address["port"]))
    chosen = range(0, threads, 2)[:limit]
    started = time.perf_counter()
    done = 0
    while done < len(chosen) and time.perf_counter() - started < SLOW_SECONDS:
        saver.delete_thread(f"user-{chosen[done]}")
        done += 1
    return (time.perf_counter() - started) * (threads / 2) / done


def policies_of(count: int) -> PolicyIndex | None:
    """Return this number of policies over the threads of the benchmark; half of the threads match one.

    The patterns are typical: mostly prefixes, some suffixes and ids, and every tenth has another form.
    """
    forms = ("user-{}*", "user-{}*", "user-{}*", "user-{}*", "*-{}", "user-{}*", "user-{}", "user-{}*", "user-{}*")
    patterns = [
        f"user-?{number}" if number % 10 == 9 else forms[number % 10].format(number) for number in range(10, 10 + count)
    ]
    return PolicyIndex([Policy(each, (each,), retention=30 * DAY) for each in patterns]) if count else None


def ours(port: int, policies: int, days: float, answers: Any) -> None:
    """Run the cleanup in its own process; return the seconds, its report and its peak memory in KiB."""
    with redis.Redis(port=port) as client:
        now = time.time()
        parser = KeyParser(now)
        run = CleanupRun(
            CheckpointStore(client, parser),
            parser,
            RetentionPolicy(days * DAY, days * DAY, classes=policies_of(policies)),
            now,
            dryrun=False,
        )
        started, cpu = time.perf_counter(), time.process_time()
        run.execute()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    answers.put((seconds, cpu, run.report(30, "").as_dict(), peak_memory()))


def peak_memory() -> int:
    """Return the peak memory of this process, in KiB; only Linux reports it."""
    # getrusage would include the memory of the parent at the fork, which holds the test's data.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def ping(port: int, stop: Any, answers: Any) -> None:
    """PING every millisecond until `stop` is set; return the 99th percentile in milliseconds."""
    times = []
    with redis.Redis(port=port) as client:
        while not stop.is_set():
            started = time.perf_counter()
            client.ping()
            times.append(time.perf_counter() - started)
            time.sleep(0.001)
    answers.put(sorted(times)[int(len(times) * 0.99)] * 1e3)


def pinged(port: int, action: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of `action`, and the 99th percentile of another client's PING during it."""
    stop, answers = multiprocessing.Event(), multiprocessing.Queue()
    other = multiprocessing.Process(target=ping, args=(port, stop, answers))
    other.start()
    result = action()
    stop.set()
    p99 = answers.get()
    other.join()
    return result, p99


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep this number of cores busy without Redis."""
    spinning = [multiprocessing.Process(target=_keep_busy, daemon=True) for _ in range(processes)]
    for process in spinning:
        process.start()
    try:
        yield
    finally:
        for process in spinning:
            process.terminate()
            process.join()


def _keep_busy() -> None:
    while True:
        pass


def measured(port: int, policies: int = 0, days: float = 30.0) -> tuple[float, float, dict[str, Any], int]:
    """Measure the cleanup in a new process; return the result of `ours`."""
    result: tuple[float, float, dict[str, Any], int] = in_a_new_process(ours, port, policies, days)
    return result


def in_a_new_process(measure: Callable[..., None], *arguments: Any) -> Any:
    """Return the answer of `measure`, whose last argument is a queue for it."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=measure, args=(*arguments, answers))
    process.start()
    result = answers.get()
    process.join()
    return result


def in_turns(
    client: Client, port: int, layout: str, threads: int
) -> tuple[list[bytes], int, int, list[float], list[tuple[float, float]]]:
    """Return the old keys, the numbers of all and of deleted keys, and the times of the floor and of the cleanup.

    They run in turns on the same data, so that other load on the machine slows both down.
    """
    old: list[bytes] = []
    keys, deleted, floors, times = 0, 0, [], []
    began = time.perf_counter()
    old = fill(client, layout, threads)
    took = time.perf_counter() - began
    runs = next((runs for seconds, runs in RUNS.items() if took < seconds), 1)
    keys = client.dbsize()
    for _ in range(runs):
        refill(client, layout)
        floors.append(in_a_new_process(fresh_floor, port, old, FLOOR_KEYS))
        refill(client, layout)
        seconds, cpu, report, _ = measured(port)
        times.append((seconds, cpu))
        deleted = report["deleted_count"]
    return old, keys, deleted, floors, times


def with_policies(client: Client, port: int, layout: str, threads: int, policies: int) -> dict[str, Any]:
    """Compare the cleanup with this number of policies to the cleanup without, in turns on the same data."""
    old = fill(client, layout, threads)
    keys = client.dbsize()
    times: dict[int, list[tuple[float, float]]] = {0: [], policies: []}
    for turn in range(POLICY_RUNS):
        # Each of them runs first equally often, so that a machine that slows down affects both.
        for count in (0, policies) if turn % 2 else (policies, 0):
            refill(client, layout)
            seconds, cpu, report, _ = measured(port, count)
            assert report["deleted_count"] == len(old), "policies with the same retention must delete the same keys"
            times[count].append((seconds, cpu))
    (without_s, without_cpu_s), (with_s, with_cpu_s) = (
        [statistics.median(each) for each in zip(*times[count], strict=True)] for count in (0, policies)
    )
    return {
        "layout": layout, "threads": threads, "median_of_runs": POLICY_RUNS, "keys": keys, "deleted": len(old),
        "policies": policies, "policies_ratio": with_s / without_s, "policies_cpu_ratio": with_cpu_s / without_cpu_s,
        "with_policies_s": with_s, "without_s": without_s,
    }  # fmt: skip


class Aged(Conversation):
    """A conversation with turns of the given ages in days."""

    days = 0.0

    def new_id(self) -> str:
        """Return the id of a checkpoint of this age in days."""
        return checkpoint_id(self.days, self.step)


def long_thread(client: Client, port: int, turns: int) -> Iterator[dict[str, Any]]:
    """Clean a thread of this number of turns in each way of LONG, on the same data."""
    conversation = Aged(CompactRedisSaver(client))
    for number in range(turns):
        conversation.days = 60 if number < turns // 2 else 40 if number < turns - 1 else 1
        conversation.turn()
    client.save()
    for name, (days, is_sealed) in LONG.items():
        refill(client, "CompactRedisSaver")
        if not is_sealed:
            client.hdel(f"lgc:{{{conversation.thread_id}}}", "s")
        # The record does not include PINGs and similar commands.
        client.config_set("slowlog-log-slower-than", 100)
        client.config_set("slowlog-max-len", 10_000)
        (seconds, _, report, _), p99 = pinged(port, lambda days=days: measured(port, days=days))
        scripts = durations_of_scripts(client)
        yield {
            "case": name, "turns": turns, "checkpoints": 3 * turns, "trimmed": report["checkpoints_trimmed"],
            "deleted": report["deleted_count"], "ours_s": seconds, "ping_p99_ms": p99,
            "script_ms": max(map(statistics.median, scripts.values()), default=0) / 1e3,
            "longest_script_ms": max(map(max, scripts.values()), default=0) / 1e3,
        }  # fmt: skip


def durations_of_scripts(client: Client) -> dict[bytes, list[int]]:
    """Return the microseconds of each call in Redis's record, by script."""
    found: dict[bytes, list[int]] = {}
    for each in client.slowlog_get(10_000):
        if each["command"].startswith(b"EVAL"):
            found.setdefault(each["command"].split(maxsplit=1)[1][:100], []).append(each["duration"])
    return found


def case(client: Client, port: int, layout: str, threads: int) -> tuple[dict[str, Any], int]:
    """Return one line, and the peak memory in KiB."""
    old, keys, deleted, floors, times = in_turns(client, port, layout, threads)
    batched_s = statistics.median(floors)
    floor_s = None
    if threads <= SMALL:
        refill(client, layout)
        floor_s = floor(client, old, 1)
    refill(client, layout)
    _, idle = pinged(port, lambda: time.sleep(2))
    with busy(2):
        _, crowded = pinged(port, lambda: time.sleep(2))
    # The library deletes only a little, and loading the data again for it would take longer.
    library_s = library(client, layout, threads, SAMPLE)
    # The other client takes its share of the machine: this run measures only its times, and memory.
    (_, _, _, peak), p99 = pinged(port, lambda: measured(port))
    seconds, cpu = (statistics.median(each) for each in zip(*times, strict=True))
    fill(client, layout, min(threads, SAMPLE))
    naive_s, seen = naive(client, sys.maxsize)
    naive_s *= keys / seen
    line = {
        "layout": layout, "threads": threads, "median_of_runs": len(times),
        "keys": keys, "deleted": deleted, "expected": len(old),
        "ratio_to_floor_batched": seconds / batched_s, "ratio_to_floor": floor_s and seconds / floor_s,
        "floor_batched_s": batched_s, "floor_s": floor_s, "ours_s": seconds, "ours_cpu_s": cpu,
        "keys_per_s": round(keys / seconds),
        "naive_s": naive_s, "naive_ratio": naive_s / seconds,
        "library_s": library_s, "library_ratio": library_s and library_s / seconds,
        "sampled": SAMPLE if threads > SAMPLE else None,
        "ping_idle_p99_ms": idle, "ping_busy_p99_ms": crowded, "ping_p99_ms": p99,
    }  # fmt: skip
    return line, peak


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--threads", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--turns", type=int, default=0, help="only clean one thread of this number of turns")
    parser.add_argument(
        "--policies", type=int, default=0, help="only compare a run with this number of retention policies"
    )
    parser.add_argument(
        "--million",
        action="store_true",
        help="a million threads too, which need more than 24 GiB",
    )
    chosen = parser.parse_args()
    chosen.threads += [1_000_000] * chosen.million
    if chosen.turns:
        sys.exit(long_threads(chosen.turns))
    slow = []
    for layout in chosen.layouts:
        smallest = None
        for threads in chosen.threads:
            with running(layout) as (client, port):
                if chosen.policies:
                    line = with_policies(client, port, layout, threads, chosen.policies)
                    slow += [layout] if line["policies_ratio"] > POLICIES_LIMIT else []
                else:
                    line, peak = case(client, port, layout, threads)
                    smallest = peak if smallest is None else smallest
                    line["rss_growth_mib"] = (peak - smallest) / 1024
            print(json.dumps({key: round(each, 3) if isinstance(each, float) else each for key, each in line.items()}))
            sys.stdout.flush()
    if slow:
        sys.exit(f"{chosen.policies} policies cost more than {POLICIES_LIMIT - 1:.0%}: {', '.join(slow)}.")


def long_threads(turns: int) -> str | None:
    """Print the lines of a long thread; return a sentence if a call is over its limit."""
    slow = []
    with running("CompactRedisSaver") as (client, port):
        for line in long_thread(client, port, turns):
            print(json.dumps({key: round(each, 3) if isinstance(each, float) else each for key, each in line.items()}))
            sys.stdout.flush()
            slow += [line["case"]] if line["script_ms"] > SCRIPT_LIMIT else []
    return f"A call takes more than {SCRIPT_LIMIT} ms of Redis: {', '.join(slow)}." if slow else None


@contextlib.contextmanager
def running(layout: str) -> Iterator[tuple[Client, int]]:
    """Start a server for a case; yield a client and the port."""
    (port,) = services.free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        server = services.redis_server("bench", port, "", modules=layout == "RedisSaver", folder=Path(folder))
        server.start()
        try:
            server.wait_ready(time.monotonic() + 30)
            # Writing the file of a large case takes longer than the client's default timeout.
            with Client(port=port, socket_timeout=SAVE_SECONDS) as client:
                client.server = server
                yield client, port
        finally:
            server.stop()


if __name__ == "__main__":
    main()
