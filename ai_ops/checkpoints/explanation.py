"""Explanations of a thread: the facts that the cleanup sees, and the decisions of the next run."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from ai_ops.checkpoints.cleanup import facts_of, threads_of
from ai_ops.checkpoints.cleanup_policy import cleanup_policy
from ai_ops.checkpoints.compact_cleanup import CompactRun
from ai_ops.checkpoints.connection import get_redis_connection
from ai_ops.checkpoints.key_names import compact_keys, key_parser
from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.compact_plan import CompactDeletion, State, time_of_id
from ai_ops.checkpoints.logic.deletion import OverLimit
from ai_ops.checkpoints.logic.erasure import Targets
from ai_ops.checkpoints.logic.explanation import (
    PART,
    CheckpointVerdict,
    Explanation,
    NamespaceVerdict,
    Rules,
    decision,
    decision_on_rest,
    iso,
    joined,
    retention_text,
    verdicts,
)
from ai_ops.checkpoints.logic.keys import CheckpointKey, KeyParser
from ai_ops.checkpoints.logic.lookups import ambiguous_writes, keys_of
from ai_ops.checkpoints.logic.plan import make_plan, waits_for_answer
from ai_ops.checkpoints.logic.reports import text_of
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.storage import saver_of
from ai_ops.checkpoints.logic.tally import Tally
from ai_ops.checkpoints.logic.threads import Thread
from ai_ops.checkpoints.pins import read_pins
from ai_ops.checkpoints.policies import read_policies
from ai_ops.checkpoints.redis.compact_store import CompactStore
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.checkpoints.redis.thread_lookup import ThreadLookup
from ai_ops.checkpoints.redis.thread_scan import ThreadScan
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import AiOpsError
from ai_ops.logic.globs import longest_plain

COMPACT_LAYOUT = "CompactRedisSaver"
# Maximum number of seconds to search for unlisted keys by name (plain keys, keys of the JavaScript saver, other
# branches without a search index), because a page waits for it. Redis compares a million names in a second.
SEARCH_SECONDS = 3.0
# More keys than any conversation has.
MAX_KEYS = 100_000


class _Explainer:
    """Explains threads of one Redis.

    Args:
        store: The Redis.
        parser: Parses keys.
        compact: The names of the keys of CompactRedisSaver.
        policy: The options of a run, with policies and pins.
        search_seconds: Maximum number of seconds to search for names.
    """

    def __init__(
        self,
        store: CheckpointStore,
        parser: KeyParser,
        compact: CompactKeys,
        policy: RetentionPolicy,
        search_seconds: float,
    ) -> None:
        self._store = store
        self._parser = parser
        self._compact = compact
        self._policy = policy
        self._search_seconds = search_seconds
        self._now = time.time()

    def explain(self, name: bytes) -> Explanation:
        """Explain the thread with this id."""
        compact = self._of_compact(name)
        keys, complete = ThreadLookup(self._store, self._parser).keys(name)
        if compact is not None:
            # The pointers lead to the original of a moved conversation, so no search is needed.
            thread = self._thread(name, keys)
            return compact if thread is None else joined(compact, self._of_thread(name, thread, (), complete=complete))
        notes: tuple[str, ...] = ()
        if not complete:
            keys, complete, notes = self._searched(name, keys)
        thread = self._thread(name, keys)
        if thread is None:
            return self._of_nothing(name, notes, complete=complete)
        return self._of_thread(name, thread, notes, complete=complete)

    def _searched(self, name: bytes, known: list[CheckpointKey]) -> tuple[list[CheckpointKey], bool, tuple[str, ...]]:
        """Search for further keys of the thread by name."""
        deadline = time.monotonic() + self._search_seconds
        scan = ThreadScan(self._store, self._parser, self._compact)
        text = longest_plain(name.decode(errors="surrogateescape"))
        keys = {key.key: key for key in known}
        with scan.spool() as spool:
            scanned = scan.run(
                Targets(frozenset({name})), spool, text=text, enough=lambda found: time.monotonic() >= deadline
            )
            for some in scan.keys_in(spool):
                keys |= {key.key: key for key in some[: MAX_KEYS - len(keys)]}
        if scanned.complete and len(keys) < MAX_KEYS:
            return list(keys.values()), True, ()
        size = self._store.size()
        looked_at = f"About {min(scanned.looked_at, size):,} of {size:,} keys were searched"
        note = f"{looked_at} for others of this thread within the time limit, so it may have more."
        return list(keys.values()), False, (note,)

    def _thread(self, name: bytes, keys: list[CheckpointKey]) -> Thread | None:
        """Build the thread; of several candidates, return the one that certainly has this id."""
        threads = [each for each in threads_of(keys, self._store, self._now) if name in each.names]
        return min(threads, key=lambda each: (each.names[0] != name, not any(each.documents())), default=None)

    def _of_nothing(self, name: bytes, notes: tuple[str, ...], *, complete: bool) -> Explanation:
        policy = self._policy.of((name,))
        return Explanation(
            text_of(name),
            complete=complete,
            notes=notes,
            pinned=not policy.covers((name,)),
            policy=policy.name,
            retention=retention_text(policy),
            decision=decision([], pinned=False, found=False),
        )

    def _of_thread(self, name: bytes, thread: Thread, notes: tuple[str, ...], *, complete: bool) -> Explanation:
        policy, now = self._policy.of(thread.names), self._now
        facts, groups = facts_of([(policy, [thread])], self._store, now)
        facts = replace(facts, interrupts=facts.interrupts | self._store.interrupts(ambiguous_writes([thread])))
        held = next(each for each, threads in groups if threads)
        plan = make_plan([thread], facts, held, now)
        gone = {key for each in plan.deletions for some in each.keys.values() for key in some}
        gone |= {guard.key for each in plan.deletions for guard in each.guards}
        every = keys_of(thread)
        sizes = self._store.sizes(every)
        pinned = not policy.covers(thread.names)
        has_checkpoints = any(thread.documents())
        if len(thread.names) > 1:
            others = ", ".join(text_of(each) for each in thread.names if each != name)
            notes = (
                *notes,
                f"It is not certain whether these keys belong to this thread or to {others}, so all of them count.",
            )
        return Explanation(
            text_of(name),
            found=True,
            layout=saver_of(thread),
            complete=complete,
            notes=notes,
            last_activity=iso(thread.last_activity()),
            keys=len(every),
            bytes=sum(sizes.values()) if sizes else None,
            waits=waits_for_answer(thread, facts),
            pinned=pinned,
            policy=policy.name,
            retention=retention_text(policy),
            decision=decision(plan.deletions, pinned=pinned, found=True)
            if has_checkpoints
            else decision_on_rest(plan.deletions, len(every), pinned=pinned),
            namespaces=verdicts(thread, facts, held, now, frozenset(gone), sizes),
            over_limits=tuple(map(_over_limit, plan.over_limits)),
        )

    def _of_compact(self, name: bytes) -> Explanation | None:
        """Explain a thread of CompactRedisSaver; return None if there is none."""
        key = self._compact.key_of(name)
        threads = list(self._compact.threads_in([key, key + b":ids"]))
        store = CompactStore(self._store.redis, self._compact, self._parser)
        # An id that no key can have makes no thread.
        look = next(iter(store.look(threads, 0.0)), None)
        if look is None or look.state == State.GONE:
            return None
        tally = Tally()
        run = CompactRun(store, self._compact, self._parser, self._now, tally)
        deletions = [each for some in run.decided([look], self._policy) for each in some]
        policy = self._policy.of((name,))
        pinned = not policy.covers((name,))
        is_whole = look.state == State.WHOLE
        active = time_of_id(look.newest, self._parser) if is_whole else None
        waits = bool(store.waiting([look])[look]) if is_whole else False
        rules = Rules(policy, self._now, active, pinned=pinned, waits=waits)
        sentence = decision(deletions, pinned=pinned, found=True)
        return Explanation(
            text_of(name),
            found=True,
            layout=COMPACT_LAYOUT,
            notes=() if is_whole else (f"This is not a complete conversation: {PART}.",),
            last_activity=iso(active),
            keys=look.thread.has_hash + look.thread.has_ids if is_whole else 1,
            bytes=store.sizes([look])[0],
            waits=waits,
            pinned=pinned,
            policy=policy.name,
            retention=retention_text(policy),
            decision=sentence if is_whole else decision_on_rest(deletions, 1, pinned=pinned),
            namespaces=_compact_namespaces(store.members(look), deletions, rules, self._parser) if is_whole else (),
            over_limits=tuple(map(_over_limit, tally.over_limits)),
        )


def explain(thread_id: str, search_seconds: float = SEARCH_SECONDS) -> Explanation:
    """Look up a thread by its key names, and explain the next cleanup's decisions.

    Unlisted keys are searched by name for `search_seconds`. The explanation uses the configured options, and the
    current policies and pins.
    """
    # An unpaired surrogate can't be encoded in UTF-8, so no key has it and none is found.
    name = thread_id.encode(errors="surrogatepass")
    try:
        settings = AiOpsSettings.load()
        parser = key_parser(settings)
        with get_redis_connection() as client:
            store = CheckpointStore(client, parser)
            policy, _ = cleanup_policy(store, parser.prefixes, settings, read_pins(), read_policies())
            return _Explainer(store, parser, compact_keys(settings), policy, search_seconds).explain(name)
    except AiOpsError as error:
        return Explanation(text_of(name), error=str(error))


def _compact_namespaces(
    members: list[bytes], deletions: list[CompactDeletion], rules: Rules, parser: KeyParser
) -> tuple[NamespaceVerdict, ...]:
    """Return the decision about each checkpoint, ``<namespace>|<id>``, and its rule."""
    whole = any(each.trim is None for each in deletions)
    to_delete = {member for each in deletions if each.trim is not None for member in each.trim.to_delete}
    spaces: dict[bytes, list[bytes]] = {}
    for member in members:
        space, _, checkpoint_id = member.partition(b"|")
        spaces.setdefault(space, []).append(checkpoint_id)

    def verdict(space: bytes, place: int, checkpoint_id: bytes) -> CheckpointVerdict:
        made, goes = time_of_id(checkpoint_id, parser), whole or space + b"|" + checkpoint_id in to_delete
        return CheckpointVerdict(text_of(checkpoint_id), iso(made), None, goes, rules.of(made, place, goes=goes))

    return tuple(
        NamespaceVerdict(
            text_of(unquote_to_bytes(space)),
            tuple(verdict(space, *each) for each in enumerate(sorted(some, reverse=True))),
        )
        for space, some in sorted(spaces.items())
    )


def _over_limit(thread: OverLimit) -> dict[str, object]:
    return thread._asdict() | {"thread": text_of(thread.thread)}
