"""The configuration as frozen values: one class per table of shieldd.toml(5), each default fit for a hospital.

Owns names, types, ranges and defaults. Reading a file is `loading`'s, whether a tree can be guarded is `places`'.
Units stand in the names. No secret ever stands here: secrets come from credentials, descriptors and key files.
"""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictFloat

SOCKET_PATH_MAX: Final = 107  # bytes; sun_path of unix(7) less its NUL


def _absolute(value: object) -> Path:
    """An absolute path as written: no `..`, no NUL; nothing is resolved here."""
    if not isinstance(value, str | Path):
        raise ValueError("must be a path in quotes")  # noqa: TRY004 - pydantic turns only ValueError into a problem
    raw = os.fsencode(value)
    if not raw.startswith(b"/"):
        raise ValueError("must be an absolute path")
    if b"\0" in raw or b".." in raw.split(b"/"):
        raise ValueError("must hold neither NUL nor '..'")
    return Path(os.fsdecode(os.path.normpath(raw).replace(b"//", b"/")))


def _digest(value: object) -> bytes:
    if isinstance(value, bytes) and len(value) == 32:
        return value
    if not isinstance(value, str) or len(value) != 64 or set(value.lower()) - set("0123456789abcdef"):
        raise ValueError("must be a sha-256 digest of 64 hex digits")
    return bytes.fromhex(value)


def _is_digest(text: str) -> bool:
    return re.fullmatch(r"[0-9A-Fa-f]{64}", text) is not None


def _never(text: str) -> str:
    """A digest of an executable, or a unit of the service manager; the name of a program grants nothing."""
    if not _is_digest(text) and not re.fullmatch(r"[A-Za-z0-9:_.\\@-]{1,240}\.(service|scope|socket)", text):
        raise ValueError("must be a sha-256 digest of 64 hex digits or the name of a unit such as backup.service")
    return text


def _socket(path: Path) -> Path:
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise ValueError(f"must be at most {SOCKET_PATH_MAX} bytes long, a socket has no more room")
    return path


AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]
Digest = Annotated[bytes, BeforeValidator(_digest)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]


def _count(low: int, high: int) -> object:
    return Field(strict=True, ge=low, le=high)


class Section(BaseModel):
    """Base of all tables: immutable, an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DaemonMode(StrEnum):
    """How the daemon runs."""

    SERVICE = "service"
    PERSONAL = "personal"


class LogLevel(StrEnum):
    """From which weight on a line is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class TreeMode(StrEnum):
    """What may be done in a tree; the names are the guard's."""

    ACT = "act"
    OBSERVE = "observe"
    ALERT_ONLY = "alert-only"


class WatchBackend(StrEnum):
    """Which source reads the kernel; `auto`: fanotify in the service where it may run, else `native`."""

    AUTO = "auto"
    FANOTIFY = "fanotify"
    NATIVE = "native"
    PYINOTIFY = "pyinotify"


class Unlock(StrEnum):
    """What opens the keystore."""

    CREDENTIAL = "credential"
    PASSPHRASE = "passphrase"  # noqa: S105 - the name of a method
    KEYFILE = "keyfile"


class KeyProvider(StrEnum):
    """Where the root of the keys is."""

    LOCAL = "local"


class DaemonSection(Section):
    """`[daemon]`. An empty `host_id` is derived from /etc/machine-id when the file is read."""

    mode: DaemonMode = DaemonMode.SERVICE
    state_dir: AbsolutePath = Path("/var/lib/shieldd")
    socket: Annotated[AbsolutePath, AfterValidator(_socket)] = Path("/run/shieldd/shieldd.sock")
    log_level: LogLevel = LogLevel.INFO
    host_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""


class TreeSection(Section):
    """One `[[tree]]`."""

    path: AbsolutePath
    mode: TreeMode = TreeMode.ACT
    exclude: tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...] = ()
    canaries: Annotated[int, _count(0, 1000)] = 8
    vault: AbsolutePath | None = None

    @property
    def root(self) -> bytes:
        """The path as the kernel has it."""
        return os.fsencode(self.path)

    @property
    def globs(self) -> tuple[bytes, ...]:
        """`exclude` as bytes."""
        return tuple(os.fsencode(glob) for glob in self.exclude)


class WatchSection(Section):
    """`[watch]`."""

    backend: WatchBackend = WatchBackend.AUTO
    coalesce_ms: Annotated[int, _count(0, 10_000)] = 1
    queue: Annotated[int, _count(1024, 16_777_216)] = 262_144
    baseline_files: Annotated[int, _count(1024, 20_000_000)] = 500_000
    inspect: StrictBool = True
    hold: StrictBool = True
    hold_ranges: StrictBool = True


class PolicySection(Section):
    """`[policy]`. Without `directory` the policy that came with the package is used."""

    enabled: StrictBool = True
    directory: AbsolutePath | None = None


class TrustSection(Section):
    """One `[[guard.trust]]`: an executable by digest, one tree, a budget. A name grants nothing."""

    exe_sha256: Digest
    tree: AbsolutePath
    budget: Annotated[int, _count(0, 10_000_000)]
    note: Annotated[str, Field(max_length=200)] = ""


class GuardSection(Section):
    """`[guard]`: limits of what is done without a person, and what is known."""

    contain_limit: Annotated[int, _count(0, 1000)] = 3
    quarantine_limit: Annotated[int, _count(0, 100_000)] = 50
    seal_limit: Annotated[int, _count(0, 1_000_000)] = 200
    limit_window_s: Annotated[StrictFloat, Field(ge=1, le=86_400)] = 600.0
    destroyed_limit: Annotated[int, _count(1, 10_000)] = 5
    removed_limit: Annotated[int, _count(1, 100_000)] = 25
    destroyed_window_s: Annotated[StrictFloat, Field(ge=0.1, le=3600)] = 10.0
    contained_for_s: Annotated[StrictFloat, Field(ge=0, le=86_400)] = 60.0
    scan_limit_bytes: Annotated[int, _count(4096, 1 << 34)] = 16 << 20
    digests: tuple[AbsolutePath, ...] = ()
    yara_rules: tuple[AbsolutePath, ...] = ()
    trust: tuple[TrustSection, ...] = ()


class ContainSection(Section):
    """`[contain]`. `never` holds executables by digest and units by name; `release_after_s` is for alert-only trees."""

    never: Annotated[tuple[Annotated[str, AfterValidator(_never)], ...], Field(max_length=1000)] = ()
    release_after_s: Annotated[StrictFloat, Field(ge=0, le=604_800)] = 0.0

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The executables."""
        return tuple(bytes.fromhex(x) for x in self.never if _is_digest(x))

    @property
    def units(self) -> tuple[str, ...]:
        """The units."""
        return tuple(x for x in self.never if not _is_digest(x))


class SealSection(Section):
    """`[seal]`. `threads` 0: all cores."""

    threads: Annotated[int, _count(0, 256)] = 0
    durable: StrictBool = True


class KeysSection(Section):
    """`[keys]`. Paths left out lie in the state directory (see `Config.keystore_path`)."""

    provider: KeyProvider = KeyProvider.LOCAL
    unlock: Unlock = Unlock.CREDENTIAL
    path: AbsolutePath | None = None
    credential: Name = "shieldd.keystore"
    keyfile: AbsolutePath | None = None
    askpass: AbsolutePath | None = None
    rotate_after_days: Annotated[int, _count(1, 3650)] = 90


class PreserveSection(Section):
    """`[preserve]`: versions of files from before they were changed. `quota_bytes` 0: by `quota_percent`."""

    enabled: StrictBool = True
    hardlinks: StrictBool = True
    quota_bytes: Annotated[int, _count(0, 1 << 62)] = 0
    quota_percent: Annotated[int, _count(1, 90)] = 10
    versions_max: Annotated[int, _count(1000, 100_000_000)] = 2_000_000
    age_s: Annotated[StrictFloat, Field(ge=60, le=31_536_000)] = 172_800.0
    whole_limit_bytes: Annotated[int, _count(4096, 1 << 40)] = 64 << 20
    min_free_percent: Annotated[int, _count(0, 90)] = 5


class RetentionSection(Section):
    """`[retention]`. Incidents, acts and inventory are kept six years (45 CFR 164.316(b)(2)(i)); events go first."""

    events_days: Annotated[int, _count(1, 36_500)] = 90
    events_max: Annotated[int, _count(1000, 1_000_000_000)] = 5_000_000
    incidents_days: Annotated[int, _count(1, 36_500)] = 2_192
    actions_days: Annotated[int, _count(1, 36_500)] = 2_192


class ApiSection(Section):
    """`[api]`. The group may read; root and the daemon's own user may do all."""

    group: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] = "shieldd"
    body_limit_bytes: Annotated[int, _count(4096, 64 << 20)] = 1 << 20
    connections: Annotated[int, _count(1, 10_000)] = 256
    request_timeout_s: Annotated[StrictFloat, Field(ge=0.1, le=3600)] = 10.0
