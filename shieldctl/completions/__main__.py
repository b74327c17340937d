"""Write the completion files beside this module."""

from __future__ import annotations

from pathlib import Path

from shieldctl.completions import FILES_MADE


def main() -> None:
    """Write each file."""
    for name, make in FILES_MADE.items():
        (Path(__file__).parent / name).write_text(make())


if __name__ == "__main__":
    main()
