"""The doctor: examines the set-up of an installation, and reports each point as well or gives advice."""

from ai_ops.doctor.examination import CHECKS, examine
from ai_ops.doctor.logic import Finding, Outcome, exit_code

__all__ = ("CHECKS", "Finding", "Outcome", "examine", "exit_code")
