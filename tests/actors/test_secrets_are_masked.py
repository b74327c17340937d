"""No password of a command line is shown."""

from __future__ import annotations

import pytest

from shieldd.model.actor import ActorInfo, ActorKind, masked


def info(cmdline: bytes) -> ActorInfo:
    """An actor with that command line."""
    return ActorInfo(
        key=1 << 63,
        kind=ActorKind.TREE,
        certain=True,
        pid=2,
        start_ticks=3,
        start_ns=4,
        exe=b"/usr/bin/gpg",
        exe_sha256=b"",
        exe_deleted=False,
        cmdline=cmdline,
        comm=b"gpg",
        uid=0,
        login_uid=None,
        cgroup=b"",
        unit=b"",
        container=b"",
        client=b"",
        pidns=0,
        ancestry=(),
        executables=(),
        more=False,
        processes=1,
    )


SECRET = b"hunter2"


@pytest.mark.parametrize(
    "line",
    [
        b"gpg --batch --passphrase hunter2 -c f",
        b"gpg --passphrase=hunter2 -c f",
        b"openssl enc -aes-256-cbc -k hunter2 -in f",
        b"openssl enc -pass pass:hunter2 -in f",
        b"openssl enc -K hunter2 -iv hunter2",
        b"openssl rsa -passin pass:hunter2",
        b"7z a -phunter2 f.7z f",
        b"zip -P hunter2 f.zip f",
        b"zip --password hunter2 f.zip f",
        b"mysql -u root -phunter2",
        b"curl -u me:hunter2 https://host/",
        b"curl https://me:hunter2@host/",
        b"tool --db-password hunter2",
        b"tool --api-key=hunter2",
        b"tool --SECRET hunter2",
        b"env PGPASSWORD=hunter2 psql",
        b"--password hunter2",
    ],
)
def test_secrets_of_options(line: bytes) -> None:
    words = line.split(b" ")
    out = masked(words)
    assert len(out) == len(words) and words[0] == out[0]
    assert SECRET not in b" ".join(out)


@pytest.mark.parametrize(
    "script",
    [
        b"PGPASSWORD=hunter2 psql",
        b"PGPASSWORD='a hunter2' psql",
        b"gpg --passphrase 'my hunter2' -c f; rm f",
        b'gpg --passphrase "my hunter2" -c f',
        b"curl -H 'Authorization: Bearer hunter2' host",
        b"for f in *; do openssl enc -k hunter2 -in $f; done",
    ],
)
def test_secrets_within_a_script(script: bytes) -> None:
    assert SECRET not in b"".join(masked([b"sh", b"-c", script]))


@pytest.mark.parametrize(
    "line", [b"mkdir -p a/b", b"ssh -p 22 host", b"xargs -P 8 gzip", b"ls -la", b"-bash", b"-ksh", b""]
)
def test_ordinary_arguments_stay(line: bytes) -> None:
    words = line.split(b" ")
    assert masked(words) == words


def test_shown_can_forge_nothing() -> None:
    shown = info(b"gpg\0--passphrase\0hunter2\0a b\0\x1b[2Jx\ny\0\0").shown()
    assert shown == "gpg --passphrase *** 'a b' \\x1b[2Jx\\x0ay ''"
    assert info(b"").shown() == ""
    assert info(b"a\0--password\0hunter2\0").masked() == b"a\0--password\0***\0"
