"""`python -m shieldd.learn train|evaluate|rehearse|sign`: makes, measures, tries and signs policies."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shieldd.detect.manifest import KEY_NAME, MANIFEST_NAME, read_key, sign
from shieldd.detect.policy import Policy
from shieldd.learn import attacks, benign, benign_held_out, export, regression, rehearsal, scenarios
from shieldd.learn.card import LIMITS_HEADING, REAL_TOOLS_HEADING, Card, draw_curve, write_card
from shieldd.learn.evaluate import BASELINES, Judge, Result, by_family, evaluate, guarded, scorer
from shieldd.learn.simulator import HELD_OUT, TRAINED, Episode, Families, simulate
from shieldd.learn.trainer import Settings, train
from shieldd.learn.world import Truth
from shieldd.native.observe import schema

MIXED = Families({**attacks.TRAINED, **attacks.HELD_OUT}, {**benign.TRAINED, **benign_held_out.HELD_OUT})
REAL_TOOLS = "REAL_TOOLS.md"
NO_REAL_TOOLS = "Not run yet for this version."


def generator(seed: int, purpose: int) -> np.random.Generator:
    """Randomness of one purpose, apart from all others of the same seed."""
    return np.random.Generator(np.random.PCG64([seed, purpose]))


def reference_row(episodes: list[Episode]) -> np.ndarray:
    """The most ordinary harmless row: the one nearest to the median of them all; a real row, so it is consistent."""
    rows = np.concatenate([x.observations[x.truth == Truth.BENIGN] for x in episodes if not x.hostile])
    calm = rows[rows[:, schema().index["destroyed_60s"]] < 0.01]
    spread = np.abs(calm - np.median(calm, axis=0)) / (calm.std(axis=0) + 0.05)
    nearest: np.ndarray = calm[int(spread.sum(axis=1).argmin())]
    return nearest


def run_training(arguments: argparse.Namespace) -> int:
    """Simulate, train, export, evaluate, and write the card."""
    began, seed, out = time.monotonic(), arguments.seed, arguments.out
    episodes = simulate(generator(seed, 1), TRAINED, arguments.episodes)
    rows = sum(len(x.truth) for x in episodes)
    say(f"{len(episodes)} episodes, {rows} rows in {time.monotonic() - began:.0f} s")
    trained = train(episodes, seed=seed, settings=Settings(steps=arguments.steps), report=say)
    taken = time.monotonic() - began
    bare = export.build(trained.params, trained.norm, {}).SerializeToString(deterministic=True)
    tables, families = measure(
        episodes,
        scorer(export.runner(bare)),
        scorer(regression.fit(episodes[: len(episodes) // 4], trained.norm)),
        seed,
        arguments.trials,
    )
    version = export.version_of(trained.params, trained.norm, seed)
    held = tables[HELD_OUT_HEADING]["policy"]
    summary = {
        "held_out_detection": round(held.detected.rate, 4),
        "held_out_stopped": round(held.stopped.rate, 4),
        "held_out_alerted": round(held.alerted.rate, 4),
        "trials": held.detected.total + held.stopped.total,
        "data": "simulator",
    }
    commit = arguments.commit or head_commit()
    data = "simulator of shieldd.learn, families and limits in MODEL_CARD.md; no patient data"
    metadata = export.describe(version, commit=commit, data=data, evaluation=summary)
    model = export.build(trained.params, trained.norm, metadata)
    raw = model.SerializeToString(deterministic=True)
    sample = np.concatenate([x.observations for x in episodes[:200]])[:8192]
    difference = export.parity(raw, trained.params, trained.norm, sample)
    if difference > export.PARITY:
        say(f"inference runtime and trainer differ by {difference:.1e}; nothing was written")
        return 1
    digest = export.write(
        out,
        model,
        version=version,
        reference=reference_row(episodes[:200]),
        vectors=sample,
        key=private_key(arguments.key),
    )
    (out / "curve.svg").write_text(draw_curve(trained.curve), "utf-8")
    (out / "curve.json").write_text(json.dumps(trained.curve), "ascii")
    noted = out / REAL_TOOLS
    card = Card(
        version=version,
        sha256=digest.hex(),
        command=f"python -m shieldd.learn train --seed {seed} --out shieldd/policy",
        seed=seed,
        facts={
            "Training commit": f"{commit} (recorded in the model; the version is that of the weights alone)",
            "Training": f"{len(episodes)} episodes, {rows} rows, {arguments.steps} steps; {taken:.0f} s on two cores",
            "Size": f"{len(raw)} bytes; parity with onnxruntime {difference:.1e} (relative, 1e-5 allowed)",
            "Curve": "curve.svg, curve.json",
        },
        tables=tables,
        families=families,
        seen=[*TRAINED.attacks, *TRAINED.benign],
        unseen=[*HELD_OUT.attacks, *HELD_OUT.benign],
    )
    text = write_card(card, noted.read_text("utf-8") if noted.exists() else NO_REAL_TOOLS)
    (out / "MODEL_CARD.md").write_text(text, "utf-8")
    say(text)
    return 0


HELD_OUT_HEADING = "Families that it never saw"


def measure(
    episodes: list[Episode], policy: Judge, linear: Judge, seed: int, trials: int
) -> tuple[dict[str, dict[str, Result]], dict[str, Result]]:
    """Tables of judges on fresh episodes, and the policy on each held-out family."""
    judges = {
        "policy": policy,
        "policy under the guard's rule": guarded(policy),
        "logistic regression": linear,
        **BASELINES,
    }
    fresh = simulate(generator(seed, 2), TRAINED, trials)
    unseen = simulate(generator(seed, 3), HELD_OUT, trials)
    rest = [x for x in unseen if "scratch" not in x.family.split("+")]
    tables = {
        "Families that it was trained on, new episodes": {
            name: evaluate(judge, fresh) for name, judge in judges.items()
        },
        HELD_OUT_HEADING: {name: evaluate(judge, unseen) for name, judge in judges.items()},
        "The same without `scratch` (see Limits)": {name: evaluate(judge, rest) for name, judge in judges.items()},
    }
    return tables, by_family(policy, unseen)


def run_evaluation(arguments: argparse.Namespace) -> int:
    """Measure a policy as it lies on disk, on episodes of another seed."""
    policy = Policy.load(arguments.policy, schema(), read_key(arguments.policy / KEY_NAME))
    judge = scorer(policy.score)
    for name, families in (("trained", TRAINED), ("held out", HELD_OUT), ("mixed", MIXED)):
        episodes = simulate(generator(arguments.seed, 9), families, arguments.trials)
        for family, result in {"all": evaluate(judge, episodes), **by_family(judge, episodes)}.items():
            say(
                f"{name:9} {family:22} detected {result.detected} early {result.early.rate:.1%} "
                f"stopped {result.stopped} disturbed {result.disturbed.rate:.1%} alerted {result.alerted.rate:.1%} "
                f"quarantine {result.quarantined.rate:.1%} seal {result.sealed.rate:.1%} "
                f"lost {result.lost_at(50):.0f}/{result.lost_at(95):.0f}"
            )
    return 0


def run_rehearsal(arguments: argparse.Namespace) -> int:
    """Let real programs work in scratch trees; write what came of it beside the policy."""
    policy = Policy.load(arguments.policy, schema(), read_key(arguments.policy / KEY_NAME))
    outcomes = rehearsal.rehearse(policy, [*scenarios.ATTACKS, *scenarios.BENIGN], say)
    text = rehearsal.report(
        outcomes, policy.version, f"Linux {platform.release().split('-')[0]}, {os.cpu_count()} cores"
    )
    (arguments.policy / REAL_TOOLS).write_text(text, "utf-8")
    card = arguments.policy / "MODEL_CARD.md"
    before, rest = card.read_text("utf-8").split(REAL_TOOLS_HEADING, 1)
    after = rest[rest.index(LIMITS_HEADING) :]
    card.write_text(before + REAL_TOOLS_HEADING + "\n" + text + "\n" + after, "utf-8")
    return 0


def run_signing(arguments: argparse.Namespace) -> int:
    """Sign the manifest of an existing policy anew, and leave the public key beside it."""
    manifest = arguments.policy / MANIFEST_NAME
    key = private_key(arguments.key)
    assert key is not None
    manifest.write_bytes(sign(json.loads(manifest.read_bytes()), key))
    (arguments.policy / KEY_NAME).write_text(key.public_key().public_bytes_raw().hex() + "\n", "ascii")
    return 0


def private_key(path: Path | None) -> Ed25519PrivateKey | None:
    """The signing key of a PEM file."""
    if path is None:
        return None
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise SystemExit(f"shieldd.learn: {path} is not an Ed25519 key")
    return key


def head_commit() -> str:
    """The commit that is checked out here, `unknown` outside a repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def say(text: str) -> None:
    """A line of progress."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m shieldd.learn", description=__doc__)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="simulate, train, export, evaluate, write the card")
    training.add_argument("--seed", type=int, default=7)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--episodes", type=int, default=2500)
    training.add_argument("--steps", type=int, default=1200)
    training.add_argument("--trials", type=int, default=800)
    training.add_argument("--key", type=Path, help="Ed25519 private key, PEM; without it one is made and forgotten")
    training.add_argument("--commit", default="", help="recorded as the training commit")
    training.set_defaults(run=run_training)
    measuring = commands.add_parser("evaluate", help="measure a policy on fresh episodes")
    measuring.add_argument("--policy", type=Path, required=True)
    measuring.add_argument("--seed", type=int, default=1007)
    measuring.add_argument("--trials", type=int, default=600)
    measuring.set_defaults(run=run_evaluation)
    rehearsing = commands.add_parser(
        "rehearse", help="real programs in scratch trees, judged; the card gets the result"
    )
    rehearsing.add_argument("--policy", type=Path, required=True)
    rehearsing.set_defaults(run=run_rehearsal)
    signing = commands.add_parser("sign", help="sign an existing policy with a site's key")
    signing.add_argument("--policy", type=Path, required=True)
    signing.add_argument("--key", type=Path, required=True)
    signing.set_defaults(run=run_signing)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
