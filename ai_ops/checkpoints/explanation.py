"""Explanations: what the cleanup sees of one thread, and what the next run would do with it."""

from __future__ import annotations

import time

from ai_ops.checkpoints.cleanup import facts_of, threads_of
from ai_ops.checkpoints.cleanup_policy import cleanup_policy
from ai_ops.checkpoints.connection import get_redis_connection
from ai_ops.checkpoints.key_names import compact_keys, key_parser
from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.compact_plan import State, kept_members, settle_unsure, sort_threads, time_of_id
from ai_ops.checkpoints.logic.explanation import (
    ANCESTOR,
    PINNED,
    WAITS,
    CheckpointVerdict,
    Explanation,
    NamespaceVerdict,
    decision,
    iso,
    retention_text,
    verdicts,
)
from ai_ops.checkpoints.logic.keys import CheckpointKey, KeyParser
from ai_ops.checkpoints.logic.lookups import keys_of
from ai_ops.checkpoints.logic.plan import make_plan, waits_for_answer
from ai_ops.checkpoints.logic.reports import text_of
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.storage import saver_of
from ai_ops.checkpoints.logic.threads import Thread
from ai_ops.checkpoints.pins import read_pins
from ai_ops.checkpoints.policies import read_policies
from ai_ops.checkpoints.redis.compact_store import CompactStore
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.checkpoints.redis.thread_lookup import ThreadLookup
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import AiOpsError

LOOKED_UP = (
    "Checkpoints were looked up from the newest one back, without a scan of the database: other branches, orphans, "
    "plain keys and the keys of the JavaScript saver are not among them."
)


def explain(thread_id: str) -> Explanation:
    """Look a thread up by direct questions, and say what the next cleanup would do with it.

    The options are the configured ones, with the policies and the pins of now.
    """
    # Half of a pair is no character of UTF-8: no key has it, and none is found.
    name = thread_id.encode(errors="surrogatepass")
    try:
        settings = AiOpsSettings.load()
        parser = key_parser(settings)
        with get_redis_connection() as client:
            store = CheckpointStore(client, parser)
            base, _ = cleanup_policy(store, parser.prefixes, settings, read_pins(), read_policies())
            found = _explain_compact(name, store, parser, compact_keys(settings), base)
            return found or _explain_others(name, store, parser, base)
    except AiOpsError as error:
        return Explanation(text_of(name), error=str(error))


def _explain_others(name: bytes, store: CheckpointStore, parser: KeyParser, base: RetentionPolicy) -> Explanation:
    now = time.time()
    keys, notes = ThreadLookup(store, parser).keys(name)
    thread = _thread_of(name, keys, store, now)
    if thread is None:
        policy = base.of((name,))
        return Explanation(
            text_of(name),
            complete=False,
            notes=(*notes, LOOKED_UP),
            pinned=not policy.covers((name,)),
            policy=policy.name,
            retention=retention_text(policy),
            decision=decision([], pinned=False, found=False),
        )
    policy = base.of(thread.names)
    facts, groups = facts_of([(policy, [thread])], store, now)
    held = next(each for each, threads in groups if threads)
    plan = make_plan([thread], facts, held, now)
    gone = {key for each in plan.deletions for some in each.keys.values() for key in some}
    gone |= {guard.key for each in plan.deletions for guard in each.guards}
    every = keys_of(thread)
    sizes = store.sizes(every)
    pinned = not policy.covers(thread.names)
    return Explanation(
        text_of(name),
        found=True,
        layout=saver_of(thread),
        complete=False,
        notes=(*notes, LOOKED_UP),
        last_activity=iso(thread.last_activity()),
        keys=len(every),
        bytes=sum(sizes.values()) if sizes else None,
        waits=waits_for_answer(thread, facts),
        pinned=pinned,
        policy=policy.name,
        retention=retention_text(policy),
        decision=decision(list(plan.deletions), pinned=pinned, found=True),
        namespaces=verdicts(thread, facts, held, now, frozenset(gone), sizes),
        over_limits=tuple(each._asdict() | {"thread": text_of(each.thread)} for each in plan.over_limits),
    )


def _thread_of(name: bytes, keys: list[CheckpointKey], store: CheckpointStore, now: float) -> Thread | None:
    threads = threads_of(keys, store, now)
    return next((each for each in threads if each.names[0] == name and any(each.documents())), None)


def _explain_compact(
    name: bytes, store: CheckpointStore, parser: KeyParser, compact: CompactKeys, base: RetentionPolicy
) -> Explanation | None:
    """Explain a thread of CompactRedisSaver; None where there is none."""
    now = time.time()
    key = compact.key_of(name)
    threads = list(compact.threads_in([key, key + b":ids"]))
    compact_store = CompactStore(store.redis, compact, parser)
    (look,) = compact_store.look(threads, 0.0)
    if look.state == State.GONE:
        return None
    policy = base.of((name,))
    pinned = not policy.covers((name,))
    active = time_of_id(look.newest, parser)
    if look.state != State.WHOLE or active is None:
        text = "The thread stays: only a part of it is there, or something else has changed it."
        return Explanation(text_of(name), True, None, "CompactRedisSaver", pinned=pinned, decision=text)
    waits = compact_store.waiting([look])[look]
    (trimmed,) = compact_store.trimmed([(look, active)], policy, now)
    sorted_out = sort_threads([look], policy, now, parser)
    sorted_out.expired += settle_unsure(sorted_out, {look: waits}, policy, now)
    expired = bool(sorted_out.expired)
    doomed = set(trimmed.deletion.trim.doomed) if trimmed.deletion and not pinned and not waits else set()
    members = compact_store.members(look)
    kept = kept_members(members, policy, now, parser) or set(members)
    size = compact_store.sizes([look])[0]

    def verdict(member: bytes) -> CheckpointVerdict:
        checkpoint_id = member.partition(b"|")[2]
        goes = expired or member in doomed
        rule = "the thread was last active before its retention" if expired else "past the retention or over a limit"
        if not goes:
            rule = PINNED if pinned else WAITS if waits else "within the retention" if member in kept else ANCESTOR
        return CheckpointVerdict(text_of(checkpoint_id), iso(time_of_id(checkpoint_id, parser)), None, goes, rule)

    spaces: dict[bytes, list[bytes]] = {}
    for member in members:
        spaces.setdefault(member.partition(b"|")[0], []).append(member)
    text = "The next cleanup deletes the whole thread." if expired else "The thread stays as it is."
    if doomed and not expired:
        text = f"The thread stays; the next cleanup deletes {len(doomed)} of its checkpoints."
    return Explanation(
        text_of(name),
        found=True,
        layout="CompactRedisSaver",
        last_activity=iso(active),
        keys=2,
        bytes=size,
        waits=waits,
        pinned=pinned,
        policy=policy.name,
        retention=retention_text(policy),
        decision=decision([], pinned=True, found=True) if pinned else text,
        namespaces=tuple(
            NamespaceVerdict(text_of(space), tuple(verdict(each) for each in sorted(some, reverse=True)))
            for space, some in sorted(spaces.items())
        ),
    )
