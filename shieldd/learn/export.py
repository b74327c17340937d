"""Writes a trained policy for the inference runtime: `policy.onnx`, signed `manifest.json`, `manifest.pub`.

The graph is that of `network.py`, in ONNX operators; parity is checked before anything is written. The bytes depend
on the parameters and metadata alone, so the same training gives the same digest; only the signature differs, because
the signing key is made anew unless one is given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from shieldd.detect.manifest import FORMAT, KEY_NAME, MANIFEST_NAME, MODEL_LIMIT_BYTES, MODEL_NAME, sign
from shieldd.learn.network import (
    CLIP,
    CONTENT_LOSS,
    DESTROYED_LEAST,
    MASKED,
    Normaliser,
    Params,
    apply,
    columns,
    masks,
    normalise,
)
from shieldd.model.decision import Action
from shieldd.native.observe import schema

OPSET: Final = 17
IR_VERSION: Final = 8
PARITY: Final = 1e-5
SELF_TEST_ROWS: Final = 24
TOLERANCE: Final = 1e-3


def build(params: Params, norm: Normaliser, metadata: Mapping[str, str]) -> ModelProto:
    """The ONNX model: input `observation` float32 (N, F), outputs `logits` (N, 5) and `value` (N,)."""
    constants: list[TensorProto] = []
    nodes: list[Any] = []

    def constant(name: str, value: Any, dtype: Any = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    one = constant("one", 1.0)
    counted = node("Log", [node("Add", [node("Relu", ["observation"], "positive"), one], "plus_one")], "logarithm")
    mixed = node(
        "Add",
        [
            node("Mul", [counted, constant("counts", norm.counts)], "counted"),
            node("Mul", ["observation", constant("others", 1 - norm.counts)], "uncounted"),
        ],
        "scaled",
    )
    centred = node("Sub", [mixed, constant("mean", norm.mean)], "centred")
    spread = node("Mul", [centred, constant("inverse_std", 1 / norm.std)], "spread")
    hidden = node("Clip", [spread, constant("low", -CLIP), constant("high", CLIP)], "normalised")
    for layer in (1, 2):
        weights = [constant(f"w{layer}", params[f"w{layer}"]), constant(f"b{layer}", params[f"b{layer}"])]
        hidden = node("Relu", [node("Gemm", [hidden, *weights], f"layer{layer}")], f"hidden{layer}")
    raw = node("Gemm", [hidden, constant("w3", params["w3"]), constant("b3", params["b3"])], "preferences")

    def at_least(names: tuple[str, ...], least: float, label: str) -> str:
        picked = node(
            "Gather", ["observation", constant(f"{label}_columns", columns(*names), np.int64)], f"{label}_of", axis=1
        )
        top = node("ReduceMax", [picked], f"{label}_top", axes=[1], keepdims=1)
        return node("GreaterOrEqual", [top, constant(f"{label}_least", least)], f"{label}_holds")

    exposed = node(
        "And",
        [at_least(("phi",), 0.5, "phi"), at_least(("exposed_read", "exposed_write"), 0.5, "exposed")],
        "seal_allowed",
    )
    malicious = at_least(("executable", "script", "note_like"), 0.5, "malicious")
    destroyed = node(
        "And",
        [
            at_least(("destroyed_60s", "tree_destroyed_60s"), DESTROYED_LEAST, "destroyed"),
            at_least(CONTENT_LOSS, DESTROYED_LEAST, "content_lost"),
        ],
        "contain_allowed",
    )
    always = node("Equal", [destroyed, destroyed], "always")
    allowed = node("Concat", [always, always, exposed, malicious, destroyed], "allowed", axis=1)
    gate = node("Sub", [node("Cast", [allowed], "allowed_number", to=TensorProto.FLOAT), one], "gate")
    node("Add", [raw, node("Mul", [gate, constant("masked", MASKED)], "penalty")], "logits")
    flat = node("Gemm", [hidden, constant("w4", params["w4"]), constant("b4", params["b4"])], "value_column")
    node("Squeeze", [flat, constant("last_axis", [1], np.int64)], "value")

    graph = helper.make_graph(
        nodes,
        "shieldd-policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["N", schema().width])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(Action)]),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["N"]),
        ],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="shieldd.learn")
    model.ir_version = IR_VERSION
    for key in sorted(metadata):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, metadata[key]
    checker.check_model(model)
    return model


def describe(version: str, *, commit: str, data: str, evaluation: Mapping[str, Any]) -> dict[str, str]:
    """`metadata_props` of a model: which observation, which actions, where it comes from."""
    features = [{"name": x.name, "unit": x.unit} for x in schema().features]
    return {
        "schema_version": str(schema().version),
        "features": json.dumps(features, separators=(",", ":")),
        "actions": json.dumps(list(schema().actions)),
        "policy_version": version,
        "training_commit": commit,
        "data_card": data,
        "evaluation": json.dumps(evaluation, sort_keys=True, separators=(",", ":")),
    }


def version_of(params: Params, norm: Normaliser, seed: int) -> str:
    """A name that follows from the parameters: `sim-<seed>-<eight hex digits>`."""
    digest = hashlib.sha256()
    for name in sorted(params):
        digest.update(np.ascontiguousarray(params[name]).tobytes())
    digest.update(norm.mean.tobytes() + norm.std.tobytes())
    return f"sim-{seed}-{digest.hexdigest()[:8]}"


def reference_scores(params: Params, norm: Normaliser, observations: np.ndarray) -> np.ndarray:
    """Logits as JAX computes them."""
    return np.asarray(apply(params, normalise(norm, observations), masks(observations))[0])  # type: ignore[arg-type]


def runner(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Logits of a model's bytes, by the inference runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def score(observations: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(["logits"], {"observation": observations})[0]
        return logits

    return score


def parity(model: bytes, params: Params, norm: Normaliser, observations: np.ndarray) -> float:
    """Largest relative difference between JAX and the inference runtime over rows, where actions are not masked."""
    ours = runner(model)(observations)
    theirs = reference_scores(params, norm, observations)
    free = theirs > -MASKED / 2
    return float((np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs)))[free].max())


def write(
    out: Path,
    model: ModelProto,
    *,
    version: str,
    reference: np.ndarray,
    vectors: np.ndarray,
    key: Ed25519PrivateKey | None = None,
) -> bytes:
    """Write model, manifest and public key into a directory.

    Args:
        out: directory, made if need be.
        model: of `build`.
        version: of the policy.
        reference: float32 (F,), an ordinary harmless observation; explanations compare with it.
        vectors: float32 (K, F), rows for the self-test.
        key: signs the manifest; without one a key is made for this one signature and forgotten.

    Returns:
        SHA-256 of the model.
    """
    out.mkdir(parents=True, exist_ok=True)
    raw = model.SerializeToString(deterministic=True)
    if len(raw) > MODEL_LIMIT_BYTES:
        raise ValueError(f"model has {len(raw)} bytes, the limit is {MODEL_LIMIT_BYTES}")
    tests = telling(runner(raw), vectors)
    logits = runner(raw)(tests)
    digest = hashlib.sha256(raw)
    fields = {
        "format": FORMAT,
        "version": version,
        "sha256": digest.hexdigest(),
        "size_bytes": len(raw),
        "schema_version": schema().version,
        "reference": _numbers(reference),
        "self_test": {
            "observations": [_numbers(row) for row in tests],
            "logits": [_numbers(row) for row in logits],
            "tolerance": TOLERANCE,
        },
    }
    key = key or Ed25519PrivateKey.generate()
    (out / MODEL_NAME).write_bytes(raw)
    (out / MANIFEST_NAME).write_bytes(sign(fields, key))
    (out / KEY_NAME).write_text(key.public_key().public_bytes_raw().hex() + "\n", "ascii")
    return digest.digest()


def telling(score: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """At most `SELF_TEST_ROWS` different rows, spread over the actions that the model names for them."""
    distinct = np.unique(rows, axis=0)
    actions = score(distinct).argmax(axis=1)
    rank = np.zeros(len(distinct), np.int64)
    for action in Action:
        mine = np.flatnonzero(actions == action)
        rank[mine] = np.random.Generator(np.random.PCG64(int(action))).permutation(len(mine))
    chosen: np.ndarray = distinct[np.argsort(rank, kind="stable")[:SELF_TEST_ROWS]]
    return chosen


def _numbers(row: np.ndarray) -> list[float]:
    return [float(x) for x in row]
