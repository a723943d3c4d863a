"""Pinned threads."""

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import OrganizationalModel, extras_features
from nautobot.extras.signals import change_context_state

from ai_ops.logic.globs import why_no_glob

# PostgreSQL indexes at most 2,704 bytes of a text (MySQL 3,072), and a character may take four bytes.
THREAD_ID_MAX_LENGTH = 640


@extras_features(
    "custom_links",
    "custom_validators",
    "export_templates",
    "graphql",
    "webhooks",
)
class PinnedThread(OrganizationalModel):
    """A conversation whose checkpoints the cleanup keeps regardless of their age.

    The thread need not exist: a user may pin it before its first checkpoint.
    """

    thread_id = models.CharField(
        max_length=THREAD_ID_MAX_LENGTH,
        unique=True,
        verbose_name="thread ID",
        help_text="Exactly as in the agent's configuration: spaces and case matter.",
        error_messages={"unique": "This thread is pinned already."},
    )
    is_glob = models.BooleanField(
        default=False,
        verbose_name="is a pattern",
        help_text="Treat the thread ID as a glob, such as user-42-*, and pin all matching threads.",
    )
    note = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH,
        blank=True,
        help_text="Reason why the thread must stay, and until when, for other operators.",
    )
    pinned_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
        help_text="Empty for a pin created in a shell, or by a deleted user.",
    )

    class Meta:
        """Model options."""

        ordering = ["thread_id"]

    def __str__(self):
        return self.thread_id

    def clean(self):
        """Require a valid glob if the thread ID is one."""
        super().clean()
        if self.is_glob and (reason := why_no_glob(self.thread_id)):
            raise ValidationError({"thread_id": reason})

    def save(self, *args, **kwargs):
        """Save with the user of the change. Pages, REST, imports and Jobs provide it."""
        context = change_context_state.get()
        if context is not None and not self.present_in_database:
            self.pinned_by = context.get_user(self)
        super().save(*args, **kwargs)
