"""Nautobot without this app, for the snapshot of the core schema."""

from development.nautobot_config import *  # noqa: F403

PLUGINS = []
