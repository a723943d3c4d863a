"""The overview: what it says first, to which user, in how many queries, and that it asks nothing but the database."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from itertools import product
from urllib.parse import parse_qs, urlparse

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape
from nautobot.apps.testing import extract_page_body
from nautobot.extras.models import Job, JobResult, ObjectChange, ScheduledJob, Status
from nautobot.users.models import ObjectPermission, User

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.mcp.logic.certificates import WARNING_DAYS, is_worth_a_warning
from ai_ops.models import (
    CheckpointStorageSnapshot,
    MaintenanceRun,
    MCPServer,
    MCPServerCheck,
    MCPServerHealth,
    MCPServerIncident,
    MCPServerTool,
)
from ai_ops.overview import logic, queries
from ai_ops.overview.page import Overview
from ai_ops.schedules import DEFAULT_SCHEDULES, ensure_schedule, find_job
from ai_ops.schedules import status as schedule_status

pytestmark = pytest.mark.django_db
PAGE = "plugins:ai_ops:overview"
MOST_QUERIES = 25
DAY = timedelta(days=1)


def ago(**length):
    return timezone.now() - timedelta(**length)


def make_server(name, status="Healthy", *, checked=timedelta(minutes=1), protocol="http", ok=True, **health):
    server = MCPServer.objects.create(
        name=name, url="http://mcp.example.com", protocol=protocol, status=Status.objects.get(name=status)
    )
    if checked is not None:
        at = timezone.now() - checked
        MCPServerHealth.objects.create(server=server, checked=at, ok=ok, last_ok=ago(hours=3), **health)
        MCPServerCheck.objects.create(server=server, time=at, ok=ok, latency_ms=40, failures=not ok)
    return server


def make_run(name, state=RunStateChoices.SUCCEEDED, *, kind="health", age=timedelta(minutes=2), **fields):
    run = MaintenanceRun.objects.create(
        name=name, kind=kind, trigger=RunTriggerChoices.SCHEDULE, state=state, finished=timezone.now() - age, **fields
    )
    MaintenanceRun.objects.filter(pk=run.pk).update(created=timezone.now() - age)
    return run


def make_all_well():
    """Schedules that work, a server that is up, and a check of it two minutes ago."""
    # Those that the installation has made, where they are there. To make them anew takes a third of a second.
    schedules = ScheduledJob.objects.filter(name__in=[default.name for default in DEFAULT_SCHEDULES.values()])
    if schedules.count() < len(DEFAULT_SCHEDULES):
        for kind in DEFAULT_SCHEDULES:
            ensure_schedule(kind)
    now = timezone.now()
    schedules.update(start_time=now, last_run_at=now)
    for kind in DEFAULT_SCHEDULES:
        make_run(f"{kind} run", kind=kind)
    return make_server("Tickets")


def make_trouble():
    """Some of each thing that may need the operator, beside others that do not."""
    for number in range(3):
        down = make_server(
            f"down {number}", "Unhealthy", ok=False, reason="TIMEOUT", message="It <did> not answer: look at its host."
        )
    make_server("not checked yet", "Unhealthy", checked=None)
    make_server("in the agent", "Unhealthy", checked=None, protocol="stdio")
    outage = MCPServerIncident.objects.create(name="an outage", opened=ago(hours=1), reason="TIMEOUT")
    outage.servers.add(down)
    user = User.objects.create(username="ada")
    known = MCPServerIncident.objects.create(name="known", opened=ago(hours=2), reason="TIMEOUT")
    known.servers.add(MCPServer.objects.get(name="down 0"))
    MCPServerIncident.objects.filter(pk=known.pk).update(acknowledged=timezone.now(), acknowledged_by=user)
    MCPServerIncident.objects.create(name="over", opened=ago(hours=2), closed=timezone.now(), reason="TIMEOUT")
    make_run("a dead letter", RunStateChoices.DEAD)
    make_run("an old dead letter", RunStateChoices.DEAD, age=timedelta(days=9))
    make_run("discarded", RunStateChoices.DEAD, discarded=timezone.now())
    make_run("failed", RunStateChoices.FAILED)
    make_run("lost", RunStateChoices.LOST)
    make_run("failed long ago", RunStateChoices.FAILED, age=timedelta(hours=30))
    for name, state in (("as approved", "approved"), ("other", "changed"), ("new", "added")):
        MCPServerTool.objects.create(
            server=down, name=name, state=state, since=timezone.now(), first_seen=timezone.now()
        )
    ScheduledJob.objects.filter(name=DEFAULT_SCHEDULES["storage"].name).update(enabled=False)
    for name, days in (("down 0", -1), ("down 1", 20), ("down 2", 40)):
        MCPServerHealth.objects.filter(server__name=name).update(certificate_ends=timezone.now() + timedelta(days=days))
    return down


EXPECTED = {
    "servers down": 3,
    "open incident not acknowledged": 1,
    "dead letters": 2,
    "runs failed in 24 h": 2,
    "tools changed": 2,
    "schedule late, paused or broken": 1,
    "certificates end soon": 2,
}


def permit(user, *models, actions=("view",), constraints=None):
    for model in models:
        permission = ObjectPermission.objects.create(
            name=f"{user} {model._meta.model_name} {actions}", actions=list(actions), constraints=constraints or {}
        )
        permission.users.add(user)
        permission.object_types.add(ContentType.objects.get_for_model(model))


def get(user, address=None):
    client = Client()
    client.force_login(user)
    return client.get(address or reverse(PAGE))


def body_of(user, address=None):
    response = get(user, address)
    assert response.status_code == 200
    return " ".join(extract_page_body(response.content.decode()).split())


def headline(page):
    level, sentence = re.search(r'class="alert alert-(\w+) .*?<strong[^>]*>(.*?)</strong>', page).groups()
    return level, sentence


def lines(page):
    """Numbers and addresses of what may need the operator, by name."""
    found = re.findall(r'href="([^"]*)"> <span class="[^"]*text-(\w+)">([\d,]+)</span> <span>(.*?)</span>', page)
    return {name: (int(count), level, address.replace("&amp;", "&")) for address, level, count, name in found}


def test_all_well(admin):
    make_all_well()
    page = body_of(admin)
    assert headline(page) == ("success", "All well")
    assert {(count, level) for count, level, _ in lines(page).values()} == {(0, "success")}
    assert "No server is known to be down." in page
    assert page.count(">On time</span>") == len(DEFAULT_SCHEDULES)


def test_a_last_check_that_is_old_is_said_first_and_nothing_of_it_is_green(admin):
    make_all_well()
    MaintenanceRun.objects.filter(kind="health").update(created=ago(minutes=25), finished=ago(minutes=25))
    MCPServerHealth.objects.update(checked=ago(minutes=25))
    page = body_of(admin)
    assert headline(page) == ("secondary", "Not known: the last health check ended 25 min ago")
    assert lines(page)["servers down"][:2] == (0, "secondary")
    assert lines(page)["open incidents not acknowledged"][:2] == (0, "secondary")
    assert "Not checked in time: 1" in page
    assert "Up: 1" not in page


def test_a_run_that_failed_or_was_of_a_part_makes_no_health_fresh(admin):
    make_all_well()
    MaintenanceRun.objects.filter(kind="health").update(created=ago(minutes=25), finished=ago(minutes=25))
    make_run("failed", RunStateChoices.FAILED)
    make_run("part", subject="1/2")
    assert "the last health check ended 25 min ago. 1 thing needs you" in headline(body_of(admin))[1]


def test_it_counts_what_needs_the_operator_and_leads_to_lists_of_as_many(admin):
    make_all_well()
    make_trouble()
    page = body_of(admin)
    assert headline(page) == ("danger", "7 things need you")
    found = lines(page)
    assert {name: count for name, (count, _, _) in found.items()} == EXPECTED
    tables = {
        "servers down": "/api/plugins/ai-ops/mcp-servers/",
        "certificates end soon": "/api/plugins/ai-ops/mcp-servers/",
        "open incident not acknowledged": "/api/plugins/ai-ops/mcp-server-incidents/",
        "runs failed in 24 h": "/api/plugins/ai-ops/runs/",
        "tools changed": "/api/plugins/ai-ops/mcp-server-tools/",
    }
    client = Client()
    client.force_login(admin)
    for name, api in tables.items():
        query = parse_qs(urlparse(found[name][2]).query)
        assert client.get(found[name][2]).status_code == 200, name
        assert client.get(api, query).json()["count"] == EXPECTED[name], name


def test_what_is_down_says_since_when_why_and_which_user_has_acknowledged_it(admin):
    make_all_well()
    make_trouble()
    page = body_of(admin)
    table = page[page.index('id="ai-ops-down-now"') : page.index('id="ai-ops-machinery"')]
    # The newest that no user has acknowledged stands first, the acknowledged one last.
    assert re.findall(r">(down \d)</a>", table) == ["down 2", "down 1", "down 0"]
    assert "It &lt;did&gt; not answer: look at its host." in table
    assert table.index(">Not acknowledged</a>") < table.index(">ada</a>")
    assert ">1 h ago</time>" in table


def test_of_many_outages_the_first_are_shown_with_the_number_of_the_others(admin):
    make_all_well()
    for number in range(11):
        make_server(f"down {number}", "Unhealthy", ok=False)
    page = body_of(admin)
    assert ">and 3 more</a>" in page
    assert lines(page)["servers down"][0] == 11


def test_servers_by_state_and_those_with_the_lowest_uptime(admin):
    well = make_all_well()
    server = make_server("flapping one", flapping=True, recent="01", last_failure=ago(hours=1))
    MCPServerCheck.objects.create(server=server, time=ago(hours=1), ok=False, latency_ms=9, failures=1)
    MCPServerCheck.objects.create(server=well, time=ago(hours=30), ok=False, latency_ms=9)
    page = body_of(admin)
    assert "Up: 2" in page
    table = page[page.index('id="ai-ops-uptime"') :].split("</table>")[0]
    assert ">flapping one</a>" in table
    assert "50 %" in table
    assert ">Tickets</a>" not in table
    assert "3 checks in 24 h, 66.66 % OK." in page
    assert "now 40 ms, between 40 ms and 40 ms in 24 h" in page


# Of each fact all that may matter: what is new and old, and half a minute to both sides of where the page changes.
FACTS = {
    "protocol": ("http", "stdio"),
    "status": ("Healthy", "Unhealthy", "Maintenance"),
    "interval": (None, 5, 60 * 24),
    "checked": tuple(map(timedelta, (0, 0, 0, 2), (60, 20 * 60 - 30, 20 * 60 + 30, 0))),
    "ok": (True, False, None),
    "flapping": (False, True),
    "failed": (None, timedelta(hours=1), DAY - timedelta(seconds=30), DAY + timedelta(seconds=30)),
    "ends": (None, *(timedelta(days=WARNING_DAYS, seconds=seconds) for seconds in (-30, 30)), timedelta(days=-1)),
}


def test_a_server_that_is_only_counted_is_one_that_the_page_says_no_more_of(admin):
    make_all_well()
    MCPServer.objects.all().delete()
    now = timezone.now()
    rows = list(product(*FACTS.values()))
    statuses = {status.name: status for status in Status.objects.filter(name__in=FACTS["status"])}
    servers = MCPServer.objects.bulk_create(
        MCPServer(
            name=f"server {number}",
            url="http://mcp.example.com",
            protocol=row[0],
            status=statuses[row[1]],
            check_interval=row[2],
        )
        for number, row in enumerate([*rows, ("http", "Healthy", None)])
    )
    MCPServerHealth.objects.bulk_create(
        MCPServerHealth(
            server=server,
            checked=now - checked,
            ok=ok,
            flapping=flapping,
            last_failure=failed and now - failed,
            certificate_ends=ends and now + ends,
        )
        # The last one was never checked.
        for server, (*_, checked, ok, flapping, failed, ends) in zip(servers, rows, strict=False)
    )
    page = Overview(admin, now)
    listed = {server.name: server for server in page.fleet.listed}
    assert page.fleet.others == len(servers) - len(listed) > 10
    # With nothing fresh, all are listed.
    everything = {server.name: server for server in queries.fleet(admin, now + DAY, now).listed}
    assert len(everything) == len(servers)
    troubled = logic.most_troubled({name: each.facts for name, each in everything.items()}, now, len(servers))
    ending = [
        name
        for name, each in everything.items()
        if each.certificate_ends and is_worth_a_warning(each.certificate_ends, now)
    ]
    states = {name: logic.server_state(each.facts, page.check_period, now) for name, each in everything.items()}
    for name in everything.keys() - listed.keys():
        assert states[name] == logic.UP
    assert not {*troubled, *ending} - listed.keys()
    assert page.states == Counter(states.values())


def test_runs_of_two_weeks_by_outcome(admin):
    make_all_well()
    make_run("old", RunStateChoices.FAILED, age=timedelta(days=3))
    make_run("too old", RunStateChoices.FAILED, age=timedelta(days=20))
    assert f"In 14 days: {len(DEFAULT_SCHEDULES)} succeeded, 1 failed." in body_of(admin)


def snapshot(keys, *, error=None, **data):
    data = {
        "success": error is None,
        "error": error,
        "checkpoint_keys": keys,
        "checkpoint_bytes": 2048,
        "memory_bytes": 4096,
        "cleanup": {"deleted_count": 120, "threads_deleted": 7},
    } | data
    return CheckpointStorageSnapshot.objects.create(data=data)


def test_checkpoints_with_their_trend_and_what_the_next_cleanup_deletes(admin):
    make_all_well()
    for days, keys in ((20, 1), (2, 1000)):
        CheckpointStorageSnapshot.objects.filter(pk=snapshot(keys).pk).update(taken=ago(days=days))
    snapshot(1250)
    page = body_of(admin)
    for text in ("1,250", "250 more than 2 d ago (+25 %)", "120 keys, 7 whole threads"):
        assert text in page, text
    form = reverse("extras:job_run_by_class_path", kwargs={"class_path": DEFAULT_SCHEDULES["cleanup"].class_path})
    assert f'href="{form}?dryrun=True">Dry run</a>' in page
    assert f'href="{form}">Clean up</a>' in page


def test_the_button_dry_run_opens_the_form_with_dry_run_ticked(admin):
    Job.objects.filter(pk=find_job("cleanup").pk).update(enabled=True)
    path = DEFAULT_SCHEDULES["cleanup"].class_path
    form = reverse("extras:job_run_by_class_path", kwargs={"class_path": path})

    def ticked(address):
        response = get(admin, address)
        (box,) = re.findall(r'<input[^>]*name="dryrun"[^>]*>', response.content.decode())
        return "checked" in box

    assert ticked(f"{form}?dryrun=True")
    assert not ticked(form)


def test_a_sampling_that_failed_or_is_old_says_so(admin):
    make_all_well()
    old = snapshot(10)
    CheckpointStorageSnapshot.objects.filter(pk=old.pk).update(taken=ago(hours=5))
    assert ">out of date</span>" in body_of(admin)
    snapshot(0, error="Redis <is> away.")
    page = body_of(admin)
    assert ">failed</span> Redis &lt;is&gt; away." in page
    assert ">10<" in page


def test_an_installation_without_anything_has_a_page(admin):
    ScheduledJob.objects.all().delete()
    page = body_of(admin)
    assert headline(page) == ("success", "All well")
    for text in (
        "No servers yet.",
        "No checks in the last 24 h.",
        "No run ended in the last 14 days.",
        ">Never</a>",
        ">No schedule<",
    ):
        assert text in page, text


PANELS = {
    MCPServer: ("Down now", "Servers by state"),
    MCPServerCheck: ("Checks of the fleet", "Median latency"),
    MaintenanceRun: ("Machinery", "Runs a day"),
    ScheduledJob: ("Machinery",),
    CheckpointStorageSnapshot: ("Checkpoints",),
    MCPServerIncident: (),
    MCPServerTool: (),
}
NUMBERS = {
    MCPServer: {"servers down", "certificates end soon"},
    MaintenanceRun: {"dead letters", "runs failed in 24 h"},
    ScheduledJob: {"schedule late, paused or broken"},
    MCPServerIncident: {"open incident not acknowledged"},
    MCPServerTool: {"tools changed"},
}


def shown_panels(page):
    names = {name for panels in PANELS.values() for name in panels} | {"Lowest uptime", "Latest changes"}
    return {name for name in names if f"<strong>{name.upper()}" in page}


@pytest.mark.parametrize("model", PANELS, ids=lambda model: model._meta.model_name)
def test_each_user_sees_the_parts_that_one_permission_allows(model):
    make_all_well()
    make_trouble()
    snapshot(10)
    user = User.objects.create(username="reader")
    permit(user, model)
    page = body_of(user)
    assert shown_panels(page) == set(PANELS[model])
    assert set(lines(page)) == NUMBERS.get(model, set())
    assert "Dry run" not in page
    if model is not MCPServer:
        assert "down 0" not in page
        assert headline(page)[0] != "success"


def test_a_user_of_a_part_of_the_servers_counts_that_part():
    make_all_well()
    make_trouble()
    user = User.objects.create(username="reader")
    permit(user, MCPServer, constraints={"name": "down 1"})
    page = body_of(user)
    assert lines(page)["server down"][0] == 1
    assert "down 0" not in page


def test_a_user_without_any_of_the_permissions_gets_no_page():
    user = User.objects.create(username="nothing")
    assert get(user).status_code == 403
    permit(user, ObjectChange)
    assert get(user).status_code == 403


def test_a_user_who_may_not_see_servers_is_not_told_that_all_is_well():
    make_all_well()
    user = User.objects.create(username="reader")
    permit(user, MaintenanceRun, ScheduledJob)
    assert headline(body_of(user)) == ("secondary", "Nothing needs you; you may not view the servers")


def test_it_takes_few_queries_and_no_more_for_more_of_everything(admin):
    make_all_well()
    make_trouble()
    snapshot(10)
    user = User.objects.create(username="operator")
    permit(user, *PANELS, MCPServerHealth, ObjectChange, JobResult)
    permit(user, Job, actions=("view", "run"))
    counts = []
    for round_ in range(2):
        for who in (admin, user):
            client = Client()
            client.force_login(who)
            client.get(reverse(PAGE))
            with CaptureQueriesContext(connection) as captured:
                assert client.get(reverse(PAGE)).status_code == 200
            counts.append(len(captured))
        for number in range(20):
            server = make_server(f"more {round_} {number}", "Unhealthy", ok=False)
            MCPServerIncident.objects.create(name=f"{server}", opened=timezone.now()).servers.add(server)
            make_run(f"more {round_} {number}", RunStateChoices.DEAD)
    assert max(counts) <= MOST_QUERIES
    assert counts[2:] == counts[:2]


def test_it_asks_no_worker_and_no_checkpoint_redis(admin, monkeypatch):
    make_all_well()
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/0")

    def ask(*_, **__):
        raise AssertionError("a worker was asked")

    monkeypatch.setattr(schedule_status, "get_celery_queues", ask)
    assert headline(body_of(admin)) == ("success", "All well")


def test_what_is_refreshed_is_there_by_its_id(admin):
    make_all_well()
    snapshot(10)
    content = get(admin).content.decode()
    ids = re.search(r'hx-select-oob="([^"]*)"', content)[1].split(",")
    assert len(ids) > 10
    for each in ids:
        name = each.removeprefix("#").removesuffix(":innerHTML")
        assert len(re.findall(f' id="{name}"', content)) == 1, name


def test_hostile_names_are_text(admin):
    make_all_well()
    name = "<b>bold</b>" + "x" * 200
    make_server(name, "Unhealthy", ok=False, flapping=True)
    page = body_of(admin)
    assert name not in page
    assert page.count(escape(name)) >= 2


def test_it_is_first_in_the_menu_and_linked_from_the_home_page():
    user = User.objects.create(username="reader")
    permit(user, MCPServer)
    home = get(user, reverse("home")).content.decode()
    assert home.count(f'href="{reverse(PAGE)}"') >= 1
    from ai_ops.navigation import menu_items

    first = min(menu_items[0].groups, key=lambda group: group.weight)
    assert [item.link for item in first.items] == [reverse(PAGE)]


def test_the_list_of_runs_is_filtered_by_a_time_in_its_form(admin):
    make_run("recent")
    make_run("old", age=timedelta(days=3))
    address = reverse("plugins:ai_ops:maintenancerun_list") + "?created__gte=2020-01-01+10:00:00"
    page = body_of(admin, address)
    assert "2020-01-01 10:00:00" in page
