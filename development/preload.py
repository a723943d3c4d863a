"""Sets Nautobot up in a fork server, which imports this; see `forks`."""

from __future__ import annotations

import gc

# The imported objects stay, so the garbage collector need not examine them again and again.
gc.disable()

import nautobot  # noqa: E402

nautobot.setup()

from django.db import connections  # noqa: E402

# Two processes must not share a connection after a fork.
connections.close_all()
# The collector writes to objects that it examines, and forks would have to copy them.
gc.freeze()
gc.enable()
