"""The fence: a number in the checkpoint Redis that decides which run may still delete.

A process that was stopped in the middle of a batch, and wakes up when another run has long taken over, sends the
rest of what it had prepared. Each script that deletes therefore compares the fence of its run with the one that is
written down, and a run writes its own down before it deletes anything: only over a lower one, and the number of a
lease only rises. At the end the key goes. See Martin Kleppmann, "How to do distributed locking", 2016.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ai_ops.exceptions import LeaseLostError

# Of a killed run the key stays until the next one; of a Redis that is never cleaned up again, so long.
SECONDS_KEPT = 7 * 24 * 3600

# A Redis that is full refuses what needs memory, unless the script has written before: it is to be cleaned as well.
CLAIM = """
local held = redis.call('GET', KEYS[1])
if held and tonumber(held) > tonumber(ARGV[1]) then return 0 end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return 1
"""

# Stands before a script, which does not see the last of KEYS and ARGV: the fence's key and number.
REFUSED = "FENCED"
CHECK = f"""
if redis.call('GET', table.remove(KEYS)) ~= table.remove(ARGV) then
  return redis.error_reply('{REFUSED} this run no longer holds the lease')
end
"""


class Fence:
    """The fence of one run.

    Args:
        key: Where it is written down; one for each lease.
        number: That of the lease.
        confirm: Makes sure that the lease is still held; raises LeaseLostError.
    """

    def __init__(self, key: str, number: int, confirm: Callable[[], object]) -> None:
        self.key = key.encode()
        self.number = str(number).encode()
        self.is_claimed = False
        self._confirm = confirm

    def claim(self, run: Callable[[str, list[bytes], list[bytes | int]], Any]) -> None:
        """Write it down with `run`, which carries out a script with keys and arguments.

        Raises:
            LeaseLostError: Another run has taken over.
        """
        self.is_claimed = True
        if not run(CLAIM, [self.key], [self.number, SECONDS_KEPT]):
            raise LeaseLostError("Another cleanup has taken over this Redis: nothing was deleted.")
        # Written down in between by a run that had ended by then, and removed at its end, it would be missed.
        self._confirm()

    def release(self, run: Callable[[str, list[bytes], list[bytes | int]], Any]) -> None:
        """Remove the fence if it is still this run's."""
        if self.is_claimed:
            run(RELEASE, [self.key], [self.number])
