"""The generation: a number by which agents notice changes of their MCP servers."""

import logging
import time
import uuid
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from django.core.cache import cache
from django.db import models, transaction
from django_redis.exceptions import ConnectionInterrupted
from nautobot.apps.models import BaseModel
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


@dataclass
class _Together:
    """Changes that count as one, and whether a change was made."""

    bumped: bool = False


_together: ContextVar[_Together | None] = ContextVar("together", default=None)


class AgentGeneration(BaseModel):
    """The single row with the generation. Each process compares it to learn whether its agents' tools are up to date.

    It increases in the transaction that changes a server, so no process sees one change without the other. After the
    commit it is copied to the shared cache. This mirror is never ahead. It lags by up to MIRROR_SECONDS if the cache
    was unavailable or the writer died.
    """

    ROW = uuid.UUID(int=1)
    MIRROR_KEY = "ai_ops.agent_generation"
    MIRROR_SECONDS = 30

    number = models.BigIntegerField()

    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

    def __str__(self):
        return str(self.number)

    @classmethod
    def lock(cls):
        """Lock the row, so that no other transaction changes servers until this transaction ends.

        Lock a server's row only after this, as saving does. The same order everywhere prevents deadlocks.

        Returns:
            The row; None if no server has ever changed.
        """
        return cls.objects.select_for_update().filter(pk=cls.ROW).first()

    @classmethod
    def current(cls):
        """Return the generation in the database."""
        row = cls.objects.filter(pk=cls.ROW).first()
        return row.number if row else cls._made()

    @classmethod
    def bump(cls):
        """Make every process rebuild its agents' tools once this transaction is committed."""
        together = _together.get()
        if together is not None:
            together.bumped = True
            return
        growth = {"number": models.F("number") + 1}
        if not cls.objects.filter(pk=cls.ROW).update(**growth):
            cls._made()
            cls.objects.filter(pk=cls.ROW).update(**growth)
        transaction.on_commit(cls._mirror_if_possible)

    @classmethod
    @contextmanager
    def bumped_once(cls):
        """Count all saves in this block as one change, within one transaction."""
        together = _Together()
        token = _together.set(together)
        try:
            yield
        finally:
            _together.reset(token)
        if together.bumped:
            cls.bump()

    @classmethod
    def mirror(cls):
        """Copy the generation to the shared cache under the row's lock, so that the later writer wins.

        Raises:
            RedisError: The cache could not be written.
            ConnectionInterrupted: The same, raised by Django's cache.
        """
        with transaction.atomic():
            row = cls.lock()
            cache.set(cls.MIRROR_KEY, row.number if row else cls._made(), cls.MIRROR_SECONDS)

    @classmethod
    def _mirror_if_possible(cls):
        try:
            cls.mirror()
        except (RedisError, ConnectionInterrupted) as error:
            # The change is committed, so it must not look like a failure.
            logger.warning("Agents are notified of changed MCP servers %s s late: %s", cls.MIRROR_SECONDS, error)

    @classmethod
    def _made(cls):
        """Create the row with the time in microseconds, which is higher than any earlier number."""
        cls.objects.bulk_create([cls(pk=cls.ROW, number=time.time_ns() // 1000)], ignore_conflicts=True)
        return cls.objects.get(pk=cls.ROW).number
