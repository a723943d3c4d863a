"""Benchmark of langgraph_checkpoint_compact, as ratios to other savers in the same run.

``python -m development.bench_saver`` prints one line of JSON per case and exits with 1 if a limit is exceeded. Each
saver uses its own Valkey, with modules, since RedisSaver needs them.

A turn is a question and an answer, 2.3 KB together, and three checkpoints, as a graph with one node makes them.

- `turns`: memory of one thread and keys, server's CPU and the client's for a put and for a get, at 50, 200 and 1,000
  turns. RedisSaver is measured up to 200, ValkeySaver up to 100: at 1,000 they would need gigabytes.
- `threads`: puts and gets a second, by 1 and by 16 threads.
- `list` and `delete`: 150 checkpoints.
- `long thread`: the longest scripts in the server, by operation, on a thread of 3,000 checkpoints; ``--long-thread``
  runs only this case.
- `raw`: serializing the checkpoint and one SET; one GET and deserializing it.

`cpu_ms` is the client's and the server's time together. A new case is a function that returns its figures.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import redis
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.redis import RedisSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_checkpoint_compact import CompactRedisSaver, migrate_threads
from tests.fakes.redis_servers import plain_server

QUESTION, ANSWER = 300, 2000
ROUNDS = 15
# Their data grows with the square of the turns.
LARGEST = {"RedisSaver": 200, "ValkeySaver": 100}
LIMITS = {
    "put against raw": 2.0,
    "put against RedisSaver": 0.4,
    "get against raw": 1.6,
    "memory against RedisSaver at 50": 0.15,
    "memory against RedisSaver at 200": 0.05,
    "memory at 1000 against 100": 12.0,
    "server ms of a get at 1000": 5.0,
    "longest script in ms": 5.0,
    "longest script of a list in ms": 5.0,
    "longest script of a copy in ms": 5.0,
    "longest script of a move in ms": 5.0,
    "longest script of delete_for_runs in ms": 5.0,
    "longest script of a prune in ms": 5.0,
    "longest command of a deletion in ms": 5.0,
    "keys": 2.0,
}


class Conversation:
    """A thread that grows turn by turn, like that of a graph with one node."""

    def __init__(self, saver: Any) -> None:
        self.saver = saver
        self.thread_id = uuid.uuid4().hex
        self.config: dict[str, Any] = {"configurable": {"thread_id": self.thread_id, "checkpoint_ns": ""}}
        self.messages: list[Any] = []
        self.versions: dict[str, Any] = {}
        self.seen: dict[str, dict[str, Any]] = {"__input__": {}}
        self.values: dict[str, Any] = {}
        self.step = -1

    def new_id(self) -> str:
        """Return the id of the next checkpoint."""
        return str(uuid6(clock_seq=self.step))

    def put(self, changed: dict[str, Any], emptied: tuple[str, ...] = ()) -> None:
        """Store one checkpoint."""
        self.values.update(changed)
        new = {}
        for channel in (*changed, *emptied):
            new[channel] = self.versions[channel] = self.saver.get_next_version(self.versions.get(channel), None)
        for channel in emptied:
            self.values.pop(channel, None)
        checkpoint = empty_checkpoint()
        checkpoint.update(  # type: ignore[call-arg]
            id=self.new_id(),
            channel_values=dict(self.values),
            channel_versions=dict(self.versions),
            versions_seen={node: dict(seen) for node, seen in self.seen.items()},
        )
        metadata = {"source": "loop", "step": self.step, "parents": {}, "run_id": "run"}
        self.config = self.saver.put(self.config, checkpoint, metadata, new)
        self.step += 1

    def turn(self) -> None:
        """Add a question and an answer: three checkpoints, with the writes between them."""
        number = len(self.messages)
        text = f"{number} " + uuid.uuid4().hex
        asked = HumanMessage(content=(text * 20)[:QUESTION], id=str(uuid.uuid4()))
        answer = AIMessage(content=(text * 80)[:ANSWER], id=str(uuid.uuid4()))
        self.put({"__start__": {"messages": [asked]}})
        self.write([("messages", [asked]), ("branch:to:agent", None)])
        self.messages.append(asked)
        self.seen["__start__"] = {"__start__": self.versions["__start__"]}
        self.put({"messages": list(self.messages), "branch:to:agent": None}, ("__start__",))
        self.write([("messages", [answer])])
        self.messages.append(answer)
        self.seen["agent"] = {"branch:to:agent": self.versions["branch:to:agent"]}
        self.put({"messages": list(self.messages)}, ("branch:to:agent",))

    def write(self, writes: list[tuple[str, Any]]) -> None:
        """Store the writes of a task."""
        self.saver.put_writes(self.config, writes, str(uuid.uuid4()), "~__pregel_pull, agent")

    def newest(self) -> Any:
        """Read the newest checkpoint."""
        return self.saver.get_tuple({"configurable": {"thread_id": self.thread_id, "checkpoint_ns": ""}})


class RawSaver:
    """The floor: it serializes the whole checkpoint for one SET, and deserializes it after one GET."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.serde = JsonPlusSerializer()

    def get_next_version(self, current: Any, channel: None) -> str:
        """Return the next version in the form of the other savers."""
        return f"{int(str(current or 0).split('.')[0]) + 1:032}.{uuid.uuid4().hex[:12]}"

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        """Serialize the checkpoint, and send one SET."""
        thread_id = config["configurable"]["thread_id"]
        self.client.set(f"raw:{thread_id}", self.serde.dumps_typed((checkpoint, metadata))[1])
        return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint["id"]}}

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        """Serialize the writes, and send one SET."""
        self.client.set(f"raw-writes:{config['configurable']['thread_id']}", self.serde.dumps_typed(writes)[1])

    def get_tuple(self, config: Any) -> Any:
        """Send one GET, and deserialize the checkpoint."""
        return self.serde.loads_typed(("msgpack", self.client.get(f"raw:{config['configurable']['thread_id']}")))


@contextmanager
def compact(port: int) -> Iterator[Any]:
    """Yield the measured saver."""
    with CompactRedisSaver.from_url(f"redis://127.0.0.1:{port}/2") as saver:
        yield saver


@contextmanager
def raw(port: int) -> Iterator[Any]:
    """Yield the floor."""
    with redis.Redis(port=port) as client:
        yield RawSaver(client)


@contextmanager
def redis_saver(port: int) -> Iterator[Any]:
    """Yield RedisSaver, which works only on database 0."""
    with redis.Redis(port=port) as client:
        saver = RedisSaver(redis_client=client)
        saver.setup()
        yield saver


@contextmanager
def valkey_saver(port: int) -> Iterator[Any]:
    """Yield ValkeySaver, which the extra `valkey` installs."""
    from langgraph_checkpoint_aws import ValkeySaver
    from valkey import Valkey

    with Valkey(port=port) as client:
        yield ValkeySaver(client)


SAVERS = {"compact": compact, "raw": raw, "RedisSaver": redis_saver}
if importlib.util.find_spec("langgraph_checkpoint_aws"):
    SAVERS["ValkeySaver"] = valkey_saver


class Meter:
    """Return the processor time of the server and of this process, in milliseconds."""

    def __init__(self, port: int) -> None:
        self.client = redis.Redis(port=port)

    def server(self) -> float:
        """Return the processor time of the server so far."""
        cpu: Any = self.client.info("cpu")
        return 1000 * (cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"])

    def memory(self) -> int:
        """Return the server's bytes for keys, without those for connections."""
        return int(self.client.memory_stats()["dataset.bytes"])

    def of(self, call: Callable[[], Any], rounds: int = ROUNDS) -> dict[str, float]:
        """Return the medians of the client's time, and the means of the server's, per call."""
        call()
        gc.collect()
        gc.disable()
        before, mine = self.server(), []
        for _ in range(rounds):
            start = time.process_time()
            call()
            mine.append(1000 * (time.process_time() - start))
        server = (self.server() - before) / rounds
        gc.enable()
        client = statistics.median(mine)
        return {"client_ms": round(client, 3), "server_ms": round(server, 3), "cpu_ms": round(client + server, 3)}


# --------------------------------------------------------------------------------------------
# Cases


def grown(meter: Meter, saver: Any, turns: int) -> tuple[Conversation, float]:
    """Return a conversation of some turns, and its megabytes."""
    before = meter.memory()
    conversation = Conversation(saver)
    for _ in range(turns):
        conversation.turn()
    return conversation, (meter.memory() - before) / 1e6


def turns(meter: Meter, name: str, saver: Any, figures: dict[str, Any]) -> None:
    """Measure memory, put and get of a growing conversation."""
    # Exclude the memory of scripts, connections and imports.
    grown(meter, saver, 3)
    for number in (50, 100, 200, 1000):
        if number > LARGEST.get(name, number):
            continue
        conversation, megabytes = grown(meter, saver, number)
        meter.client.config_resetstat()
        case = {
            "megabytes": round(megabytes, 2),
            "get": meter.of(conversation.newest),
            # Put the same checkpoint again with one more message; a turn has three puts.
            "turn": meter.of(conversation.turn, 6),
            "longest_script_ms": longest_script(meter),
        }
        if name in ("compact", "raw") or number == 50:
            case["put"] = puts(meter, conversation)
        figures[f"{name} {number}"] = case
        print(json.dumps({"case": f"turns: {name} {number}", **case}), flush=True)


def puts(meter: Meter, conversation: Conversation) -> dict[str, float]:
    """Measure only the put after an answer."""

    def put() -> None:
        conversation.messages.append(AIMessage(content="x" * ANSWER, id=str(uuid.uuid4())))
        conversation.put({"messages": list(conversation.messages)}, ("branch:to:agent",))

    return meter.of(put)


def longest_script(meter: Meter) -> float:
    """Return the slowest script, by the medians of the server's own record; single interrupted calls do not count.

    A deletion is a command.
    """
    durations: dict[bytes, list[int]] = {}
    entries: Any = meter.client.slowlog_get(128)
    for each in entries:
        if each["command"].startswith((b"EVALSHA", b"UNLINK")):
            durations.setdefault(each["command"].split()[1], []).append(each["duration"])
    meter.client.slowlog_reset()
    return max(map(statistics.median, durations.values()), default=0) / 1000


def in_threads(meter: Meter, name: str, saver: Any, figures: dict[str, Any]) -> None:
    """Measure turns and gets per second with 1 and with 16 threads, each with its own conversation."""
    case = {}
    for workers in (1, 16):
        conversations = [grown(meter, saver, 10)[0] for _ in range(workers)]
        with ThreadPoolExecutor(workers) as pool:
            for what, call, each in (("puts", Conversation.turn, 15), ("gets", Conversation.newest, 45)):
                start = time.perf_counter()
                list(pool.map(lambda one, call=call, each=each: [call(one) for _ in range(each)], conversations))
                case[f"{what}_per_second_{workers}"] = round(workers * 45 / (time.perf_counter() - start))
    figures[f"threads {name}"] = case
    print(json.dumps({"case": f"threads: {name}", **case}), flush=True)


def list_and_delete(meter: Meter, name: str, saver: Any, figures: dict[str, Any]) -> None:
    """Measure a list of 150 checkpoints, one of the newest ten, and the deletion of the thread."""
    if name != "raw":
        conversation = grown(meter, saver, 50)[0]
        config = {"configurable": {"thread_id": conversation.thread_id, "checkpoint_ns": ""}}
        case: dict[str, Any] = {
            "list_150": meter.of(lambda: list(saver.list(config)), 3),
            "list_10": meter.of(lambda: list(saver.list(config, limit=10)), 3),
        }
        start = time.perf_counter()
        saver.delete_thread(conversation.thread_id)
        case["delete_ms"] = round(1000 * (time.perf_counter() - start), 2)
        figures[f"list {name}"] = case
        print(json.dumps({"case": f"list and delete: {name}", **case}), flush=True)


def long_thread(meter: Meter, saver: CompactRedisSaver) -> dict[str, float]:
    """Return the slowest script for each operation on a thread of 3,000 checkpoints and 1,000 turns."""
    thread_id = grown(meter, saver, 1000)[0].thread_id
    config = {"configurable": {"thread_id": thread_id}}
    other = CompactRedisSaver(saver.client, prefix="moved")
    operations: dict[str, Callable[[], Any]] = {
        "list": lambda: sum(1 for _ in saver.list(config)),
        "copy": lambda: saver.copy_thread(thread_id, "copy"),
        # Reading (each checkpoint three times) and writing.
        "move": lambda: migrate_threads(saver, other, [thread_id], dry_run=True),
        "delete_for_runs": lambda: saver.delete_for_runs(["no run"]),
        "prune": lambda: saver.prune([thread_id]),
        "delete": lambda: saver.delete_thread("copy"),
    }
    figures = {}
    for name, operation in operations.items():
        meter.client.slowlog_reset()
        operation()
        figures[name] = longest_script(meter)
    print(json.dumps({"case": "long thread", **figures}), flush=True)
    return figures


def keys(saver: CompactRedisSaver) -> int:
    """Return the keys of one thread."""
    conversation = Conversation(saver)
    conversation.turn()
    return len(list(saver.client.scan_iter(f"*{conversation.thread_id}*")))


_PHRASES = {each: f"longest script of a {each} in ms" for each in ("list", "copy", "move", "prune")} | {
    "delete_for_runs": "longest script of delete_for_runs in ms",
    "delete": "longest command of a deletion in ms",
}


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures with limits."""

    def cpu(name: str, what: str) -> float:
        return float(figures[name][what]["cpu_ms"])

    def memory(name: str) -> float:
        return float(figures[name]["megabytes"])

    return {
        "put against raw": cpu("compact 50", "put") / cpu("raw 50", "put"),
        "put against RedisSaver": cpu("compact 50", "put") / cpu("RedisSaver 50", "put"),
        "get against raw": cpu("compact 50", "get") / cpu("raw 50", "get"),
        "memory against RedisSaver at 50": memory("compact 50") / memory("RedisSaver 50"),
        "memory against RedisSaver at 200": memory("compact 200") / memory("RedisSaver 200"),
        "memory at 1000 against 100": memory("compact 1000") / memory("compact 100"),
        "server ms of a get at 1000": figures["compact 1000"]["get"]["server_ms"],
        "longest script in ms": figures["compact 1000"]["longest_script_ms"],
        **of_long_thread(figures["long thread"]),
        "keys": figures["keys"],
    }


def of_long_thread(figures: dict[str, float]) -> dict[str, float]:
    """Return the figures of a long thread, by the names of their limits."""
    return {_PHRASES[name]: each for name, each in figures.items()}


def main() -> int:
    """Measure, print, and compare the figures with the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long-thread", action="store_true", help="measure only a long thread")
    is_long_alone = parser.parse_args().long_thread
    figures: dict[str, Any] = {}
    for name, make in SAVERS.items():
        if is_long_alone and name != "compact":
            continue
        with plain_server("bench-saver", "--slowlog-log-slower-than", "0", modules=True) as port, make(port) as saver:
            meter = Meter(port)
            if is_long_alone:
                return printed(of_long_thread(long_thread(meter, saver)))
            for measure in (turns, in_threads, list_and_delete):
                measure(meter, name, saver, figures)
            if name == "compact":
                figures["keys"] = keys(saver)
                figures["long thread"] = long_thread(meter, saver)
    return printed(ratios(figures))


def printed(result: dict[str, float]) -> int:
    """Print figures with limits; return 1 if one is over its limit."""
    over = [name for name in result if result[name] > LIMITS[name]]
    print(json.dumps({"case": "ratios", **{name: round(value, 3) for name, value in result.items()}}))
    for name in over:
        print(f"{name}: {result[name]:.2f} is over its limit of {LIMITS[name]}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
