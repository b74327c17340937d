"""status, doctor, ping, wait: is it there, is it well, what is wrong."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer

from shieldctl import options as o
from shieldctl.render import Screen, clean, size
from shieldd.errors import ShieldError

DEGRADED: Final = 6
POLL_S: Final = 0.1


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    app.command("doctor")(doctor)
    app.command("ping")(ping)
    app.command("wait")(wait)


def status(context: typer.Context, json: o.Json = False) -> None:
    """Show the whole daemon on one page. Exit status 6 when something is not as it should be."""
    screen = Screen(as_json=json)
    answer = o.client(context).get("/v1/status")
    if not o.show(answer, screen):
        _print_status(answer, screen)
    if answer["state"] != "ready" or answer["troubles"]:
        raise typer.Exit(DEGRADED)


def _print_status(answer: dict[str, Any], screen: Screen) -> None:
    watch, policy, counts, kept = answer["watch"], answer["policy"], answer["counts"], answer["preserve"]
    screen.pairs(
        [
            ("state", answer["state"]),
            ("daemon", f"shieldd {answer['version']}, {answer['mode']} mode, pid {answer['pid']}"),
            ("since", answer["since"]),
            ("host", answer["host_id"]),
            ("config", f"{answer['config_source'] or 'built in'} (generation {answer['generation']})"),
            ("policy", " ".join(filter(None, [policy["state"], policy["version"], policy["reason"]]))),
            ("keys", answer["keys"]),
            (
                "watching",
                f"{watch['directories']} directories with {watch['backend']}; {watch['events']} events, "
                f"{watch['lost']} lost, {watch['overflows']} overflows, {watch['rescans']} rescans",
            ),
            ("which means", watch["means"]),
            ("writers", f"{watch['hold']['means']} (since {watch['hold']['since']})"),
            *([("blind since", watch["blind_since"])] if watch["blind_since"] else []),
            ("preserving", f"{kept['state']}: {kept['means']}"),
            *[("vault", _vault(vault)) for vault in kept["vaults"]],
            ("threats", f"{counts['threats_open']} open of {counts['threats']}"),
            ("files", f"{counts['sealed']} sealed, {counts['quarantined']} in quarantine"),
            *[("tree", f"{tree['root']} ({tree['mode']}, {tree['canaries']} canaries)") for tree in answer["trees"]],
            *[("not covered", f"{gap['path']}: {gap['reason']}") for gap in watch["not_covered"]],
            *[("not held", gap) for gap in watch["hold"]["not_covered"]],
        ]
    )
    for trouble in answer["troubles"]:
        screen.line(f"trouble: {trouble['text']} [{trouble['code']}] since {trouble['since']}", "yellow")
        if trouble["hint"]:
            screen.line(f"   hint: {trouble['hint']}")


def _vault(vault: dict[str, Any]) -> str:
    words = f"{vault['path']}: {vault['files']} files, {vault['gone']} of them only here, {size(vault['size'])}"
    words += f", held for {vault['pins']} threats" if vault["pins"] else ""
    words += ", still linking" if vault["linking"] else ""
    return "; ".join((words, *vault["degraded"]))


def doctor(context: typer.Context, json: o.Json = False) -> None:
    """Check the installation. Says how to mend what fails; exit status 6 when something does."""
    screen = Screen(as_json=json)
    answer = o.client(context).get("/v1/doctor")
    if not o.show(answer, screen):
        for check in answer["items"]:
            screen.line(f"{check['state']:<5} {check['name']}: {check['detail']}", _STYLE[check["state"]])
            if check["hint"]:
                screen.line(f"      hint: {check['hint']}")
    if any(check["state"] == "fail" for check in answer["items"]):
        raise typer.Exit(DEGRADED)


_STYLE: Final = {"ok": "", "warn": "yellow", "fail": "bold red"}


def ping(context: typer.Context, json: o.Json = False) -> None:
    """Ask for a sign of life. Exit status 3 when there is none."""
    screen = Screen(as_json=json)
    began_s = time.monotonic()
    answer = o.client(context).get("/v1/health")
    took_ms = (time.monotonic() - began_s) * 1000
    if not o.show({**answer, "took_ms": round(took_ms, 3)}, screen):
        screen.line(f"shieldd {clean(answer['version'])} {answer['state']}, pid {answer['pid']}, {took_ms:.1f} ms")


def wait(
    context: typer.Context,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.", metavar="S")] = 30.0,
    json: o.Json = False,
) -> None:
    """Wait until the daemon guards. Exit status 0 ready, 6 guarding but degraded, 3 not there in time."""
    screen = Screen(as_json=json)
    deadline_s = time.monotonic() + timeout
    while True:
        state = "not running"
        try:
            answer = o.client(context).get("/v1/health")
            state = answer["state"]
            if state not in ("starting", "stopping"):
                break
        except ShieldError as error:
            if error.code not in ("cli.unreachable", "cli.cut", "cli.not-ready", "api.busy"):
                raise
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise ShieldError("cli.not-ready", f"daemon was not ready after {timeout:g} s: {state}")
        time.sleep(min(POLL_S, left_s))
    if not o.show(answer, screen):
        screen.line(state)
    if state != "ready":
        raise typer.Exit(DEGRADED)
