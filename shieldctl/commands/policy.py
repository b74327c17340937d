"""policy: which model judges, and how well it does on a trace."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from shieldctl import options as o
from shieldctl.render import Screen, clean

#: Parts of the model's metadata that stand above it already.
SHOWN: Final = ("actions", "features", "policy_version", "schema_version")


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Policy: which model judges, and how well.")
    group.command("show")(show)
    group.command("evaluate")(evaluate)
    app.add_typer(group, name="policy")


def show(
    context: typer.Context,
    card: Annotated[bool, typer.Option("--card", help="Print the model card.")] = False,
    json: o.Json = False,
) -> None:
    """Show the policy in force. Version, digest, features, state; exit status 6 when it is refused."""
    screen = Screen(as_json=json)
    answer = o.client(context).get("/v1/policy")
    if not o.show(answer, screen):
        if card:
            for line in answer["card"].splitlines():
                screen.line(clean(line))
        else:
            screen.pairs(
                [
                    ("state", answer["state"]),
                    *([("reason", answer["reason"])] if answer["reason"] else []),
                    ("version", answer["version"] or None),
                    ("digest", answer["digest"] or None),
                    ("schema", answer["schema_version"]),
                    ("actions", " ".join(answer["actions"])),
                    ("features", f"{len(answer['features'])}: {' '.join(answer['features'])}"),
                    *sorted(row for row in answer["metadata"].items() if row[0] not in SHOWN),
                ]
            )
    if answer["state"] == "refused":
        raise typer.Exit(6)


def evaluate(
    context: typer.Context,
    trace: Annotated[
        str | None, typer.Option("--trace", help="A recorded trace (.npz); the shipped one without.", metavar="PATH")
    ] = None,
    json: o.Json = False,
) -> None:
    """Run the policy over a trace. Counts its decisions; exit status 6 when its self-test fails."""
    screen = Screen(as_json=json)
    body = {} if trace is None else {"trace": o.wire_path(o.absolute(trace))}
    answer = o.client(context).post("/v1/policy/evaluate", body)
    if not o.show(answer, screen):
        agreement = answer["agreement"]
        screen.pairs(
            [
                ("policy", answer["version"]),
                ("trace", answer["source"]),
                ("rows", f"{answer['rows']} ({answer['rows_per_s'] or 0:.0f} rows/s)"),
                ("agreement", "no labels" if agreement is None or agreement < 0 else f"{agreement:.2%}"),
                *answer["actions"].items(),
                ("self-test", "passed" if answer["passed"] else "failed"),
            ]
        )
    if not answer["passed"]:
        raise typer.Exit(6)
