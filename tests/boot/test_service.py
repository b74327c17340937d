"""The service under a real systemd, in its sandbox: installed by the installer, started, reloaded, hung, stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .installed import TREE, installed
from .machine import Machine

pytestmark = [pytest.mark.boot, pytest.mark.slow]

EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*"


@pytest.fixture(scope="module")
def machine(checkout: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine on which the installer has run and the service was started."""
    # A short watchdog, so that the test of it is short; all else is as shipped.
    with installed(tmp_path_factory.mktemp("boot"), checkout, wheel, "WatchdogSec=4\n") as machine:
        machine.check("systemctl", "start", "shieldd.service")
        yield machine


def _pid(machine: Machine) -> str:
    return machine.show("shieldd.service", "MainPID")


def _ctl(machine: Machine, *arguments: str) -> str:
    return machine.check("shieldctl", *arguments)


def test_it_is_ready_as_its_own_user(machine: Machine) -> None:
    assert machine.show("shieldd.service", "ActiveState") == "active"
    status = machine.check("cat", f"/proc/{_pid(machine)}/status")
    owner = machine.check("id", "-u", "shieldd").strip()
    assert re.search(rf"^Uid:\t{owner}\t{owner}\t{owner}\t{owner}$", status, re.MULTILINE)
    assert "NoNewPrivs:\t1" in status


def test_the_root_of_the_keys_came_from_the_credential(machine: Machine) -> None:
    keys = json.loads(_ctl(machine, "keys", "list", "--json"))
    assert keys["items"]


def test_it_seals_and_opens_a_file_of_somebody_else(machine: Machine) -> None:
    path = f"{TREE}/closed/report.txt"
    machine.write(path, "findings: none\n")
    machine.check("sh", "-c", f"chown -R 1000:1000 {TREE}/closed && chmod 700 {TREE}/closed && chmod 600 {path}")
    _ctl(machine, "files", "seal", path)
    assert machine.run("test", "-e", path).returncode == 1
    _ctl(machine, "files", "open", path + ".shield")
    assert machine.check("stat", "--format=%u %g %a", path).split() == ["1000", "1000", "600"]
    assert machine.check("cat", path) == "findings: none\n"


def test_it_takes_malware_away_and_gives_it_back(machine: Machine) -> None:
    machine.write(f"{TREE}/incoming/viewer.com", EICAR)

    def taken() -> list[dict[str, str]]:
        return json.loads(_ctl(machine, "quarantine", "list", "--json"))["items"]

    (item,) = machine.until(taken, "malware in quarantine")
    machine.check("mkdir", f"{TREE}/evidence")
    _ctl(machine, "quarantine", "restore", item["id"], "--to", f"{TREE}/evidence", "--yes")
    assert machine.check("cat", f"{TREE}/evidence/viewer.com") == EICAR


def test_the_sandbox_lets_it_write_nowhere_else(machine: Machine) -> None:
    for path in ("/etc/shieldd/x", "/usr/x", "/opt/x"):
        done = machine.run("nsenter", f"--target={_pid(machine)}", "--mount", "--", "touch", path)
        assert done.returncode != 0 and "Read-only" in done.stderr
    addresses = machine.check("nsenter", f"--target={_pid(machine)}", "--net", "--", "cat", "/proc/net/dev")
    assert "eth" not in addresses


def test_others_may_not_ask(machine: Machine) -> None:
    done = machine.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "shieldctl", "status")
    assert done.returncode in {3, 5}, done.stderr


def test_reload_takes_over_a_good_configuration_and_refuses_a_bad_one(machine: Machine) -> None:
    config = "/etc/shieldd/shieldd.toml"
    good, pid = machine.check("cat", config), _pid(machine)
    generation = json.loads(_ctl(machine, "config", "show", "--json"))["generation"]
    machine.write(config, good + '\n[daemon]\nlog_level = "debug"\n' if "\n[daemon]" not in good else _debug(good))
    machine.check("systemctl", "reload", "shieldd.service")

    def later() -> bool:
        return bool(json.loads(_ctl(machine, "config", "show", "--json"))["generation"] > generation)

    machine.until(later, "a new generation of the configuration")
    machine.write(config, good + "\n[nonsense]\nkey = 1\n")
    assert machine.run("systemctl", "reload", "shieldd.service").returncode != 0
    assert machine.show("shieldd.service", "ActiveState") == "active" and _pid(machine) == pid
    machine.write(config, good)


def _debug(text: str) -> str:
    return text.replace('#log_level = "info"', 'log_level = "debug"')


@pytest.mark.parametrize("name", ["rotate", "verify"])
def test_the_timers_wait_and_their_work_succeeds(machine: Machine, name: str) -> None:
    machine.check("systemctl", "start", f"shieldd-{name}.timer")
    assert machine.show(f"shieldd-{name}.timer", "ActiveState") == "active"
    assert machine.show(f"shieldd-{name}.timer", "NextElapseUSecRealtime")
    machine.check("systemctl", "start", f"shieldd-{name}.service")
    assert machine.show(f"shieldd-{name}.service", "Result") == "success"


def test_a_damaged_object_fails_the_verify_unit(machine: Machine) -> None:
    path = f"{TREE}/damaged.txt"
    machine.write(path, "x" * 1000)
    _ctl(machine, "files", "seal", path)
    machine.check(
        "sh",
        "-c",
        f"printf xxxxxxxx | dd of={path}.shield bs=1 seek=$(($(stat -c %s {path}.shield) - 40)) conv=notrunc",
    )
    assert machine.run("systemctl", "start", "shieldd-verify.service").returncode != 0
    assert machine.show("shieldd-verify.service", "ExecMainStatus") == "6"
    machine.check("sh", "-c", f"rm {path}.shield; systemctl reset-failed shieldd-verify.service")


def test_a_hung_daemon_is_started_again(machine: Machine) -> None:
    before, restarts = _pid(machine), int(machine.show("shieldd.service", "NRestarts"))
    machine.check("kill", "-STOP", before)

    def again() -> bool:
        return machine.show("shieldd.service", "ActiveState") == "active" and _pid(machine) not in {"0", before}

    machine.until(again, "a restart by the watchdog")
    assert int(machine.show("shieldd.service", "NRestarts")) == restarts + 1
    assert "watchdog" in machine.journal().lower()
    assert _ctl(machine, "ping") is not None


def test_a_killed_daemon_is_started_again_and_knows_what_it_sealed(machine: Machine) -> None:
    path = f"{TREE}/kept.txt"
    machine.write(path, "kept\n")
    _ctl(machine, "files", "seal", path)
    before = _pid(machine)
    machine.check("kill", "-KILL", before)
    machine.until(lambda: _pid(machine) not in {"0", before}, "a restart")
    _ctl(machine, "wait", "--timeout", "30")
    _ctl(machine, "files", "open", path + ".shield")
    assert machine.check("cat", path) == "kept\n"


def test_it_stops_cleanly_and_the_socket_starts_it(machine: Machine) -> None:
    machine.check("systemctl", "stop", "shieldd.service")
    assert machine.show("shieldd.service", "Result") == "success"
    _ctl(machine, "wait", "--timeout", "30")
    assert machine.show("shieldd.service", "ActiveState") == "active"
    machine.check("systemctl", "stop", "shieldd.socket", "shieldd.service")
    assert machine.run("shieldctl", "ping").returncode == 3


def test_a_wrong_configuration_is_not_tried_again_and_again(machine: Machine) -> None:
    config = "/etc/shieldd/shieldd.toml"
    good = machine.check("cat", config)
    machine.write(config, good + "\n[nonsense]\nkey = 1\n")
    assert machine.run("systemctl", "start", "shieldd.service").returncode != 0
    machine.until(lambda: machine.show("shieldd.service", "ActiveState") == "failed", "a final failure")
    assert machine.show("shieldd.service", "ExecMainStatus") == "7"
    machine.write(config, good)
    machine.check("systemctl", "reset-failed", "shieldd.service")
    machine.check("systemctl", "start", "shieldd.service")
