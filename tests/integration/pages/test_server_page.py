"""The first answer of a server's page and of the lists: up or down, since when, why, what to do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from nautobot.extras.models import Status

from ai_ops.models import MCPServer, MCPServerCheck, MCPServerHealth, MCPServerIncident
from tests.fakes.users import user_who_may

MESSAGE = "GET http://mcp.example.com/health answered 500: see its log."


def add(
    name: str, status: str = "Healthy", *, checked: float | None = 1, recent: str = "1" * 21, **values
) -> MCPServer:
    """Add a server whose last check was `checked` minutes ago; None for one that was not checked."""
    found = Status.objects.get_for_model(MCPServer).get(name=status)
    server = MCPServer.objects.create(name=name, status=found, **({"url": "http://mcp.example.com"} | values))
    if checked is not None:
        now, well = timezone.now(), status == "Healthy"
        MCPServerHealth.objects.create(
            server=server,
            checked=now - timedelta(minutes=checked),
            ok=well,
            reason="" if well else "HTTP",
            message="GET http://mcp.example.com/health answered 200" if well else MESSAGE,
            last_ok=now - timedelta(hours=3),
            last_failure=None if well else now,
            recent=recent,
            latency_ms=12,
        )
    return server


def add_incident(*servers: MCPServer, **values) -> MCPServerIncident:
    opened = timezone.now() - timedelta(hours=2)
    incident = MCPServerIncident.objects.create(**({"name": "an outage", "reason": "HTTP", "opened": opened} | values))
    incident.servers.set(servers)
    return incident


def client_of(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def client(db) -> Client:
    return client_of(get_user_model().objects.create(username="root", is_superuser=True))


def banner(client: Client, server: MCPServer) -> str:
    """The banner of the server's page."""
    page = client.get(server.get_absolute_url()).content.decode()
    start = page.index('id="ai-ops-server-banner"')
    # The class of its frame stands before its id.
    return page[start - 100 : page.index("<!-- end of the banner -->", start)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"status": "Unhealthy"}, ["alert-danger", "Down since", "3 h ago", "answered 500"]),
        ({"status": "Healthy"}, ["alert-success", "Up; no check has failed"]),
        ({"status": "Healthy", "checked": 60 * 24}, ["alert-warning", "Not checked in time", "Schedules"]),
        ({"status": "Unhealthy", "checked": None}, ["alert-secondary", "Not checked yet", "next health check"]),
        ({"protocol": "stdio", "url": "", "checked": None}, ["alert-secondary", "Never checked (STDIO)", "no address"]),
        ({"status": "Vulnerable"}, ["alert-secondary", "Vulnerable", "not checked while"]),
    ],
    ids=["down", "up", "stale", "new", "stdio", "vulnerable"],
)
def test_a_page_begins_with_the_answer(client, values, words):
    text = banner(client, add("one", **values))
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("flips", "words"),
    [
        ([(30, False), (2, True)], "Up since"),
        # A user has made it Healthy again, at a time that no check knows.
        ([(30, True), (2, False)], "Up; the last failure was"),
        ([], "Up; the last failure was"),
    ],
    ids=["flipped", "by a user", "no history"],
)
def test_the_banner_says_since_when_a_server_is_up(client, flips, words):
    server = add("one")
    MCPServerHealth.objects.update(last_failure=timezone.now() - timedelta(hours=1))
    for hours, ok in flips:
        at = timezone.now() - timedelta(hours=hours)
        MCPServerCheck.objects.create(server=server, time=at, ok=ok, latency_ms=1, flipped=True)
    # A failure that was not confirmed changed nothing.
    at = timezone.now() - timedelta(hours=1)
    MCPServerCheck.objects.create(server=server, time=at, ok=False, latency_ms=1)
    text = banner(client, server)
    assert words in text
    assert ("2 h ago</time>" in text) == (words == "Up since")
    assert ">1 h ago</time>" in text


def test_the_banner_stands_before_every_panel(client):
    page = client.get(add("one").get_absolute_url()).content.decode().lower()
    places = [page.index(text) for text in ('id="ai-ops-server-banner"', "uptime and latency", "probing")]
    assert places == sorted(places)


def test_text_of_a_server_is_text_in_the_banner(client):
    server = add("one", "Unhealthy")
    MCPServerHealth.objects.update(message="<img src=x onerror=alert(1)>")
    assert "<img src=x" not in banner(client, server)


def test_the_banner_names_the_incident_and_acknowledges_it_without_leaving_the_page(client):
    server = add("one", "Unhealthy")
    incident = add_incident(server)
    before = banner(client, server)
    assert incident.get_absolute_url() in before
    assert "not acknowledged" in before
    address = reverse("plugins:ai_ops:mcpserverincident_acknowledge", args=[incident.pk])
    assert client.post(address, {"return_url": server.get_absolute_url()}).url == server.get_absolute_url()
    assert "acknowledged by root" in banner(client, server)


def test_an_address_elsewhere_is_no_place_to_return_to(client):
    incident = add_incident(add("one", "Unhealthy"))
    address = reverse("plugins:ai_ops:mcpserverincident_acknowledge", args=[incident.pk])
    assert client.post(address, {"return_url": "https://evil.example.com/"}).url == incident.get_absolute_url()


def test_a_user_sees_of_the_incident_what_the_permissions_allow(db):
    server = add("one", "Unhealthy")
    incident = add_incident(server)
    text = banner(client_of(user_who_may("ai_ops.view_mcpserver")), server)
    assert "Down since" in text
    assert str(incident.pk) not in text
    assert "answered 500" not in text
    MCPServer.objects.update(status=Status.objects.get_for_model(MCPServer).get(name="Healthy"))
    MCPServerHealth.objects.update(ok=None)
    text = banner(client_of(user_who_may("ai_ops.view_mcpserver")), server)
    assert "Not checked in time" in text
    assert "answered 500" not in text


def table_of(client: Client, name: str) -> str:
    address = reverse(f"plugins:ai_ops:{name}_list")
    return client.get(address, headers={"HX-Request": "true"}).content.decode()


def test_the_list_begins_with_problems_and_tells_unknown_from_down(client):
    add("a-well")
    add("b-down", "Unhealthy", recent="1100")
    add("c-new", "Unhealthy", checked=None)
    add("d-stdio", "Unhealthy", checked=None, protocol="stdio", url="")
    flapping = add("e-flapping")
    MCPServerHealth.objects.filter(server=flapping).update(flapping=True)
    page = table_of(client, "mcpserver")
    places = [page.index(f">{name}<") for name in ("b-down", "e-flapping", "a-well", "c-new", "d-stdio")]
    assert places == sorted(places)
    assert page.count("Not checked yet") == page.count("Never checked (STDIO)") == 1
    assert 'aria-label="Last 4 probes: 2 well, 2 failed"' in page


def test_a_bulk_edit_shows_uptimes_too(client):
    server = add("one")
    server.checks.create(time=timezone.now(), ok=True, latency_ms=1, probes=4, failures=1)
    page = client.post(reverse("plugins:ai_ops:mcpserver_bulk_edit"), {"pk": [server.pk]}).content.decode()
    assert "75 %" in page


def test_open_incidents_come_first_and_several_are_acknowledged_at_once(client):
    now = timezone.now()
    closed = add_incident(name="closed later", opened=now, closed=now)
    open_ones = [add_incident(name=f"open {number}") for number in range(3)]
    page = table_of(client, "mcpserverincident")
    assert page.index("open 0") < page.index("closed later")
    for word in ("Outage", "Open", "Closed"):
        assert f">{word}</span>" in page
    address = reverse("plugins:ai_ops:mcpserverincident_bulk_acknowledge")
    client.post(address, {"pk": [str(closed.pk), "no id", *(str(each.pk) for each in open_ones[:2])]})
    assert set(MCPServerIncident.objects.filter(acknowledged__isnull=False)) == set(open_ones[:2])


def test_a_user_who_may_only_acknowledge_has_boxes_and_a_button(db):
    incident = add_incident()
    client = client_of(user_who_may("ai_ops.view_mcpserverincident", "ai_ops.acknowledge_mcpserverincident"))
    assert f'value="{incident.pk}"' in table_of(client, "mcpserverincident")
    assert "Acknowledge Selected" in client.get(reverse("plugins:ai_ops:mcpserverincident_list")).content.decode()


def test_a_user_who_may_only_view_has_neither(db):
    incident = add_incident()
    client = client_of(user_who_may("ai_ops.view_mcpserverincident"))
    assert f'value="{incident.pk}"' not in table_of(client, "mcpserverincident")
    assert "Acknowledge Selected" not in client.get(reverse("plugins:ai_ops:mcpserverincident_list")).content.decode()
    address = reverse("plugins:ai_ops:mcpserverincident_bulk_acknowledge")
    assert client.post(address, {"pk": [incident.pk]}).status_code == 403


def test_all_open_incidents_of_a_server_are_on_its_page_and_acknowledged_from_there(client):
    server = add("one", "Unhealthy")
    drift = add_incident(server, name="a drift", kind="drift", opened=timezone.now())
    outage = add_incident(server)
    text = banner(client, server)
    assert text.index("an outage") < text.index("a drift"), "what agents miss first"
    assert "Acknowledge all 2" in text
    address = reverse("plugins:ai_ops:mcpserverincident_bulk_acknowledge")
    data = {"pk": [drift.pk, outage.pk], "return_url": server.get_absolute_url()}
    assert client.post(address, data).url == server.get_absolute_url()
    text = banner(client, server)
    assert text.count("acknowledged by root") == 2
    assert "Acknowledge all" not in text


def test_the_incidents_in_the_table_of_a_servers_page_begin_with_the_open_ones(client):
    server, now = add("one"), timezone.now()
    add_incident(server, name="closed later", opened=now, closed=now)
    add_incident(server, name="still open")
    page = client.get(server.get_absolute_url()).content.decode()
    table = page[page.index("<!-- end of the banner -->") :]
    assert table.index("still open") < table.index("closed later")


def test_a_chart_has_its_figures_as_a_table_for_screen_readers(client):
    server = add("one")
    server.checks.create(time=timezone.now(), ok=True, latency_ms=123.4, probes=3, failures=1)
    page = client.get(server.get_absolute_url()).content.decode()
    assert 'role="img" aria-label="Latency: a chart of the figures in the table that follows"' in page
    table = page[page.index("<caption>Latency</caption>") :]
    table = table[: table.index("</table>")]
    assert '<th scope="col">p50</th>' in table
    assert "<td>123.4</td>" in table


def test_the_list_has_the_reason_in_words_for_users_who_may_view_checks(client):
    add("one", "Unhealthy")
    add("two")
    page = table_of(client, "mcpserver")
    assert page.count(MESSAGE) == 1
    assert "answered 200" not in page, "what is well needs no reason"
    assert MESSAGE not in table_of(client_of(user_who_may("ai_ops.view_mcpserver")), "mcpserver")
