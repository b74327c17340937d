"""A booted machine on which the installer has run; the service is not started yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .machine import CHECKOUT, DEPENDENCIES, PYTHON, Machine

TREE: Final = "/srv/patient-data"


@contextmanager
def installed(scratch: Path, checkout: Path, wheel: Path, drop_in: str = "") -> Iterator[Machine]:
    """Boot, install.

    Args:
        drop_in: lines for the service's `[Service]` section.
    """
    with Machine(scratch, checkout, {"/opt/wheel": wheel.parent}) as machine:
        # The packages are those of this environment: the machine has no network of its own to fetch them with.
        machine.check("mkdir", "-p", TREE)
        python = f"{PYTHON}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
        machine.check("env", f"PYTHON={python}", f"{CHECKOUT}/scripts/install", f"/opt/wheel/{wheel.name}", "--no-deps")
        site = machine.check("/opt/shieldd/bin/python", "-c", "import site; print(site.getsitepackages()[0])").strip()
        machine.write(f"{site}/dependencies.pth", DEPENDENCIES + "\n")
        # An interpreter outside /usr finds its library by a path that the sandbox hides; this is where it is shown.
        library = f"[Service]\nEnvironment=LD_LIBRARY_PATH={PYTHON}/lib\n"
        machine.write("/etc/systemd/system/shieldd-.service.d/test.conf", library)
        machine.write("/etc/systemd/system/shieldd.service.d/test.conf", library + drop_in)
        machine.check("systemctl", "daemon-reload")
        yield machine
