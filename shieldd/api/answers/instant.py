"""Points in time in answers: wall clock, ns since 1970; 0 = has not happened."""

from __future__ import annotations

from typing import Annotated, Final

INSTANT: Final = "instant"
Instant = Annotated[int, INSTANT]
