"""The attacks: what intruders do to a tree, by programs that lie on every host, as fast as they can.

Each is a shell program that runs inside a marked scratch tree and names only what lies below it; without the mark it
ends at once. Owns the list and the starting; whoever starts one ends it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shieldctl.drill.tree import MARKER, ScratchTree

MARKED: Final = f"test -f ./{MARKER.decode()} || exit 97\n"
_FILES: Final = f"find . -type f ! -name {MARKER.decode()} -print0"
_ENC: Final = 'openssl enc -aes-256-cbc -pbkdf2 -iter 1 -pass pass:x -in "$f" -out'
_XOR: Final = r"""
import os
for top, _, names in os.walk("."):
    for name in names:
        path = os.path.join(top, name)
        if name == "@MARK@":
            continue
        try:
            with open(path, "r+b") as file:
                data = file.read()
                file.seek(0)
                file.write(bytes(map((0x5A).__xor__, data[:4096])) + os.urandom(max(len(data) - 4096, 0)))
            os.rename(path, path + ".locked")
        except OSError:
            pass
""".replace("@MARK@", MARKER.decode())


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to destroy a tree.

    Attributes:
        programs: what it needs on this host.
        script: for sh(1), in the scratch tree.
        bursts: it is over within milliseconds however many files there are, or only removes names, which by itself
            is no reason to stop anybody: what matters is that every file comes back.
    """

    name: str
    programs: tuple[str, ...]
    script: str
    bursts: bool = False


def _each(body: str) -> str:
    """One process a file, one file after the other, from one shell."""
    return f"{_FILES} | while IFS= read -r -d '' f; do {body}; done"


ATTACKS: Final = tuple(
    Attack(name, programs, script, bursts)
    for name, programs, script, bursts in (
        ("openssl, new and delete", ("openssl",), _each(f'{_ENC} "$f.enc" </dev/null && rm "$f"'), False),
        ("openssl, in place", ("openssl",), _each(f'{_ENC} ./.t </dev/null && cat ./.t >"$f"'), False),
        (
            "gpg, new and delete",
            ("gpg",),
            _each(
                "gpg --batch --quiet --no-options --no-symkey-cache --pinentry-mode loopback "
                '--passphrase x --s2k-count 1024 --symmetric -o "$f.gpg" "$f" </dev/null && rm "$f"'
            ),
            False,
        ),
        ("7z -sdel, one by one", ("7z",), _each('7z a -bd -mx1 -px -sdel "$f.7z" "$f" </dev/null >/dev/null'), False),
        ("7z -sdel, one archive", ("7z",), "7z a -bd -mx1 -px -sdel all.7z */ </dev/null >/dev/null", True),
        ("xargs -P8 openssl", ("openssl",),
         f"{_FILES} | xargs -0 -P8 -n1 sh -c 'f=$0; {_ENC} \"$f.enc\" </dev/null && rm \"$f\"'", False),
        ("xor and rename, one process", ("python3",), f"exec python3 -c '{_XOR}'", False),
        ("shred -u", ("shred",), f"{_FILES} | xargs -0 shred -n1 -u", True),
        ("truncate", ("truncate",), f"{_FILES} | xargs -0 truncate -s 0", True),
        ("rm -rf", ("rm",), "exec rm -rf ./*/", True),
        ("find -delete", ("find",), f"exec find ./*/ -type f ! -name {MARKER.decode()} -delete", True),
        ("dd, first block", ("dd",),
         _each('dd if=/dev/urandom of="$f" bs=4096 count=1 conv=notrunc status=none'), False),
        ("cp over", ("cp",), "head -c 9999 /dev/urandom >./.r; " + _each('cp ./.r "$f"'), False),
        ("mv over", ("mv",), _each('head -c 9999 /dev/urandom >./.r && mv -f ./.r "$f"'), False),
        ("mass rename", ("mv",), _each('mv "$f" "$f.locked"'), True),
    )
)  # fmt: skip


def possible(attack: Attack) -> bool:
    """Whether this host has its programs."""
    return all(shutil.which(program) for program in attack.programs)


class Raid:
    """A running attack in a session of its own.

    Args:
        tree: the marked scratch tree; its mark is read again first.
    """

    def __init__(self, attack: Attack, tree: ScratchTree) -> None:
        tree.check()
        home = Path(f"/proc/self/fd/{tree.root_fd}").resolve(strict=True)
        # of the attacker's own tools, outside of what it attacks; mode 0700
        self._home = tempfile.mkdtemp(prefix="shield-raid-")
        self._process = subprocess.Popen(
            ["bash", "-c", MARKED + attack.script],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "GNUPGHOME": self._home},
            start_new_session=True,
        )
        self.pid = self._process.pid

    @property
    def over(self) -> bool:
        """Whether it came to its end, by itself or not."""
        return self._process.poll() is not None

    @property
    def stopped(self) -> bool:
        """Whether its first process is stopped."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return text.rpartition(")")[2].split()[0] == "T"

    def end(self) -> int:
        """Kill all of it; its exit status, negative for a signal."""
        if self._process.poll() is None:
            for number in (signal.SIGKILL, signal.SIGCONT):
                try:
                    os.killpg(self.pid, number)
                except ProcessLookupError:
                    break
        status = self._process.wait(10)
        if shutil.which("gpgconf"):  # an agent of its own, where gpg started one
            subprocess.run(
                ["gpgconf", "--homedir", self._home, "--kill", "gpg-agent"], capture_output=True, check=False
            )
        shutil.rmtree(self._home, ignore_errors=True)
        return status
