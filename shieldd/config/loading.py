"""From bytes to sections: reads the file, checks who may write it, validates, and names every problem at once."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from shieldd.config.problems import ConfigError, Problem
from shieldd.config.sections import DaemonMode, DaemonSection
from shieldd.model.names import printable

FILE_LIMIT_BYTES: Final = 1 << 20  # a configuration is a few kilobytes; more is a mistake or an attack
ARGUMENTS: Final = "command line"
MACHINE_ID: Final = Path("/etc/machine-id")
_APPLICATION: Final = bytes.fromhex("9d6a1f0c52c84b5fa1d0e7b3c6489a21")  # ours, for machine-id(5) derivation

_Model = TypeVar("_Model", bound=BaseModel)


def read(path: Path) -> dict[str, object]:
    """Parse a TOML file.

    Raises:
        ConfigError: `config.missing`, `config.unreadable`, `config.unsafe` (a regular file that only root or we may
            write is wanted), `config.syntax` with line and column.
    """
    file = str(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        code = "config.missing" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "config.unreadable"
        raise ConfigError([Problem(code, file, "", _reason(error))]) from error
    try:
        _only_ours(os.fstat(fd), file)
        raw = _all(fd)
    except OSError as error:
        raise ConfigError([Problem("config.unreadable", file, "", _reason(error))]) from error
    finally:
        os.close(fd)
    if len(raw) > FILE_LIMIT_BYTES:
        raise ConfigError([Problem("config.syntax", file, "", f"is larger than {FILE_LIMIT_BYTES} bytes")])
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise ConfigError([Problem("config.syntax", file, "", f"is not UTF-8 at byte {error.start}")]) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        text = str(error) or "is nested too deeply"
        raise ConfigError([Problem("config.syntax", file, "", text[:1].lower() + text[1:])]) from error


def build(model: type[_Model], data: Mapping[str, object], source: Path | None) -> _Model:
    """Validate; every fault becomes a problem.

    Raises:
        ConfigError: `config.key` and `config.value`.
    """
    file = ARGUMENTS if source is None else str(source)
    inside = sorted({"generation", "source", "loaded_at_ns"} & data.keys())
    problems = [Problem("config.key", file, key, "no such key") for key in inside]
    try:
        built = model.model_validate({key: value for key, value in data.items() if key not in inside})
    except ValidationError as error:
        problems += [_problem(file, item["loc"], item["type"], item["msg"]) for item in error.errors()]
        raise ConfigError(problems) from None
    if problems:
        raise ConfigError(problems)
    return built


def personal(protect: Sequence[Path], socket: Path | None, state_dir: Path | None) -> dict[str, object]:
    """The tables of personal mode, from arguments and XDG directories."""
    state = _here(state_dir) if state_dir is not None else _xdg("XDG_STATE_HOME", ".local/state") / "shieldd"
    keyfile = state / "keyfile" if state_dir is not None else _xdg("XDG_CONFIG_HOME", ".config") / "shieldd" / "keyfile"
    if socket is None:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        apart = state_dir is None and runtime.startswith("/")
        socket = Path(runtime) / "shieldd" / "shieldd.sock" if apart else state / "shieldd.sock"
    return {
        "daemon": {"mode": "personal", "state_dir": state, "socket": _here(socket)},
        "tree": [{"path": _here(path)} for path in protect],
        "keys": {"unlock": "keyfile", "keyfile": keyfile},
    }


def identified(daemon: DaemonSection, source: Path | None) -> DaemonSection:
    """Give the host its id where none is written: derived from machine-id(5) so that the machine's own stays private.

    Raises:
        ConfigError: `config.value` in service mode on a machine without one.
    """
    if daemon.host_id:
        return daemon
    try:
        machine = bytes.fromhex(MACHINE_ID.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        if daemon.mode is DaemonMode.SERVICE:
            file = ARGUMENTS if source is None else str(source)
            reason = f"is needed, since {MACHINE_ID} is not usable"
            raise ConfigError([Problem("config.value", file, "daemon.host_id", reason)]) from error
        machine = os.uname().nodename.encode()
    derived = hmac.new(machine, _APPLICATION, hashlib.sha256).digest()[:16].hex()
    return daemon.model_copy(update={"host_id": derived})


def plain(value: object) -> Any:
    """A value as JSON can hold it: paths printable, bytes in hex, enums as their values."""
    match value:
        case Enum():
            return value.value
        case Path():
            return printable(os.fsencode(value))
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
        case _:
            return value


def dotted(location: Sequence[int | str]) -> str:
    """`("tree", 0, "path")` → `tree[0].path`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _only_ours(info: os.stat_result, file: str) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError([Problem("config.unreadable", file, "", "is not a regular file")])
    if info.st_uid not in (0, os.geteuid()) or info.st_mode & stat.S_IWOTH:
        who = f"owner uid {info.st_uid}, mode {stat.S_IMODE(info.st_mode):04o}"
        raise ConfigError([Problem("config.unsafe", file, "", f"may be written by others ({who})")])


def _all(fd: int) -> bytes:
    """At most one byte more than the limit."""
    raw = b""
    while len(raw) <= FILE_LIMIT_BYTES and (piece := os.read(fd, FILE_LIMIT_BYTES + 1 - len(raw))):
        raw += piece
    return raw


def _problem(file: str, location: Sequence[int | str], kind: str, message: str) -> Problem:
    key = printable(dotted(location).encode("utf-8", "surrogateescape"))
    if kind == "extra_forbidden":
        return Problem("config.key", file, key, "no such key")
    if kind == "missing":
        return Problem("config.value", file, key, "is missing")
    reason = message.removeprefix("Value error, ").removeprefix("Input ")
    return Problem("config.value", file, key, reason[:1].lower() + reason[1:])


def _here(path: Path) -> Path:
    """Absolute from the working directory, `.` and `..` taken out of the text; links are left to be found."""
    return Path(os.path.abspath(path))


def _xdg(variable: str, fallback: str) -> Path:
    named = os.environ.get(variable, "")
    if named.startswith("/"):  # a relative one is to be ignored, says XDG
        return Path(named)
    try:
        return Path.home() / fallback
    except RuntimeError as error:
        reason = f"neither {variable} nor HOME says where; name a state directory"
        raise ConfigError([Problem("config.value", ARGUMENTS, "daemon.state_dir", reason)]) from error


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
