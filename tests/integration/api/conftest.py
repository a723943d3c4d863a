"""Set-up that tests of REST have in common."""

from __future__ import annotations

import pytest

# Nautobot is imported in the fixtures: a process that only hands tests to others loads this file without it.


@pytest.fixture
def headers(admin):
    """The headers with which a user who may do everything asks for JSON."""
    from nautobot.users.models import Token

    return {"Authorization": f"Token {Token.objects.create(user=admin).key}", "Accept": "application/json"}
