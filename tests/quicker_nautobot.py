"""Lets Nautobot and its libraries do once what they would do again with the same result; no answer changes."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from types import FunctionType, SimpleNamespace
from typing import Any

# Of these a deep copy is the object itself.
NEVER_COPIED = (str, int, bool, type(None), type, FunctionType)
KEPT_MENUS = 50
# Custom fields, computed fields, relationships and rules of data validation.
OF_A_MODEL = "*for_model*(*"


def repeat_less() -> None:
    """Change Nautobot in this process, once it has been set up."""
    make_the_menu_once()
    render_a_menu_once()
    copy_filters_quickly()
    keep_what_no_model_has()
    list_logged_models_once()
    check_names_once()
    time_no_queries()
    read_the_version_of_redis_once()
    ask_for_changes_if_any_were_made()
    label_filters_once()


def make_the_menu_once() -> None:
    """Make Nautobot's menu once for each request that shows it, rather than for each template that a page is built of.

    A page is built of some ten templates, and only one of them has the menu. To ask for the rights of all entries each
    time took a seventh of the processor time of the tests of pages.
    """
    from nautobot.core import context_processors

    make = context_processors.nav_menu

    def make_once(request: Any) -> dict[str, Any]:
        # REST's requests are wrapped, each time anew.
        request = getattr(request, "_request", request)
        if not hasattr(request, "menu_of_the_tests"):
            request.menu_of_the_tests = make(request)
        return request.menu_of_the_tests

    context_processors.nav_menu = make_once


def render_a_menu_once() -> None:
    """Write the HTML of menus with the same entries once; it took a tenth of the processor time of a page."""
    from django.template import engines

    template = engines["django"].engine.get_template("inc/nav_menu.html")
    render, kept = template._render, {}

    def render_once(context: Any) -> str:
        request = context["request"]
        menu, versions = context["nav_menu"], context["nav_menu_version_control"]
        favorites = getattr(request.user, "navbar_favorites", None)
        # All that the template reads, but for settings that no test changes.
        read = repr(
            (dict(menu), versions, request.user.is_authenticated, favorites, request.COOKIES.get("sidenav_collapsed"))
        )
        if read not in kept:
            if len(kept) == KEPT_MENUS:
                kept.clear()
            kept[read] = render(context)
        return kept[read]

    template._render = render_once


def copy_filters_quickly() -> None:
    """Copy no text and no number of a filter; each list and each request of REST copies some sixty filters.

    The copy is as deep as Python's own, which took a twelfth of the processor time of the tests of pages and REST.
    """
    from django_filters.filters import Filter

    def copied(value: Any, memo: dict[int, Any]) -> Any:
        if isinstance(value, NEVER_COPIED):
            return value
        if type(value) is dict:
            return {key: copied(each, memo) for key, each in value.items()}
        return deepcopy(value, memo)

    def copy(filter_: Filter, memo: dict[int, Any]) -> Filter:
        new = filter_.__class__.__new__(filter_.__class__)
        memo[id(filter_)] = new
        new.__dict__ |= copied(filter_.__dict__, memo)
        return new

    Filter.__deepcopy__ = copy


def keep_what_no_model_has() -> None:
    """Keep in the cache, which Nautobot's test cases clear, that a model has no custom fields, relationships and rules.

    That is true of the database as a test finds it. A test that adds one has Nautobot forget it, as in production.
    To ask and to note it again in each test took an eighth of the processor time of the tests with these cases.
    """
    from django.core.cache import cache
    from django_redis import get_redis_connection
    from nautobot.core.testing import mixins

    kept: dict[bytes, bytes] = {}

    class Cleared:
        @staticmethod
        def clear() -> None:
            server = get_redis_connection()
            if new := [key for key in server.keys(OF_A_MODEL) if key not in kept]:
                kept.update(
                    (key, value)
                    for key, value in zip(new, server.mget(new), strict=True)
                    if len(cache.client.decode(value)) == 0
                )
            cache.clear()
            if kept:
                server.mset(kept)

    mixins.cache = Cleared


def list_logged_models_once() -> None:
    """Ask once which models have a change log, rather than for each change after a test case has cleared the cache."""
    from nautobot.extras import jobs

    ask = jobs.change_logged_models_queryset
    jobs.change_logged_models_queryset = lru_cache(maxsize=None)(lambda: list(ask()))


def check_names_once() -> None:
    """Check each name in Nautobot's GraphQL schema once: there are a hundred thousand, mostly the same."""
    from graphql.type import definition

    definition.assert_name = lru_cache(maxsize=None)(definition.assert_name)


def time_no_queries() -> None:
    """Leave out the metrics of each query, which no test reads; they took a fortieth of the processor time of tests."""
    from django_prometheus.db.backends.postgresql import base

    base.ExportingCursorWrapper = lambda cursor_class, alias, vendor: cursor_class


def read_the_version_of_redis_once() -> None:
    """Read once, and not for each client, which version of its library tells the server of itself; it is in a file."""
    from redis import utils

    utils.get_lib_version = lru_cache(maxsize=None)(utils.get_lib_version)


def ask_for_changes_if_any_were_made() -> None:
    """Ask for the changes of a request only if it made some, which few do: Nautobot asks after each, for its webhooks.

    The query took a twentieth of the processor time of the tests of pages and REST.
    """
    from django.db.models.signals import post_save
    from nautobot.extras import context_managers
    from nautobot.extras.models import ObjectChange

    requests: set[Any] = set()

    def note(instance: ObjectChange, **_: Any) -> None:
        requests.add(instance.request_id)

    def bulk_create(changes: list[ObjectChange], **options: Any) -> list[ObjectChange]:
        requests.update(change.request_id for change in changes)
        return ObjectChange.objects.bulk_create(changes, **options)

    def select_related(*names: str) -> Any:
        def of_a_request(request_id: Any) -> Any:
            if request_id not in requests:
                return none
            return ObjectChange.objects.select_related(*names).filter(request_id=request_id)

        return SimpleNamespace(filter=of_a_request)

    none: Any = SimpleNamespace(order_by=lambda _: none, defer=lambda *_: none, iterator=lambda: iter(()))
    post_save.connect(note, sender=ObjectChange, weak=False)
    # As that module uses the model.
    context_managers.ObjectChange = SimpleNamespace(
        objects=SimpleNamespace(bulk_create=bulk_create, select_related=select_related)
    )


def label_filters_once() -> None:
    """Put the labels of filters together once: each list and each request of REST does for some sixty of them."""
    from django_filters import filters

    filters.label_for_filter = lru_cache(maxsize=None)(filters.label_for_filter)
