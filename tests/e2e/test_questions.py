"""What a person asks, and how it ends: sentences and exit statuses of a real daemon."""

from __future__ import annotations

import os

from .running import Running, until


def test_a_question_ends_the_same_with_and_without_following(daemon: Running) -> None:
    for question, status in ((("--kind", "foo"), 2), (("--under", "/etc"), None)):
        plain = daemon.ctl("events", *question, expect=status)
        followed = daemon.ctl("events", "-f", *question, expect=status)
        assert plain.returncode != 0
        assert (followed.returncode, followed.stdout, followed.stderr) == (plain.returncode, "", plain.stderr)


def test_a_missing_file_is_said_in_a_sentence(daemon: Running) -> None:
    said = daemon.ctl("threats", "analyze", daemon.tree / "nothing", expect=4)
    assert "no such file [file.missing]" in said.stdout


def test_many_missing_files_and_a_taken_one(daemon: Running) -> None:
    file = daemon.tree / "taken"
    file.write_bytes(b"x")
    daemon.ctl("quarantine", "add", file)
    paths = [str(file), *(str(daemon.tree / f"none{number}") for number in range(5000))]
    items = daemon.client.post("/v1/files/status", {"paths": paths})["items"]
    assert [item["state"] for item in items] == ["quarantined", *["missing"] * 5000]
    assert items[0]["reason"] == daemon.quarantined()[0]["id"]


def test_a_rewrap_is_announced_and_over_when_it_is(daemon: Running) -> None:
    file = daemon.tree / "a.csv"
    file.write_bytes(b"x" * 1000)
    daemon.ctl("files", "seal", file)
    daemon.ctl("keys", "rotate", "--purpose", "files", "--yes")
    daemon.fence()
    sealed = daemon.tree / "a.csv.shield"
    before = {x["seq"] for x in daemon.client.get("/v1/events", under=str(sealed), limit=100)["items"]}
    daemon.ctl("keys", "rewrap", "--purpose", "files", "--yes")
    daemon.fence()
    after = {x["seq"] for x in daemon.client.get("/v1/events", under=str(sealed), limit=100)["items"]}
    assert after == before, "our own work is no event"
    with sealed.open("ab") as file_:
        os.write(file_.fileno(), b"somebody")
    question = {"under": str(sealed), "limit": 100}
    until("another's write", lambda: {x["seq"] for x in daemon.client.get("/v1/events", **question)["items"]} - before)
