"""What real programs do in a rehearsal: one shell script each, run inside a scratch tree and naming nothing outside it.

None of these is trained on. Scripts work on the files of the directories `a` to `e`, in the order of their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scenario:
    """One script in one tree.

    Attributes:
        name: for the table.
        script: for `sh`, run inside the tree.
        hostile: whether it must be contained; `None` where a person should be asked.
        needs: the program that must be there.
    """

    name: str
    script: str
    hostile: bool | None
    needs: str


def _each(work: str, before: str = "") -> str:
    """`work` for each file `$f`."""
    return before + "find . -type f ! -name '.*' | sort | while read -r f; do " + work + "; done"


_CTR: Final = "openssl enc -aes-256-ctr"
_RAW: Final = _CTR + " -K 01 -iv 00"
_PASS: Final = _CTR + " -pbkdf2 -iter 1 -k x"
_GPG: Final = "gpg --batch --yes -q --pinentry-mode loopback --s2k-count 1024 --passphrase x -c"
_AGE_KEY: Final = "d=$(mktemp -d); age-keygen -o $d/k 2>/dev/null; r=$(age-keygen -y $d/k); rm -r $d; "
_SIZE: Final = '"$(stat -c %s "$f")"'

ATTACKS: Final = (
    Scenario("openssl beside, then rm", _each(_PASS + ' -in "$f" -out "$f.enc" && rm "$f"'), True, "openssl"),
    Scenario(
        "openssl without header, own suffix, then rm",
        _each(_RAW + ' -in "$f" -out "$f.lck" 2>/dev/null && rm "$f"'),
        True,
        "openssl",
    ),
    Scenario(
        "openssl to a temporary file, mv over",
        _each(_RAW + ' -in "$f" -out "$f.t" 2>/dev/null && mv "$f.t" "$f"'),
        True,
        "openssl",
    ),
    Scenario("gpg, then rm", _each(_GPG + ' "$f" && rm "$f"', "export GNUPGHOME=$(mktemp -d); "), True, "gpg"),
    Scenario("age, then rm", _each('age -r "$r" -o "$f.age" "$f" && rm "$f"', _AGE_KEY), True, "age"),
    Scenario("noise over each file", _each(f'head -c {_SIZE} /dev/urandom > "$f"'), True, "head"),
    Scenario("zeros over each file", _each(f'head -c {_SIZE} /dev/zero > "$f"'), True, "head"),
    Scenario(
        "noise over the first 1,024 bytes",
        _each('dd if=/dev/urandom of="$f" bs=1024 count=1 conv=notrunc status=none'),
        True,
        "dd",
    ),
    Scenario("rename, then noise", _each('mv "$f" "$f.x9" && head -c 5000 /dev/urandom > "$f.x9"'), True, "head"),
    Scenario("shred -u", _each('shred -n 1 -u "$f"'), True, "shred"),
    Scenario("openssl -a (text), then rm", _each(_PASS + ' -a -in "$f" -out "$f.b" && rm "$f"'), True, "openssl"),
    Scenario("7z with a password, -sdel", "7z a -pX -mhe=on -sdel away.7z a b c d >/dev/null", None, "7z"),
    Scenario("rm -r", "rm -r a b c d", None, "rm"),
)
BENIGN: Final = (
    Scenario("cp -r", "cp -r a copy", False, "cp"),
    Scenario("rsync -a, twice", "rsync -a a b mirror/ && touch a/* && rsync -a a b mirror/", False, "rsync"),
    Scenario("tar c, tar x", "tar cf all.tar a b && mkdir out && tar xf all.tar -C out", False, "tar"),
    Scenario("tar cz, sources kept", "tar czf all.tgz a b c d", False, "tar"),
    Scenario("gzip -r", "gzip -r a b", False, "gzip"),
    Scenario("gzip -r, gunzip -r", "gzip -r a && gunzip -r a", False, "gzip"),
    Scenario("xz", "find a b -type f | xargs xz -0", False, "xz"),
    Scenario("zstd --rm", "find a b -type f | xargs zstd -q --rm", False, "zstd"),
    Scenario("zip -m", "zip -qrm away.zip a b", False, "zip"),
    Scenario(
        "git: commits, checkouts",
        "git init -q . && git config user.email a@b && git config user.name n && git add a b && git commit -qm 1 && "
        "git rm -rq b && git commit -qm 2 && git checkout -q HEAD~1 && git checkout -q - 2>/dev/null; git gc -q",
        False,
        "git",
    ),
    Scenario("sed -i over texts", "find . -name '*.txt' | xargs sed -i 's/ward/unit/g'", False, "sed"),
    Scenario("mass rename", 'for f in a/* b/*; do mv "$f" "$f.old"; done', False, "mv"),
    Scenario("chmod, touch", "chmod -R u=rwX,g=rX,o= . && touch a/* b/*", False, "chmod"),
    Scenario("one file encrypted beside", f'f=$(ls a/*|head -1); {_PASS} -in "$f" -out "$f.enc"', False, "openssl"),
    Scenario("backup: encrypted tar, sources kept", f"tar c a b c | {_PASS} -out backup.enc", False, "openssl"),
    Scenario("split and join", "tar cf t a && split -b 20k t p. && cat p.* > u && rm p.* t u", False, "split"),
    Scenario(
        "sqlite3 writes",
        'for i in $(seq 20); do sqlite3 w.db "create table if not exists t(a); insert into t values($i)"; done',
        False,
        "sqlite3",
    ),
    Scenario(
        "log rotation",
        "for i in 1 2 3 4; do cp e/ward.log e/w$i.log; mv e/w$i.log e/w$i.log.1; gzip e/w$i.log.1; done",
        False,
        "gzip",
    ),
)
