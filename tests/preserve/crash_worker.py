"""Changes files and keeps their versions until it is killed; says what it has kept, line by line.

usage: python -m tests.preserve.crash_worker TREE SEED TURNS
"""

from __future__ import annotations

import os
import random
import sys
import time

from shieldd.native.preserve import Vault, VaultOptions, make


def main() -> None:
    tree, draw = os.fsencode(sys.argv[1]), random.Random(int(sys.argv[2]))
    parent = os.open(os.path.dirname(tree), os.O_RDONLY)
    root = os.open(tree, os.O_RDONLY)
    vault = Vault(make(parent), VaultOptions(trees=((0, tree),)))
    print("ready", flush=True)
    for turn in range(int(sys.argv[3])):
        name = b"f%d" % draw.randrange(50)
        path = os.path.join(tree, name)
        match draw.randrange(6):
            case 0 | 1:
                with open(path, "rb") as file:
                    seed = int.from_bytes(file.read(8), "little")
                    made = vault.image(file.fileno(), 0, name, actor=5, at_ns=time.time_ns())
                print("image", made, seed, flush=True)
                write(path, draw.randrange(1 << 40))
            case 2:
                made = vault.link_many(root, 0, [name], [0], time.time_ns())[0]
                assert isinstance(made, int), made
                print("link", made, 0, flush=True)
            case 3:
                fresh = path + b".new"
                write(fresh, draw.randrange(1 << 40))
                os.replace(fresh, path)
            case 4:
                vault.settle(now_ns=time.time_ns() + 10**11, budget_bytes=100_000)
            case _:
                if turn % 7 == 0:
                    vault.compact()
                policy = {"age_ns": 10**18, "versions_max": 10**6, "min_free": 0, "now_ns": time.time_ns()}
                vault.evict(bytes_max=10**9, **policy)


def write(path: bytes, seed: int) -> None:
    """A file that says what it must be: the seed, and what follows from it."""
    with open(path, "wb") as file:
        file.write(content(seed))


def content(seed: int) -> bytes:
    return seed.to_bytes(8, "little") + random.Random(seed).randbytes(seed % 9000)


if __name__ == "__main__":
    main()
