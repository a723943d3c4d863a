"""The fence: a number in the checkpoint Redis that decides which run may still delete.

A process that was suspended in the middle of a batch, and resumes after another run has taken over, sends the rest of
its batch. So each script that deletes compares the fence of its run with the stored fence. A run stores its fence
before its first deletion, but only over a lower number; the number of a lease only increases. The key is deleted at the
end of the run. See Martin Kleppmann, "How to do distributed locking", 2016.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ai_ops.exceptions import LeaseLostError

# The key of a killed run stays until the next run. Without a next run it expires after this time.
SECONDS_KEPT = 7 * 24 * 3600

# A full Redis refuses commands that need memory, unless the script has written before. The cleanup must work in a full
# Redis too.
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

# Prefix of a script. It removes the last of KEYS and ARGV, the fence's key and number.
REFUSED = "FENCED"
CHECK = f"""
if redis.call('GET', table.remove(KEYS)) ~= table.remove(ARGV) then
  return redis.error_reply('{REFUSED} this run no longer holds the lease')
end
"""


class Fence:
    """The fence of one run.

    Args:
        key: Its key in Redis; one for each lease.
        number: The number of the lease.
        confirm: Raises LeaseLostError if the lease is not held any more.
    """

    def __init__(self, key: str, number: int, confirm: Callable[[], object]) -> None:
        self.key = key.encode()
        self.number = str(number).encode()
        self.is_claimed = False
        self._confirm = confirm

    def claim(self, run: Callable[[str, list[bytes], list[bytes | int]], Any]) -> None:
        """Store it with `run`, which executes a script with keys and arguments.

        Raises:
            LeaseLostError: Another run has taken over.
        """
        self.is_claimed = True
        if not run(CLAIM, [self.key], [self.number, SECONDS_KEPT]):
            raise LeaseLostError("Another cleanup has taken over this Redis: nothing was deleted.")
        # Otherwise a run that stored its fence and ended in between would not be noticed.
        self._confirm()

    def release(self, run: Callable[[str, list[bytes], list[bytes | int]], Any]) -> None:
        """Remove the fence if it still belongs to this run."""
        if self.is_claimed:
            run(RELEASE, [self.key], [self.number])
