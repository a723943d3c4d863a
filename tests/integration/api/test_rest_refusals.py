"""REST's answers to nonsense: a 400 in which each text is a sentence without Python's notation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from ai_ops.api.serializers import RunRequestSerializer, ScheduleRequestSerializer
from ai_ops.api.urls import router
from ai_ops.config import CleanupOptions
from ai_ops.models import MCPServer, MCPServerToolSet

pytestmark = pytest.mark.django_db

NONSENSE = [
    None,
    True,
    -1,
    1.5,
    10**30,
    "",
    " ",
    "nonsense",
    "\0",
    "'\"<b>",
    "x" * 3000,
    [],
    ["a"],
    [None],
    {},
    {"a": 1},
]
NO_OBJECTS = ["text", 7, None, True, [7], [None], ["text"]]

# What Python writes and no sentence has: its constants, objects, exceptions, containers, and texts in single quotes.
PYTHON = re.compile(
    r"""\b(None|True|False)\b | <[\w.]+\ object | <class | datetime\. | \w+\( | ErrorDetail | Error: | Traceback
        | [\[{(]['"] | (?<!\w)'[^']*'(?!\w) | \bb['"]""",
    re.VERBOSE,
)


@pytest.fixture
def rest(running_jobs, headers):
    """A client whose user may do everything."""
    return Client(headers=headers)


def texts(answer: Any) -> Iterator[str]:
    """All texts in an answer, wherever they are."""
    if isinstance(answer, dict):
        for value in answer.values():
            yield from texts(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from texts(value)
    else:
        yield str(answer)


def assert_sentences(answer, what):
    assert answer.status_code < 500, what
    if answer.status_code == 400:
        for text in texts(answer.json()):
            assert not PYTHON.search(text), f"{what}: {text}"
    return answer.status_code


def send(rest, method, address, data):
    answer = getattr(rest, method)(address, data, content_type="application/json")
    return assert_sentences(answer, f"{method} {address} {data!r}"[:300])


def writable(viewset):
    """The fields of what is made there, and whether the first that is wrong is all that is told."""
    requests = {"schedule": ScheduleRequestSerializer, "maintenancerun": RunRequestSerializer}
    own = requests.get(viewset_name(viewset))
    if own:
        return list(own().fields), True
    fields = viewset.serializer_class(context={"request": None}).fields
    # What Nautobot makes of these is its own: of custom fields that are no object, an error of the server.
    not_ours = {"custom_fields", "tags"}
    return [name for name, field in fields.items() if not field.read_only and name not in not_ours], False


def viewset_name(viewset):
    return next(basename for _, each, basename in router.registry if each is viewset)


MADE = [viewset for _, viewset, _ in router.registry if hasattr(viewset, "create")]


@pytest.mark.parametrize("viewset", MADE, ids=viewset_name)
def test_nonsense_in_any_field_is_refused_in_sentences(rest, viewset):
    address = reverse(f"plugins-api:ai_ops-api:{viewset_name(viewset)}-list")
    fields, one_by_one = writable(viewset)
    for value in NONSENSE:
        send(rest, "post", address, dict.fromkeys(fields, value))
        if one_by_one:
            for field in fields:
                send(rest, "post", address, {"kind": "cleanup", field: value})
    for data in NO_OBJECTS:
        assert send(rest, "post", address, data) == 400
    assert send(rest, "post", address, {"kind": "cleanup", "unknown": 1}) == 400
    assert assert_sentences(rest.post(address, "{", content_type="application/json"), "half an object") == 400


def test_nonsense_in_any_option_is_refused_in_sentences(rest):
    options = [*CleanupOptions.__dataclass_fields__, "dryrun", "time_limit", "server", "shard"]
    for value in NONSENSE:
        for option in options:
            kind = {"server": "server", "shard": "health"}.get(option, "cleanup")
            send(
                rest,
                "post",
                reverse("plugins-api:ai_ops-api:maintenancerun-list"),
                {"kind": kind, "options": {option: value}},
            )


def test_nonsense_in_a_change_and_in_an_approval_is_refused_in_sentences(rest):
    server = MCPServer.objects.create(name="one", url="http://one.example.com")
    tools = MCPServerToolSet.objects.create(server=server, asked=timezone.now(), listed_hash="a")
    one = reverse("plugins-api:ai_ops-api:mcpserver-detail", kwargs={"pk": server.pk})
    approve = reverse("plugins-api:ai_ops-api:mcpservertoolset-approve", kwargs={"pk": tools.pk})
    fields, _ = writable(next(viewset for viewset in MADE if viewset_name(viewset) == "mcpserver"))
    for value in NONSENSE:
        send(rest, "patch", one, dict.fromkeys(fields, value))
        assert send(rest, "post", approve, {"listed_hash": value}) in (400, 409)
    for data in NO_OBJECTS:
        send(rest, "patch", one, data)
        assert send(rest, "post", approve, data) == 400


# Conversations are in no table: there is no list of them to filter.
LISTED = [each for _, each, _ in router.registry if getattr(each, "filterset_class", None)]


@pytest.mark.parametrize("viewset", LISTED, ids=viewset_name)
def test_nonsense_in_a_filter_is_refused_in_sentences(rest, viewset):
    address = reverse(f"plugins-api:ai_ops-api:{viewset_name(viewset)}-list")
    filters = list(viewset.filterset_class.base_filters)
    # Nautobot itself takes a NUL in a filter to its database, which refuses it.
    for value in ("nonsense", "'\"<b>", "x" * 300, "-1", ""):
        for query in (dict.fromkeys(filters, value), {"unknown": value}, {"limit": value}, {"sort": value}):
            assert_sentences(rest.get(address, query), f"{address} {value!r} {list(query)[:3]}")
