"""Every action of our pages and of REST: it takes the permission to view, then its own, and its button follows.

The actions are found from the addresses, so that a new one is tested by itself. It needs an entry here only where its
model has none, or where what is sent to it is its own.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.testing import extract_page_body
from nautobot.extras.models import Job, JobResult, ScheduledJob, Status
from nautobot.users.models import ObjectPermission, Token

from ai_ops import urls
from ai_ops.api import urls as api_urls
from ai_ops.choices import RunStateChoices
from ai_ops.models import (
    CheckpointStorageSnapshot,
    MaintenanceRun,
    MCPServer,
    MCPServerIncident,
    MCPServerTool,
    MCPServerToolSet,
    RetentionPolicy,
)
from ai_ops.schedules import ensure_schedule
from ai_ops.schedules.control import pause_schedule
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import graph, on
from tests.fakes.runs import recorded

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("running_jobs")]

PAGES, API = "plugins:ai_ops:", "plugins-api:ai_ops-api:"
OURS = "ai_ops."
MODELS = [*apps.get_app_config("ai_ops").get_models(), Job, ScheduledJob, JobResult]
# What a viewset has from Nautobot, and overrides, is an action of ours too.
OVERRIDDEN = {"create": ("post", "list"), "update": ("put", "detail"), "destroy": ("delete", "detail")}


@dataclass(frozen=True)
class Action:
    """An action that a user starts by one request.

    Attributes:
        name: Of the address.
        method: In lower case.
        model: Of the object that it acts on, or of which it makes one.
        right: What the action is called, and so the permission that is its own.
        on_object: Whether the address has an object's id.
        choice: Which button of the page, where one address has several actions.
    """

    name: str
    method: str
    model: type[Model]
    right: str
    on_object: bool
    choice: str | None = None

    @property
    def makes_one(self) -> bool:
        """Return whether no object exists yet that could be viewed."""
        return self.right == "create"

    @property
    def adds_one(self) -> bool:
        """Return whether it creates an object, which no permission for some objects can match beforehand."""
        return self.right == "test"

    @property
    def is_page(self) -> bool:
        return self.name.startswith(PAGES)

    def address(self, target: Model) -> str:
        return reverse(self.name, kwargs={"pk": target.pk} if self.on_object else None)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.method.upper(), self.name.rpartition(":")[2], self.choice)))


def ours(function: Any) -> bool:
    return getattr(function, "__module__", "").startswith(OURS)


def extra_actions(router, space):
    """The actions that viewsets have beside those of Nautobot."""
    for _, viewset, basename in router.registry:
        for extra in filter(ours, viewset.get_extra_actions()):
            for method, name in extra.mapping.items():
                if method != "get":
                    model = viewset.queryset.model
                    # Done to many objects, it takes the same right as done to one.
                    right = name.removeprefix("bulk_")
                    yield Action(f"{space}{basename}_{extra.url_name}", method, model, right, extra.detail)


def api_actions():
    for action in extra_actions(api_urls.router, API):
        basename, _, name = action.name.rpartition("_")
        yield Action(f"{basename}-{name}", action.method, action.model, action.right, action.on_object)
    for _, viewset, basename in api_urls.router.registry:
        for name, (method, route) in OVERRIDDEN.items():
            if ours(getattr(viewset, name, None)):
                model = viewset.queryset.model
                yield Action(f"{API}{basename}-{route}", method, model, name, route == "detail")


def page_actions():
    yield from extra_actions(urls.router, PAGES)
    for pattern in urls.urlpatterns:
        view = getattr(pattern.callback, "view_class", None)
        if view is None or not ours(getattr(view, "post", None)):
            continue
        for choice in getattr(view, "actions", [None]):
            yield Action(PAGES + pattern.name, "post", view.queryset.model, choice or pattern.name, False, choice)


# To erase a thread takes the permission to look at threads, which are in no table of their own.
VIEWED = {f"{API}thread-erase": CheckpointStorageSnapshot}
ACTIONS = [replace(each, model=VIEWED.get(each.name, each.model)) for each in (*page_actions(), *api_actions())]
# Actions on a conversation, which must be in Redis.
ON_A_THREAD = ("thread_erase", "thread-erase")
THREAD = "a conversation"


def make_server(_):
    server = MCPServer.objects.create(
        name="Tickets", url="http://mcp.example.com", status=Status.objects.get_for_model(MCPServer).get(name="Healthy")
    )
    make_tool_set(server=server)
    return server


def make_tool_set(_=None, server=None):
    server = server or MCPServer.objects.create(name="Tickets", url="http://mcp.example.com")
    now = timezone.now()
    MCPServerTool.objects.create(
        server=server, name="count", state="changed", since=now, first_seen=now, hash="b", approved_hash="a"
    )
    return MCPServerToolSet.objects.create(server=server, asked=now, listed=now, listed_hash="b", approved_hash="a")


def make_tool(_):
    return MCPServerTool.objects.get(server=make_tool_set().server)


def make_policy(_):
    return RetentionPolicy.objects.create(name="Short", thread_patterns="short-*", retention="1d")


def make_incident(_):
    return MCPServerIncident.objects.create(name="Tickets: DOWN", reason="DOWN", opened=timezone.now())


def make_run(action):
    if action.right == "delete_now":
        counters = {"dryrun": True, "deleted_count": 7}
        return recorded("cleanup", owner=None, options={"dryrun": True}, counters=counters)
    states = {"cancel": RunStateChoices.RUNNING, "repeat": RunStateChoices.SUCCEEDED}
    return recorded("storage", state=states.get(action.right, RunStateChoices.DEAD), owner=None)


def make_schedule(action):
    schedule = ensure_schedule("health")
    return pause_schedule("health") if action.right == "resume" else schedule


def make_snapshot(_):
    return CheckpointStorageSnapshot.objects.create(data={"success": False, "error": "Redis is away."})


TARGETS = {
    MCPServer: make_server,
    MCPServerTool: make_tool,
    MCPServerToolSet: make_tool_set,
    RetentionPolicy: make_policy,
    MCPServerIncident: make_incident,
    MaintenanceRun: make_run,
    ScheduledJob: make_schedule,
    CheckpointStorageSnapshot: make_snapshot,
}
# What a request brings that has no object in its address.
BODIES = {
    f"{API}maintenancerun-list": {"kind": "storage"},
    f"{API}schedule-list": {"kind": "storage"},
    f"{API}thread-erase": {"thread_ids": [THREAD], "reason": "a request"},
}


class Visitor:
    """A user whose permissions change, by page and by REST."""

    # A new action's own right is among them.
    RIGHTS = sorted({"add", "change", "delete", "run", *(action.right for action in ACTIONS), "approve"})
    ELSEWHERE = {"pk": str(uuid.UUID(int=7))}

    def __init__(self):
        self.user = get_user_model().objects.create(username="visitor")
        self.token = Token.objects.create(user=self.user).key
        self.browser = Client()
        self.browser.force_login(self.user)

    def has(self, *grants):
        """Give the user these permissions alone, each of models, actions and, where there are any, constraints."""
        ObjectPermission.objects.filter(users=self.user).delete()
        for number, (models, actions, *constraints) in enumerate(grants):
            permission = ObjectPermission.objects.create(
                name=f"grant {number}", actions=list(actions), constraints=constraints[0] if constraints else None
            )
            permission.object_types.add(*ContentType.objects.get_for_models(*models).values())
            permission.users.add(self.user)

    def asks_for(self, action, target):
        """Send the request; the status of the answer."""
        address = action.address(target)
        # What a user has seen of tools.
        hashed = {"listed_hash": "b", "hash": "b"}
        if action.is_page:
            data = {"action": action.choice or "", "pk": str(target.pk), "name": getattr(target, "name", ""), **hashed}
            # The answer of a page that asks before it does something.
            data |= {"interval": "900", "_confirm": "", "pattern": "user-*", "thread_id": THREAD, "reason": "a request"}
            return self.browser.post(address, data).status_code
        headers = {"Authorization": f"Token {self.token}"}
        decides = action.right in ("approve", "reject")
        data = BODIES.get(action.name, hashed) if not action.on_object or decides else {}
        answer = getattr(Client(), action.method)(address, data, content_type="application/json", headers=headers)
        return answer.status_code

    def sees_button(self, action, page):
        """Return whether the page has the action's button; its address, or its name where several share one."""
        address, where = page
        answer = self.browser.get(where)
        body = extract_page_body(answer.content.decode()) if answer.status_code == 200 else ""
        # A link leads to a page that asks first.
        opens = (f'href="{address}"', f'href="{address}?')
        buttons = (f'value="{action.choice}"',) if action.choice else (f'action="{address}"', *opens)
        return any(button in body for button in buttons)


def rows():
    """Everything that an action could change, as PostgreSQL writes it; one query for all tables."""
    tables = [model._meta.db_table for model in MODELS if model is not Job]
    parts = (f"SELECT '{table}', each.id::text, each::text FROM {table} each" for table in tables)
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts) + " ORDER BY 1, 2")
        return cursor.fetchall()


def page_of(action, target):
    """The address of the action, and of the page on which its button is."""
    address = action.address(target)
    if "_bulk_" in action.name:
        return address, reverse(action.name.partition("_bulk_")[0] + "_list")
    if action.name.endswith("incident_test"):
        return address, reverse(f"{PAGES}mcpserverincident_list")
    if action.name.endswith(ON_A_THREAD):
        return address, f"{reverse(f'{PAGES}threads')}?thread_id={THREAD}"
    if not action.is_page or not action.on_object:
        pages = {"sample": f"{PAGES}checkpointstorage", "search": f"{PAGES}threads"}
        page = pages.get(address.rstrip("/").rpartition("/")[2])
        return address, reverse(page) if page else address
    return address, target.get_absolute_url()


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_an_action_takes_the_right_to_view_and_then_its_own(action, request):
    if action.name.endswith(ON_A_THREAD):
        saver = CompactRedisSaver(request.getfixturevalue("checkpoint_redis"))
        graph(saver).invoke({"said": ["hello"]}, on(THREAD))
    target = TARGETS[action.model](action)
    if action.makes_one:
        ScheduledJob.objects.all().delete()
    visitor, rights, page = Visitor(), Visitor.RIGHTS, page_of(action, target)
    others = [model for model in MODELS if model is not action.model]
    before = rows()

    def refused(*statuses):
        assert visitor.asks_for(action, target) in statuses
        assert rows() == before, "a refused action changed something"

    visitor.has()
    refused(403, 404)
    if not action.makes_one:
        visitor.has((others, ["view", *rights]), ([action.model], rights))
        refused(403, 404)
    if action.on_object or action.choice:
        visitor.has(
            (others, ["view", *rights]), ([action.model], rights), ([action.model], ["view"], visitor.ELSEWHERE)
        )
        refused(403, 404)
    for grants in ([(MODELS, ["view"])], [(MODELS, ["view"]), (MODELS, rights, visitor.ELSEWHERE)]):
        visitor.has(*grants)
        refused(403)
    # As Nautobot's own buttons to add, one is shown to users who may add some.
    assert visitor.sees_button(action, page) is (action.is_page and action.adds_one)

    if action.is_page:
        may_not_run = [model for model in MODELS if model is not Job]
        visitor.has((MODELS, ["view"]), (may_not_run, rights))
        shown = visitor.sees_button(action, page)
        status = visitor.asks_for(action, target)
        assert shown is (status != 403), "a button for what is refused, or none for what is done"
        if rows() != before:
            return
    visitor.has((MODELS, ["view", *rights]))
    assert visitor.sees_button(action, page) is action.is_page
    if action.is_page and not action.choice:
        # A user who had to log in first comes back with a GET.
        assert visitor.browser.get(action.address(target)).status_code in (200, 302)
        assert rows() == before
    assert visitor.asks_for(action, target) < 400
    assert rows() != before


def test_the_actions_are_found():
    found = set(map(str, ACTIONS))
    assert found >= {
        *(
            "POST maintenancerun_discard",
            "POST mcpserver_check",
            "POST mcpserver_approve_tools",
            "POST mcpserver_set_vulnerable",
            "POST mcpservertool_approve",
            "POST mcpservertool-reject",
            "POST mcpserverincident_test",
            "POST thread_erase",
            "POST thread-erase",
            "POST retentionpolicy_try",
            "POST schedules pause",
        ),
        *("POST deadletters redrive", "POST checkpointstorage_sample", "POST thread_search"),
        "POST maintenancerun-list",
        *("POST mcpservertoolset-approve", "POST schedule-resume", "DELETE schedule-detail", "POST schedule-list"),
    }


def test_a_schedule_that_the_user_may_not_view_is_not_changed_by_its_name():
    ensure_schedule("storage")
    visitor, before = Visitor(), rows()
    (make,) = (action for action in ACTIONS if str(action) == "POST schedule-list")
    visitor.has(([Job], ["run"]), ([ScheduledJob], ["add", "change"]))
    assert visitor.asks_for(make, None) == 403
    assert rows() == before


def test_a_schedule_is_made_only_where_the_permission_to_add_covers_it():
    visitor = Visitor()
    (make,) = (action for action in ACTIONS if str(action) == "POST schedule-list")
    visitor.has(
        ([Job], ["run"]), ([ScheduledJob], ["view", "add"], {"job_model__job_class_name": "CleanupCheckpointsJob"})
    )
    assert visitor.asks_for(make, None) == 403
    assert not ScheduledJob.objects.exists()
    visitor.has(([Job], ["run"]), ([ScheduledJob], ["view", "add"], {"job_model__module_name__startswith": OURS}))
    assert visitor.asks_for(make, None) == 201
