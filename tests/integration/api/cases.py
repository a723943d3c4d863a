"""The parts that test cases of REST share."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from nautobot.apps.testing import APITestCase

from tests.fakes.users import permit


class RestTestCase(APITestCase):
    """A user who is permitted one thing after the other, and refusals with a sentence."""

    # The one whose endpoint is tested.
    model: type[Model]

    def permit(self, action: str, model: type[Model] | None = None, **constraints: Any) -> None:
        """Permit the action on objects of `model`, those of the endpoint unless given."""
        permit(self.user, model or self.model, actions=[action], constraints=constraints or None)

    def assert_refused(self, response: Any, status: int, sentence: str) -> None:
        """Fail unless the answer has this status, and as its only detail a text with `sentence`."""
        self.assertHttpStatus(response, status)
        assert list(response.data) == ["detail"]
        assert sentence in response.data["detail"]
