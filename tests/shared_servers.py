"""Has one process run the test files that share servers, where xdist would spread them."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

# Those of the fixture `worlds`: to set Nautobot up for its processes takes four seconds of a processor.
TOGETHER = ("test_faults_processes.py", "test_faults_worker.py", "test_hooks.py")


class SharedServersScheduling(LoadFileScheduling):
    """Hands out files, and those that share servers as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return file.replace(file.rpartition("/")[2], TOGETHER[0]) if file.endswith(TOGETHER) else file
