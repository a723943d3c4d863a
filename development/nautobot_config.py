"""Nautobot settings for the local stack and the tests.

All addresses come from the environment, in Nautobot's own variables (``NAUTOBOT_DB_*``, ``NAUTOBOT_REDIS_*``) and
``LANGGRAPH_REDIS_URL``. ``development.services`` sets them for the servers that it starts; set them first to use your
own servers.
"""

import os

from nautobot.core.settings import *  # noqa: F403
from nautobot.core.settings_funcs import is_truthy, parse_redis_connection

# Off by default: with DEBUG Django records every query, and a worker's memory grows.
DEBUG = is_truthy(os.getenv("NAUTOBOT_DEBUG", "false"))
ALLOWED_HOSTS = os.getenv("NAUTOBOT_ALLOWED_HOSTS", "localhost 127.0.0.1 nautobot.example.com testserver").split(" ")
SECRET_KEY = os.getenv("NAUTOBOT_SECRET_KEY", "a-development-key-that-protects-nothing-and-is-known-to-all")

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.getenv("NAUTOBOT_DB_NAME", "nautobot"),
        "USER": os.getenv("NAUTOBOT_DB_USER", "nautobot"),
        "PASSWORD": os.getenv("NAUTOBOT_DB_PASSWORD", ""),
        "HOST": os.getenv("NAUTOBOT_DB_HOST", "localhost"),
        "PORT": os.getenv("NAUTOBOT_DB_PORT", "5432"),
        "CONN_MAX_AGE": int(os.getenv("NAUTOBOT_DB_TIMEOUT", "300")),
    }
}

CACHES["default"]["LOCATION"] = parse_redis_connection(redis_database=0)  # noqa: F405
CELERY_BROKER_URL = os.getenv("NAUTOBOT_CELERY_BROKER_URL", parse_redis_connection(redis_database=1))

INSTALLATION_METRICS_ENABLED = False
# The check for new releases needs the internet.
RELEASE_CHECK_URL = None
METRICS_ENABLED = is_truthy(os.getenv("NAUTOBOT_METRICS_ENABLED", "true"))

PLUGINS = ["ai_ops"]
# The MCP servers of the demo and of the tests run on this machine, and the address policy must allow loopback.
PLUGINS_CONFIG = {
    "ai_ops": {
        "allow_loopback": True,
        "health_check_shard_size": int(os.getenv("AI_OPS_HEALTH_CHECK_SHARD_SIZE", "0")),
        "tool_check_interval_minutes": int(os.getenv("AI_OPS_TOOL_CHECK_INTERVAL_MINUTES", "60")),
    }
}
