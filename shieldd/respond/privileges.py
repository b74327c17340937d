"""What a file that comes back is not given again, said out loud: bits and attributes that would give it powers.

A file that somebody got into a tree must not leave quarantine, or a seal, as a program that runs as its owner; who
wants that sets it again with chmod(1) and setcap(8).
"""

from __future__ import annotations

import stat
from typing import Final

from shieldd.model.names import printable
from shieldd.native.envelope import Opened

_BITS: Final = {
    stat.S_ISUID: "set-user-ID bit",
    stat.S_ISGID: "set-group-ID bit",
    stat.S_ISVTX: "sticky bit",
}
_CAPABILITIES: Final = b"security.capability"
SHOWN: Final = 5


def left_out(opened: Opened) -> str:
    """One sentence naming all that the file had and has no more, empty where it has everything."""
    words = [word for bit, word in _BITS.items() if opened.metadata.mode & bit]
    words += ["file capabilities"] if _CAPABILITIES in opened.skipped else []
    others = [name for name in opened.skipped if name != _CAPABILITIES]
    words += [f"attribute {printable(name)}" for name in others[:SHOWN]]
    words += [f"{len(others) - SHOWN} other attributes"] if len(others) > SHOWN else []
    return f"not given back: {', '.join(words)}" if words else ""


def told(why: str, left: str) -> str:
    """The reason of a record with what was left out."""
    return f"{why}; {left}" if left else why
