"""A row under the guard's judgement: what stands so far, which rule decided it, and why."""

from __future__ import annotations

from dataclasses import dataclass

from shieldd.model.decision import Action, Reason, Severity, Verdict


@dataclass(slots=True)
class Judged:
    """A row under judgement."""

    action: Action
    verdict: Verdict
    rule: str = ""
    severity: Severity = Severity.INFORMATIONAL
    reasons: tuple[Reason, ...] = ()

    def raise_to(self, action: Action, rule: str, text: str, verdict: Verdict) -> None:
        """A rule that asks for at least this action."""
        self.reasons = (Reason(rule, 1.0, text), *self.reasons)
        if action > self.action:
            self.action, self.rule, self.verdict = action, rule, verdict
        elif not self.rule:
            self.rule = rule

    def lower_to(self, action: Action, rule: str, text: str) -> None:
        """A rule that allows at most this action."""
        if action < self.action:
            self.action, self.rule, self.verdict = action, rule, Verdict.LOWERED
            self.reasons = (*self.reasons, Reason(rule, -1.0, text))
