"""The filters of maintenance runs."""

from datetime import timedelta

from django.utils import timezone
from nautobot.apps.testing import FilterTestCases
from nautobot.extras.models import JobResult
from nautobot.users.models import User

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.filters import MaintenanceRunFilterSet
from ai_ops.models import MaintenanceRun


class MaintenanceRunFilterTest(FilterTestCases.BaseFilterTestCase):
    queryset = MaintenanceRun.objects.all()
    filterset = MaintenanceRunFilterSet

    @classmethod
    def setUpTestData(cls):
        now = timezone.now()
        cls.owner = User.objects.create(username="Ada")
        cls.result = JobResult.objects.create(name="a Job")
        dead = {"kind": MaintenanceKindChoices.CLEANUP, "state": RunStateChoices.DEAD, "error": "Redis is away."}
        MaintenanceRun.objects.create(name="dead", trigger=RunTriggerChoices.SCHEDULE, **dead)
        MaintenanceRun.objects.create(name="discarded", trigger=RunTriggerChoices.REST, discarded=now, **dead)
        MaintenanceRun.objects.create(
            name="redriven",
            kind=MaintenanceKindChoices.CLEANUP,
            trigger=RunTriggerChoices.REDRIVE,
            state=RunStateChoices.SUCCEEDED,
            parent=MaintenanceRun.objects.create(
                name="has a redrive",
                trigger=RunTriggerChoices.JOB,
                kind=MaintenanceKindChoices.STORAGE,
                state=RunStateChoices.DEAD,
            ),
            execution_time_ms=1200,
        )
        MaintenanceRun.objects.create(
            name="one server",
            kind=MaintenanceKindChoices.SERVER,
            trigger=RunTriggerChoices.JOB,
            state=RunStateChoices.RUNNING,
            subject="Tickets",
            owner=cls.owner,
            job_result=cls.result,
        )
        MaintenanceRun.objects.filter(name="discarded").update(created=now - timedelta(days=2))

    def names(self, **params):
        found = self.filterset(params, self.queryset)
        assert found.is_valid(), found.errors
        return sorted(run.name for run in found.qs)

    def test_runs_are_found_by_what_they_are_and_how_they_ended(self):
        for params, names in (
            ({"kind": ["server"]}, ["one server"]),
            ({"state": ["dead", "succeeded"]}, ["dead", "discarded", "has a redrive", "redriven"]),
            ({"trigger": ["rest"]}, ["discarded"]),
            ({"subject": ["Tickets"]}, ["one server"]),
            ({"has_error": True}, ["dead", "discarded"]),
            ({"has_error": False}, ["has a redrive", "one server", "redriven"]),
            ({"is_dead_letter": True}, ["dead"]),
            ({"is_dead_letter": False}, ["discarded", "has a redrive", "one server", "redriven"]),
            ({"execution_time_ms__gte": [1000]}, ["redriven"]),
        ):
            with self.subTest(params):
                assert self.names(**params) == names

    def test_runs_are_found_by_whose_they_are(self):
        for params in ({"owner": ["Ada"]}, {"owner": [str(self.owner.pk)]}, {"job_result": [str(self.result.pk)]}):
            with self.subTest(params):
                assert self.names(**params) == ["one server"]
        for parent in ("has a redrive", str(MaintenanceRun.objects.get(name="has a redrive").pk)):
            with self.subTest(parent):
                assert self.names(parent=[parent]) == ["redriven"]

    def test_runs_are_found_by_time(self):
        yesterday = (timezone.now() - timedelta(days=1)).isoformat()
        assert self.names(created__lt=[yesterday]) == ["discarded"]
        assert "discarded" not in self.names(created__gte=[yesterday])

    def test_a_search_looks_into_name_subject_and_error(self):
        assert self.names(q="redriven") == ["redriven"]
        assert self.names(q="tickets") == ["one server"]
        assert self.names(q="redis is") == ["dead", "discarded"]
