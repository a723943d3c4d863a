"""The Redis that agents keep their checkpoints in: the one place where its address is put together.

``LANGGRAPH_REDIS_URL`` names it. Without that it is the server Nautobot itself uses, in the variables
Nautobot knows (``NAUTOBOT_REDIS_HOST``, ``NAUTOBOT_REDIS_PORT``, ``NAUTOBOT_REDIS_USERNAME``,
``NAUTOBOT_REDIS_PASSWORD``, ``NAUTOBOT_REDIS_SSL``, ``NAUTOBOT_REDIS_SCHEME``), in the database
``LANGGRAPH_REDIS_DB``.
"""

from __future__ import annotations

import os
from urllib.parse import quote, urlsplit

import redis
from nautobot.core.settings_funcs import is_truthy
from redis.backoff import NoBackoff
from redis.retry import Retry

from ai_ops.exceptions import ConfigurationError

DEFAULT_DATABASE = 2  # Nautobot's cache is in 0, Celery's queues are in 1
CONNECT_TIMEOUT = 5.0  # seconds
ANSWER_TIMEOUT = 15.0  # seconds; the longest single command takes milliseconds


def get_redis_url() -> str:
    """The address of the checkpoint Redis, user name and password included: not for logs.

    Raises:
        ConfigurationError: A variable holds something that is no address.
    """
    url = os.environ.get("LANGGRAPH_REDIS_URL") or _url_of_nautobot()
    if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError(
            "LANGGRAPH_REDIS_URL must begin with redis://, rediss:// or unix://: "
            "for example redis://:password@redis.example.com:6379/0."
        )
    return url


def get_redis_connection() -> redis.Redis:
    """A client of the checkpoint Redis, with a timeout on every call; replies are bytes. Close it after use.

    No connection is made before the first command.

    Raises:
        ConfigurationError: A variable holds something that is no address.
    """
    try:
        return redis.Redis.from_url(
            get_redis_url(),
            decode_responses=False,
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=ANSWER_TIMEOUT,
            # Who retries must know what was being done: a scan begins anew, a deletion may be repeated.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise ConfigurationError(
            f"LANGGRAPH_REDIS_URL is no usable address ({error}): "
            "write it like redis://:password@redis.example.com:6379/0."
        ) from error


def _url_of_nautobot() -> str:
    scheme = os.environ.get("NAUTOBOT_REDIS_SCHEME") or (
        "rediss" if is_truthy(os.environ.get("NAUTOBOT_REDIS_SSL", "false")) else "redis"
    )
    host = os.environ.get("NAUTOBOT_REDIS_HOST", "localhost")
    port = _number("NAUTOBOT_REDIS_PORT", 6379)
    database = _number("LANGGRAPH_REDIS_DB", DEFAULT_DATABASE)
    user = quote(os.environ.get("NAUTOBOT_REDIS_USERNAME", ""), safe="")
    password = quote(os.environ.get("NAUTOBOT_REDIS_PASSWORD", ""), safe="")
    credentials = f"{user}:{password}@" if user or password else ""
    if scheme == "unix":
        return f"unix://{credentials}{host}?db={database}"
    return f"{scheme}://{credentials}{host}:{port}/{database}"


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdigit():
        raise ConfigurationError(f"{variable} must be a whole number, not {text!r}: change it in the environment.")
    return int(text)
