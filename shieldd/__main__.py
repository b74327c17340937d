"""shieldd(8): arguments in, daemon out. The parts are built in `compose`; this module only says which ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shieldd import __version__
from shieldd.errors import ShieldError
from shieldd.model.names import printable
from shieldd.signals import Signals

DEFAULT_CONFIG: Final = Path("/etc/shieldd/shieldd.toml")


def parser() -> argparse.ArgumentParser:
    """The command line, as shieldd(8) documents it."""
    top = argparse.ArgumentParser(prog="shieldd", description="Guards directory trees that hold patient data.")
    top.add_argument("--version", action="store_true", help="print version, ABI and policy, then exit")
    top.add_argument("--config", type=Path, metavar="FILE", help=f"configuration, by default {DEFAULT_CONFIG}")
    top.add_argument(
        "--check-config",
        nargs="?",
        const=DEFAULT_CONFIG,
        type=Path,
        metavar="FILE",
        help="check a configuration and exit: 0 good, 7 invalid",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser("run", help="guard directories as yourself, without configuration (personal mode)")
    run.add_argument("--protect", type=Path, action="append", required=True, metavar="DIR", help="a tree to guard")
    run.add_argument("--socket", type=Path, metavar="PATH", help="where shieldctl finds the daemon")
    run.add_argument("--state", type=Path, metavar="DIR", help="state directory")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon or answer a question about it; the exit status is the code's (see `shieldd.errors`)."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.version:
            return _version()
        if arguments.check_config is not None:
            return _check(arguments.check_config)
        signals = Signals()  # before the imports below: their libraries start threads, which inherit what is blocked
        from shieldd.compose import Daemon  # noqa: PLC0415 - --version and --check-config need none of it
        from shieldd.config import Config  # noqa: PLC0415

        if arguments.command == "run":
            config = Config.personal(arguments.protect, socket=arguments.socket, state_dir=arguments.state)
        else:
            config = Config.load(arguments.config or DEFAULT_CONFIG)
        return Daemon(config).serve(signals)
    except ShieldError as error:
        where = f" ({printable(error.path)})" if error.path else ""
        print(f"shieldd: {error.message}{where} [{error.code}]", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_status


def _version() -> int:
    from shieldd.judge import shipped_version  # noqa: PLC0415
    from shieldd.native._abi import ABI_VERSION  # noqa: PLC0415 - the compiled core takes a moment

    print(f"shieldd {__version__} (abi {ABI_VERSION}, policy {shipped_version() or 'none'})")
    return 0


def _check(path: Path) -> int:
    from shieldd.config import Config, ConfigError  # noqa: PLC0415

    try:
        config = Config.load(path)
        if config.guard.yara_rules or config.guard.digests:
            from shieldd.judge import scanner  # noqa: PLC0415 - takes a moment

            scanner(config)  # what would end the start, or refuse a reload
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return error.exit_status
    except ShieldError as error:
        key = "yara_rules" if error.code == "scan.rules" else "digests"
        print(f"{path}:guard.{key}: {error.message}", file=sys.stderr)
        return error.exit_status
    print(f"{path}: good")
    return 0


if __name__ == "__main__":
    sys.exit(main())
