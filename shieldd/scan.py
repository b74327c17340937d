"""Signature scanning of one open file: EICAR, SHA-256 lists, YARA rules.

Reads by descriptor only: the caller opened the file once, beneath its tree, and the same descriptor is scanned; no
path is ever opened again. Bytes and time are bounded. A scan that fails raises; it never reads as a match, so an
internal error never quarantines. YARA's own engine interprets its rules and maps no executable memory
(`MemoryDenyWriteExecute=` holds).
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import yara

from shieldd.errors import ShieldError
from shieldd.model.match import Match, MatchKind

EICAR: Final = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
EICAR_LIMIT_BYTES: Final = 128  # the standard: 68 bytes, then only blanks, tabs, line ends and 0x1a up to 128
EICAR_TAIL: Final = b" \t\r\n\x1a"
SCAN_LIMIT_BYTES: Final = 16 << 20
TIME_LIMIT_S: Final = 2
DIGEST_LIMIT: Final = 5_000_000
RULES_LIMIT_BYTES: Final = 64 << 20
DIGESTS_LIMIT_BYTES: Final = 1 << 30  # the most entries, with room for comments
LINE_LIMIT_BYTES: Final = 64 << 10
_CHUNK_BYTES: Final = 1 << 20
_MALICIOUS_FILE: Final = "T1204.002"
_EICAR_TEXT: Final = "EICAR anti-malware test file"
_DIGEST_TEXT: Final = "content is on a list of known-bad digests"
_DOCUMENTS: Final = frozenset(
    b"pdf doc docx xls xlsx ppt pptx odt ods odp rtf txt csv xml json hl7 dcm jpg jpeg png tif tiff bmp gif mp4".split()
)


class Scanner:
    """Compiled rules and digest lists. Immutable; safe to share between threads."""

    def __init__(
        self, rules: yara.Rules | None, digests: frozenset[bytes], *, scan_limit_bytes: int = SCAN_LIMIT_BYTES
    ) -> None:
        self._rules = rules
        self._digests = digests
        self.scan_limit_bytes = scan_limit_bytes

    @classmethod
    def load(
        cls, rules: Sequence[Path], digests: Sequence[Path], *, scan_limit_bytes: int = SCAN_LIMIT_BYTES
    ) -> Scanner:
        """Compile rule files and read digest lists.

        Args:
            rules: YARA sources; `include` is refused.
            digests: text files, a SHA-256 in hex at the start of each line, `#` begins a comment.
            scan_limit_bytes: of a file, at most so much is read.

        Raises:
            ShieldError: `scan.rules`, `scan.digests`.
        """
        known: set[bytes] = set()
        for path in digests:
            known.update(_digest_lines(path))
            if len(known) > DIGEST_LIMIT:
                raise ShieldError("scan.digests", f"digest lists hold more than {DIGEST_LIMIT} entries")
        return cls(_compiled(rules), frozenset(known), scan_limit_bytes=scan_limit_bytes)

    def scan(self, fd: int, name: bytes) -> Match | None:
        """Scan an open regular file from its start; the descriptor's offset stays where it was.

        Args:
            fd: readable descriptor.
            name: base name, for rules about extensions only.

        Returns:
            The first match in the order EICAR, digest, YARA (rules that quarantine before those that only alert),
            None where nothing matched.

        Raises:
            ShieldError: `file.not-regular`, `scan.io`, `scan.time`.
        """
        deadline_ns = time.monotonic_ns() + TIME_LIMIT_S * 10**9
        content, whole = self._read(fd, deadline_ns)
        digest = hashlib.sha256(content).digest()
        if is_eicar(content) and whole:
            return Match(MatchKind.EICAR, "eicar", _EICAR_TEXT, True, digest, True, _MALICIOUS_FILE)
        if whole and digest in self._digests:
            return Match(MatchKind.DIGEST, "digest", _DIGEST_TEXT, True, digest, True, _MALICIOUS_FILE)
        return self._yara(content, name, digest, whole)

    def _read(self, fd: int, deadline_ns: int) -> tuple[bytes, bool]:
        """At most the limit of the file, and whether that is all of it."""
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ShieldError("file.not-regular")
            parts: list[bytes] = []
            at = 0
            while at < self.scan_limit_bytes:
                part = os.pread(fd, min(_CHUNK_BYTES, self.scan_limit_bytes - at), at)
                if not part:
                    return b"".join(parts), True
                parts.append(part)
                at += len(part)
                if time.monotonic_ns() > deadline_ns:
                    raise ShieldError("scan.time")
            return b"".join(parts), not os.pread(fd, 1, at)
        except OSError as error:
            raise ShieldError("scan.io", errno=error.errno) from error

    def _yara(self, content: bytes, name: bytes, digest: bytes, whole: bool) -> Match | None:
        if self._rules is None or not content:
            return None
        extension = name.rpartition(b".")[2].lower() if b"." in name else b""
        try:
            outside = {"document": extension in _DOCUMENTS}
            found = self._rules.match(data=content, externals=outside, timeout=TIME_LIMIT_S)
        except yara.TimeoutError as error:
            raise ShieldError("scan.time") from error
        except yara.Error as error:
            raise ShieldError("scan.io", "signature rules failed on this file; it was left alone") from error
        matches = [
            Match(
                kind=MatchKind.YARA,
                rule=x.rule,
                text=str(x.meta.get("text", x.rule)),
                quarantine=x.meta.get("quarantine") is True,
                sha256=digest,
                whole=whole,
                attack=str(x.meta.get("attack", "")),
            )
            for x in found
        ]
        return min(matches, key=lambda x: not x.quarantine, default=None)


def is_eicar(content: bytes) -> bool:
    """Whether bytes are the EICAR test file as its standard defines it (eicar.org)."""
    if len(content) > EICAR_LIMIT_BYTES or not content.startswith(EICAR):
        return False
    return not content[len(EICAR) :].strip(EICAR_TAIL)


def _compiled(paths: Sequence[Path]) -> yara.Rules | None:
    if not paths:
        return None
    try:
        sources: dict[str, str] = {}
        for at, path in enumerate(paths):
            with _regular(path, "scan.rules", RULES_LIMIT_BYTES) as file:
                sources[f"{at}:{path.name}"] = file.read(RULES_LIMIT_BYTES).decode("utf-8")
        return yara.compile(sources=sources, externals={"document": False}, includes=False, error_on_warning=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ShieldError("scan.rules", f"signature rules cannot be read: {error.__class__.__name__}") from error
    except yara.Error as error:
        raise ShieldError("scan.rules", f"signature rules do not compile: {error}") from error


def _regular(path: Path, code: str, limit_bytes: int) -> BinaryIO:
    """Open what the configuration names without ever waiting on it: a FIFO or a device is refused, and a giant too."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")
    seen = os.fstat(file.fileno())
    if stat.S_ISREG(seen.st_mode) and seen.st_size <= limit_bytes:
        return file
    file.close()
    wrong = f"is larger than {limit_bytes >> 20} MiB" if stat.S_ISREG(seen.st_mode) else "is not a regular file"
    raise ShieldError(code, f"{path.name!r} {wrong}")


def _digest_lines(path: Path) -> Iterable[bytes]:
    try:
        with _regular(path, "scan.digests", DIGESTS_LIMIT_BYTES) as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT_BYTES), b""), 1):
                if len(line) == LINE_LIMIT_BYTES:
                    raise ShieldError("scan.digests", f"digest list {path.name!r} line {number} is too long")
                text = line.partition(b"#")[0].split()
                if not text:
                    continue
                if len(text[0]) != 64:
                    raise ShieldError("scan.digests", f"digest list {path.name!r} line {number} is not a sha-256")
                yield bytes.fromhex(text[0].decode("ascii"))
    except OSError as error:
        raise ShieldError("scan.digests", errno=error.errno) from error
    except ValueError as error:
        raise ShieldError("scan.digests", f"digest list {path.name!r} is not hex") from error
