"""Goes on with the plan of a scene that another process made: `python -m tests.respond.restore_worker DIRECTORY`.

Prints a mark on a line of its own when the run begins, so that a tracer can tell its calls from those before.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from shieldd.errors import ShieldError
from tests.respond.restoring import ATTACKER, Scene, staged

STATE = "scene.pickle"


def put_down(scene: Scene, directory: Path) -> None:
    """Write down what the vault's twin knows, for another process."""
    scene.store.flush()
    (directory / STATE).write_bytes(pickle.dumps((scene.vault.records, scene.now_ns, scene.events)))


def take_up(scene: Scene, directory: Path) -> None:
    """The way back."""
    scene.vault.records, scene.now_ns, scene.events = pickle.loads((directory / STATE).read_bytes())


def main() -> int:
    """Run the only plan of the scene to its end."""
    directory = Path(sys.argv[1])
    with staged(directory, clean=False) as scene:
        take_up(scene, directory)
        plan = scene.store.restores.plans("inc1")[-1]
        try:
            print("begin", flush=True)
            for _ in scene.restorer.run(plan, actor=ATTACKER, why="test"):
                put_down(scene, directory)
        except ShieldError as error:
            print(error.code, flush=True)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
