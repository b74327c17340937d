"""The manifest beside a policy: which model it is, what it must answer, and who vouches for it.

Layout (`manifest.json`, UTF-8 JSON, at most 1 MiB): an object with the fields of `Manifest` and `signature`, base64 of
the Ed25519 signature (RFC 8032) over the canonical form: the object without `signature`, keys sorted, no blanks, as
`canonical` writes it. `manifest.pub` beside it holds the raw 32-byte public key in hex.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shieldd.errors import ShieldError

FORMAT: Final = 1
MODEL_NAME: Final = "policy.onnx"
MANIFEST_NAME: Final = "manifest.json"
KEY_NAME: Final = "manifest.pub"
MANIFEST_LIMIT_BYTES: Final = 1 << 20
MODEL_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the signer says of a model.

    Attributes:
        version: of the policy; equals the model's own metadata.
        sha256: of `policy.onnx`, 32 bytes.
        size_bytes: of `policy.onnx`.
        schema_version: of the observation table that it was trained on.
        reference: float32 (F,), an ordinary harmless observation; explanations compare with it.
        test_observations: float32 (K, F), self-test inputs.
        test_logits: float32 (K, A), what the model must answer.
        tolerance: largest absolute difference of a self-test logit.
    """

    version: str
    sha256: bytes
    size_bytes: int
    schema_version: int
    reference: np.ndarray
    test_observations: np.ndarray
    test_logits: np.ndarray
    tolerance: float


def canonical(fields: Mapping[str, Any]) -> bytes:
    """The bytes that are signed: `fields` without `signature`, keys sorted, no blanks."""
    unsigned = {key: value for key, value in fields.items() if key != "signature"}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sign(fields: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
    """A whole manifest file: `fields` with their signature by `key`."""
    signature = base64.b64encode(key.sign(canonical(fields))).decode()
    return json.dumps({**fields, "signature": signature}, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def read_key(path: Path) -> Ed25519PublicKey:
    """The public key that a site trusts: one line of 64 hex digits.

    Raises:
        ShieldError: `policy.key`.
    """
    try:
        raw = bytes.fromhex(path.read_text("ascii").strip())
        return Ed25519PublicKey.from_public_bytes(raw)
    except (OSError, ValueError) as error:
        raise ShieldError("policy.key") from error


def verify(raw: bytes, public_key: Ed25519PublicKey, *, width: int, actions: int) -> Manifest:
    """Read a manifest and check its signature before believing any of it.

    Args:
        raw: the file.
        public_key: of the signer that the site trusts.
        width: columns of the observation table (F).
        actions: logits of a policy (A).

    Raises:
        ShieldError: `policy.manifest` where it does not parse, `policy.signature` where the signature does not hold,
            `policy.schema` where the vectors are of another width.
    """
    if len(raw) > MANIFEST_LIMIT_BYTES:
        raise ShieldError("policy.manifest", "policy manifest is larger than the limit")
    try:
        fields = json.loads(raw)
        signature = base64.b64decode(fields["signature"], validate=True)
        signed = canonical(fields)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, RecursionError) as error:
        raise ShieldError("policy.manifest") from error
    try:
        public_key.verify(signature, signed)
    except InvalidSignature as error:
        raise ShieldError("policy.signature") from error
    return _fields(fields, width, actions)


def _fields(fields: Mapping[str, Any], width: int, actions: int) -> Manifest:
    try:
        if fields["format"] != FORMAT:
            raise ShieldError("policy.manifest", "policy manifest has an unknown format")
        test = fields["self_test"]
        manifest = Manifest(
            version=str(fields["version"]),
            sha256=bytes.fromhex(fields["sha256"]),
            size_bytes=int(fields["size_bytes"]),
            schema_version=int(fields["schema_version"]),
            reference=np.asarray(fields["reference"], np.float32),
            test_observations=np.asarray(test["observations"], np.float32),
            test_logits=np.asarray(test["logits"], np.float32),
            tolerance=float(test["tolerance"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ShieldError("policy.manifest") from error
    cases = len(manifest.test_observations)
    shapes = (manifest.reference.shape, manifest.test_observations.shape, manifest.test_logits.shape)
    if shapes != ((width,), (cases, width), (cases, actions)):
        raise ShieldError("policy.schema", "policy manifest has vectors of another width")
    if not cases or not 0 < manifest.tolerance <= 0.01:
        raise ShieldError("policy.manifest", "policy manifest has no usable self-test")
    return manifest
