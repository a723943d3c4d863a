"""Key names of this installation, from its settings."""

from __future__ import annotations

import time

from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.keys import KeyParser, KeyPrefixes
from ai_ops.config import AiOpsSettings


def key_parser(configured: AiOpsSettings) -> KeyParser:
    """Return the key parser of all savers except CompactRedisSaver, with the current settings."""
    return KeyParser(time.time(), KeyPrefixes(configured.checkpoint_prefix, configured.checkpoint_write_prefix))


def compact_keys(configured: AiOpsSettings) -> CompactKeys:
    """Return the key names of CompactRedisSaver."""
    return CompactKeys(configured.compact_prefix)
