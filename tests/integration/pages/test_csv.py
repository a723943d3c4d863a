"""CSV exports of this app: foreign text is no formula, and an import restores the exported objects."""

from __future__ import annotations

import csv
import io

import pytest
from django.contrib.contenttypes.models import ContentType
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.testing import TestCase, create_job_result_and_run_job
from nautobot.core.api.exceptions import SerializerNotFound
from nautobot.core.api.utils import get_serializer_for_model
from nautobot.extras.models import FileProxy

from ai_ops import models
from ai_ops.api.serializers import HarmlessInCSVMixin
from ai_ops.models import MCPServer, MCPServerIncident, MCPServerTool, PinnedThread, RetentionPolicy

pytestmark = pytest.mark.django_db

FORMULAS = ("=1+1", "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", " =1", '=HYPERLINK("http://evil")')
IMPORTED = {MCPServer, PinnedThread, RetentionPolicy}


def test_every_model_is_harmless_in_csv_or_can_be_imported_again():
    own = {each for each in vars(models).values() if isinstance(each, type) and hasattr(each, "_meta")}
    shown = {each for each in own if each._meta.app_label == "ai_ops" and _has_serializer(each)}
    assert shown > IMPORTED
    for model in shown:
        assert issubclass(get_serializer_for_model(model), HarmlessInCSVMixin) == (model not in IMPORTED), model


def _has_serializer(model):
    try:
        return get_serializer_for_model(model) is not None
    except SerializerNotFound:
        return False


class CSVTest(TestCase):
    def setUp(self):
        super().setUp()
        self.user.is_superuser = True
        self.user.save()

    def exported(self, model):
        """The rows of both ways to a CSV file: REST, and Export on the list's page."""
        address = reverse(f"plugins-api:ai_ops-api:{model._meta.model_name}-list")
        asked = self.client.get(address, {"format": "csv"})
        self.assertHttpStatus(asked, 200)
        job = create_job_result_and_run_job(
            "nautobot.core.jobs",
            "ExportObjectList",
            username=self.user.username,
            content_type=ContentType.objects.get_for_model(model).pk,
        )
        exported = FileProxy.objects.get(job_result=job).file.read().decode("utf-8-sig")
        return [list(csv.DictReader(io.StringIO(text, newline=""))) for text in (asked.content.decode(), exported)]

    def test_what_servers_say_is_no_formula(self):
        now = timezone.now()
        for number, formula in enumerate(FORMULAS):
            server = MCPServer.objects.create(name=f"{number}", url=f"http://{number}.example.com")
            MCPServerTool.objects.create(
                server=server, name=formula, description=formula, definition=formula, since=now, first_seen=now
            )
            MCPServerIncident.objects.create(name=formula, opened=now)
        for model in (MCPServerTool, MCPServerIncident):
            for rows in self.exported(model):
                assert {row["name"] for row in rows} == {f"'{formula}" for formula in FORMULAS}
                for row in rows:
                    for name, cell in row.items():
                        assert not cell.strip().startswith(tuple("=+-@")), (name, cell)

    def test_what_can_be_imported_comes_back_as_it_went(self):
        for formula in FORMULAS:
            PinnedThread.objects.create(thread_id=formula, note=formula.strip())
        before = set(PinnedThread.objects.values_list("thread_id", "note"))
        asked = self.client.get(reverse("plugins-api:ai_ops-api:pinnedthread-list"), {"format": "csv"}).content
        PinnedThread.objects.all().delete()
        address = reverse("plugins-api:ai_ops-api:pinnedthread-list")
        self.assertHttpStatus(self.client.post(address, asked, content_type="text/csv"), 201)
        assert set(PinnedThread.objects.values_list("thread_id", "note")) == before
