"""The attackers' tools: real programs of this host that read the clear file and write the encrypted one.

Each is run with the original as standard input and the new file as standard output, both opened by descriptor. The
passphrase is in the arguments: nobody is to be protected from these.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shieldd.errors import ShieldError

_PHRASE: Final = "drill"
_PREPARE_S: Final = 20.0  # key generation and the like, once


@dataclass(frozen=True, slots=True)
class Tool:
    """One way to encrypt from standard input to standard output.

    Attributes:
        program: looked up on PATH.
        arguments: `{home}` stands for a private directory of the drill, `{recipient}` for a public key made there.
        suffix: what the attacker appends to names.
        recipient_from: program that makes a key pair, empty where none is needed.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    suffix: str
    recipient_from: str = ""


TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        Tool("openssl", "openssl", ("enc", "-aes-256-cbc", "-pbkdf2", "-salt", "-pass", f"pass:{_PHRASE}"), ".locked"),
        Tool(
            "gpg",
            "gpg",
            (
                "--homedir",
                "{home}",
                "--batch",
                "--quiet",
                "--no-options",
                "--no-symkey-cache",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                _PHRASE,
                "--cipher-algo",
                "AES256",
                "--s2k-count",  # an attacker in a hurry: the default costs a fifth of a second a file
                "1024",
                "--symmetric",
                "--output",
                "-",
            ),
            ".gpg",
        ),
        Tool("age", "age", ("-r", "{recipient}"), ".age", "age-keygen"),
        Tool("zip", "zip", ("-q", "-P", _PHRASE, "-", "-"), ".zip"),
    )
}


@dataclass(frozen=True, slots=True)
class Armed:
    """A tool that is ready to run: absolute program, arguments with all places filled in."""

    name: str
    argv: tuple[str, ...]
    suffix: str
    note: str  # what was asked for and is not there, empty otherwise


def choose(wanted: str) -> tuple[Tool, str]:
    """The tool asked for, or the first installed one with a sentence that says so.

    Raises:
        ShieldError: `drill.tool` when none is installed.
    """
    present = [tool for tool in TOOLS.values() if shutil.which(tool.program)]
    for tool in present:
        if tool.name == wanted:
            return tool, ""
    if not present:
        raise ShieldError("drill.tool")
    return present[0], f"{wanted} is not installed; {present[0].name} was used in its place"


@contextmanager
def armed(wanted: str) -> Iterator[Armed]:
    """Chooses a tool and makes what it needs in a private directory, which is removed at the end."""
    tool, note = choose(wanted)
    with tempfile.TemporaryDirectory(prefix="shield-drill-tool-") as home:
        recipient = _recipient(tool, Path(home)) if tool.recipient_from else ""
        program = shutil.which(tool.program) or tool.program
        arguments = (part.format(home=home, recipient=recipient) for part in tool.arguments)
        try:
            yield Armed(tool.name, (program, *arguments), tool.suffix, note)
        finally:
            if tool.program == "gpg":  # it starts an agent of its own for each home directory
                subprocess.run(
                    ["gpgconf", "--homedir", home, "--kill", "gpg-agent"],
                    check=False,
                    capture_output=True,
                    timeout=_PREPARE_S,
                )


def _recipient(tool: Tool, home: Path) -> str:
    made = subprocess.run(
        [tool.recipient_from, "-o", os.fspath(home / "key")],
        check=False,
        capture_output=True,
        text=True,
        timeout=_PREPARE_S,
    )
    words = made.stderr.split()
    if made.returncode or not words:
        raise ShieldError("drill.tool", f"{tool.recipient_from} made no key")
    return words[-1]
