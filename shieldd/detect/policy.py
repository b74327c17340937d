"""The learned policy: loads a signed ONNX model, scores observations.

Owns every check between a file on disk and a number that is acted on. Each refusal has a code of its own; the caller
then goes on with the guard's hard rules alone and says so. Explanations are in `explain.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from shieldd.detect.explain import explain
from shieldd.detect.manifest import MANIFEST_LIMIT_BYTES, MANIFEST_NAME, MODEL_LIMIT_BYTES, MODEL_NAME, Manifest, verify
from shieldd.errors import ShieldError
from shieldd.model.decision import Action, Reason
from shieldd.native.observe import Schema

INPUT_NAME: Final = "observation"
OUTPUTS: Final = ("logits", "value")
_RUNTIME_ERRORS: Final = (
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
    RuntimeError,
    ValueError,
)


class Policy:
    """A verified model, ready to score. Thread-safe: scoring changes nothing."""

    def __init__(self, session: onnxruntime.InferenceSession, manifest: Manifest, schema: Schema) -> None:
        self._session = session
        self._manifest = manifest
        self._schema = schema
        self.version: str = manifest.version
        self.sha256: bytes = manifest.sha256
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    @classmethod
    def load(cls, directory: Path, schema: Schema, public_key: Ed25519PublicKey) -> Policy:
        """Read and verify the policy of a directory.

        The order is: signature of the manifest, digest of the model, runtime, shapes, schema, self-test. Nothing of
        the model is given to the runtime before its digest holds.

        Args:
            directory: holds `policy.onnx` and `manifest.json`.
            schema: the core's observation table.
            public_key: of the signer that the site trusts (`manifest.read_key`).

        Raises:
            ShieldError: a `policy.*` code that names the check that refused.
        """
        raw = _read(directory / MANIFEST_NAME, MANIFEST_LIMIT_BYTES, "policy.manifest")
        manifest = verify(raw, public_key, width=len(schema.features), actions=len(Action))
        model = _read(directory / MODEL_NAME, MODEL_LIMIT_BYTES, "policy.size")
        if len(model) != manifest.size_bytes or hashlib.sha256(model).digest() != manifest.sha256:
            raise ShieldError("policy.digest")
        session = _session(model)
        _check_shapes(session, len(schema.features))
        _check_schema(session, manifest, schema)
        policy = cls(session, manifest, schema)
        policy.self_test()
        return policy

    def score(self, observations: np.ndarray) -> np.ndarray:
        """Logits of each observation.

        Args:
            observations: float32 (N, F), raw units, columns in the order of the schema.

        Returns:
            float32 (N, 5): allow, alert, seal, quarantine, contain. A row may hold NaN where its observation did;
            the guard then goes by its rules for that row.

        Raises:
            ShieldError: `policy.output` where the runtime fails.
        """
        if not len(observations):
            return np.empty((0, len(Action)), np.float32)
        rows = np.ascontiguousarray(observations, np.float32)
        try:
            logits: np.ndarray = self._session.run(["logits"], {INPUT_NAME: rows})[0]
        except _RUNTIME_ERRORS as error:
            raise ShieldError("policy.output", "inference runtime failed") from error
        unusable = ~np.isfinite(rows).all(axis=1)
        if unusable.any():  # clipping inside the graph would turn them into numbers again
            logits[unusable] = np.nan
        return logits

    def explain(self, row: np.ndarray, action: Action, *, top: int = 5) -> tuple[Reason, ...]:
        """What spoke for (or against) `action` in one observation, largest first; see `explain.explain`."""
        return explain(self.score, self._schema, self._manifest.reference, row, action, top=top)

    @property
    def test_observations(self) -> np.ndarray:
        """float32 (K, F): the manifest's own self-test inputs."""
        return self._manifest.test_observations

    def self_test(self) -> None:
        """Score the manifest's vectors again.

        Raises:
            ShieldError: `policy.output` where an answer is not finite, `policy.self-test` where it differs.
        """
        logits = self.score(self._manifest.test_observations)
        if not np.isfinite(logits).all():
            raise ShieldError("policy.output")
        if np.abs(logits - self._manifest.test_logits).max() > self._manifest.tolerance:
            raise ShieldError("policy.self-test")


def _read(path: Path, limit_bytes: int, over: str) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(limit_bytes + 1)
    except OSError as error:
        raise ShieldError("policy.missing", errno=error.errno) from error
    if len(raw) > limit_bytes:
        raise ShieldError(over)
    return raw


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _RUNTIME_ERRORS as error:
        raise ShieldError("policy.model") from error


def _check_shapes(session: onnxruntime.InferenceSession, width: int) -> None:
    inputs = [(x.name, x.type, x.shape[1:]) for x in session.get_inputs()]
    outputs = [(x.name, x.type, x.shape[1:]) for x in session.get_outputs()]
    matrix = all(len(x.shape) == 2 for x in session.get_inputs())
    if [x[:2] for x in inputs] != [(INPUT_NAME, "tensor(float)")] or not matrix:
        raise ShieldError("policy.shape", "policy has other inputs than one float32 observation matrix")
    if outputs != [("logits", "tensor(float)", [len(Action)]), ("value", "tensor(float)", [])]:
        raise ShieldError("policy.shape", "policy has other outputs than logits and value")
    if inputs[0][2] != [width]:
        raise ShieldError("policy.schema", f"policy takes {inputs[0][2][0]} columns, the core makes {width}")


def _check_schema(session: onnxruntime.InferenceSession, manifest: Manifest, schema: Schema) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        version = int(metadata["schema_version"])
        columns = [(str(x["name"]), str(x["unit"])) for x in json.loads(metadata["features"])]
        actions = list(json.loads(metadata["actions"]))
    except (KeyError, ValueError, TypeError) as error:
        raise ShieldError("policy.schema", "policy does not say which observation it was made for") from error
    if version != schema.version or manifest.schema_version != schema.version:
        raise ShieldError("policy.schema", f"policy is for schema {version}, the core has {schema.version}")
    if columns != [(x.name, x.unit) for x in schema.features] or actions != list(schema.actions):
        raise ShieldError("policy.schema", "policy has other columns, units or actions than the core")
    if metadata.get("policy_version") != manifest.version:
        raise ShieldError("policy.manifest", "policy and manifest name different versions")
