"""Sealing and opening: what comes back, what is refused, what is left whole."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shieldd.errors import ShieldError
from shieldd.native import envelope as native
from tests.envelope.conftest import KEY_ID, STORE_KEY_ID, Bench, files_options, store_options


def refused(act: object, *arguments: object, **options: object) -> str:
    with pytest.raises(ShieldError) as caught:
        act(*arguments, **options)  # type: ignore[operator]
    return caught.value.code


# --- what comes back ---


def test_everything_comes_back(bench: Bench) -> None:
    name = bench.write("scan.dcm", b"DICM" * 100, 0o640)
    path = bench.tree / "scan.dcm"
    os.setxattr(path, b"user.patient", b"4711")
    os.setxattr(path, b"user.empty", b"")
    os.utime(path, ns=(1_111_111_111_123_456_789, 999_999_999_000_000_001))
    before = path.stat()
    sealed = bench.seal(name)
    assert bench.names() == [b"scan.dcm.shield"]
    assert stat.S_IMODE((bench.tree / "scan.dcm.shield").stat().st_mode) == 0o600
    opened = bench.open(sealed.path)
    after = path.stat()
    assert bench.names() == [b"scan.dcm"]
    assert (after.st_mode, after.st_uid, after.st_gid, after.st_size) == (
        before.st_mode, before.st_uid, before.st_gid, before.st_size,
    )  # fmt: skip
    assert after.st_mtime_ns == before.st_mtime_ns
    assert opened.metadata.atime_ns == 1_111_111_111_123_456_789
    assert {n: os.getxattr(path, n) for n in os.listxattr(path)} == {"user.patient": b"4711", "user.empty": b""}
    assert opened.skipped == ()
    assert opened.metadata.xattr_names == (b"user.empty", b"user.patient")


@pytest.mark.root
def test_owner_is_kept_sealed_and_open(bench: Bench) -> None:
    name = bench.write("a", b"x")
    os.chown(bench.tree / "a", 1234, 5678)
    sealed = bench.seal(name)
    held = (bench.tree / os.fsdecode(sealed.path)).stat()
    assert (held.st_uid, held.st_gid, stat.S_IMODE(held.st_mode)) == (1234, 5678, 0o600)
    bench.open(sealed.path)
    back = (bench.tree / "a").stat()
    assert (back.st_uid, back.st_gid, stat.S_IMODE(back.st_mode)) == (1234, 5678, 0o640)


@pytest.mark.root
def test_posix_acls_come_back(bench: Bench) -> None:
    name = bench.write("a", b"x")
    done = subprocess.run(["setfacl", "-m", "u:1234:r", bench.tree / "a"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("the file system has no ACLs, or setfacl is missing")
    before = os.getxattr(bench.tree / "a", "system.posix_acl_access")
    bench.open(bench.seal(name).path)
    assert os.getxattr(bench.tree / "a", "system.posix_acl_access") == before


def test_privileged_bits_only_on_request(bench: Bench) -> None:
    for keep, mode in ((False, 0o755), (True, 0o4755)):
        name = bench.write("tool", b"#!", 0o4755)
        sealed = bench.seal(name)
        bench.open(sealed.path, privileged_bits=keep)
        assert stat.S_IMODE((bench.tree / "tool").stat().st_mode) == mode
        (bench.tree / "tool").unlink()


@pytest.mark.root
def test_file_capabilities_only_on_request(bench: Bench) -> None:
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    for keep in (False, True):
        name = bench.write("tool", b"#!", 0o755)
        os.setxattr(bench.tree / "tool", b"security.capability", value)
        opened = bench.open(bench.seal(name).path, privileged_bits=keep)
        assert (b"security.capability" in opened.skipped) is not keep
        assert ("security.capability" in os.listxattr(bench.tree / "tool")) is keep
        (bench.tree / "tool").unlink()


@pytest.mark.parametrize("size", [0, 1, 131071, 131072, 131073, 524288, 3_000_001])
@pytest.mark.parametrize("threads", [1, 0])
def test_sizes_around_the_chunk(bench: Bench, size: int, threads: int) -> None:
    content = os.urandom(size)
    sealed = bench.seal(bench.write("a", content), threads=threads)
    assert native.verify(bench.root, sealed.path, bench.keyring).chunks == max(1, -(-size // 131072))
    bench.open(sealed.path, threads=threads)
    assert bench.read("a") == content


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=9000)), max_size=6),
    st.integers(0, 300_000),
)
def test_any_sparse_file_comes_back(bench: Bench, pieces: list[tuple[int, bytes]], tail: int) -> None:
    with (bench.tree / "a").open("wb") as file:
        for page, data in pieces:
            file.seek(page * 4096)
            file.write(data)
        file.seek(0, os.SEEK_END)
        file.truncate(file.tell() + tail)
    content = bench.read("a")
    sealed = bench.seal(b"a", durable=False)
    memory = os.memfd_create("out")
    native.open_stream(bench.root, sealed.path, bench.keyring, memory)
    assert os.pread(memory, len(content) + 1, 0) == content
    os.close(memory)
    bench.open(sealed.path, durable=False)
    assert bench.read("a") == content
    (bench.tree / "a").unlink()


def test_a_10_tib_sparse_file_seals_in_its_data_and_comes_back_with_its_holes(bench: Bench) -> None:
    try:
        with (bench.tree / "disk.img").open("wb") as file:
            file.seek(5 << 40)
            file.write(b"boot" * 1024)
            file.truncate(10 << 40)
    except OSError as error:
        pytest.skip(f"the file system has no files of 10 TiB ({errno.errorcode.get(error.errno or 0)})")
    sealed = bench.seal(b"disk.img")
    assert sealed.size == 10 << 40
    assert sealed.sealed_size < 1 << 20
    found = native.metadata(bench.root, sealed.path, bench.keyring)
    assert (found.size, found.extents) == (10 << 40, 1)
    bench.open(sealed.path)
    back = (bench.tree / "disk.img").stat()
    assert back.st_size == 10 << 40
    assert back.st_blocks * 512 < 1 << 20


def test_more_data_than_the_budget_is_refused(bench: Bench) -> None:
    name = bench.write("a", bytes(8193))
    assert refused(bench.seal, name, budget_bytes=8192) == "file.budget"
    assert bench.names() == [b"a"]
    bench.seal(name, budget_bytes=8193)


# --- names ---


@pytest.mark.parametrize(
    "name",
    [b"new\nline", b"\x1b[31mred", b"\xff\xfe not utf-8", b"a" * 255, b"a" * 249, b"a" * 248, b"-rf", b" ",
     "후두암.dcm".encode(),
     "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe".encode(), b"x.shield"],
)  # fmt: skip
def test_odd_names_come_back(bench: Bench, name: bytes) -> None:
    bench.write(name, b"content")
    sealed = bench.seal(name)
    assert len(sealed.path) <= 255
    assert sealed.path.endswith(b".shield")
    assert native.metadata(bench.root, sealed.path, bench.keyring).path == name
    assert bench.open(sealed.path).path == name
    assert bench.read(name) == b"content"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(min_size=1, max_size=255).filter(lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b".."))
)
def test_any_name_comes_back(bench: Bench, name: bytes) -> None:
    bench.write(name, b"content")
    sealed = bench.seal(name, durable=False)
    assert bench.open(sealed.path, durable=False).path == name
    os.unlink(os.path.join(bytes(bench.tree), name))


def test_long_names_of_one_beginning_do_not_meet(bench: Bench) -> None:
    names = [bench.write(b"a" * 254 + last, last) for last in (b"1", b"2")]
    sealed = [bench.seal(name).path for name in names]
    assert len(set(sealed)) == 2
    assert [bench.open(path).path for path in sealed] == names


def test_a_taken_name_is_counted_up_never_overwritten(bench: Bench) -> None:
    bench.write("a.shield", b"somebody's own file")
    first = bench.seal(bench.write("a", b"1"))
    second = bench.seal(bench.write("a", b"2"))
    assert (first.path, second.path) == (b"a.2.shield", b"a.3.shield")
    assert bench.read("a.shield") == b"somebody's own file"


# --- what is refused ---


def test_paths_that_leave_the_tree(bench: Bench) -> None:
    (bench.base / "secret").write_bytes(b"x")
    for path in (b"../secret", b"a/../../secret", bytes(bench.base / "secret")):
        assert refused(bench.seal, path) == "file.outside"
    for path in (b"", b"a//b", b"./a", b"a/."):
        assert refused(bench.seal, path) == "file.name"
    assert refused(bench.seal, b"a" * 256) == "file.name"
    assert (bench.base / "secret").read_bytes() == b"x"


def test_links_are_not_followed(bench: Bench) -> None:
    (bench.base / "secret").write_bytes(b"x")
    os.symlink(bench.base / "secret", bench.tree / "link")
    os.symlink(bench.base, bench.tree / "dir")
    assert refused(bench.seal, b"link") == "file.symlink"
    assert refused(bench.seal, b"dir/secret") == "file.symlink"
    assert (bench.base / "secret").read_bytes() == b"x"


def test_what_is_no_regular_file(bench: Bench) -> None:
    os.mkfifo(bench.tree / "fifo")
    (bench.tree / "dir").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.tree / "socket"))
    expected = {
        b"fifo": "file.not-regular",
        b"socket": "file.not-regular",
        b"dir": "file.directory",
        b"none": "file.missing",
    }
    for name, code in expected.items():
        assert refused(bench.seal, name) == code
        assert refused(bench.open, name) == code
        assert refused(native.header, bench.root, name) == code


@pytest.mark.root
def test_a_device_is_never_opened(bench: Bench) -> None:
    os.mknod(bench.tree / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    assert refused(bench.seal, b"zero") == "file.not-regular"


def test_hard_links_stay_but_may_be_copied(bench: Bench) -> None:
    name = bench.write("a", b"x")
    os.link(bench.tree / "a", bench.tree / "b")
    assert refused(bench.seal, name) == "file.hardlinks"
    bench.seal(name, keep_original=True)
    assert bench.names() == [b"a", b"a.shield", b"b"]


def test_a_file_open_for_writing_is_left_alone(bench: Bench) -> None:
    name = bench.write("db", b"x")
    with (bench.tree / "db").open("r+b"):
        assert refused(bench.seal, name) == "file.busy"
    assert bench.names() == [b"db"]
    bench.seal(name)


@pytest.mark.root
def test_immutable_files(bench: Bench) -> None:
    name = bench.write("a", b"x")
    if subprocess.run(["chattr", "+i", bench.tree / "a"], capture_output=True, check=False).returncode:
        pytest.skip("the file system has no immutable files")
    try:
        assert refused(bench.seal, name) == "file.immutable"
    finally:
        subprocess.run(["chattr", "-i", bench.tree / "a"], check=True)


def test_sealed_twice(bench: Bench) -> None:
    sealed = bench.seal(bench.write("a", b"x"))
    assert refused(bench.seal, sealed.path) == "envelope.already"
    assert bench.names() == [b"a.shield"]


def test_a_file_that_only_looks_sealed_is_sealed(bench: Bench) -> None:
    sealed = bench.seal(bench.write("a", b"x"))
    fake = bench.write("b", bench.read(sealed.path)[:8192] + b"patient data" * 1000)
    assert bench.seal(fake).path == b"b.shield"


def test_quarantine_takes_what_only_looks_sealed(bench: Bench) -> None:
    sealed = bench.seal(bench.write("a", b"x"))
    native.seal_into(bench.root, sealed.path, bench.store, b"object", bench.keyring, bench.journal, store_options())
    assert bench.names() == []


def test_a_place_that_is_taken_is_not_overwritten(bench: Bench) -> None:
    sealed = bench.seal(bench.write("a", b"sealed"))
    bench.write("a", b"new")
    assert refused(bench.open, sealed.path) == "file.exists"
    os.unlink(bench.tree / "a")
    os.symlink("/etc/passwd", bench.tree / "a")
    assert refused(bench.open, sealed.path) == "file.exists"
    opened = bench.open(sealed.path, to_fd=bench.store, to_name=b"b")
    assert opened.path == b"b"
    assert (bench.base / "store/b").read_bytes() == b"sealed"


def test_keys_that_are_wrong_or_not_there(bench: Bench) -> None:
    sealed = bench.seal(bench.write("a", b"x"))
    with native.Keyring() as ring:
        for act in (native.metadata, native.verify):
            assert refused(act, bench.root, sealed.path, ring) == "envelope.recipient"
        ring.add(key_id=KEY_ID, version=2, purpose=native.Purpose.FILES, key=bytearray(32), seals=True)
        assert refused(native.metadata, bench.root, sealed.path, ring) == "keys.version"
        ring.add(key_id=KEY_ID, version=1, purpose=native.Purpose.FILES, key=bytearray(32), seals=False)
        assert refused(native.metadata, bench.root, sealed.path, ring) == "envelope.recipient"
        assert refused(native.seal, bench.root, sealed.path, ring, bench.journal, store_options()) == "keys.locked"
    bench.write("b", b"y")
    assert refused(
        native.seal, bench.root, b"b", bench.keyring, bench.journal, files_options_of(native.Purpose.AUDIT)
    ) == ("keys.locked")
    assert bench.read("b") == b"y"


def files_options_of(purpose: native.Purpose) -> native.SealOptions:
    return native.SealOptions(purpose=purpose, why="", host_id=b"")


def test_a_file_that_grows_while_it_is_sealed_is_left_alone(bench: Bench) -> None:
    """The writer appends through a name of its own between the lease's two looks; whoever wins, nothing is half-old."""
    content = os.urandom(64 << 20)
    name = bench.write("log", content)
    stop = threading.Event()

    def append() -> None:
        while not stop.is_set():
            try:
                fd = os.open(bench.tree / "log", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
            except (BlockingIOError, FileNotFoundError):
                continue
            os.write(fd, b"+")
            os.close(fd)

    writer = threading.Thread(target=append)
    writer.start()
    try:
        code = refused(bench.seal, name)
    finally:
        stop.set()
        writer.join()
    assert code in ("file.changed", "file.busy")
    assert bench.names() == [b"log"]
    assert bench.read("log").startswith(content)


def test_the_lease_is_given_back(bench: Bench) -> None:
    name = bench.write("a", b"x")
    bench.seal(name, keep_original=True)
    fd = os.open(bench.tree / "a", os.O_WRONLY | os.O_NONBLOCK)
    assert fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK
    os.close(fd)


# --- many, quarantine, rewrap, keys ---


def test_many_are_sealed_and_each_failure_is_its_own(bench: Bench) -> None:
    names = [bench.write(f"f{i}", b"%d" % i) for i in range(600)]
    (bench.tree / "d").mkdir()
    answers = native.seal_many(
        bench.root, [*names[:300], b"missing", b"d", *names[300:]], bench.keyring, bench.journal, files_options()
    )
    assert [getattr(a, "code", "") for a in answers[300:302]] == ["file.missing", "file.directory"]
    done = [a for a in answers if isinstance(a, native.Sealed)]
    assert [a.path for a in done] == [n + b".shield" for n in names]
    assert len(bench.names()) == 601
    for a in done[::97]:
        bench.open(a.path)
    assert bench.read("f97") == b"97"


def test_quarantine_and_restore(bench: Bench) -> None:
    (bench.tree / "ward").mkdir()
    name = bench.write("ward/evil.exe", b"MZ" * 1000, 0o755)
    sealed = native.seal_into(bench.root, name, bench.store, b"object-1", bench.keyring, bench.journal, store_options())
    assert sealed.path == b"object-1"
    assert bench.names() == [b"ward"]
    assert not list((bench.tree / "ward").iterdir())
    held = (bench.base / "store/object-1").stat()
    assert (held.st_uid, stat.S_IMODE(held.st_mode)) == (os.geteuid(), 0o600)
    found = native.metadata(bench.store, b"object-1", bench.keyring)
    assert (found.path, found.why, found.purpose) == (name, "test", native.Purpose.QUARANTINE)
    opened = native.open_into(bench.store, b"object-1", bench.root, name, bench.keyring, bench.journal)
    assert opened.path == name
    assert bench.read("ward/evil.exe") == b"MZ" * 1000
    assert not list((bench.base / "store").iterdir())


def test_an_object_in_the_store_is_not_overwritten(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.write(name, name.encode())
    native.seal_into(bench.root, b"a", bench.store, b"object", bench.keyring, bench.journal, store_options())
    arguments = (bench.root, b"b", bench.store, b"object", bench.keyring, bench.journal, store_options())
    assert refused(native.seal_into, *arguments) == "file.exists"
    assert bench.read("b") == b"b"


@pytest.mark.parametrize("revoke", [False, True])
def test_rewrap_and_revoke(bench: Bench, revoke: bool) -> None:
    old = native.Keyring()
    key = native.random_bytes(32)
    for ring in (old, bench.keyring):
        ring.add(key_id=KEY_ID, version=1, purpose=native.Purpose.FILES, key=key, seals=True)
    sealed = bench.seal(bench.write("a", b"x" * 100))
    bench.keyring.add(key_id=KEY_ID, version=2, purpose=native.Purpose.FILES, key=native.random_bytes(32), seals=True)
    answers = native.rewrap_many(bench.root, [sealed.path], bench.keyring, native.Purpose.FILES, revoke=revoke)
    assert answers == [native.Rewrapped(sealed.file_id, 4 if revoke else 3, True)]
    assert native.header(bench.root, sealed.path).recipients == (native.Recipient(1, KEY_ID, 2),)
    again = native.rewrap_many(bench.root, [sealed.path], bench.keyring, native.Purpose.FILES, revoke=revoke)
    assert isinstance(again[0], native.Rewrapped)
    assert not again[0].changed
    assert refused(native.metadata, bench.root, sealed.path, old) == "keys.version"
    native.verify(bench.root, sealed.path, bench.keyring)
    with (bench.tree / "a.shield").open("r+b") as file:  # who destroys the newer slot gets the older one back, or none
        place = 0 if revoke else 4096
        file.seek(place + 2000)
        file.write(b"\xff")
    if revoke:
        assert refused(native.metadata, bench.root, sealed.path, old) == "keys.version"
    else:
        native.metadata(bench.root, sealed.path, old)


def test_rewrap_answers_for_each_file(bench: Bench) -> None:
    sealed = bench.seal(bench.write("a", b"x"))
    bench.write("b", b"no sealed file")
    codes = [
        getattr(a, "code", "done")
        for a in native.rewrap_many(bench.root, [sealed.path, b"b", b"c"], bench.keyring, native.Purpose.FILES)
    ]
    assert codes == ["done", "envelope.magic", "file.missing"]


def test_small_secrets(keyring: native.Keyring) -> None:
    wrapped = keyring.wrap(native.Purpose.FILES, b"secret", b"about")
    assert b"secret" not in wrapped
    assert keyring.unwrap(wrapped, b"about") == b"secret"
    assert refused(keyring.unwrap, wrapped, b"else") == "envelope.recipient"
    assert refused(keyring.unwrap, wrapped[:-1], b"about") == "envelope.recipient"
    assert refused(keyring.unwrap, b"", b"about") == "envelope.recipient"
    keyring.forget(key_id=KEY_ID)
    assert refused(keyring.unwrap, wrapped, b"about") == "envelope.recipient"
    keyring.close()
    assert refused(keyring.wrap, native.Purpose.QUARANTINE, b"", b"") == "keys.locked"


def test_keys_are_locked_left_out_of_dumps_and_emptied_in_children(keyring: native.Keyring) -> None:
    assert keyring.locked
    areas = Path("/proc/self/smaps").read_text().split("VmFlags:")[1:]
    flags = [area.splitlines()[0].split() for area in areas]
    assert any({"lo", "dd", "wf"} <= set(area) for area in flags)
    child = os.fork()
    if child == 0:
        try:
            keyring.wrap(native.Purpose.FILES, b"x", b"")
        except ShieldError as error:
            os._exit(0 if error.code == "keys.locked" else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_more_keys_than_a_page_holds(bench: Bench) -> None:
    for version in range(2, 400):
        bench.keyring.add(
            key_id=KEY_ID, version=version, purpose=native.Purpose.FILES, key=native.random_bytes(32), seals=True
        )
    sealed = bench.seal(bench.write("a", b"x"))
    assert sealed.key_version == 399
    bench.keyring.forget(key_id=STORE_KEY_ID)
    bench.open(sealed.path)


# --- file systems of their own ---


@pytest.fixture
def own_fs(tmp_path: Path, keyring: native.Keyring) -> Iterator[Bench]:
    """A tmpfs of 4 MiB."""
    place = tmp_path / "fs"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", place], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("cannot mount a tmpfs")
    made = Bench(place, keyring)
    yield made
    made.close()
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.root
def test_full_disk(own_fs: Bench) -> None:
    content = os.urandom(2_500_000)
    name = own_fs.write("a", content)
    assert refused(own_fs.seal, name) == "file.full"
    assert own_fs.names() == [b"a"]
    assert own_fs.read("a") == content
    small = own_fs.seal(own_fs.write("b", b"small" * 1000))
    own_fs.write("fill", os.urandom(1_450_000))
    fd = os.open(own_fs.tree / "rest", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space"):
        while True:
            os.write(fd, bytes(4096))
    os.close(fd)
    assert refused(own_fs.open, small.path) == "file.full"
    assert small.path in own_fs.names()


@pytest.mark.root
def test_read_only_file_system(own_fs: Bench, bench: Bench) -> None:
    name = own_fs.write("a", b"x")
    sealed = own_fs.seal(own_fs.write("b", b"y"))
    own_fs.journal.close()
    own_fs.journal = bench.journal
    subprocess.run(["mount", "-o", "remount,ro", own_fs.base], check=True)
    try:
        assert refused(own_fs.seal, name) == "file.readonly"
        assert refused(own_fs.open, sealed.path) == "file.readonly"
        answers = native.rewrap_many(own_fs.root, [sealed.path], own_fs.keyring, native.Purpose.FILES)
        assert getattr(answers[0], "code", "") == "file.readonly"
        native.verify(own_fs.root, sealed.path, own_fs.keyring)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", own_fs.base], check=True)


@pytest.mark.root
def test_mounts_are_not_crossed(bench: Bench) -> None:
    inside = bench.tree / "mnt"
    inside.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", inside], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        (inside / "a").write_bytes(b"x")
        assert refused(bench.seal, b"mnt/a") == "file.mount"
    finally:
        subprocess.run(["umount", inside], check=True)


@pytest.mark.root
def test_quarantine_across_file_systems(bench: Bench, own_fs: Bench) -> None:
    name = bench.write("evil", b"MZ" * 100_000)
    native.seal_into(bench.root, name, own_fs.store, b"object", bench.keyring, bench.journal, store_options())
    assert bench.names() == []
    native.open_into(own_fs.store, b"object", bench.root, name, bench.keyring, bench.journal)
    assert bench.read("evil") == b"MZ" * 100_000
