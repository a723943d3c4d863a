"""The schedules of a new installation, and an operator's changes to them."""

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import TestCase, override_settings
from nautobot.apps import nautobot_database_ready
from nautobot.apps.choices import ColorChoices
from nautobot.extras.models import Job, JobResult, ScheduledJob, Status

from ai_ops.models import MCPServer, ProvisioningRecord
from ai_ops.schedules import DEFAULT_SCHEDULES, SERVICE_USER, find_job
from tests.fakes.jobs import delete_schedules

TURNED_OFF = override_settings(PLUGINS_CONFIG={"ai_ops": {"provision_schedules": False}})


def database_ready():
    """Send what Nautobot sends at the end of every migrate, to this app alone."""
    config = apps.get_app_config("ai_ops")
    nautobot_database_ready.send(sender=config, app_config=config, apps=apps, using="default")


def schedule_of(kind):
    return ScheduledJob.objects.filter(job_model=find_job(kind)).first()


def status_names():
    return sorted(Status.objects.get_for_model(MCPServer).values_list("name", flat=True))


@pytest.fixture(autouse=True)
def no_schedules():
    """Leave the schedules that a class has provisioned for its tests."""


class NewInstallation(TestCase):
    """An installation on which nothing of the app has been provisioned yet."""

    @classmethod
    def setUpTestData(cls):
        delete_schedules()
        ProvisioningRecord.objects.all().delete()
        get_user_model().objects.filter(username=SERVICE_USER).delete()
        Job.objects.filter(module_name__startswith="ai_ops.").update(enabled=False)
        Status.objects.filter(name__in=("Healthy", "Unhealthy", "Vulnerable")).delete()


class ProvisionedInstallation(NewInstallation):
    """An installation whose first migrate has provisioned everything."""

    @classmethod
    def setUpTestData(cls):
        super().setUpTestData()
        database_ready()


class NewStatusesTest(NewInstallation):
    def test_mcp_servers_get_four_statuses_in_telling_colours(self):
        Status.objects.filter(name="Maintenance").delete()
        database_ready()
        colours = dict(Status.objects.get_for_model(MCPServer).values_list("name", "color"))
        assert colours == {
            "Healthy": ColorChoices.COLOR_GREEN,
            "Unhealthy": ColorChoices.COLOR_RED,
            "Vulnerable": ColorChoices.COLOR_AMBER,
            "Maintenance": ColorChoices.COLOR_GREY,
        }

    def test_a_status_that_nautobot_has_already_is_shared_and_keeps_its_colour(self):
        Status.objects.create(name="Healthy", color="123456")
        database_ready()
        assert Status.objects.get(name="Healthy").color == "123456"
        assert "Healthy" in status_names()


class StatusesTest(ProvisionedInstallation):
    def test_provisioning_twice_changes_nothing(self):
        before = list(Status.objects.values_list("pk", "last_updated"))
        database_ready()
        assert list(Status.objects.values_list("pk", "last_updated")) == before

    def test_a_deleted_status_stays_deleted(self):
        Status.objects.get(name="Vulnerable").delete()
        database_ready()
        assert status_names() == ["Healthy", "Maintenance", "Unhealthy"]

    def test_a_renamed_status_keeps_its_name_and_comes_back_under_no_other(self):
        Status.objects.filter(name="Vulnerable").update(name="At risk")
        database_ready()
        assert status_names() == ["At risk", "Healthy", "Maintenance", "Unhealthy"]

    def test_a_status_taken_from_mcp_servers_is_not_given_back(self):
        maintenance = Status.objects.get(name="Maintenance")
        maintenance.content_types.remove(*maintenance.content_types.filter(app_label="ai_ops"))
        database_ready()
        assert "Maintenance" not in status_names()


class NewSchedulesTest(NewInstallation):
    def test_a_job_of_a_button_that_has_run_before_stays_disabled_and_is_named(self):
        JobResult.objects.create(name="a run", job_model=find_job("search"), status="SUCCESS")
        with self.assertLogs("ai_ops.provisioning", "WARNING") as told:
            database_ready()
            database_ready()
        assert not find_job("search").enabled
        (line,) = told.output
        assert '"Find Threads" was not enabled, since it has run before. To have it, enable it on its page' in line

    @TURNED_OFF
    def test_one_setting_turns_schedules_off_and_leaves_statuses_and_jobs_alone(self):
        database_ready()
        assert not ScheduledJob.objects.exists()
        assert not find_job("health").enabled
        assert not get_user_model().objects.filter(username=SERVICE_USER).exists()
        assert Status.objects.get_for_model(MCPServer).exists()

    def test_the_setting_may_be_turned_on_later(self):
        with TURNED_OFF:
            database_ready()
        database_ready()
        assert schedule_of("health") is not None

    def test_an_installation_that_has_run_the_job_before_gets_no_schedule_of_it(self):
        JobResult.objects.create(name="a run", job_model=find_job("health"), status="SUCCESS")
        with self.assertLogs("ai_ops.provisioning", "WARNING") as told:
            database_ready()
        assert schedule_of("health") is None
        assert not find_job("health").enabled
        # The log says why, and how to get it all the same.
        (line,) = told.output
        assert '"MCP Server Health Check" got no default schedule, since it has run before' in line
        namespace = {}
        exec(line.partition("nbshell: ")[2], namespace)
        assert schedule_of("health").enabled

    def test_messages_that_no_worker_took_are_no_use_of_a_job(self):
        JobResult.objects.create(name="left by an earlier installation", job_model=find_job("health"))
        database_ready()
        assert schedule_of("health").enabled

    def test_an_installation_with_a_schedule_of_its_own_gets_no_other(self):
        job = find_job("health")
        ScheduledJob.create_schedule(job, None, name="mine", interval="custom", crontab="0 * * * *", job_kwargs={})
        database_ready()
        assert list(ScheduledJob.objects.filter(job_model=job).values_list("name", flat=True)) == ["mine"]

    def test_a_job_that_nautobot_does_not_know_yet_is_scheduled_by_the_next_migrate(self):
        Job.objects.filter(pk=find_job("health").pk).update(installed=False)
        database_ready()
        assert not ProvisioningRecord.objects.filter(key="schedule:health").exists()
        Job.objects.filter(job_class_name="MCPServerHealthCheckJob").update(installed=True)
        database_ready()
        assert schedule_of("health") is not None

    def test_a_schedule_of_that_name_for_another_job_does_not_make_a_migrate_fail(self):
        other = Job.objects.exclude(module_name__startswith="ai_ops.").first()
        name = DEFAULT_SCHEDULES["health"].name
        ScheduledJob.create_schedule(other, None, name=name, interval="custom", crontab="0 * * * *", job_kwargs={})
        with self.assertLogs("ai_ops.provisioning", level="WARNING") as logs:
            database_ready()
        assert "give another name" in logs.output[0]
        assert not ProvisioningRecord.objects.filter(key="schedule:health").exists()


class SchedulesTest(ProvisionedInstallation):
    def test_all_jobs_are_scheduled_and_enabled(self):
        for kind, default in DEFAULT_SCHEDULES.items():
            with self.subTest(kind):
                schedule = schedule_of(kind)
                assert (schedule.name, schedule.crontab) == (default.name, default.crontab)
                assert schedule.enabled
                assert find_job(kind).enabled

    def test_the_job_that_a_button_of_a_page_asks_for_is_enabled_once_and_an_erasure_is_not(self):
        assert find_job("search").enabled
        assert not find_job("erasure").enabled
        Job.objects.filter(pk=find_job("search").pk).update(enabled=False)
        database_ready()
        assert not find_job("search").enabled, "what an operator disabled stays so"

    def test_each_runs_in_its_time_and_expires_when_the_next_is_due(self):
        assert schedule_of("cleanup").celery_kwargs["expires"] == 24 * 60 * 60
        assert schedule_of("health").celery_kwargs["expires"] == 10 * 60
        assert schedule_of("storage").celery_kwargs["expires"] == 60 * 60
        assert schedule_of("supervisor").celery_kwargs["expires"] == 60

    def test_they_belong_to_a_user_without_a_login(self):
        user = schedule_of("health").user
        assert user.username == SERVICE_USER
        assert not user.is_active
        assert not user.is_superuser
        assert not user.has_usable_password()

    def test_provisioning_twice_makes_no_second_schedule(self):
        database_ready()
        assert ScheduledJob.objects.count() == len(DEFAULT_SCHEDULES)

    def test_a_deleted_schedule_stays_deleted_after_a_real_migrate(self):
        ScheduledJob.objects.all().delete()
        call_command("migrate", verbosity=0)
        assert not ScheduledJob.objects.exists()

    def test_a_disabled_schedule_stays_disabled(self):
        schedule = schedule_of("health")
        schedule.enabled = False
        schedule.validated_save()
        database_ready()
        assert not schedule_of("health").enabled

    def test_a_renamed_and_changed_schedule_stays_as_it_is(self):
        schedule = schedule_of("health")
        schedule.name, schedule.crontab = "mine", "0 * * * *"
        schedule.validated_save()
        database_ready()
        assert list(ScheduledJob.objects.filter(job_model=schedule.job_model).values_list("name", "crontab")) == [
            ("mine", "0 * * * *")
        ]

    def test_a_job_disabled_by_an_operator_stays_disabled(self):
        job = find_job("health")
        job.enabled = False
        job.validated_save()
        database_ready()
        assert not find_job("health").enabled

    def test_a_deleted_service_user_is_not_made_again(self):
        get_user_model().objects.get(username=SERVICE_USER).delete()
        database_ready()
        assert not get_user_model().objects.filter(username=SERVICE_USER).exists()
        assert schedule_of("health").user is None


def test_jobs_are_known_to_nautobot_before_this_app_provisions():
    """Nautobot's own receiver makes the Jobs' rows; it is asked app by app, in this order."""
    labels = [config.label for config in apps.get_app_configs()]
    assert labels.index("extras") < labels.index("ai_ops")


@pytest.mark.django_db
def test_nothing_is_provisioned_where_the_app_is_not_migrated():
    class NoTables:
        @staticmethod
        def get_model(app_label, name):
            raise LookupError

    ProvisioningRecord.objects.all().delete()
    config = apps.get_app_config("ai_ops")
    nautobot_database_ready.send(sender=config, app_config=config, apps=NoTables, using="default")
    assert not ProvisioningRecord.objects.exists()
