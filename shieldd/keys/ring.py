"""The key ring: opens the keystore, loads its keys into the core, rotates them.

A rotation is one replacement of the keystore file: before it nothing has changed, after it all has. In order: new keys
made and wrapped; file replaced; generation and states into the ledger; new keys into the core, from when on they seal.
A crash between two of them leaves a keystore one generation ahead of the ledger, which the next start takes over.
A keystore that is *behind* the ledger was put back from an old copy and is refused (`keys.rollback`).
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from shieldd.config import Config
from shieldd.errors import ShieldError
from shieldd.keys import keystore as files
from shieldd.keys import secrets
from shieldd.keys.contract import KeyLedger, Provider, ProviderState
from shieldd.keys.keystore import Keystore, KeyVersion
from shieldd.keys.local import LocalProvider
from shieldd.keys.secrets import wipe, wiped
from shieldd.keys.states import LOADED, moved
from shieldd.model.key import KeyRecord, KeyState
from shieldd.native.envelope import Keyring, Purpose, random_bytes

DAY_NS: Final = 86_400 * 10**9
USES_LIMIT: Final = (
    1 << 31
)  # half of what SP 800-38D allows random nonces of one key, so that a late timer does no harm
USES_AHEAD: Final = 4096  # counted on disk before they are used, so that a crash never loses a count
WHY_LIMIT: Final = 200


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key version for people; `objects` are the sealed files and quarantined objects that it wraps."""

    key_id: bytes
    purpose: Purpose
    version: int
    state: KeyState
    provider: str
    created_at_ns: int
    changed_at_ns: int
    why: str
    uses: int
    objects: int


@dataclass(frozen=True, slots=True)
class Due:
    """A purpose whose active key should be replaced, and why."""

    purpose: Purpose
    why: str


class KeyRing:
    """The open ring; a context manager. Any thread may call.

    Attributes:
        native: the core's handle that seals and opens.
        reports: what was found while opening, in sentences.
    """

    def __init__(self, path: Path, keystore: Keystore, provider: Provider, ledger: KeyLedger) -> None:
        """Use `open`."""
        self.native = Keyring()
        self.reports: tuple[str, ...] = ()
        self._path = path
        self._keystore = keystore
        self._provider = provider
        self._ledger = ledger
        self._rotating = threading.Lock()
        self._counting = threading.Lock()
        self._ahead: dict[bytes, int] = {}
        self._behind = False

    @classmethod
    def open(
        cls, config: Config, ledger: KeyLedger, *, passphrase_fd: int | None = None, accept_older: bool = False
    ) -> KeyRing:
        """Open the keystore that the configuration names, or make it where neither file nor ledger knows one.

        Args:
            config: the snapshot in force.
            ledger: the store's `keys`.
            passphrase_fd: to read a passphrase from.
            accept_older: take a keystore that is behind the ledger; for a person who restored it knowingly.

        Raises:
            ShieldError: `keys.unlock`, `keys.secret`, `keys.unsafe`, `keys.store`, `keys.newer`, `keys.rollback`,
                `keys.missing`, `keys.full`, `keys.io`, `store.*`.
        """
        path, known = config.keystore_path, ledger.keystore()
        secret = secrets.from_config(config, passphrase_fd=passphrase_fd)
        raw, healed = files.read_whole(path)
        if raw is None:
            if known is not None:
                raise ShieldError("keys.missing", path=os.fsencode(path))
            ring = cls._made(path, LocalProvider.create(secret), ledger)
        else:
            ring = cls._opened(path, raw, secret, ledger)
        try:
            ring._compare(known, accept_older=accept_older)
            if healed and raw is not None:
                files.write(path, raw)
                ring.reports = ("keystore was damaged and was restored from its copy",)
            ring._load_all()
            ring._note()
            ring._sweep()
        except ShieldError:
            ring.close()
            raise
        return ring

    def __enter__(self) -> KeyRing:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"KeyRing(generation={self._keystore.generation}, versions={len(self._keystore.versions)})"

    @property
    def generation(self) -> int:
        """Of the keystore."""
        return self._keystore.generation

    def list(self) -> tuple[KeyInfo, ...]:
        """All versions, by purpose, then version."""
        uses = {record.key_id: record.uses for record in self._ledger.versions()}
        objects = self._ledger.objects()
        ordered = sorted(self._keystore.versions, key=lambda version: (version.purpose, version.version))
        return tuple(self._info(x, uses.get(x.key_id, 0), objects.get(x.key_id, 0)) for x in ordered)

    def active(self, purpose: Purpose) -> KeyInfo:
        """The version that seals; raises `keys.version` where there is none."""
        for info in self.list():
            if info.purpose == purpose and info.state is KeyState.ACTIVE:
                return info
        raise ShieldError("keys.version", f"no active key for {purpose.name.lower()}")

    def rotate(
        self, purpose: Purpose | None = None, why: str = "asked for", *, now_ns: int | None = None
    ) -> tuple[KeyInfo, ...]:
        """A new active version for one purpose, or for each; the old ones go on opening.

        Returns:
            The new versions.

        Raises:
            ShieldError: `keys.busy` while another rotation runs, here or in another process; `keys.full`, `keys.io`
                with nothing changed.
        """
        at_ns = time.time_ns() if now_ns is None else now_ns
        with self._alone():
            new: list[tuple[KeyVersion, bytearray]] = []
            try:
                for one in [purpose] if purpose is not None else list(Purpose):
                    number = 1 + max((x.version for x in self._keystore.versions if x.purpose == one), default=0)
                    new.append(_new_version(self._provider, self._keystore.id, one, number, why[:WHY_LIMIT], at_ns))
                purposes = {version.purpose for version, _ in new}
                kept = [
                    moved(x, KeyState.DEACTIVATED, why[:WHY_LIMIT], at_ns)
                    if x.purpose in purposes and x.state is KeyState.ACTIVE
                    else x
                    for x in self._keystore.versions
                ]
                self._replace((*kept, *(version for version, _ in new)), at_ns)
                for version, key in new:
                    self._add(version, key)
            finally:
                for _, key in new:
                    wipe(key)
        made = {version.key_id for version, _ in new}
        return tuple(info for info in self.list() if info.key_id in made)

    def change_state(self, key_id: bytes, state: KeyState, why: str, *, now_ns: int | None = None) -> KeyInfo:
        """Suspend, deactivate, mark as compromised, or bring back a version that is not active.

        Raises:
            ShieldError: `keys.version` for an unknown id, `keys.state` for a step that SP 800-57 does not have; an
                active key is replaced by `rotate` first.
        """
        at_ns = time.time_ns() if now_ns is None else now_ns
        with self._alone():
            old = next((x for x in self._keystore.versions if x.key_id == key_id), None)
            if old is None:
                raise ShieldError("keys.version")
            if KeyState.ACTIVE in (old.state, state) or state is KeyState.DESTROYED:
                raise ShieldError("keys.state")
            new = moved(old, state, why[:WHY_LIMIT], at_ns)
            self._replace(tuple(new if x is old else x for x in self._keystore.versions), at_ns)
            if state in LOADED:
                with wiped(self._provider.unwrap(new.wrapped, new.context(self._keystore.id))) as key:
                    self._add(new, key)
            else:
                self.native.forget(key_id=key_id)
        return next(info for info in self.list() if info.key_id == key_id)

    def rotate_root(self, *, now_ns: int | None = None) -> None:
        """A new root above all keys; every key is wrapped anew, no sealed file is touched. Needs the unlock secret."""
        at_ns = time.time_ns() if now_ns is None else now_ns
        with self._alone():
            self._provider.rotate()
            old, wrapped = self._keystore, []
            for version in old.versions:
                with wiped(self._provider.unwrap(version.wrapped, version.context(old.id))) as key:
                    wrapped.append(replace(version, wrapped=self._provider.wrap(key, version.context(old.id))))
            with wiped(self._provider.unwrap(old.mac_key, old.mac_context())) as key:
                mac_key = self._provider.wrap(key, old.mac_context())
            # Written first with both roots, so that a kill in between leaves a keystore that opens; then with one.
            self._replace(tuple(wrapped), at_ns, mac_key=mac_key)
            self._provider.retire()
            self._replace(tuple(wrapped), at_ns)

    def due(self, rotate_after_days: int, now_ns: int) -> tuple[Due, ...]:
        """Purposes whose active key is too old, was used too often, or is missing."""
        found: list[Due] = []
        by_purpose = {info.purpose: info for info in self.list() if info.state is KeyState.ACTIVE}
        for purpose in Purpose:
            info = by_purpose.get(purpose)
            if info is None:
                found.append(Due(purpose, "there is no active key"))
            elif info.uses >= USES_LIMIT:
                found.append(Due(purpose, f"used {info.uses} times"))
            elif now_ns - info.created_at_ns >= rotate_after_days * DAY_NS:
                found.append(Due(purpose, f"older than {rotate_after_days} days"))
        return tuple(found)

    def used(self, purpose: Purpose, count: int = 1) -> None:
        """Count data keys wrapped with the active key of a purpose; call it before they are.

        Raises:
            ShieldError: `store.*` where the count cannot be made durable, `keys.version`.
        """
        active = next((x for x in self._keystore.versions if x.purpose == purpose and x.state is KeyState.ACTIVE), None)
        if active is None:
            raise ShieldError("keys.version", f"no active key for {purpose.name.lower()}")
        if self._behind:
            self._note()  # a key that the ledger does not know cannot be counted
        with self._counting:
            left = self._ahead.get(active.key_id, 0)
            if left < count:
                more = max(USES_AHEAD, count)
                self._ledger.used({active.key_id: more})
                left += more
            self._ahead[active.key_id] = left - count

    def provider_state(self) -> ProviderState:
        """How the provider is."""
        return self._provider.state()

    def close(self) -> None:
        """Wipe all keys. May be called twice."""
        self.native.close()
        self._provider.close()

    @classmethod
    def _made(cls, path: Path, provider: Provider, ledger: KeyLedger) -> KeyRing:
        at_ns, keystore_id = time.time_ns(), bytes(random_bytes(16))
        versions: list[KeyVersion] = []
        for purpose in Purpose:
            version, key = _new_version(provider, keystore_id, purpose, 1, "made with the keystore", at_ns)
            wipe(key)
            versions.append(version)
        empty = Keystore(keystore_id, 0, at_ns, provider.name, provider.export(), b"", ())
        with wiped(provider.generate()) as mac_key:
            wrapped = provider.wrap(mac_key, empty.mac_context())
        ring = cls(path, replace(empty, mac_key=wrapped), provider, ledger)
        try:
            ring._write(replace(ring._keystore, generation=1, versions=tuple(versions)))
        except ShieldError:
            ring.close()
            raise
        return ring

    @classmethod
    def _opened(cls, path: Path, raw: bytes, secret: secrets.Secret, ledger: KeyLedger) -> KeyRing:
        keystore = files.parse(raw)
        provider = LocalProvider.open(secret, keystore.root)
        try:
            with wiped(provider.unwrap(keystore.mac_key, keystore.mac_context())) as mac_key:
                files.authentic(raw, mac_key)
        except ShieldError as error:
            provider.close()
            raise ShieldError("keys.store", "keystore was tampered with", path=os.fsencode(path)) from error
        return cls(path, keystore, provider, ledger)

    def _compare(self, known: tuple[str, int] | None, *, accept_older: bool) -> None:
        if known is None or accept_older:
            return
        keystore_id, generation = known
        if keystore_id != self._keystore.id.hex():
            raise ShieldError("keys.rollback", "keystore is not the one that the store knows")
        if generation > self._keystore.generation:
            text = f"keystore has generation {self._keystore.generation}, the store knows {generation}"
            raise ShieldError("keys.rollback", text)

    def _load_all(self) -> None:
        for version in sorted(self._keystore.versions, key=lambda x: x.version):
            if version.state in LOADED:
                with wiped(self._provider.unwrap(version.wrapped, version.context(self._keystore.id))) as key:
                    self._add(version, key)

    def _sweep(self) -> None:
        try:
            with self._alone():
                files.sweep(self._path)
        except ShieldError as error:
            self.reports = (*self.reports, f"temporary files of the keystore were left: {error.message}")

    def _add(self, version: KeyVersion, key: bytearray) -> None:
        seals = version.state is KeyState.ACTIVE
        self.native.add(key_id=version.key_id, version=version.version, purpose=version.purpose, key=key, seals=seals)

    def _replace(self, versions: tuple[KeyVersion, ...], at_ns: int, *, mac_key: bytes | None = None) -> None:
        old = self._keystore
        new = replace(old, generation=old.generation + 1, written_at_ns=at_ns, root=self._provider.export())
        self._write(replace(new, versions=versions, mac_key=mac_key or old.mac_key))
        self._note()

    def _write(self, new: Keystore) -> None:
        with wiped(self._provider.unwrap(new.mac_key, new.mac_context())) as mac_key:
            raw = files.encode(new, mac_key)
        files.write(self._path, raw)
        self._keystore = new
        try:
            files.write(files.copy_path(self._path), raw)
        except ShieldError as error:
            # The keystore itself is durable; an older copy is refused when it is needed, never taken in silence.
            self.reports = (*self.reports, f"copy of the keystore could not be written: {error.message}")

    def _note(self) -> None:
        """Bring the ledger up to the keystore; what fails now is tried again with the next count."""
        provider = self._provider.name
        records = [
            KeyRecord(x.key_id, int(x.purpose), x.version, x.state, provider, x.created_at_ns, x.changed_at_ns, x.why)
            for x in self._keystore.versions
        ]
        try:
            self._ledger.record(self._keystore.id.hex(), self._keystore.generation, records)
            self._behind = False
        except ShieldError as error:
            self._behind = True
            self.reports = (*self.reports, f"the store could not record the keystore: {error.message}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One change at a time, in this process and among processes; `keys.busy` for the second."""
        if not self._rotating.acquire(blocking=False):
            raise ShieldError("keys.busy")
        try:
            lock = self._path.with_name(self._path.name + ".lock")
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                raw = files.read(self._path)
                if raw is None or files.parse(raw).generation != self._keystore.generation:
                    raise ShieldError(
                        "keys.busy", "the keystore was changed by another process", hint="restart shieldd"
                    )
                yield
            except BlockingIOError as error:
                raise ShieldError("keys.busy") from error
            finally:
                os.close(fd)
        except OSError as error:
            raise ShieldError("keys.io", errno=error.errno, path=os.fsencode(self._path)) from error
        finally:
            self._rotating.release()

    def _info(self, x: KeyVersion, uses: int, objects: int) -> KeyInfo:
        return KeyInfo(
            x.key_id, x.purpose, x.version, x.state, self._provider.name, x.created_at_ns, x.changed_at_ns, x.why,
            uses, objects,
        )  # fmt: skip


def _new_version(
    provider: Provider, keystore_id: bytes, purpose: Purpose, number: int, why: str, at_ns: int
) -> tuple[KeyVersion, bytearray]:
    """A new active version and its key, which the caller wipes."""
    bare = KeyVersion(bytes(random_bytes(16)), purpose, number, KeyState.ACTIVE, at_ns, at_ns, why, b"")
    key = provider.generate()
    try:
        return replace(bare, wrapped=provider.wrap(key, bare.context(keystore_id))), key
    except ShieldError:
        wipe(key)
        raise
