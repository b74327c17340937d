"""The units as systemd reads them, without starting anything."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = sorted((ROOT / "systemd").glob("shieldd*"))
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


def _read(unit: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    return parser


def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    for unit in UNITS:
        # The programs are where the service is installed; any program stands for them here.
        (tmp_path / unit.name).write_text(re.sub(r"/opt/shieldd/bin/\w+", "/bin/true", unit.read_text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    about_ours = [line for line in done.stderr.splitlines() if "shieldd" in line]
    assert (done.returncode, about_ours) == (0, [])


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_exposure_is_low(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= 2.0


def test_the_service_is_watched_and_bounded() -> None:
    service = _read(ROOT / "systemd/shieldd.service")["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["User"] == "shieldd"
    for bound in ("MemoryMin", "MemoryMax", "CPUQuota", "TasksMax", "LimitNOFILE"):
        assert bound in service


def test_no_unit_has_a_capability_beyond_its_work() -> None:
    files = {"CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_CHOWN"}
    processes = {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_KILL"}
    for unit in SERVICES:
        allowed = files | processes if unit.name == "shieldd.service" else files
        service = _read(unit)["Service"]
        assert set(service.get("CapabilityBoundingSet", "all").split()) <= allowed
        assert set(service.get("AmbientCapabilities", "").split()) <= allowed


def test_timers_make_up_for_a_missed_run() -> None:
    for unit in UNITS:
        if unit.suffix == ".timer":
            assert _read(unit)["Timer"]["Persistent"] == "yes"
            assert unit.with_suffix(".service").exists()


def test_the_calendar_of_each_timer_is_understood() -> None:
    for unit in UNITS:
        if unit.suffix == ".timer":
            calendar = _read(unit)["Timer"]["OnCalendar"]
            subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, check=True)


def test_socket_and_configuration_name_the_same_place() -> None:
    socket = _read(ROOT / "systemd/shieldd.socket")["Socket"]
    assert f'#socket = "{socket["ListenStream"]}"' in (ROOT / "config/shieldd.toml").read_text()
    for unit in SERVICES:
        for place in re.findall(r"--socket (\S+)", unit.read_text()):
            assert place == socket["ListenStream"]


def test_account_and_directories_are_accepted(tmp_path: Path) -> None:
    for tool, kind in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        root = tmp_path / kind
        root.mkdir()
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nshieldd:x:977:977::/:/bin/false\n")
        (root / "etc/group").write_text("root:x:0:\nshieldd:x:977:\n")
        arguments = ["--create"] if tool == "systemd-tmpfiles" else []
        shown = tmp_path / kind
        done = subprocess.run(
            [tool, f"--root={shown}", *arguments, str(ROOT / f"systemd/{kind}/shieldd.conf")],
            capture_output=True,
            text=True,
            check=False,
        )
        complaints = [line for line in done.stderr.splitlines() if "shieldd.conf" in line]
        assert not complaints
