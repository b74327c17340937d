"""Composition root: run a command, and turn every end into an exit status of shieldctl(1)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

import typer

from shieldctl.app import build
from shieldctl.render import EnoughError, print_error
from shieldd.errors import ShieldError

# the parser's error classes are not exported by name: BadParameter -> UsageError -> ClickException
USAGE: Final = cast("type[Any]", typer.BadParameter.__mro__[1])
INTERRUPTED: Final = 130
REFUSED: Final = cast("type[Any]", typer.BadParameter.__mro__[2])


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Returns:
        The exit status.
    """
    as_json = "--json" in arguments
    try:
        status = build()(args=list(arguments), prog_name="shieldctl", standalone_mode=False)
        sys.stdout.flush()
    except ShieldError as error:
        print_error(error, as_json=as_json)
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except (EnoughError, BrokenPipeError):
        # whoever read our output had enough (`| head`): nothing failed, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except USAGE as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return 2
        help_for = error.ctx.command_path if error.ctx is not None else "shieldctl"
        text = error.format_message().rstrip(".")
        wrong = ShieldError("cli.usage", text[:1].lower() + text[1:], hint=f"{help_for} --help")
        print_error(wrong, as_json=as_json)
        return wrong.exit_status
    except REFUSED as error:
        print_error(ShieldError("cli.usage", error.format_message()), as_json=as_json)
        return 2
    if status == INTERRUPTED:
        print_error(ShieldError("cli.interrupted"), as_json=as_json)
    return status if isinstance(status, int) else 0


def main() -> None:
    """Entry point of the `shieldctl` program."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
