"""Each thing that can be wrong with a policy is refused under its own code, and a good one scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("jax")

from onnx import TensorProto, helper, numpy_helper

from shieldd.detect.manifest import KEY_NAME, MANIFEST_NAME, MODEL_LIMIT_BYTES, MODEL_NAME, read_key, sign
from shieldd.detect.policy import Policy
from shieldd.errors import ShieldError
from shieldd.native.observe import Schema, schema
from tests.detect.models import KEY, OTHER_KEY, broken_signature, model, parameters, place, resign, rows


def load(directory: Path, table: Schema | None = None) -> Policy:
    return Policy.load(directory, table or schema(), KEY.public_key())


def refused(directory: Path, table: Schema | None = None) -> str:
    with pytest.raises(ShieldError) as caught:
        load(directory, table)
    return caught.value.code


def test_a_whole_policy_loads_and_scores(tmp_path: Path) -> None:
    policy = load(place(tmp_path))
    logits = policy.score(rows(7))
    assert logits.shape == (7, 5) and logits.dtype == np.float32 and np.isfinite(logits).all()
    assert policy.score(rows(7)[:0]).shape == (0, 5)
    assert policy.version == "test-1" and policy.metadata["schema_version"] == str(schema().version)
    policy.self_test()


def test_rows_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    policy = load(place(tmp_path))
    together = policy.score(rows(64))
    alone = np.concatenate([policy.score(rows(64)[i : i + 1]) for i in range(64)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_a_row_with_nan_scores_nan_and_the_others_do_not_mind(tmp_path: Path) -> None:
    policy = load(place(tmp_path))
    seen = rows(3)
    seen[1, 5] = np.nan
    logits = policy.score(seen)
    assert np.isnan(logits[1]).all() and np.isfinite(logits[[0, 2]]).all()


@pytest.mark.parametrize("name", [MODEL_NAME, MANIFEST_NAME])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    (place(tmp_path) / name).unlink()
    assert refused(tmp_path) == "policy.missing"


def test_a_missing_directory(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere") == "policy.missing"


def test_a_truncated_model(tmp_path: Path) -> None:
    raw = (place(tmp_path) / MODEL_NAME).read_bytes()
    (tmp_path / MODEL_NAME).write_bytes(raw[: len(raw) // 2])
    assert refused(tmp_path) == "policy.digest"


def test_one_flipped_bit_in_the_model(tmp_path: Path) -> None:
    raw = bytearray((place(tmp_path) / MODEL_NAME).read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / MODEL_NAME).write_bytes(raw)
    assert refused(tmp_path) == "policy.digest"


def test_a_signed_file_that_is_no_model(tmp_path: Path) -> None:
    import hashlib

    place(tmp_path)
    junk = b"not a model"
    (tmp_path / MODEL_NAME).write_bytes(junk)
    place_fields = {"sha256": hashlib.sha256(junk).hexdigest(), "size_bytes": len(junk)}
    fields = {k: v for k, v in json.loads((tmp_path / MANIFEST_NAME).read_bytes()).items() if k != "signature"}
    (tmp_path / MANIFEST_NAME).write_bytes(sign({**fields, **place_fields}, KEY))
    assert refused(tmp_path) == "policy.model"


@pytest.mark.parametrize("spoil", [broken_signature, lambda out: resign(out, OTHER_KEY)])
def test_a_signature_that_does_not_hold(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(place(tmp_path))
    assert refused(tmp_path) == "policy.signature"


@pytest.mark.parametrize("field", ["version", "sha256", "size_bytes", "schema_version", "reference", "self_test"])
def test_a_manifest_changed_after_signing(tmp_path: Path, field: str) -> None:
    fields = json.loads((place(tmp_path) / MANIFEST_NAME).read_bytes())
    fields[field] = "0"
    (tmp_path / MANIFEST_NAME).write_bytes(json.dumps(fields).encode())
    assert refused(tmp_path) == "policy.signature"


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"null", b"{", b'{"signature": "AA=="', b"\xff\xfe", b'{"signature": 5}']
)
def test_a_manifest_that_does_not_parse(tmp_path: Path, raw: bytes) -> None:
    (place(tmp_path) / MANIFEST_NAME).write_bytes(raw)
    assert refused(tmp_path) == "policy.manifest"


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 2},
        {"self_test": {}},
        {"sha256": "zz"},
        {"reference": "x"},
        {"version": "another"},
        {"self_test": {"observations": [[0.0] * 94], "logits": [[0.0] * 5], "tolerance": 99}},
    ],
)
def test_a_signed_manifest_without_sense(tmp_path: Path, fields: dict[str, object]) -> None:
    assert refused(place(tmp_path, **fields)) in {"policy.manifest", "policy.schema"}


def test_too_large_a_model_is_not_even_read(tmp_path: Path) -> None:
    (place(tmp_path) / MODEL_NAME).write_bytes(bytes(MODEL_LIMIT_BYTES + 1))
    assert refused(tmp_path) == "policy.size"


def test_a_model_of_another_schema_version(tmp_path: Path) -> None:
    assert refused(place(tmp_path, model(schema_version="99"))) == "policy.schema"


def test_the_core_speaks_another_schema_than_the_model(tmp_path: Path) -> None:
    place(tmp_path)
    features = schema().features
    renamed = (replace(features[0], name="other"), *features[1:])
    swapped = (features[1], features[0], *features[2:])
    other_unit = (replace(features[0], unit="miles"), *features[1:])
    for columns in (renamed, swapped, other_unit):
        assert refused(tmp_path, replace(schema(), features=columns)) == "policy.schema"
    assert refused(tmp_path, replace(schema(), features=features[:-1])) == "policy.schema"
    assert refused(tmp_path, replace(schema(), version=schema().version + 1)) == "policy.schema"


@pytest.mark.parametrize("name", ["features", "actions", "schema_version"])
def test_metadata_that_is_missing_or_wrong(tmp_path: Path, name: str) -> None:
    assert refused(place(tmp_path, model(**{name: "[]"}))) == "policy.schema"
    assert refused(place(tmp_path, model(**{name: "{"}))) == "policy.schema"


def test_an_extra_input(tmp_path: Path) -> None:
    made = model()
    made.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, ["N", 1]))
    made.graph.node.append(helper.make_node("Identity", ["extra"], ["unused"]))
    made.graph.output.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, ["N", 1]))
    (tmp_path / "x").mkdir()
    assert refused(placed_without_run(tmp_path / "x", made)) == "policy.shape"


def test_another_name_for_an_output(tmp_path: Path) -> None:
    made = model()
    made.graph.node.append(helper.make_node("Identity", ["value"], ["worth"]))
    made.graph.output.append(helper.make_tensor_value_info("worth", TensorProto.FLOAT, ["N"]))
    assert refused(placed_without_run(tmp_path, made)) == "policy.shape"


def test_a_model_that_answers_otherwise_than_its_self_test(tmp_path: Path) -> None:
    fields = json.loads((place(tmp_path) / MANIFEST_NAME).read_bytes())
    test = fields["self_test"]
    test["logits"][0][0] += 0.5
    place(tmp_path, self_test=test)
    assert refused(tmp_path) == "policy.self-test"


def test_a_model_whose_answers_are_not_finite(tmp_path: Path) -> None:
    made = model()
    for constant in made.graph.initializer:
        if constant.name == "b3":
            constant.CopyFrom(numpy_helper.from_array(np.full(5, np.nan, np.float32), "b3"))
    assert refused(placed_without_run(tmp_path, made)) == "policy.output"


def test_a_public_key_that_is_none(tmp_path: Path) -> None:
    for text in ("", "zz", "00" * 31):
        (tmp_path / KEY_NAME).write_text(text)
        with pytest.raises(ShieldError) as caught:
            read_key(tmp_path / KEY_NAME)
        assert caught.value.code == "policy.key"
    with pytest.raises(ShieldError):
        read_key(tmp_path / "none")


def test_the_graph_forbids_what_has_no_ground(tmp_path: Path) -> None:
    policy = load(place(tmp_path))
    at = schema().index
    seen = np.abs(rows(50))
    bare = seen.copy()
    for name in ("phi", "exposed_read", "exposed_write", "executable", "script", "note_like", "destroyed_60s"):
        bare[:, at[name]] = 0
    bare[:, at["tree_destroyed_60s"]] = 0
    assert (policy.score(bare)[:, 2:] < -5_000).all()
    free = bare.copy()
    for name in ("phi", "exposed_read", "script", "destroyed_60s", "bad_pairs_60s"):
        free[:, at[name]] = 1
    assert (policy.score(free) > -5_000).all()
    for name in ("overwritten_60s", "bad_pairs_60s", "encrypted_outputs_60s"):
        free[:, at[name]] = 0
    assert (policy.score(free)[:, 4] < -5_000).all()  # plain deletions
    assert (policy.score(seen)[:, :2] > -5_000).all()


def placed_without_run(out: Path, made: object) -> Path:
    """Place a model that the exporter itself would not run: vectors of an honest one."""
    import hashlib

    place(out)
    raw = made.SerializeToString(deterministic=True)  # type: ignore[attr-defined]
    (out / MODEL_NAME).write_bytes(raw)
    fields = {k: v for k, v in json.loads((out / MANIFEST_NAME).read_bytes()).items() if k != "signature"}
    fields |= {"sha256": hashlib.sha256(raw).hexdigest(), "size_bytes": len(raw)}
    (out / MANIFEST_NAME).write_bytes(sign(fields, KEY))
    return out


def test_parameters_of_tests_have_the_networks_shapes() -> None:
    params, _ = parameters()
    assert params["w1"].shape == (schema().width, 96)
