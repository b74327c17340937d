"""Reasons and numbers as JSON text inside a row, and unsigned 64-bit numbers as SQLite's signed ones."""

from __future__ import annotations

import json
from typing import Final

from shieldd.model.decision import Reason

_WRAP: Final = 1 << 64


def reasons_text(reasons: tuple[Reason, ...]) -> str:
    """`[[feature, contribution, text], …]`; names that are no UTF-8 survive as surrogates escaped by JSON."""
    return json.dumps([[reason.feature, reason.contribution, reason.text] for reason in reasons])


def reasons_from(text: str) -> tuple[Reason, ...]:
    """The way back."""
    return tuple(Reason(feature, contribution, words) for feature, contribution, words in json.loads(text))


def signed(number: int) -> int:
    """An unsigned 64-bit number as SQLite can hold it."""
    return number - _WRAP if number >> 63 else number


def unsigned(number: int) -> int:
    """The way back."""
    return number % _WRAP


def storable(text: str) -> str:
    """Text that SQLite can hold: lone surrogates (bytes that were no UTF-8) become `?`."""
    return text.encode("utf-8", "replace").decode()
