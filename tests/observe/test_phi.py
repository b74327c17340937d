"""Patient identifiers: what is found, and what must not be taken for one."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pytest

from shieldd.model.event import EVENT
from shieldd.model.event import FactFlag as F
from shieldd.native.observe import Windows, schema
from tests.observe.conftest import Looker, prose
from tests.observe.test_formats import noise

HL7 = (
    b"MSH|^~\\&|ADT1|HOSP|LAB|HOSP|20260101||ADT^A01|1|P|2.5\rEVN|A01|20260101\r"
    b"PID|1||4829131^^^HOSP^MR||DOE^JANE||19700101|F\rPV1|1|I\r"
)
PATIENT = {"resourceType": "Patient", "id": "1", "name": [{"family": "Doe"}], "birthDate": "1970-01-01"}


def rrn(seed: int) -> str:
    rng = random.Random(seed)
    digits = [7, 5, 0, rng.randint(1, 9), 1, rng.randint(1, 9), 1, *[rng.randint(0, 9) for _ in range(5)]]
    check = (11 - sum(d * w for d, w in zip(digits, [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5], strict=True)) % 11) % 10
    text = "".join(map(str, [*digits, check]))
    return f"{text[:6]}-{text[6:]}"


def test_clinical_formats(look: Looker) -> None:
    assert look.bytes(HL7, "a.hl7").has(F.PHI_HL7)
    assert look.bytes(b"\x0b" + HL7 + b"\x1c\r", "b").has(F.PHI_HL7)
    assert not look.bytes(HL7.replace(b"4829131^^^HOSP^MR||DOE^JANE", b"||"), "c.hl7").has(F.PHI_HL7)
    assert look.bytes(json.dumps(PATIENT).encode(), "p.json").has(F.PHI_FHIR)
    bundle = {"resourceType": "Bundle", "entry": [{"resource": PATIENT}]}
    assert look.bytes(json.dumps(bundle, indent=1).encode(), "b.json").has(F.PHI_FHIR)
    schedule = {"resourceType": "Schedule", "name": "Ward 3"}
    assert not look.bytes(json.dumps(schedule).encode(), "s.json").has(F.PHI_FHIR)
    cda = b"<?xml version='1.0'?><ClinicalDocument><recordTarget><patientRole/></recordTarget></ClinicalDocument>"
    assert look.bytes(cda, "c.xml").has(F.PHI_FHIR)


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("SSN 219-09-9999 on file\n", 1),
        (f"주민등록번호: {rrn(1)}\n", 1),
        ("MRN: 00482913, ward 3\n", 1),
        ("patient_id=4829131\n", 1),
        ("Visa 4111 1111 1111 1111\nAmex 378282246310005\n", 2),
        ("mrn;patient_name;dob\n48291;Doe;1970-01-01\n", 3),
        ("\n".join(rrn(i) for i in range(20)) + "\n", 20),
    ],
)
def test_identifiers(look: Looker, text: str, hits: int) -> None:
    seen = look.bytes(text.encode(), "f.txt")
    assert seen.has(F.PHI_TEXT) and seen.facts["phi_hits"] == hits
    assert seen.has(F.PHI_SEVERAL) == (hits > 1)


@pytest.mark.parametrize(
    "text",
    [
        "serial 219-09-99999\n", "call 1-219-09-9999\n", "000-12-3456 666-12-3456 912-12-3456 219-00-9999\n",
        "4111 1111 1111 1112\n", "1.2.840.113619.2.55.3.4111111111111111.2\n", "sha 4111111111111111ab\n",
        "2026-01-01 12:00:00.123456789\n", "+1 (555) 010-9999\n", "751315-1234567\n",
        "order_id=4829131\n", "admrn 4829131\n", "id,name,price\n4829131,Doe,12\n", "192.168.100.200:8080\n",
        "0x4111111111111111\n", "9780306406157 ISBN\n", "1700000000000000000 1700000000123456789\n",
    ],
)  # fmt: skip
def test_what_only_looks_like_an_identifier(look: Looker, text: str) -> None:
    assert look.bytes(text.encode(), "f.txt").facts["phi_hits"] == 0


def test_a_list_of_arbitrary_long_numbers_is_not_a_list_of_cards(look: Looker) -> None:
    rng = random.Random(4)
    numbers = "\n".join(str(rng.randint(4 * 10**15, 5 * 10**15 - 1)) for _ in range(400))
    assert look.bytes(numbers.encode() + b"\n", "f.txt").facts["phi_hits"] == 0


def test_compressed_tables_are_read_too_and_noise_never(look: Looker) -> None:
    table = b"mrn,patient_name,dob\n" + b"4829131,Doe,1970-01-01\n" * 300
    assert look.bytes(gzip.compress(table), "f.csv.gz").has(F.PHI_SEVERAL)
    for seed in range(20):
        assert not look.bytes(noise(20_000, seed), "f").flags & (F.PHI_TEXT | F.PHI_DICOM | F.PHI_HL7 | F.PHI_FHIR)
        assert look.bytes(prose(20_000, seed), "f").facts["phi_hits"] == 0


def test_the_level_and_the_exposure_reach_the_observation(look: Looker) -> None:
    event = np.zeros(1, EVENT)
    event["kind"] = 2
    look.root.chmod(0o755)
    (look.root / "x.hl7").write_bytes(HL7)
    (look.root / "x.hl7").chmod(0o644)
    facts = look.inspector.inspect(look.fd, b"x.hl7")
    row = Windows().observe(event, facts)[0]
    index = schema().index
    assert row[index["phi"]] == 3 and row[index["exposed_read"]] == 1 and row[index["exposed_write"]] == 0
