"""Which directories may be guarded, and where personal mode keeps its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shieldd.config import Config, ConfigError, DaemonMode, Unlock


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def reasons(*trees: Path, state: Path) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        Config.personal(trees, state_dir=state)
    assert {problem.code for problem in caught.value.problems} == {"config.tree"}
    return [(problem.key, problem.reason) for problem in caught.value.problems]


@pytest.mark.parametrize("place", ["/", "/proc", "/sys", "/dev", "/proc/self", "/dev/pts", "/sys/kernel"])
def test_what_nobody_guards(place: str, state: Path) -> None:
    assert [key for key, _ in reasons(Path(place), state=state)] == ["tree[0].path"]


def test_no_tree_at_all(state: Path) -> None:
    assert reasons(state=state) == [("tree", "name at least one directory to guard")]


def test_a_missing_tree_and_one_that_is_a_file(tmp_path: Path, state: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert [key for key, _ in reasons(tmp_path / "none", tmp_path / "file", state=state)] == [
        "tree[0].path",
        "tree[1].path",
    ]


def test_trees_lie_apart(tmp_path: Path, state: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert reasons(tmp_path / "a", inner, state=state) == [("tree[1].path", "lies inside tree[0]")]
    assert reasons(inner, tmp_path / "a", state=state) == [("tree[1].path", "holds tree[0]")]
    assert reasons(inner, inner, state=state) == [("tree[1].path", "is the same as tree[0]")]


def test_a_name_that_only_begins_alike_is_apart(tmp_path: Path, state: Path) -> None:
    for name in ("ward", "ward-2"):
        (tmp_path / name).mkdir()
    config = Config.personal([tmp_path / "ward", tmp_path / "ward-2"], state_dir=state)
    assert len(config.tree) == 2


def test_a_link_anywhere_on_the_way(tmp_path: Path, state: Path) -> None:
    (tmp_path / "real" / "tree").mkdir(parents=True)
    (tmp_path / "last").symlink_to("real/tree")
    (tmp_path / "middle").symlink_to("real")
    for path in (tmp_path / "last", tmp_path / "middle" / "tree"):
        [(key, reason)] = reasons(path, state=state)
        assert key == "tree[0].path"
        assert "symbolic link" in reason


def test_the_own_state_is_not_guarded(tmp_path: Path) -> None:
    state = tmp_path / "tree" / "state"
    (state / "deeper").mkdir(parents=True)
    for tree in (tmp_path / "tree", state, state / "deeper"):
        assert "daemon.state_dir" in reasons(tree, state=state)[0][1]


def test_a_key_file_inside_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    path = tmp_path / "shieldd.toml"
    path.write_text(f'[[tree]]\npath = "{tree}"\n[keys]\nunlock = "keyfile"\nkeyfile = "{tree}/k"\n')
    with pytest.raises(ConfigError, match=r"keys\.keyfile"):
        Config.load(path)


def test_a_tree_named_in_bytes_that_are_no_text(tmp_path: Path, state: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff\n"
    os.mkdir(raw)
    config = Config.personal([Path(os.fsdecode(raw))], state_dir=state)
    assert config.tree[0].root == raw
    assert "\\xff\\x0a" in str(config.values()["tree"]).replace("\\\\", "\\")


class TestPersonal:
    """Without a file, without root, under the XDG directories."""

    @pytest.fixture
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        made = tmp_path / "tree"
        made.mkdir()
        return made

    def test_defaults_below_home(self, tree: Path, tmp_path: Path) -> None:
        config = Config.personal([tree])
        home = tmp_path / "home"
        assert config.daemon.mode is DaemonMode.PERSONAL
        assert config.keys.unlock is Unlock.KEYFILE
        assert config.daemon.state_dir == home / ".local/state/shieldd"
        assert config.daemon.socket == home / ".local/state/shieldd/shieldd.sock"
        assert config.keyfile_path == home / ".config/shieldd/keyfile"

    def test_xdg_variables(self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
        monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/ignored")
        config = Config.personal([tree])
        assert config.daemon.state_dir == tmp_path / "s/shieldd"
        assert config.daemon.socket == tmp_path / "r/shieldd/shieldd.sock"
        assert config.keyfile_path == tmp_path / "home/.config/shieldd/keyfile"

    def test_a_state_directory_of_its_own_holds_everything(self, tree: Path, tmp_path: Path) -> None:
        config = Config.personal([tree], state_dir=tmp_path / "own")
        assert {config.daemon.socket.parent, config.keyfile_path.parent, config.store_path.parent} == {tmp_path / "own"}

    def test_a_user_without_a_home(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
        with pytest.raises(ConfigError, match="HOME"):
            Config.personal([tree])

    def test_relative_paths_are_taken_from_here(
        self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert Config.personal([Path("tree/../tree")], socket=Path("s")).tree[0].path == tree
