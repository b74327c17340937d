"""Policy and configuration as the API shows them; running the policy over a trace."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.config import Config, ConfigError
from shieldd.errors import ShieldError
from shieldd.judge import PolicyState
from shieldd.model.decision import Action
from shieldd.native import observe

CARD_LIMIT: Final = 1 << 20
TRACE_LIMIT_ROWS: Final = 5_000_000

TraceReader = Callable[[Path], tuple[np.ndarray, np.ndarray]]


def policy_answer(state: PolicyState) -> a.PolicyAnswer:
    """The policy in full."""
    schema = observe.schema()
    policy = state.policy
    card = ""
    if state.directory is not None:
        try:
            card = (state.directory / "MODEL_CARD.md").read_text("utf-8")[:CARD_LIMIT]
        except (OSError, UnicodeDecodeError):
            card = ""
    return a.PolicyAnswer(
        state=state.state,
        version=policy.version if policy else "",
        digest=policy.sha256.hex() if policy else "",
        reason=state.reason,
        schema_version=schema.version,
        features=schema.names,
        actions=schema.actions,
        metadata=policy.metadata if policy else {},
        card=card,
    )


def evaluate(state: PolicyState, request: r.PolicyEvaluate, read: TraceReader) -> a.PolicyEvaluation:
    """Run a recorded trace through fresh windows and the policy; or, without one, the manifest's own rows.

    Raises:
        ShieldError: `policy.off` where there is no policy; what the trace reader raises.
    """
    if state.policy is None:
        raise ShieldError("policy.off", state.reason or "no policy is loaded")
    passed = True
    try:
        state.policy.self_test()
    except ShieldError:
        passed = False
    if request.trace is None:
        rows = state.policy.test_observations
        source = "shipped"
    else:
        events, facts = read(Path(os.fsdecode(request.trace)))
        if len(events) > TRACE_LIMIT_ROWS:
            raise ShieldError("file.budget", f"trace has more than {TRACE_LIMIT_ROWS} rows")
        rows = observe.Windows().observe(events, facts)
        source = os.fsdecode(request.trace)
    begin = time.perf_counter()
    logits = state.policy.score(rows)
    spent = max(time.perf_counter() - begin, 1e-9)
    chosen = Counter(logits.argmax(axis=1).tolist()) if len(logits) else Counter[int]()
    return a.PolicyEvaluation(
        version=state.policy.version,
        source=source,
        rows=len(rows),
        rows_per_s=len(rows) / spent,
        agreement=-1.0,
        actions={action.name.lower(): chosen.get(int(action), 0) for action in Action},
        passed=passed,
    )


def config_answer(config: Config) -> a.ConfigAnswer:
    """The configuration in force."""
    return a.ConfigAnswer(
        source=os.fsencode(config.source) if config.source else b"",
        generation=config.generation,
        mode=config.daemon.mode.value,
        loaded_at_ns=config.loaded_at_ns,
        values=config.values(),
    )


def config_check(config: Config) -> a.ConfigCheck:
    """What a reload would say now."""
    if config.source is None:
        return a.ConfigCheck(b"", ())
    problems: tuple[a.ConfigProblem, ...] = ()
    try:
        Config.load(config.source, generation=config.generation + 1)
    except ConfigError as error:
        problems = tuple(a.ConfigProblem(os.fsencode(x.file), x.key, x.reason) for x in error.problems)
    return a.ConfigCheck(os.fsencode(config.source), problems)
