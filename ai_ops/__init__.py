"""AI Ops: keeps the machinery behind Nautobot's AI agents healthy."""

from importlib import metadata

from django.conf import settings
from django.core.checks import register
from django.db.models.signals import post_delete, post_save, pre_migrate, pre_save
from nautobot.apps import NautobotAppConfig, nautobot_database_ready

__version__ = metadata.version("nautobot-app-ai-ops")


class AiOpsConfig(NautobotAppConfig):
    """Configuration of the app for Nautobot."""

    name = "ai_ops"
    verbose_name = "AI Ops"
    version = __version__
    author = "AI Ops maintainers"
    description = "Keeps LangGraph checkpoints and MCP servers healthy."
    base_url = "ai-ops"
    min_version = "3.2.0"
    max_version = "3.99.99"
    docs_view_name = "plugins:ai_ops:docs"
    searchable_models = ["mcpserver", "pinnedthread"]

    def ready(self):
        """Register with Nautobot, check the settings, and provision when the database is ready."""
        from ai_ops.checks import check_settings, confirm_installed_alone, refuse_its_database

        confirm_installed_alone()
        super().ready()
        # Models can only be imported once all apps are loaded.
        from celery.signals import beat_init
        from health_check.plugins import plugin_dir
        from nautobot.extras.models import Job, ScheduledJob

        from ai_ops.api.choice_names import name_choices
        from ai_ops.overview.health_endpoint import CheckpointRedisHealth, LastRunsHealth
        from ai_ops.provisioning import provision
        from ai_ops.runs.approvals import follow_decision, follow_deletion
        from ai_ops.schedules.approval import follow_change, note_before
        from ai_ops.schedules.beat import follow_beat
        from ai_ops.schedules.control import follow_job, follow_settings
        from ai_ops.schedules.ends import follow_subject
        from ai_ops.schedules.subjects import SUBJECTS

        register(check_settings)
        for check in (CheckpointRedisHealth, LastRunsHealth):
            plugin_dir.register(check)
        name_choices(settings)
        pre_migrate.connect(refuse_its_database, sender=self)
        nautobot_database_ready.connect(provision, sender=self)
        post_save.connect(follow_decision, sender=ScheduledJob)
        post_delete.connect(follow_deletion, sender=ScheduledJob)
        pre_save.connect(note_before, sender=ScheduledJob)
        post_save.connect(follow_change, sender=ScheduledJob)
        post_save.connect(follow_job, sender=Job)
        for subject in SUBJECTS.values():
            post_delete.connect(follow_subject, sender=subject.model)
        beat_init.connect(follow_settings)
        beat_init.connect(follow_beat)


config = AiOpsConfig  # pylint: disable=invalid-name
