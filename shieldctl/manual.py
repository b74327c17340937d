"""The part of shieldctl(1) that is made from the code: the table of errors.

`python -m shieldctl.manual [man/shieldctl.1.scd]` writes it between its two marks; a test compares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from shieldd.errors import CODES

BEGIN: Final = "; errors: begin (made by python -m shieldctl.manual)\n"
END: Final = "; errors: end\n"


def error_table() -> str:
    """All codes with exit status and title, as a table of scdoc(5)."""
    lines = ["|[ *code*", ":[ *exit*", ":[ *meaning*"]
    for code, entry in CODES.items():
        lines += [f"|  {_plain(code)}", f":  {entry.exit}", f":  {_plain(entry.title)}"]
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """A manual page with its table as it should be.

    Raises:
        ValueError: the page has no marks.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no marks for the table of errors")
    return f"{head}{BEGIN}\n{error_table()}\n{END}{tail}"


def _plain(text: str) -> str:
    """Text without what scdoc reads as markup."""
    return text.replace("\\", "\\\\").replace("_", "\\_").replace("*", "\\*")


def main() -> None:
    """Rewrite the page."""
    page = Path(sys.argv[1] if len(sys.argv) > 1 else "man/shieldctl.1.scd")
    page.write_text(with_table(page.read_text()))


if __name__ == "__main__":
    main()
