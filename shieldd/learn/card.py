"""The model card and the curve of its training: what was done, on what, how well, and what that does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shieldd.learn.evaluate import Result

REAL_TOOLS_HEADING: Final = "## Real tools"
LIMITS_HEADING: Final = "## Limits"
Curve = Sequence[tuple[int, float, float]]


@dataclass(frozen=True, slots=True)
class Card:
    """What a card tells.

    Attributes:
        version: of the policy.
        sha256: of the model, hex.
        command: that made it.
        seed: of everything.
        facts: label to text, in order (commit, episodes, rows, duration, size, parity).
        tables: heading to judge to result.
        families: per held-out family, the policy's result.
        seen: families that it was trained on.
        unseen: families that it was not.
    """

    version: str
    sha256: str
    command: str
    seed: int
    facts: Mapping[str, str]
    tables: Mapping[str, Mapping[str, Result]]
    families: Mapping[str, Result]
    seen: Sequence[str]
    unseen: Sequence[str]


def write_card(card: Card, real_tools: str) -> str:
    """The card, Markdown.

    Args:
        card: figures.
        real_tools: what a run of real programs gave, kept by hand beside the model (`REAL_TOOLS.md`).
    """
    lines = [
        "# Model card: the shipped policy",
        "",
        f"* Version `{card.version}`, SHA-256 `{card.sha256}`",
        f"* Made by `{card.command}`, seed {card.seed}",
        *(f"* {label}: {text}" for label, text in card.facts.items()),
        "* Input: one row per coalesced file event, columns as in shieldd-observation(5). Output: logits of",
        "  allow, alert, seal, quarantine, contain; and the expected return.",
        "* Learner: exact policy gradient for optimal stopping (shieldd/learn/trainer.py), a network of 2 x 96 units;",
        "  masks in the graph: contain needs a destroyed file and content overwritten or made unreadable, seal exposed",
        "  patient data, quarantine an executable, a script or a note.",
        "",
        "## Data",
        "",
        "Simulator only: invented files and tools (shieldd/learn), drawn anew for training and for each table, sent",
        "through the same native windows as the kernel's events. No patient data, no recorded host.",
        "",
        f"* trained on: {', '.join(card.seen)}",
        f"* held out whole: {', '.join(card.unseen)}",
        "",
        "## Evaluation",
        "",
        "Intervals are Wilson's, 95 %. *Detection*: destroying episodes contained after it began. *Stopped*,",
        "*disturbed*, *alerted*: harmless episodes with a containment, a wrong seal or quarantine, an alert. *Lost*:",
        "files destroyed in an episode until containment; rates of the attacks lie between 0.05 and 400 files/s.",
    ]
    for heading, results in card.tables.items():
        lines += ["", f"### {heading}", "", *_table(results)]
    lines += [
        "",
        "### Held-out families one by one (the policy)",
        "",
        *_table(card.families),
        "",
        REAL_TOOLS_HEADING,
        "",
    ]
    lines += [real_tools.strip(), "", LIMITS_HEADING, "", *_LIMITS, "", "## Signature", "", *_SIGNATURE, ""]
    return "\n".join(lines)


_LIMITS = (
    "* The figures above are a simulator's judgement of a simulator's pupil. They say that the learner learned, not",
    "  that hospitals are safe. The real-tools section is small; a false-positive rate below 0.1 % would need 2,995",
    "  harmless runs without an error.",
    "* Pieces of no known kind that a program makes and soon deletes (`scratch`, `split` and join) are taken for lost",
    "  content by the core's count, and so by the guard's rule and by the policy.",
    "* Low-entropy output (`encode_then_delete`) is caught by the guard's rule of five rather than by the policy.",
    "* Compressors whose container the format table does not know, and that delete their input, look like attacks.",
    "* A plain deletion of many files is asked about (alert), not stopped: from events alone a purge and an",
    "  intruder's `rm` are the same.",
    "* Without attribution (inotify) the actor is the whole tree: ordinary work dilutes ratios, and what is contained",
    "  is decided for the tree.",
    "* Copying out, staging and mass reading are hardly seen: no column speaks of network or destination.",
    "* Writes through a memory map show only when the file is closed or found by a scan.",
)
_SIGNATURE = (
    "`manifest.json` names the model's digest, holds self-test vectors, and is signed with Ed25519. The private key of",
    "the shipped signature was made for this one export and never stored; `manifest.pub` is its public half, and the",
    "package that brought it is what vouches for it. A site that trains or approves its own policy signs it with a key",
    "of its own:",
    "",
    "    openssl genpkey -algorithm ed25519 -out site.pem",
    "    python -m shieldd.learn train --seed 7 --out DIR --key site.pem",
    "    python -m shieldd.learn sign --policy DIR --key site.pem        # an existing model, after review",
)


def _table(results: Mapping[str, Result]) -> list[str]:
    head = "| | detection | contained too early | stopped | disturbed | alerted | quarantine | seal | lost p50 / p95 |"
    lines = [head, "| --- " * 9 + "|"]
    for name, r in results.items():
        lost = f"{r.lost_at(50):.0f} / {r.lost_at(95):.0f}" if len(r.lost) else "–"
        shares = (r.detected, r.early, r.stopped, r.disturbed, r.alerted, r.quarantined, r.sealed)
        cells = [str(x) if x.total else "–" for x in shares]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {lost} |")
    return lines


def draw_curve(curve: Curve) -> str:
    """The return of training episodes over the steps, as SVG."""
    width, height, edge = 640, 280, 40
    steps, values = [x[0] for x in curve], [x[1] for x in curve]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{edge + (width - 2 * edge) * step / max(steps[-1], 1):.1f},"
        f"{height - edge - (height - 2 * edge) * (value - low) / span:.1f}"
        for step, value in zip(steps, values, strict=True)
    )
    text = 'font-family="sans-serif" font-size="12"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f'<polyline fill="none" stroke="#1f5fa8" stroke-width="1.5" points="{points}"/>'
        f'<text x="{edge}" y="20" {text}>return of a training episode: {low:.1f} to {high:.1f} (a lost file: -1)</text>'
        f'<text x="{edge}" y="{height - 12}" {text}>gradient step 0 to {steps[-1]}</text></svg>\n'
    )
