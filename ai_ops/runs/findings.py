"""Findings of a supervisor pass: those of each sub-check, and a summary line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Findings:
    """The findings of one sub-check of the supervisor.

    Attributes:
        checked: Number of checked objects.
        fixed: Number of fixed objects.
        unfixable: Number of objects with a problem that needs an operator.
    """

    checked: int = 0
    fixed: int = 0
    unfixable: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the findings as a dictionary for the report."""
        return asdict(self)

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.checked + other.checked, self.fixed + other.fixed, self.unfixable + other.unfixable)


def summary(findings: Mapping[str, Findings]) -> str:
    """Return a summary of fixed and unfixable findings by sub-check; sub-checks without findings are omitted."""
    parts = []
    for name, found in findings.items():
        counts = {"fixed": found.fixed, "unfixable": found.unfixable}
        if numbers := ", ".join(f"{number:,} {what}" for what, number in counts.items() if number):
            parts.append(f"{name}: {numbers}")
    return "; ".join(parts) or "nothing to do"
