"""What a task reports: frozen values whose ``as_dict()`` is the public contract."""

from __future__ import annotations
