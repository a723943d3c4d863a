"""Prepare the fork server before it imports anything else; no other process imports this. See `forks`."""

from __future__ import annotations

import os
import signal

from development.forks import LOG_VARIABLE, redirect_output
from development.services import die_with_parent

# Ctrl-C at a terminal is for the supervisor. What the supervisor leaves, the kernel ends.
os.setsid()
signal.signal(signal.SIGINT, signal.SIG_IGN)
die_with_parent(signal.SIGKILL)
redirect_output(os.environ[LOG_VARIABLE])
