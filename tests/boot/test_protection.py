"""The service in its sandbox, booted, against attackers: it names them, holds them, and brings every file back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.suite.attacks import ATTACKS, MARKED

from .installed import TREE, installed
from .machine import Machine

FILES = 100
CORPUS = f"""
from pathlib import Path
from shieldctl.drill.corpus import lay_out
from shieldctl.drill.tree import ScratchTree
tree = ScratchTree.make(Path("{TREE}"))
lay_out(tree, {FILES}, 3)
print(tree.path)
"""
BY_NAME = {attack.name: attack for attack in ATTACKS}

pytestmark = [pytest.mark.boot, pytest.mark.slow]


@pytest.fixture(scope="module")
def machine(checkout: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """As shipped; the guarded tree is a file system of its own."""
    with installed(tmp_path_factory.mktemp("boot"), checkout, wheel) as machine:
        machine.check("mount", "-t", "tmpfs", "-o", "size=512m,mode=0755", "tmpfs", TREE)
        yield machine


def _ctl(machine: Machine, *arguments: str) -> Any:
    done = machine.run("shieldctl", *arguments, "--json")
    assert done.stdout, (arguments, done.stderr, machine.journal())
    return json.loads(done.stdout)


def _hold(machine: Machine) -> dict[str, Any]:
    return dict(_ctl(machine, "status")["watch"]["hold"])


def _contained(machine: Machine) -> list[dict[str, Any]]:
    return [one for one in _ctl(machine, "threats", "list")["items"] if one["contained_at"]]


@pytest.fixture(scope="module")
def corpus(machine: Machine) -> str:
    """Files in the tree, known to the service, which is started after them."""
    place = machine.check("/opt/shieldd/bin/python", "-c", CORPUS).strip()
    machine.write("/root/sums", json.dumps(_sums(machine, place)))
    machine.check("systemctl", "start", "shieldd.service")

    def known() -> bool:
        return all(one["state"] == "ok" for one in _ctl(machine, "doctor")["items"] if one["name"] == "survey")

    machine.until(known, "every file known")
    return place


def _sums(machine: Machine, place: str) -> dict[str, str]:
    lines = machine.check("sh", "-c", f"find {place} -type f -print0 | xargs -0 sha256sum").splitlines()
    return {line.split("  ", 1)[1]: line.split("  ", 1)[0] for line in lines}


def test_in_its_sandbox_it_names_and_holds(machine: Machine, corpus: str) -> None:
    status = _ctl(machine, "status")
    assert status["watch"]["backend"] == "fanotify" and status["watch"]["attribution"], machine.journal()
    assert status["watch"]["hold"]["running"], (status["watch"]["hold"], machine.journal())
    assert status["troubles"] == []


def test_nobody_else_is_troubled_by_the_hold(machine: Machine, corpus: str) -> None:
    machine.check("sh", "-c", f"mkdir {TREE}/work && cd {TREE}/work && for n in 1 2 3 4 5; do echo $n >>log; done")
    machine.check("tar", "cf", f"{TREE}/work/all.tar", "-C", corpus, ".")
    machine.check("tar", "xf", f"{TREE}/work/all.tar", "-C", f"{TREE}/work")
    assert _contained(machine) == []
    machine.check("rm", "-r", f"{TREE}/work")


def test_an_attacking_service_is_held_and_every_file_comes_back(machine: Machine, corpus: str) -> None:
    before = json.loads(machine.check("cat", "/root/sums"))
    script = MARKED + BY_NAME["openssl, in place"].script
    machine.check(
        "systemd-run", "--quiet", "--unit=raid", f"--working-directory={corpus}", "--no-block", "bash", "-c", script
    )
    (threat,) = machine.until(lambda: _contained(machine), "a containment")
    # /proc of other accounts is seen although ProtectProc= hides it: CAP_SYS_PTRACE
    assert threat["actor"]["exe"] == "/usr/bin/bash" and threat["actor"]["uid"] == 0
    assert threat["actor"]["pid"] == int(machine.show("raid.service", "MainPID"))
    assert {one["fate"] for one in threat["containment"]["processes"]} >= {"done"}
    assert threat["held_at"] and threat["files_touched"] < FILES
    state = machine.check("cat", f"/proc/{threat['actor']['pid']}/stat").rpartition(")")[2].split()[0]
    assert state == "T" and _hold(machine)["lost"] == 0, machine.journal()
    assert _hold(machine)["preserved"]
    _ctl(machine, "threats", "kill", threat["id"], "--reason", "test", "--yes")
    machine.until(lambda: machine.show("raid.service", "ActiveState") in {"failed", "inactive"}, "its end")
    told = machine.check("shieldctl", "restore", "run", threat["id"], "--yes")
    after = _sums(machine, corpus)
    left = [path for path in before if after.get(path) != before[path]]
    assert not left, (left, told, _hold(machine), machine.journal())


@pytest.mark.parametrize("signal", ["STOP", "KILL"])
def test_an_answerer_that_fails_is_replaced(machine: Machine, corpus: str, signal: str) -> None:
    restarts = _hold(machine)["restarts"]
    (answerer,) = machine.check("pgrep", "-f", r"shieldd\.answerer [0-9]+$").split()
    machine.check("kill", f"-{signal}", answerer)
    machine.check("sh", "-c", f"echo more >>{TREE}/note.txt", timeout_s=5)
    machine.until(lambda: (h := _hold(machine))["running"] and h["restarts"] > restarts, "another answerer")


def test_it_ends_with_the_service(machine: Machine, corpus: str) -> None:
    machine.check("systemctl", "stop", "shieldd.service", "shieldd.socket")
    assert machine.show("shieldd.service", "Result") == "success"
    assert machine.run("pgrep", "-f", r"shieldd\.answerer").returncode == 1
    machine.check("sh", "-c", f"echo more >>{TREE}/note.txt", timeout_s=5)
