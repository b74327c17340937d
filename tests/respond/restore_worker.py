"""Goes on with the plan of a scene that another process made, to be cut off (`tests.cut_off`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from shieldd.errors import ShieldError
from shieldd.model.version import Keep, Version
from tests.cut_off import serve
from tests.respond.restoring import ATTACKER, Scene, staged

STATE = "scene.json"


def put_down(scene: Scene, directory: Path) -> None:
    """Write down what the vault's twin knows, for another process."""
    scene.store.flush()
    versions = [asdict(version) for version in scene.vault.records]
    known = {"versions": versions, "now_ns": scene.now_ns, "events": scene.events}
    fresh = directory / (STATE + ".new")
    fresh.write_text(json.dumps(known, default=bytes.hex))
    fresh.replace(directory / STATE)


def take_up(scene: Scene, directory: Path) -> None:
    """The way back."""
    known = json.loads((directory / STATE).read_text())
    scene.vault.records = [_version(**fields) for fields in known["versions"]]
    scene.now_ns, scene.events = known["now_ns"], known["events"]


def _version(*, kind: int, path: str, digest: str | None, xattrs: list[tuple[str, str]], **fields: int) -> Version:
    return Version(
        kind=Keep(kind),
        path=bytes.fromhex(path),
        digest=None if digest is None else bytes.fromhex(digest),
        xattrs=tuple((bytes.fromhex(name), bytes.fromhex(value)) for name, value in xattrs),
        **fields,
    )


def _prepared(base: str, act: str) -> Callable[[], str]:
    def run() -> str:
        directory = Path(base)
        with staged(directory, clean=False) as scene:
            take_up(scene, directory)
            plan = scene.store.restores.plans("inc1")[-1]
            try:
                for _ in scene.restorer.run(plan, actor=ATTACKER, why="test"):
                    put_down(scene, directory)
            except ShieldError as error:
                return error.code
        return "done"

    return run


if __name__ == "__main__":
    serve(_prepared)
