"""Flips that are saved together: each in the change log as if it were alone, and told while the run goes on."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache, caches
from django.core.cache.backends.dummy import DummyCache
from nautobot.apps.change_logging import web_request_context
from nautobot.core.models.utils import serialize_object_v2
from nautobot.data_validation.models import MinMaxValidationRule
from nautobot.extras.models import CustomField, ObjectChange, Status, Tag

from ai_ops.celery_tasks import perform_mcp_health_checks
from ai_ops.mcp.cache_reads import cache_read_once
from ai_ops.mcp.change_log import logged_together
from ai_ops.mcp.flips import FLIPS_AT_ONCE
from ai_ops.models import AgentGeneration, MCPServer, MCPServerIncident
from tests.fakes.events import KeepingBroker, heard
from tests.fakes.servers import add_many

pytestmark = pytest.mark.django_db


TOPICS = ("nautobot.update.ai_ops.mcpserver", "nautobot.create.ai_ops.mcpserverincident")


def told(broker: KeepingBroker) -> list[tuple[str, str]]:
    """Return the topics with the names of the objects."""
    return [(topic, payload["postchange"]["name"]) for topic, payload in broker.events]


@pytest.fixture
def ann():
    return get_user_model().objects.create(username="ann")


def healthy() -> Status:
    return Status.objects.get_for_model(MCPServer).get(name="Healthy")


def test_each_flip_of_many_is_in_the_change_log_as_the_api_shows_it(down, ann):
    servers = add_many(FLIPS_AT_ONCE + 5, down.url)
    tag = Tag.objects.create(name="rack 7")
    tag.content_types.add(ContentType.objects.get_for_model(MCPServer))
    servers[3].tags.add(tag)
    broken = servers[-2]
    MCPServer.objects.filter(pk=broken.pk).update(url="ftp://127.0.0.1")
    with web_request_context(ann, context_detail="by hand"):
        result = perform_mcp_health_checks()
    assert result["changed_count"] == len(servers) - 1
    assert result["error"].startswith(f"{broken}: The status Unhealthy could not be saved: ")
    changes = {change.changed_object_id: change for change in ObjectChange.objects.filter(user_name="ann")}
    assert set(changes) == {server.pk for server in servers if server != broken} | {MCPServerIncident.objects.get().pk}
    assert ObjectChange.objects.filter(user_name="ann").count() == len(changes)
    for server in MCPServer.objects.exclude(pk=broken.pk):
        change = changes[server.pk]
        assert (change.action, change.change_context, change.change_context_detail) == ("update", "orm", "by hand")
        assert change.object_data_v2 == json.loads(json.dumps(serialize_object_v2(server), default=str))
        assert change.object_data_v2["status"]["name"] == "Unhealthy"
    assert [each["name"] for each in changes[servers[3].pk].object_data_v2["tags"]] == ["rack 7"]


def test_agents_are_told_of_flips_together_and_of_none_where_none_was_made(down):
    servers = add_many(FLIPS_AT_ONCE + 5, down.url)
    before = AgentGeneration.current()
    assert perform_mcp_health_checks()["changed_count"] == len(servers)
    told = AgentGeneration.current() - before
    assert 0 < told < len(servers)
    perform_mcp_health_checks()
    assert AgentGeneration.current() == before + told


def test_what_was_changed_before_in_the_same_context_is_not_logged_again(down, ann):
    edited, other = add_many(2, down.url)
    with web_request_context(ann):
        edited.description = "call Ann first"
        edited.validated_save()
        perform_mcp_health_checks()
        other.refresh_from_db()
        other.description = "and Bob then"
        other.validated_save()

    def history(server: MCPServer) -> list[tuple[str, str]]:
        rows = ObjectChange.objects.filter(changed_object_id=server.pk).order_by("time")
        return [(row.object_data_v2["description"], row.object_data_v2["status"]["name"]) for row in rows]

    assert history(edited) == [("call Ann first", "Healthy"), ("call Ann first", "Unhealthy")]
    assert history(other) == [("", "Unhealthy"), ("and Bob then", "Unhealthy")]


def test_flips_and_incidents_are_told_while_the_job_goes_on_and_not_again_at_its_end(down, ann):
    one, two = add_many(2, down.url)
    with heard(*TOPICS) as broker:
        with web_request_context(ann):
            perform_mcp_health_checks()
            while_it_goes_on = told(broker)
        at_its_end = told(broker)
    incidents = [incident.name for incident in MCPServerIncident.objects.all()]
    assert sorted(while_it_goes_on) == sorted(
        [("nautobot.update.ai_ops.mcpserver", str(server)) for server in (one, two)]
        + [("nautobot.create.ai_ops.mcpserverincident", name) for name in incidents]
    )
    assert at_its_end == while_it_goes_on


def test_a_receiver_that_fails_holds_up_no_flip_and_the_run_says_so(down, ann):
    servers = add_many(FLIPS_AT_ONCE + 5, down.url)
    with heard(*TOPICS, error=ConnectionError("no process listens")), web_request_context(ann):
        result = perform_mcp_health_checks()
    assert (result["success"], result["changed_count"], result["cache_cleared"]) == (False, len(servers), True)
    assert "Not all webhooks, Job hooks and events could be sent (no process listens)" in result["error"]
    assert set(MCPServer.objects.values_list("status__name", flat=True)) == {"Unhealthy"}
    assert MCPServerIncident.objects.count() == 1


def test_a_custom_field_that_is_added_between_two_blocks_is_logged_with_the_second(down, ann):
    (server,) = add_many(1, down.url)
    with web_request_context(ann), logged_together():
        server.validated_save()
    field = CustomField.objects.create(key="on_call", label="On call", type="text")
    field.content_types.add(ContentType.objects.get_for_model(MCPServer))
    with web_request_context(ann), logged_together():
        server.validated_save()
    newest, oldest = ObjectChange.objects.filter(changed_object_id=server.pk)
    assert "on_call" not in oldest.object_data_v2["custom_fields"]
    assert "on_call" in newest.object_data_v2["custom_fields"]


class CountedReads:
    """A cache that keeps the keys that were read."""

    def __init__(self, cache):
        self.cache, self.keys = cache, []

    def get(self, key, *args, **options):
        self.keys.append(key)
        return self.cache.get(key, *args, **options)

    def __getattr__(self, name):
        return getattr(self.cache, name)


def test_the_rules_of_data_validation_are_read_once_for_many_flips(down):
    def reads(count: int) -> int:
        MCPServer.objects.all().delete()
        add_many(count, down.url)
        caches["default"] = counted = CountedReads(caches["default"])
        try:
            assert perform_mcp_health_checks()["changed_count"] == count
        finally:
            caches["default"] = counted.cache
        return sum("validationrule" in key for key in counted.keys)

    assert 0 < reads(3) == reads(FLIPS_AT_ONCE)


def test_a_rule_of_data_validation_that_is_new_refuses_the_next_flips(down):
    add_many(2, down.url)
    servers = ContentType.objects.get_for_model(MCPServer)
    rule = MinMaxValidationRule.objects.create(name="none", content_type=servers, field="check_interval", min=0, max=0)
    try:
        result = perform_mcp_health_checks()
    finally:
        # The cache keeps the rule when the test's transaction is rolled back.
        rule.delete()
    assert result["changed_count"] == 0
    assert "could not be saved: Value does not conform" in result["error"]


def test_a_block_that_reads_the_cache_once_sees_what_it_changes():
    outside = caches["default"]
    cache.set("told", 1)
    with cache_read_once():
        assert (cache.get("told"), cache.get("none", 5), cache.get("none")) == (1, 5, None)
        outside.set("told", 2)
        assert cache.get("told") == 1
        cache.set("none", 3)
        assert (cache.get("told"), cache.get("none")) == (2, 3)
    assert cache.get("told") == 2
    cache.delete_many(["told", "none"])


def test_a_cache_that_is_set_up_in_a_block_stays_after_it(settings):
    with cache_read_once():
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    assert isinstance(caches["default"], DummyCache)
