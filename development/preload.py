"""Sets Nautobot up in a fork server, which imports this; see `forks`."""

from __future__ import annotations

import gc

# What is imported stays: to look through it for garbage, again and again, takes time.
gc.disable()

import nautobot  # noqa: E402

nautobot.setup()

from django.db import connections  # noqa: E402

# A connection that two processes share after a fork belongs to neither.
connections.close_all()
# The collector writes into what it looks at, which forks would have to copy.
gc.freeze()
gc.enable()
