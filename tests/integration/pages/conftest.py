"""Set-up that tests of pages have in common."""

from __future__ import annotations

import pytest

# Nautobot is imported in the fixtures: a process that only hands tests to others loads this file without it.


@pytest.fixture
def browser(admin):
    """Django's client, in which a user who may do everything has logged in."""
    from django.test import Client

    client = Client()
    client.force_login(admin)
    return client
