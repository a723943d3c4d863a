"""Retention policies."""

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import OrganizationalModel, extras_features
from nautobot.apps.utils import is_uuid

from ai_ops.exceptions import ConfigurationError
from ai_ops.logic.foreign_text import shown
from ai_ops.logic.globs import MAX_PATTERNS, split_lines, why_no_glob
from ai_ops.logic.policies import Policy, duration_text, read_duration

# Checkpoints of a namespace. The cleanup holds at most this number of them in memory.
MAX_KEPT = 10_000
MAX_CHECKPOINTS = 1_000_000
# MiB; Redis itself has a limit of 512 MiB for each key.
MAX_THREAD_MB = 1_048_576
MIB = 1024 * 1024


def validate_patterns(text: str) -> None:
    """Raise ValidationError unless each line of `text` is a valid glob."""
    patterns = split_lines(text)
    if not patterns:
        raise ValidationError("Enter at least one pattern, such as user-42-*.")
    if len(patterns) > MAX_PATTERNS:
        raise ValidationError(f"Enter at most {MAX_PATTERNS} patterns, or use a pattern that matches more.")
    if reasons := [reason for pattern in patterns if (reason := why_no_glob(pattern))]:
        raise ValidationError(reasons)


def validate_duration(text: str) -> None:
    """Raise ValidationError unless `text` is a number of hours or days, or forever."""
    try:
        read_duration(text)
    except ValueError as error:
        raise ValidationError(str(error)) from error


@extras_features(
    "custom_links",
    "custom_validators",
    "export_templates",
    "graphql",
    "webhooks",
)
class RetentionPolicy(OrganizationalModel):
    """A rule for the retention of the threads that match its patterns.

    The first enabled policy that matches a thread, by weight and then by name, applies to it. Empty fields get their
    value from the run's options, then from the settings.
    """

    name = models.CharField(max_length=CHARFIELD_MAX_LENGTH, unique=True)
    weight = models.PositiveIntegerField(
        default=1000,
        validators=[MaxValueValidator(1_000_000)],
        help_text="If several policies match a thread, the one with the lowest weight applies.",
    )
    enabled = models.BooleanField(default=True, help_text="The cleanup ignores disabled policies.")
    thread_patterns = models.TextField(
        validators=[validate_patterns],
        help_text="Globs for thread IDs, one per line, such as user-42-* or *-archive.",
    )
    retention = models.CharField(
        max_length=20,
        blank=True,
        validators=[validate_duration],
        help_text="Age after which checkpoints may be deleted: 12 hours, 30 days, forever. Leave empty to use "
        "the run's option.",
    )
    pending_retention = models.CharField(
        max_length=20,
        blank=True,
        validators=[validate_duration],
        help_text="Age for threads that wait for a user's answer. Leave empty to use the retention above, or the "
        "run's option if longer.",
    )
    trim_live_threads = models.BooleanField(
        null=True,
        blank=True,
        help_text="Whether old checkpoints of live threads are deleted too. Leave empty to use the run's option.",
    )
    keep_last = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_KEPT)],
        help_text="Minimum number of checkpoints that each namespace of a live thread keeps, regardless of age. Leave "
        "empty to use the run's option.",
    )
    max_checkpoints = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_CHECKPOINTS)],
        verbose_name="max checkpoints",
        help_text="Maximum number of checkpoints in each namespace, regardless of age. Leave empty for no limit.",
    )
    max_thread_mb = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_THREAD_MB)],
        verbose_name="max thread size (MiB)",
        help_text="Maximum memory of a thread; its oldest checkpoints are deleted first. Leave empty for no limit.",
    )
    description = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True)

    clone_fields = [
        "weight",
        "enabled",
        "thread_patterns",
        "retention",
        "pending_retention",
        "trim_live_threads",
        "keep_last",
        "max_checkpoints",
        "max_thread_mb",
    ]

    class Meta:
        """Model options."""

        ordering = ["weight", "name"]
        verbose_name_plural = "retention policies"

    def __str__(self):
        return self.name

    @property
    def patterns(self) -> list[str]:
        """Return the patterns as a list."""
        return split_lines(self.thread_patterns)

    def clean(self):
        """Require at least one rule, and no contradictions."""
        super().clean()
        if self.keep_last and self.max_checkpoints and self.keep_last > self.max_checkpoints:
            raise ValidationError(
                {"keep_last": f"Do not keep more than the limit allows ({self.max_checkpoints}), or raise the limit."}
            )

    def clean_fields(self, exclude=None):
        """Normalise the fields first, so that the saved lengths are validated."""
        self._normalize()
        super().clean_fields(exclude=exclude)

    def save(self, *args, **kwargs):
        """Normalise the fields also for code that saves without validation."""
        self._normalize()
        super().save(*args, **kwargs)

    @classmethod
    def find(cls, name_or_id: str) -> "RetentionPolicy":
        """Return the policy with this name or id.

        Raises:
            ConfigurationError: There is no such policy.
        """
        text = str(name_or_id).replace("\0", "")
        found = cls.objects.filter(pk=text).first() if is_uuid(text) else None
        found = found or cls.objects.filter(name=text).first()
        if found is None:
            raise ConfigurationError(f"There is no retention policy {shown(text)}: give its name or its id.")
        return found

    def as_policy(self) -> Policy:
        """Return the policy as a run applies it."""
        return Policy(
            name=self.name,
            patterns=tuple(self.patterns),
            retention=read_duration(self.retention) if self.retention else None,
            pending_retention=read_duration(self.pending_retention) if self.pending_retention else None,
            trim_live_threads=self.trim_live_threads,
            keep_last=self.keep_last,
            max_checkpoints=self.max_checkpoints,
            max_bytes=self.max_thread_mb * MIB if self.max_thread_mb else None,
        )

    def _normalize(self):
        if isinstance(self.thread_patterns, str):
            self.thread_patterns = "\n".join(dict.fromkeys(split_lines(self.thread_patterns)))
        for name in ("retention", "pending_retention"):
            value = getattr(self, name)
            try:
                setattr(self, name, duration_text(read_duration(value)) if value else "")
            except (ValueError, TypeError):
                continue  # the validator reports the fault
