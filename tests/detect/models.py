"""Small policies made for tests, signed by a key of the test, and spoiled on request."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shieldd.detect.manifest import MANIFEST_NAME, sign
from shieldd.learn import export
from shieldd.learn.network import Normaliser, normaliser
from shieldd.model.decision import Action
from shieldd.native.observe import schema

KEY = Ed25519PrivateKey.from_private_bytes(b"t" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def parameters(seed: int = 1) -> tuple[dict[str, np.ndarray], Normaliser]:
    """Random weights of the right shapes; containment leans on what was destroyed."""
    rng = np.random.default_rng(seed)
    width = schema().width
    sizes = {
        "w1": (width, 96),
        "b1": (96,),
        "w2": (96, 96),
        "b2": (96,),
        "w3": (96, 5),
        "b3": (5,),
        "w4": (96, 1),
        "b4": (1,),
    }
    params = {name: (rng.normal(size=shape) * 0.15).astype(np.float32) for name, shape in sizes.items()}
    return params, normaliser(rows(200, seed))


def rows(count: int, seed: int = 1) -> np.ndarray:
    """Observations that stay within the table's ranges."""
    rng = np.random.default_rng(seed)
    low = np.array([x.min for x in schema().features], np.float32)
    high = np.array([min(x.max, 60.0) for x in schema().features], np.float32)
    return (low + (high - low) * rng.random((count, schema().width))).astype(np.float32)


def model(**metadata: str) -> Any:
    """An ONNX model with honest metadata; keywords override single entries."""
    described = export.describe("test-1", commit="none", data="none", evaluation={})
    return export.build(*parameters(), {**described, **metadata})


def place(out: Path, made: Any | None = None, **fields: Any) -> Path:
    """Write a whole policy directory; `fields` override the manifest's before it is signed."""
    reference = np.zeros(schema().width, np.float32)
    export.write(out, made or model(), version="test-1", reference=reference, vectors=rows(20), key=KEY)
    if fields:
        manifest = {k: v for k, v in json.loads((out / MANIFEST_NAME).read_bytes()).items() if k != "signature"}
        (out / MANIFEST_NAME).write_bytes(sign({**manifest, **fields}, KEY))
    return out


def resign(out: Path, key: Ed25519PrivateKey) -> None:
    """Sign the manifest by another key."""
    (out / MANIFEST_NAME).write_bytes(sign(json.loads((out / MANIFEST_NAME).read_bytes()), key))


def broken_signature(out: Path) -> None:
    """Flip one bit of the signature."""
    fields = json.loads((out / MANIFEST_NAME).read_bytes())
    raw = bytearray(base64.b64decode(fields["signature"]))
    raw[0] ^= 1
    fields["signature"] = base64.b64encode(bytes(raw)).decode()
    (out / MANIFEST_NAME).write_bytes(json.dumps(fields).encode())


assert len(Action) == 5
