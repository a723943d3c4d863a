"""Findings of a supervisor pass: those of each sub-check, and a summary line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Findings:
    """The findings of one sub-check of the supervisor.

    Attributes:
        checked: Things that were looked at.
        fixed: Those of them that were put right.
        unfixable: Those that are wrong and stay so, until an operator has looked at them.
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
    """Return a summary of fixed and unfixable findings by sub-check, without sub-checks that have none."""
    parts = []
    for name, found in findings.items():
        counts = {"fixed": found.fixed, "unfixable": found.unfixable}
        if said := ", ".join(f"{number:,} {what}" for what, number in counts.items() if number):
            parts.append(f"{name}: {said}")
    return "; ".join(parts) or "nothing to do"
