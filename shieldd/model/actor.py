"""An actor: the processes behind events, grouped, with what is known of them.

Command lines hold passwords and keys. What leaves the daemon (records, alerts, the API) takes `ActorInfo.shown()` or
`ActorInfo.masked()`, never `cmdline` itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from shieldd.model.names import printable

MASK: Final = b"***"

# what follows is a secret, as the next argument or after `=`
_SECRET_OPTIONS: Final = re.compile(
    rb"--?(?:[a-z0-9]+[-_])*(?:pass|passwd|password|passphrase|passin|passout|pw|pwd|secret|token|key|keyfile|api-?key|"
    rb"auth|authorization|credentials?|pin|hmac|iv|salt|symmetric-key|encrypt-key|master-key)",
    re.IGNORECASE,
)
_SECRET_LETTERS: Final = (b"-p", b"-k", b"-K", b"-P", b"-S")
# to these, `-p` is a port, a mode of work or a time stamp
_HARMLESS_P: Final = frozenset(b"cp mkdir install tar rsync ssh ps nc ncat xargs pax touch netstat ss lsof".split())
_ASSIGNED: Final = re.compile(
    rb"((?:\w*(?:pass|pwd|secret|token|api_?key|credential)\w*)\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s'\"]+)",
    re.IGNORECASE,
)
_IN_URL: Final = re.compile(rb"([a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.IGNORECASE)
_ARGUMENT: Final = re.compile(rb"((?:'[^']*'|\"[^\"]*\"|\S)+)")
_BEARER: Final = re.compile(rb"((?:bearer|basic)\s+)[\w.~+/=-]+", re.IGNORECASE)


class ActorKind(IntEnum):
    """How an actor's processes belong together (`native/sys/src/actors/grouping.rs`)."""

    TREE = 0
    TERMINAL = 1
    JOBS = 2
    CLIENT = 3
    HOST = 4


class Tampering(IntFlag):
    """Why an executable's digest does not say what really runs (`native/sys/src/actors/process.rs`)."""

    PRELOAD = 1
    AUDIT = 2
    TRACED = 4
    UNREADABLE = 8
    FOREIGN_CODE = 16


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One of those that started an actor.

    Attributes:
        exe: path of its executable, empty where it could not be told.
        comm: the name that it gave itself.
    """

    pid: int
    exe: bytes
    comm: bytes


@dataclass(frozen=True, slots=True)
class Executable:
    """A file that acted in an actor's name.

    Attributes:
        path: as its own mount namespace has it.
        sha256: 32 bytes; empty where the file could not be read, or is too large.
        deleted: whether no name leads to it any more.
        pid: a process that runs or ran it; `start_ticks` names that process beyond doubt.
        tampering: of all processes that ran it.
        size: bytes; `mtime_ns` and `ctime_ns` with it tell one content from the next.
    """

    path: bytes
    sha256: bytes
    deleted: bool
    pid: int
    start_ticks: int
    tampering: Tampering
    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class ActorInfo:
    """Who an actor is; remembered after its processes ended.

    Attributes:
        key: the number that events carry: never 0, highest bit set, the same from any process that looks.
        kind: how its processes belong together; `HOST` is never to be contained.
        certain: False where the grouping is a guess (the process had ended when it was looked at).
        pid: process that stands for it: the top of the tree; of a terminal or of jobs the first that acted.
        start_ticks: start of that process, clock ticks since boot; `start_ns` is the wall clock of it.
        exe: path of its executable; `exe_sha256` is empty where the file could not be read.
        cmdline: arguments, each ended by a zero byte, at most 512 bytes. May hold secrets: see `shown`.
        comm: the name that it gave itself; may be any bytes.
        uid: effective user; `login_uid` is who logged in, None where nobody did.
        unit: cgroup up to its service or scope; empty where there is none.
        container: id or name of the container, empty outside of one.
        client: address of the client that a server's child works for, empty where it cannot be told.
        ancestry: who started it, nearest first, up to the session and who started that.
        executables: all that acted in its name, first come first.
        more: whether more acted than `executables` holds, or something that could not be told.
        processes: how many acted in its name.
        guessed: whether it was found by its open descriptors, not named by the kernel.
    """

    key: int
    kind: ActorKind
    certain: bool
    pid: int
    start_ticks: int
    start_ns: int
    exe: bytes
    exe_sha256: bytes
    exe_deleted: bool
    cmdline: bytes
    comm: bytes
    uid: int
    login_uid: int | None
    cgroup: bytes
    unit: bytes
    container: bytes
    client: bytes
    pidns: int
    ancestry: tuple[Ancestor, ...]
    executables: tuple[Executable, ...]
    more: bool
    processes: int
    guessed: bool = False

    @property
    def tampered(self) -> Tampering:
        """Why what acted may not be what its executables say; empty where nothing speaks for that."""
        found = Tampering(0)
        for one in self.executables:
            found |= one.tampering
        return found

    @property
    def sole_digest(self) -> bytes | None:
        """Digest of the one executable that acted in this actor's name: what trust may be based on.

        None where several acted, where it is not known, where foreign code may have run in it, where the actor is a
        guess. A name, an argument, a link, an executable run later by the same process: none of them earns trust.
        """
        if self.more or self.guessed or not self.certain or len(self.executables) != 1 or self.tampered:
            return None
        return self.executables[0].sha256 or None

    def masked(self) -> bytes:
        """The command line with secrets masked, arguments still ended by zero bytes."""
        return b"".join(word + b"\0" for word in masked(_words(self.cmdline)))

    def shown(self) -> str:
        """The command line for people: secrets masked, no control characters; arguments with spaces quoted."""
        words = [printable(word) for word in masked(_words(self.cmdline))]
        return " ".join(f"'{word}'" if not word or " " in word else word for word in words)


def _words(cmdline: bytes) -> list[bytes]:
    return cmdline.removesuffix(b"\0").split(b"\0") if cmdline else []


def masked(words: list[bytes]) -> list[bytes]:
    """Arguments with the values of password and key options masked; too much rather than too little."""
    program = words[0].rsplit(b"/", 1)[-1] if words else b""
    out: list[bytes] = []
    value = False  # the next argument is a secret
    for at, word in enumerate(words):
        if value:
            out.append(MASK)
            value = False
            continue
        option = word.startswith(b"-") and (at > 0 or not word.endswith(b"sh"))  # a login shell is called -bash
        name, equals, _ = word.partition(b"=")
        letter = word[:2] if program not in _HARMLESS_P else b""
        if option and _SECRET_OPTIONS.fullmatch(name):
            out.append(name + equals + MASK if equals else word)
            value = not equals
        elif option and letter in _SECRET_LETTERS:
            out.append(letter + MASK if len(word) > 2 else word)
            value = len(word) == 2
        elif option and word in {b"-u", b"--user"} and at + 1 < len(words) and b":" in words[at + 1]:
            out.append(word)
            value = True
        else:
            out.append(_masked_text(word))
    return out


def _masked_text(text: bytes) -> bytes:
    """One argument: assignments, addresses and tokens within it, and the options of a command line that it holds."""
    text = _ASSIGNED.sub(rb"\1" + MASK, text)
    text = _IN_URL.sub(rb"\1:" + MASK + b"@", text)
    text = _BEARER.sub(rb"\1" + MASK, text)
    pieces = _ARGUMENT.split(text)
    if len(pieces) > 3:
        pieces[1::2] = masked(pieces[1::2])
    return b"".join(pieces)
