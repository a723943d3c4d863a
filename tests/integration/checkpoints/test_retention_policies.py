"""Retention policies: their pages, REST, GraphQL, and the cleanup under them, with the real savers."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from nautobot.apps.testing import APIViewTestCases, FilterTestCases, TestCase, ViewTestCases
from nautobot.core.graphql import execute_query

from ai_ops.filters import RetentionPolicyFilterSet
from ai_ops.models import RetentionPolicy


def make_some():
    RetentionPolicy.objects.create(name="Legal hold", weight=10, thread_patterns="case-*", retention="forever")
    RetentionPolicy.objects.create(name="Smoke tests", weight=20, thread_patterns="smoke-*\nprobe-?", retention="1h")
    RetentionPolicy.objects.create(name="Bots", thread_patterns="bot-*", max_checkpoints=20, enabled=False)


class RetentionPolicyViewTest(ViewTestCases.PrimaryObjectViewTestCase):
    model = RetentionPolicy
    bulk_edit_data = {"retention": "90 days", "keep_last": 5}

    @classmethod
    def setUpTestData(cls):
        make_some()
        cls.form_data = {
            "name": "A class of its own",
            "weight": 5,
            "enabled": True,
            "thread_patterns": "x-*\ny-?",
            "retention": "36 hours",
            "keep_last": 2,
            "max_checkpoints": 10,
            "max_thread_mb": 5,
            "description": "why",
        }


class RetentionPolicyAPITest(APIViewTestCases.APIViewTestCase):
    model = RetentionPolicy
    bulk_update_data = {"retention": "7 days"}
    choices_fields = ()

    @classmethod
    def setUpTestData(cls):
        make_some()
        cls.create_data = [
            {"name": "one", "thread_patterns": "one-*", "retention": "12 hours"},
            {"name": "two", "thread_patterns": "two-*\n*-two", "max_thread_mb": 3},
            {"name": "three", "thread_patterns": "[3]*", "pending_retention": "forever", "trim_live_threads": False},
        ]


class RetentionPolicyFilterTest(FilterTestCases.FilterTestCase):
    queryset = RetentionPolicy.objects.all()
    filterset = RetentionPolicyFilterSet
    generic_filter_tests = [["name"], ["weight"], ["thread_patterns"]]

    @classmethod
    def setUpTestData(cls):
        make_some()


class FormTest(TestCase):
    def test_what_a_policy_says_is_brought_into_shape_and_checked(self):
        policy = RetentionPolicy(name="p", thread_patterns=" a-* \r\n\n b \na-*", retention="24H", pending_retention="")
        policy.validated_save()
        assert (policy.patterns, policy.retention) == (["a-*", "b"], "1 day")
        for field, value in (
            ("thread_patterns", "  \n"),
            ("thread_patterns", "*a" * 11),
            ("thread_patterns", "\n".join(map(str, range(101)))),
            ("retention", "soon"),
            ("retention", "0 hours"),
            ("pending_retention", "9999 days"),
            ("keep_last", 0),
            ("max_checkpoints", 0),
            ("max_thread_mb", 0),
            ("keep_last", 11),
        ):
            with self.subTest(field=field, value=value):
                other = RetentionPolicy(name="q", thread_patterns="a", max_checkpoints=10)
                setattr(other, field, value)
                with pytest.raises(ValidationError) as refused:
                    other.full_clean()
                assert field in refused.value.message_dict

    def test_graphql_has_them(self):
        make_some()
        user = get_user_model().objects.create(username="reader", is_superuser=True)
        result = execute_query("{ retention_policies(enabled: true) { name retention weight } }", user=user)
        assert result.errors is None
        assert [each["name"] for each in result.data["retention_policies"]] == ["Legal hold", "Smoke tests"]
