"""The listening socket: stale, live, taken by something else, long names, modes, and who removes it."""

from __future__ import annotations

import grp
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from shieldd.api.listen import listen, passed
from shieldd.api.server import ApiServer
from shieldd.errors import ShieldError
from tests.api.conftest import Served
from tests.api.memory import MemoryEngine


def connects(path: Path) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True


def test_mode_and_nothing_left_beside_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = listen(os.fsencode(tmp_path / "s"))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    assert [one.name for one in tmp_path.iterdir()] == ["s"]
    assert connects(tmp_path / "s")
    made.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_group(tmp_path: Path) -> None:
    made = listen(os.fsencode(tmp_path / "s"), group="games")
    assert (tmp_path / "s").stat().st_gid == grp.getgrnam("games").gr_gid
    made.remove()


def test_a_group_that_does_not_exist_changes_nothing(tmp_path: Path) -> None:
    made = listen(os.fsencode(tmp_path / "s"), group="no-such-group")
    assert (tmp_path / "s").stat().st_gid == os.getegid()
    made.remove()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    assert not connects(path)
    made = listen(os.fsencode(path))
    assert connects(path)
    made.remove()


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = listen(os.fsencode(path))
    with pytest.raises(ShieldError, match="another daemon") as caught:
        listen(os.fsencode(path))
    assert caught.value.code == "api.socket"
    assert connects(path)
    first.remove()


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo"])
def test_anything_that_is_not_a_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "target").write_text("precious")
        path.symlink_to("target")
    else:
        os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(ShieldError) as caught:
        listen(os.fsencode(path))
    assert caught.value.code == "api.socket"
    assert path.lstat() == before


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(ShieldError, match="directory of the socket"):
        listen(os.fsencode(tmp_path / "none" / "s"))


def test_a_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 200)
    folder.mkdir()
    made = listen(os.fsencode(folder / "s"))
    assert stat.S_ISSOCK((folder / "s").stat().st_mode)
    made.remove()
    assert not (folder / "s").exists()


def test_a_name_that_another_daemon_took_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = listen(os.fsencode(path))
    first.socket.close()  # died without cleaning up
    second = listen(os.fsencode(path))
    first.remove()
    assert connects(path)
    second.remove()


def test_of_many_that_start_at_once_one_wins(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "s")
    made, refused = [], []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        try:
            made.append(listen(path))
        except ShieldError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert refused == ["api.socket"] * 7
    made[0].remove()


def test_a_socket_that_was_passed_in_is_served_and_its_name_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as given:
        given.bind(str(path))
        given.listen(8)
        engine = MemoryEngine()
        server = ApiServer(engine, passed(given.dup()))
        server.start()
        assert Served(str(path), engine, server).ask("GET", "/v1/health")[0] == 200
        server.stop()
        assert path.exists()


def test_a_passed_socket_of_another_kind_is_refused() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as given, pytest.raises(ShieldError) as caught:
        passed(given)
    assert caught.value.code == "api.socket"


def test_stop_removes_the_name_and_may_be_called_twice(served: Served) -> None:
    served.server.stop()
    served.server.stop()
    assert not Path(served.path).exists()
    assert not served.server.alive
