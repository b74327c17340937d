"""One snapshot of the configuration. Made by `load` or `personal`, never changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from shieldd.config import loading, places
from shieldd.config.sections import (
    ApiSection,
    ContainSection,
    DaemonSection,
    GuardSection,
    KeysSection,
    PolicySection,
    PreserveSection,
    RetentionSection,
    SealSection,
    Section,
    TreeSection,
    WatchSection,
)


class Config(Section):
    """All sections, and where they came from.

    Attributes:
        tree: the guarded trees in the order of the file; the index of a tree is its place here.
        generation: 1 at start, one more with each reload; decisions record it.
        source: the file it came from, None in personal mode.
        loaded_at_ns: wall clock, ns.
    """

    daemon: DaemonSection = DaemonSection()
    tree: tuple[TreeSection, ...] = ()
    watch: WatchSection = WatchSection()
    policy: PolicySection = PolicySection()
    guard: GuardSection = GuardSection()
    contain: ContainSection = ContainSection()
    seal: SealSection = SealSection()
    keys: KeysSection = KeysSection()
    preserve: PreserveSection = PreserveSection()
    retention: RetentionSection = RetentionSection()
    api: ApiSection = ApiSection()
    generation: int = Field(default=1, exclude=True)
    source: Path | None = Field(default=None, exclude=True)
    loaded_at_ns: int = Field(default=0, exclude=True)

    @property
    def keystore_path(self) -> Path:
        """Where the keystore is."""
        return self.keys.path or self.daemon.state_dir / "keystore"

    @property
    def keyfile_path(self) -> Path:
        """Where the key file of `unlock = "keyfile"` is."""
        return self.keys.keyfile or self.daemon.state_dir / "keyfile"

    @property
    def store_path(self) -> Path:
        """Where the SQLite store is."""
        return self.daemon.state_dir / "shieldd.db"

    def values(self) -> dict[str, object]:
        """All keys with their values as JSON can hold them; paths printable. There are no secrets in it."""
        shown: dict[str, object] = loading.plain(self.model_dump(mode="python"))
        return shown

    @classmethod
    def load(cls, path: Path, *, generation: int = 1, check_places: bool = True) -> Config:
        """Read a file.

        Args:
            path: the TOML file.
            generation: of the new snapshot; a reload passes one more than the last.
            check_places: whether the trees must be there and fit to be guarded; False to check a file elsewhere.

        Raises:
            ConfigError: `config.*`, with every problem of the file.
        """
        data = loading.read(path)
        config = loading.build(cls, data, path)
        config = config.model_copy(
            update={
                "daemon": loading.identified(config.daemon, path),
                "generation": generation,
                "source": path,
                "loaded_at_ns": time.time_ns(),
            }
        )
        places.check(config, str(path), there=check_places)
        return config

    @classmethod
    def personal(cls, protect: Sequence[Path], socket: Path | None = None, state_dir: Path | None = None) -> Config:
        """The configuration of `shieldd run --protect DIR`: no file, XDG directories, a key file for the keystore.

        Args:
            protect: directories; relative ones are taken from the working directory.
            socket: defaults to `$XDG_RUNTIME_DIR/shieldd/shieldd.sock`, or `shieldd.sock` in the state directory.
            state_dir: defaults to `$XDG_STATE_HOME/shieldd` (`~/.local/state/shieldd`); the key file then lies apart
                from it, in `$XDG_CONFIG_HOME/shieldd`, and beside the keystore where `state_dir` is given.

        Raises:
            ConfigError: `config.tree` or `config.value`.
        """
        data = loading.personal(protect, socket, state_dir)
        config = loading.build(cls, data, None)
        config = config.model_copy(
            update={"daemon": loading.identified(config.daemon, None), "loaded_at_ns": time.time_ns()}
        )
        places.check(config, loading.ARGUMENTS, there=True)
        return config
