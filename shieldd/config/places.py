"""Whether the named places can be what they are meant for: trees to guard, a state directory apart from them.

Text and `lstat` only; what is opened later is opened beneath a root descriptor, so a swap in between gains nothing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shieldd.config.problems import ConfigError, Problem
from shieldd.model.names import printable

if TYPE_CHECKING:
    from shieldd.config.snapshot import Config

KERNEL_TREES: Final = tuple(map(Path, ("/proc", "/sys", "/dev")))
ALLOWED_INSIDE: Final = Path("/dev/shm")  # noqa: S108 - a plain tmpfs that happens to lie there


def check(config: Config, file: str, *, there: bool) -> None:
    """Check all places of a configuration.

    Args:
        config: to be checked.
        file: named in the problems.
        there: whether trees must exist.

    Raises:
        ConfigError: `config.tree` and `config.value`, all at once.
    """
    problems: list[Problem] = []
    if not config.tree:
        problems.append(Problem("config.tree", file, "tree", "name at least one directory to guard"))
    own = {
        "daemon.state_dir": config.daemon.state_dir,
        "keys.path": config.keystore_path,
        "keys.keyfile": config.keyfile_path,
    }
    for index, tree in enumerate(config.tree):
        key = f"tree[{index}].path"
        reasons = [_forbidden(tree.path)]
        if not reasons[0]:
            others = enumerate(config.tree[:index])
            reasons = [_in_the_way(tree.path, own), unfit(tree.path) if there else ""]
            reasons += [_overlap(tree.path, other.path, number) for number, other in others]
        problems += [Problem("config.tree", file, key, reason) for reason in reasons if reason]
    roots = {tree.path for tree in config.tree}
    for index, trust in enumerate(config.guard.trust):
        if trust.tree not in roots:
            problems.append(Problem("config.value", file, f"guard.trust[{index}].tree", "is not one of the trees"))
    if there and (reason := _linked(config.daemon.state_dir)):
        problems.append(Problem("config.value", file, "daemon.state_dir", reason))
    if problems:
        raise ConfigError(problems)


def unfit(path: Path) -> str:
    """Why a path cannot be guarded as it lies there: missing, not a directory, a link on the way; else empty."""
    if reason := _linked(path):
        return reason
    try:
        info = path.lstat()
    except OSError as error:
        return f"cannot be looked at: {os.strerror(error.errno or 0).lower()}"
    return "" if stat.S_ISDIR(info.st_mode) else "is not a directory"


def _linked(path: Path) -> str:
    """The first symbolic link on the way, in words; else empty. What is missing is no link."""
    for part in [*reversed(path.parents), path]:
        try:
            info = part.lstat()
        except OSError:
            return ""
        if stat.S_ISLNK(info.st_mode):
            return f"goes through the symbolic link {printable(os.fsencode(part))}; write the real path"
    return ""


def _forbidden(path: Path) -> str:
    if path == Path("/"):
        return "is the whole file system; name the directories that hold patient data"
    if path.is_relative_to(ALLOWED_INSIDE):
        return ""
    inside = next((place for place in KERNEL_TREES if path.is_relative_to(place)), None)
    return f"lies in {inside}, which holds no files of anybody" if inside else ""


def _in_the_way(path: Path, own: dict[str, Path]) -> str:
    for key, place in own.items():
        if place.is_relative_to(path):
            return f"holds shieldd's own {key}; guard what lies beside it, or keep the state elsewhere"
        if key == "daemon.state_dir" and path.is_relative_to(place):
            return "lies in shieldd's own daemon.state_dir"
    return ""


def _overlap(path: Path, other: Path, number: int) -> str:
    if path == other:
        return f"is the same as tree[{number}]"
    if path.is_relative_to(other):
        return f"lies inside tree[{number}]"
    if other.is_relative_to(path):
        return f"holds tree[{number}]"
    return ""
