"""What is printed: tables and colour on a terminal, tab-separated lines when piped, JSON when asked for.

Nothing that comes from a file name, a process or the daemon reaches the terminal as a control character or as markup.
Piped output is never cut. `rich` is imported only where a terminal is looked at.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from shieldd.errors import ShieldError

if TYPE_CHECKING:
    from rich.console import Console

STYLES: Final = {
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "fail": "bold red",
    "failed": "red",
    "error": "bold red",
    "blind": "bold red",
    "contain": "bold red",
    "quarantine": "red",
    "seal": "cyan",
    "sealed": "cyan",
    "alert": "yellow",
    "degraded": "yellow",
    "warn": "yellow",
    "skipped": "yellow",
    "missing": "yellow",
    "pending": "cyan",
    "open": "yellow",
    "ok": "green",
    "ready": "green",
    "done": "green",
    "active": "green",
    "resolved": "green",
}

#: Columns whose words have a colour, and columns that show a date to the second on a terminal.
STATES: Final = ("state", "severity", "action", "check")
DATES: Final = ("opened", "created", "sealed")
FOLDED: Final = 24  # cells that the last column needs at least to be folded into


def clean(text: str) -> str:
    r"""Text for a terminal or a line: control, format and stray characters as `\xNN` or `\u{…}`.

    Names come from the daemon with these escaped already (and their backslashes doubled), so backslashes stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in text)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0xA0 else f"\\u{{{code:x}}}"


def cell(value: object) -> str:
    """One value for a table: empty for nothing, `-` for what is not there, yes and no, printable text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return clean(str(value))


def size(count: int) -> str:
    """Bytes in binary units, three figures."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{count} B" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.4g} TiB"


class EnoughError(Exception):
    """Whoever reads our standard output has gone (`| head`): there is nobody to tell anything more."""


def write(text: str) -> None:
    """Put text on standard output.

    Raises:
        EnoughError: nobody reads it. Not an `OSError`, which the command parser would turn into a failure.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise EnoughError from error


def write_bytes(content: bytes) -> None:
    """Put the content of a file on standard output, as it is.

    Raises:
        EnoughError: nobody reads it.
    """
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise EnoughError from error


class Screen:
    """Standard output and standard error of one command.

    Args:
        as_json: print JSON and nothing else on standard output.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._console: Console | None = None

    def json(self, value: object) -> None:
        """One JSON value on one line."""
        write(json.dumps(value, ensure_ascii=False) + "\n")

    def line(self, text: str, style: str = "") -> None:
        """One line of text."""
        if self.terminal and style:
            from rich.text import Text  # noqa: PLC0415  (start-up time)

            self._rich().print(Text(clean(text), style))
        else:
            write(clean(text) + "\n")

    def row(self, fields: Sequence[object], style: str = "") -> None:
        """One record that came just now: two blanks between fields on a terminal, a tab when piped."""
        chosen = [cell(field) for field in fields]
        if self.terminal:
            self.line("  ".join(chosen), style)
        else:
            write("\t".join(chosen) + "\n")

    def pairs(self, rows: Iterable[tuple[str, object]]) -> None:
        """Names and values, aligned on a terminal, tab-separated when piped."""
        chosen = [(name, cell(value)) for name, value in rows]
        if not self.terminal:
            write("".join(f"{name}\t{value}\n" for name, value in chosen))
            return
        from rich.table import Table  # noqa: PLC0415

        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in chosen:
            table.add_row(name, _styled(value))
        self._rich().print(table)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
        """A table; `empty` is said on standard error where there are no rows."""
        chosen = [[cell(value) for value in row] for row in rows]
        if not chosen:
            self.note(empty)
            return
        if not self.terminal:
            write("\n".join("\t".join(row) for row in ([column.upper() for column in columns], *chosen)) + "\n")
            return
        from rich.table import Table  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        shown = [[_in_column(column, value) for column, value in zip(columns, row, strict=True)] for row in chosen]
        widths = [max(len(name), *(row[at].cell_len for row in shown)) for at, name in enumerate(columns)]
        beside = _beside(widths, self._rich().width)
        if beside < len(columns):
            self._stacked(columns, shown, widths, beside)
            return
        for column in columns:
            # what a person copies (a name, an id) is folded, never cut
            table.add_column(column.upper(), overflow="fold", no_wrap=column in ("id", "at", *DATES))
        for row in shown:
            table.add_row(*row)
        self._rich().print(table)

    def _stacked(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], widths: list[int], beside: int) -> None:
        """A table on a terminal that is too narrow: columns beyond the first `beside` stand below their row."""
        from rich.padding import Padding  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = self._rich()
        head = [column.upper().ljust(width) for column, width in zip(columns, widths, strict=True)]
        console.print(Text("  ".join(head[:beside]).rstrip(), "bold"))
        for row in rows:
            line = Text()
            for text, width in zip(row[:beside], widths, strict=False):
                line.append_text(text).append(" " * (width - text.cell_len + 2))
            line.rstrip()
            console.print(line)
            rest = Text(overflow="fold")
            for column, text in list(zip(columns, row, strict=True))[beside:]:
                if text.plain not in ("", "-"):
                    rest.append(f"{'  ' if rest else ''}{column} ").append_text(text)
            if rest:
                console.print(Padding(rest, (0, 0, 0, 4)))

    def note(self, text: str) -> None:
        """A remark for a person, on standard error."""
        if not self.as_json:
            sys.stderr.write(clean(text) + "\n")

    def _rich(self) -> Console:
        if self._console is None:
            from rich.console import Console  # noqa: PLC0415

            self._console = Console(highlight=False, markup=False, emoji=False)
        return self._console


def _beside(widths: Sequence[int], width: int) -> int:
    """How many columns stand beside one another: all, where the last one has room enough to be folded into."""
    if sum(widths[:-1]) + 2 * (len(widths) - 1) + min(widths[-1], FOLDED) <= width:
        return len(widths)
    used = 0
    for at, wanted in enumerate(widths):
        used += wanted + (2 if at else 0)
        if used > width:
            return max(at, 1)
    return len(widths)


def _in_column(column: str, value: str) -> Any:
    """A value as its column shows it: states in colour, dates to the second."""
    from rich.text import Text  # noqa: PLC0415

    if column in DATES and len(value) == 24:
        return Text(f"{value[:10]} {value[11:19]}Z")
    return _styled(value) if column in STATES else Text(value)


def _styled(value: str) -> Any:
    from rich.text import Text  # noqa: PLC0415

    return Text(value, STYLES.get(value, ""))


def print_error(error: ShieldError, *, as_json: bool) -> None:
    """An error on standard error: a sentence and the next command, or one JSON object."""
    if as_json:
        body = {"code": error.code, "detail": error.message, "hint": error.hint, "exit": error.exit_status}
        sys.stderr.write(json.dumps(body, ensure_ascii=False) + "\n")
        return
    sys.stderr.write(f"shieldctl: {clean(error.message)}\n")
    if error.hint:
        sys.stderr.write(f"hint: {clean(error.hint)}\n")
