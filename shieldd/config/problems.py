"""What is wrong with a configuration: file, key, reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shieldd.errors import ShieldError


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault.

    Attributes:
        code: `config.*`.
        file: the file as it was named, or "command line".
        key: dotted, such as `guard.contain_limit` or `tree[0].path`; empty where the file itself is at fault.
        reason: what is wrong, lower case, without a full stop.
    """

    code: str
    file: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.key}: {self.reason}" if self.key else f"{self.file}: {self.reason}"


class ConfigError(ShieldError):
    """All problems of one configuration; its code is that of the first, its message one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems[0].code, "\n".join(str(problem) for problem in self.problems))
