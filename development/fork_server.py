"""Prepare the fork server before its other imports; no other process imports this module. See `forks`."""

from __future__ import annotations

import os
import signal

from development.forks import LOG_VARIABLE, redirect_output
from development.services import die_with_parent

# Only the supervisor handles Ctrl-C at a terminal. The kernel ends the remaining processes.
os.setsid()
signal.signal(signal.SIGINT, signal.SIG_IGN)
die_with_parent(signal.SIGKILL)
redirect_output(os.environ[LOG_VARIABLE])
