"""Sets Nautobot up in a fork server, which imports this module; see `forks`."""

from __future__ import annotations

import gc

from development.late_import import import_kubernetes_later

# The imported objects stay, so the garbage collector need not examine them again and again.
gc.disable()
import_kubernetes_later()

import nautobot  # noqa: E402

nautobot.setup()

from importlib import import_module  # noqa: E402

from django.db import connections  # noqa: E402

# Modules of the cache and the broker. Otherwise each fork would import them at its first use.
for name in ("django_redis.cache", "django_redis.client", "kombu.transport.redis", "nautobot.core.celery.backends"):
    import_module(name)

# Two processes must not share a connection after a fork.
connections.close_all()
# The collector writes to objects that it examines, and forks would have to copy them.
gc.freeze()
gc.enable()
