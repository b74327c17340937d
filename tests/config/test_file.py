"""shieldd.toml(5): what is read, what is refused, and that every problem is told at once."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shieldd.__main__ import main
from shieldd.config import Config, ConfigError, DaemonMode, TreeMode, Unlock
from shieldd.config.loading import FILE_LIMIT_BYTES, build
from shieldd.config.sections import SOCKET_PATH_MAX, Section


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "imaging"
    made.mkdir()
    return made


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "shieldd.toml"
    path.write_text(text)
    return path


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    assert caught.value.exit_status == 7
    return caught.value


def test_a_tree_is_all_that_is_needed(tmp_path: Path, tree: Path) -> None:
    path = write(tmp_path, f'[[tree]]\npath = "{tree}"\n')
    config = Config.load(path, generation=4)
    assert (config.generation, config.source, config.tree[0].root) == (4, path, os.fsencode(tree))
    assert config.daemon.mode is DaemonMode.SERVICE
    assert config.tree[0].mode is TreeMode.ACT
    assert config.keys.unlock is Unlock.CREDENTIAL
    assert config.keystore_path == Path("/var/lib/shieldd/keystore")
    assert re.fullmatch("[0-9a-f]{32}", config.daemon.host_id)


def test_the_host_id_does_not_give_the_machine_id_away(tmp_path: Path, tree: Path) -> None:
    config = Config.load(write(tmp_path, f'[[tree]]\npath = "{tree}"\n'))
    assert config.daemon.host_id not in Path("/etc/machine-id").read_text()


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path, tree: Path) -> None:
    path = write(
        tmp_path,
        f"""
        typo = 1
        [daemon]
        log_level = "loud"
        [guard]
        contain_limit = -1
        contian_limit = 3
        [[tree]]
        path = "{tree}"
        canaries = "many"
        [keys]
        rotate_after_days = true
        """,
    )
    error = refused(path)
    told = {(problem.code, problem.key) for problem in error.problems}
    assert told == {
        ("config.key", "typo"),
        ("config.value", "daemon.log_level"),
        ("config.value", "guard.contain_limit"),
        ("config.key", "guard.contian_limit"),
        ("config.value", "tree[0].canaries"),
        ("config.value", "keys.rotate_after_days"),
    }
    assert all(line.startswith(f"{path}:") for line in str(error).splitlines())
    assert len(str(error).splitlines()) == len(error.problems)


@pytest.mark.parametrize("key", ["generation", "source", "loaded_at_ns"])
def test_what_is_not_for_the_file_is_an_unknown_key(tmp_path: Path, tree: Path, key: str) -> None:
    error = refused(write(tmp_path, f'{key} = 7\n[[tree]]\npath = "{tree}"\n'))
    assert [(problem.code, problem.key) for problem in error.problems] == [("config.key", key)]


def test_a_missing_file_is_an_error_and_no_defaults(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.toml").code == "config.missing"


def test_a_file_that_is_none(tmp_path: Path) -> None:
    assert refused(tmp_path).code == "config.unreadable"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").code == "config.unreadable"


@pytest.mark.parametrize(
    "raw", [b"[daemon", b"a = 1\na = 2\n", b"\xff\xfe", b"a = " + b"[" * 5000, b"#" * (FILE_LIMIT_BYTES + 1)]
)
def test_what_is_not_toml(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "shieldd.toml"
    path.write_bytes(raw)
    assert refused(path).code == "config.syntax"


def test_a_file_that_others_may_write(tmp_path: Path, tree: Path) -> None:
    path = write(tmp_path, f'[[tree]]\npath = "{tree}"\n')
    path.chmod(0o646)
    assert refused(path).code == "config.unsafe"


@pytest.mark.root
def test_a_file_that_belongs_to_another(tmp_path: Path, tree: Path) -> None:
    path = write(tmp_path, f'[[tree]]\npath = "{tree}"\n')
    os.chown(path, 1000, 0)
    assert refused(path).code == "config.unsafe"


def test_a_socket_path_has_room_for_107_bytes(tmp_path: Path, tree: Path) -> None:
    fits = "/" + "s" * (SOCKET_PATH_MAX - 1)
    text = '[daemon]\nsocket = "{}"\n[[tree]]\npath = "{}"\n'
    assert str(Config.load(write(tmp_path, text.format(fits, tree))).daemon.socket) == fits
    assert refused(write(tmp_path, text.format(fits + "s", tree))).problems[0].key == "daemon.socket"


@pytest.mark.parametrize("bad", ["relative", "/a/../b", ""])
def test_paths_are_absolute_and_plain(tmp_path: Path, tree: Path, bad: str) -> None:
    error = refused(write(tmp_path, f'[daemon]\nstate_dir = "{bad}"\n[[tree]]\npath = "{tree}"\n'))
    assert error.problems[0].key == "daemon.state_dir"


def test_trust_names_a_digest_and_a_tree_of_the_file(tmp_path: Path, tree: Path) -> None:
    text = '[[tree]]\npath = "{}"\n[[guard.trust]]\nexe_sha256 = "{}"\ntree = "{}"\nbudget = 5\n'
    config = Config.load(write(tmp_path, text.format(tree, "ab" * 32, tree)))
    assert config.guard.trust[0].exe_sha256 == b"\xab" * 32
    assert refused(write(tmp_path, text.format(tree, "rsync", tree))).problems[0].key == "guard.trust[0].exe_sha256"
    elsewhere = refused(write(tmp_path, text.format(tree, "ab" * 32, tmp_path)))
    assert elsewhere.problems[0].key == "guard.trust[0].tree"


def test_a_snapshot_cannot_be_changed(tmp_path: Path, tree: Path) -> None:
    config = Config.load(write(tmp_path, f'[[tree]]\npath = "{tree}"\n'))
    with pytest.raises(ValueError, match="frozen"):
        config.guard.contain_limit = 100


def test_values_are_plain_and_printable(tmp_path: Path, tree: Path) -> None:
    config = Config.load(write(tmp_path, f'[[tree]]\npath = "{tree}"\n'))
    values = config.values()
    assert "generation" not in values
    assert values["tree"] == [{"path": str(tree), "mode": "act", "exclude": [], "canaries": 8, "vault": None}]


class TestShippedFile:
    """config/shieldd.toml explains every key, with its real default."""

    def test_it_is_valid(self, checkout: Path) -> None:
        Config.load(checkout / "config/shieldd.toml", check_places=False)

    def test_it_names_every_key_with_its_default(self, checkout: Path) -> None:
        text = (checkout / "config/shieldd.toml").read_text()
        # The commented defaults, switched on, are the configuration itself.
        switched = re.sub(r"^#(\[\[guard\.trust\]\]|[a-z_0-9]+ = )", r"\1", text, flags=re.MULTILINE)
        told = tomllib.loads(switched)
        for section, field in Config.model_fields.items():
            if field.exclude:
                continue
            given_keys = told["tree"][0] if section == "tree" else told[section]
            model = _model(field.annotation)
            assert set(given_keys) == set(model.model_fields), section
            for key, value in model().model_dump(mode="json").items() if section != "tree" else []:
                if value not in (None, [], ()):
                    assert given_keys[key] == value, f"{section}.{key}"

    def test_every_switched_key_is_accepted(self, checkout: Path) -> None:
        text = (checkout / "config/shieldd.toml").read_text()
        switched = re.sub(r"^#(\[\[guard\.trust\]\]|[a-z_0-9]+ = )", r"\1", text, flags=re.MULTILINE)
        build(Config, tomllib.loads(switched), None)


def _model(annotation: object) -> type[Section]:
    arguments = getattr(annotation, "__args__", None)
    model = arguments[0] if arguments else annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    return model


_SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_VALUE = st.recursive(
    _SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([*Config.model_fields, "x"]),
        st.dictionaries(st.sampled_from(["mode", "path", "exclude", "socket", "queue", "trust", "unlock"]), _VALUE)
        | _VALUE,
    )
)
def test_whatever_is_written_is_taken_or_told_with_its_key(data: dict[str, object]) -> None:
    try:
        build(Config, data, Path("f"))
    except ConfigError as error:
        assert error.problems
        assert all(problem.key and "\n" not in str(problem) for problem in error.problems)


DIGEST = "ab" * 32


def test_what_is_never_contained_is_a_digest_or_a_unit(tmp_path: Path, tree: Path) -> None:
    text = f'[[tree]]\npath = "{tree}"\n[contain]\nnever = ["{DIGEST}", "backup@nas.service"]\n'
    section = Config.load(write(tmp_path, text)).contain
    assert section.digests == (bytes.fromhex(DIGEST),) and section.units == ("backup@nas.service",)
    assert Config.load(write(tmp_path, f'[[tree]]\npath = "{tree}"\n')).contain.release_after_s == 0


@pytest.mark.parametrize("name", ["rsync", "/usr/bin/rsync", "ab" * 31, "*.service", "a/b.service", "", "backup.slice"])
def test_the_name_of_a_program_spares_nothing(tmp_path: Path, tree: Path, name: str) -> None:
    (problem,) = refused(write(tmp_path, f'[[tree]]\npath = "{tree}"\n[contain]\nnever = ["{name}"]\n')).problems
    assert problem.key == "contain.never[0]"


def test_a_check_refuses_what_the_start_would_refuse(
    tmp_path: Path, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "mine.yar"
    good.write_text("rule mine { condition: false }")
    for key, named, status in (
        ("yara_rules", good, 0),
        ("yara_rules", "/etc/passwd", 7),
        ("digests", "/etc/passwd", 7),
        ("digests", tmp_path / "missing", 7),
    ):
        path = write(tmp_path, f'[[tree]]\npath = "{tree}"\n[guard]\n{key} = ["{named}"]\n')
        assert main(["--check-config", str(path)]) == status
        assert (f"{path}:guard.{key}: " in capsys.readouterr().err) is bool(status)
