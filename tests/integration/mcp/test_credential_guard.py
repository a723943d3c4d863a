"""A token goes nowhere by a change of a user who may not view its secrets group, whichever way the change comes in."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.urls import reverse
from nautobot.apps.change_logging import web_request_context
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import Job, JobResult, SecretsGroup, Status
from nautobot.users.models import ObjectPermission, Token
from rest_framework.test import APIClient

from ai_ops.models import MCPServer

pytestmark = pytest.mark.django_db

URL = "https://one.example.com:8443"
MOVES = [
    {"server_url": "https://evil.example.com:8443"},
    {"server_url": "http://one.example.com:8443"},
    {"server_url": "https://one.example.com:9443"},
    {"server_url": "https://one.example.com:8443/tenant"},
    {"mcp_endpoint": "/other/mcp"},
    {"health_check": "/other"},
    {"verify_tls": False},
    {"ca_file": "/etc/ssl/certs/other.pem"},
]
HARMLESS = [
    {"description": "edited"},
    {"name": "two"},
    {"check_interval": 20},
    {"probe": "mcp"},
    {"secrets_group": None, "server_url": "https://evil.example.com"},
]


def allow(user, model, *actions, **constraints) -> None:
    permission = ObjectPermission.objects.create(
        name=f"{user} {model} {actions} {constraints}", actions=list(actions), constraints=constraints or None
    )
    permission.users.add(user)
    permission.object_types.add(ContentType.objects.get_for_model(model))


@pytest.fixture
def group():
    return SecretsGroup.objects.create(name="tokens")


@pytest.fixture
def server(group):
    status = Status.objects.get(name="Healthy")
    server = MCPServer(name="one", url=URL, secrets_group=group, status=status)
    server.validated_save()
    return server


@pytest.fixture
def editor():
    """A user who may do all with servers, and see another secrets group alone."""
    user = get_user_model().objects.create(username="editor")
    allow(user, MCPServer, "view", "add", "change", "delete")
    allow(user, SecretsGroup, "view", name="others")
    allow(user, Status, "view")
    return user


@pytest.fixture
def rest(editor):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=editor).key}")
    return client


def detail(server: MCPServer) -> str:
    return reverse("plugins-api:ai_ops-api:mcpserver-detail", kwargs={"pk": server.pk})


def as_kept(server: MCPServer) -> tuple:
    row = MCPServer.objects.get(pk=server.pk)
    return row.url, row.mcp_endpoint, row.health_check, row.verify_tls, row.ca_file, row.secrets_group


def test_rest_refuses_to_send_a_token_elsewhere_and_names_the_field(rest, server, subtests):
    before = as_kept(server)
    for change in MOVES:
        with subtests.test(str(change)):
            response = rest.patch(detail(server), change, format="json")
            assert response.status_code == 400, response.data
            (field,) = response.json()
            assert field in change
            assert "may not view its secrets group" in str(response.json())
            listed = reverse("plugins-api:ai_ops-api:mcpserver-list")
            assert rest.patch(listed, [{"id": str(server.pk), **change}], format="json").status_code == 400
            assert as_kept(server) == before


def test_rest_lets_pass_what_moves_no_token(rest, server, subtests):
    for change in HARMLESS:
        with subtests.test(str(change)):
            response = rest.patch(detail(server), change, format="json")
            assert response.status_code == 200, response.data


def test_a_user_who_may_view_the_group_may_move_the_server(rest, server, group, editor):
    allow(editor, SecretsGroup, "view", name="tokens")
    for change in MOVES:
        assert rest.patch(detail(server), change, format="json").status_code == 200


def test_a_group_that_one_may_not_view_is_given_to_no_server_new_or_old(rest, server, group):
    listed = reverse("plugins-api:ai_ops-api:mcpserver-list")
    new = {"name": "mine", "server_url": "https://evil.example.com", "secrets_group": str(group.pk)}
    for data in (new, [new]):
        assert rest.post(listed, data, format="json").status_code == 400
    mine = MCPServer.objects.create(name="mine", url="https://evil.example.com", status=server.status)
    response = rest.patch(detail(mine), {"secrets_group": str(group.pk)}, format="json")
    assert response.status_code == 400
    assert "secrets_group" in response.json()
    others = SecretsGroup.objects.create(name="others")
    assert rest.patch(detail(mine), {"secrets_group": str(others.pk)}, format="json").status_code == 200
    assert MCPServer.objects.get(pk=mine.pk).secrets_group == others


def test_a_stdio_server_is_not_made_one_that_is_sent_its_token(rest, server):
    MCPServer.objects.filter(pk=server.pk).update(protocol="stdio", url="https://evil.example.com")
    assert rest.patch(detail(server), {"protocol": "http"}, format="json").status_code == 400


def test_the_form_says_so_at_the_field(client, editor, server):
    client.force_login(editor)
    data = {"name": "one", "status": server.status.pk, "protocol": "http", "url": "https://evil.example.com"}
    data |= {"mcp_endpoint": "/mcp", "health_check": "/health", "probe": "auto", "mcp_type": "internal"}
    data |= {"verify_tls": "on", "secrets_group": server.secrets_group_id}
    url = reverse("plugins:ai_ops:mcpserver_edit", kwargs={"pk": server.pk})
    response = client.post(url, data)
    assert response.status_code == 200
    assert MCPServer.objects.get(pk=server.pk).url == URL


def run_job(class_path: str, user, **variables) -> JobResult:
    module, _, name = class_path.rpartition(".")
    job = Job.objects.get(module_name=module, job_class_name=name)
    job.enabled = True
    job.validated_save()
    for model in (Job, JobResult):
        allow(user, model, "view", "run")
    return JobResult.execute_job(job, user, **variables)


def test_bulk_edit_changes_nothing(editor, server):
    before = as_kept(server)
    result = run_job(
        "nautobot.core.jobs.bulk_actions.BulkEditObjects",
        editor,
        content_type=ContentType.objects.get_for_model(MCPServer).pk,
        form_data={"pk": [str(server.pk)], "verify_tls": "False"},
        pk_list=[str(server.pk)],
        filter_query_params={},
        edit_all=False,
        saved_view_id=None,
    )
    assert result.status == JobResultStatusChoices.STATUS_FAILURE
    assert as_kept(server) == before


def test_an_import_gives_no_server_a_group_that_its_user_may_not_view(editor, server, group):
    csv = f"name,server_url,secrets_group__name\nmine,https://evil.example.com,{group.name}\n"
    result = run_job(
        "nautobot.core.jobs.ImportObjects",
        editor,
        content_type=ContentType.objects.get_for_model(MCPServer).pk,
        csv_data=csv,
    )
    assert result.status == JobResultStatusChoices.STATUS_FAILURE
    assert not MCPServer.objects.filter(name="mine").exists()


def test_a_shell_and_a_superuser_may_do_all(server):
    server.url = "https://two.example.com"
    server.validated_save()
    with web_request_context(get_user_model().objects.create(username="root", is_superuser=True)):
        server.url = "https://three.example.com"
        server.validated_save()


def test_a_health_check_by_a_service_user_flips_a_server_whose_secrets_it_may_not_view(server, editor):
    with web_request_context(editor):
        row = MCPServer.objects.get(pk=server.pk)
        row.status = Status.objects.get(name="Unhealthy")
        row.validated_save()
        row.verify_tls = False
        with pytest.raises(ValidationError, match="may not view"):
            row.validated_save()
