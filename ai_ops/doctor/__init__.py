"""The doctor: goes through the set-up of an installation and says for each point that it is well, or what to do."""

from ai_ops.doctor.examination import CHECKS, examine
from ai_ops.doctor.logic import Finding, Outcome, exit_code

__all__ = ("CHECKS", "Finding", "Outcome", "examine", "exit_code")
