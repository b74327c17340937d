"""Clinical text: HL7 v2 messages, FHIR bundles, CSV exports, notes.

Sources: HL7 v2.5.1 chapters 2, 3 and 7; FHIR R4 Bundle, Patient, Observation, Condition.
"""

from __future__ import annotations

import csv
import io
import json
from random import Random

from shieldctl.drill.people import DEPARTMENTS, DIAGNOSES, LABS, dashed, moment, paragraph, patient

_CSV_COLUMNS = (
    "mrn",
    "name",
    "date_of_birth",
    "sex",
    "ssn",
    "address",
    "phone",
    "icd10",
    "diagnosis",
    "card",
    "seen_at",
)


def _header(rng: Random, kind: str, at: str) -> str:
    return f"MSH|^~\\&|DRILLLAB|DRILL GENERAL|EHR|DRILL GENERAL|{at}||{kind}|{rng.randrange(10**9)}|P|2.5.1"


def _pid(rng: Random) -> str:
    who = patient(rng)
    return (
        f"PID|1||{who.mrn}^^^DRILL^MR||{who.family}^{who.given}||{who.born}|{who.sex}|||"
        f"{who.street}^^{who.town}||{who.phone}||||||{who.ssn}"
    )


def hl7_oru(rng: Random, size_bytes: int) -> bytes:
    """An ORU^R01 result message with as many OBX segments as the size asks for."""
    at = moment(rng)
    lines = [
        _header(rng, "ORU^R01^ORU_R01", at),
        _pid(rng),
        f"PV1|1|I|{rng.choice(DEPARTMENTS)}^{rng.randrange(100, 499)}^A",
        f"OBR|1|{rng.randrange(10**6)}||24323-8^Comprehensive metabolic panel^LN|||{at}",
    ]
    used, number = sum(len(line) + 1 for line in lines), 0
    while used < size_bytes or not number:
        number += 1
        code, name, unit, low, high = rng.choice(LABS)
        value = rng.uniform(low, high)
        line = f"OBX|{number}|NM|{code}^{name}^LN||{value:.1f}|{unit}|{low:g}-{high:g}|N|||F|||{moment(rng)}"
        lines.append(line)
        used += len(line) + 1
    return ("\r".join(lines) + "\r").encode("ascii")


def hl7_adt(rng: Random, size_bytes: int) -> bytes:
    """An ADT^A01 admission with next of kin, diagnoses and notes."""
    at = moment(rng)
    lines = [
        _header(rng, "ADT^A01^ADT_A01", at),
        f"EVN|A01|{at}",
        _pid(rng),
        f"NK1|1|{patient(rng).family}^{patient(rng).given}|SPO",
        f"PV1|1|I|{rng.choice(DEPARTMENTS)}^{rng.randrange(100, 499)}^B||||0148^REFERRER^SYNTHETIC",
    ]
    for number, (code, name) in enumerate(rng.sample(DIAGNOSES, 3), 1):
        lines.append(f"DG1|{number}||{code}^{name}^I10|||A")
    used, number = sum(len(line) + 1 for line in lines), 0
    while used < size_bytes:
        number += 1
        line = f"NTE|{number}|L|{paragraph(rng)}"
        lines.append(line)
        used += len(line) + 1
    return ("\r".join(lines) + "\r").encode("ascii")


def fhir(rng: Random, size_bytes: int) -> bytes:
    """A FHIR R4 collection bundle: a patient, a condition, and observations up to the size."""
    who = patient(rng)
    patient_id = f"p{rng.getrandbits(48):012x}"
    code, name = rng.choice(DIAGNOSES)
    subject = {"reference": f"Patient/{patient_id}"}
    entries: list[dict[str, object]] = [
        {
            "resource": {
                "resourceType": "Patient",
                "id": patient_id,
                "identifier": [{"system": "urn:drill:mrn", "value": who.mrn}],
                "name": [{"family": who.family, "given": [who.given]}],
                "gender": "female" if who.sex == "F" else "male",
                "birthDate": dashed(who.born),
                "address": [{"line": [who.street], "city": who.town}],
                "telecom": [{"system": "phone", "value": who.phone}],
            }
        },
        {
            "resource": {
                "resourceType": "Condition",
                "subject": subject,
                "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": code, "display": name}]},
            }
        },
    ]
    used = 900
    while used < size_bytes:
        loinc, test, unit, low, high = rng.choice(LABS)
        entry: dict[str, object] = {
            "resource": {
                "resourceType": "Observation",
                "status": "final",
                "subject": subject,
                "effectiveDateTime": dashed(moment(rng)),
                "code": {"coding": [{"system": "http://loinc.org", "code": loinc, "display": test}]},
                "valueQuantity": {"value": round(rng.uniform(low, high), 1), "unit": unit},
            }
        }
        entries.append(entry)
        used += len(json.dumps(entry, indent=1)) + 2
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    return (json.dumps(bundle, indent=1) + "\n").encode()


def export_rows(rng: Random, size_bytes: int) -> bytes:
    """A CSV export of patients with identifiers, header first."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_CSV_COLUMNS)
    while out.tell() < size_bytes:
        who = patient(rng)
        code, name = rng.choice(DIAGNOSES)
        writer.writerow(
            (
                who.mrn,
                f"{who.family}, {who.given}",
                dashed(who.born),
                who.sex,
                who.ssn,
                f"{who.street}, {who.town}",
                who.phone,
                code,
                name,
                who.card,
                dashed(moment(rng)),
            )
        )
    return out.getvalue().encode()


def note(rng: Random, size_bytes: int) -> bytes:
    """A discharge letter in plain text."""
    who = patient(rng)
    code, name = rng.choice(DIAGNOSES)
    head = (
        f"DRILL GENERAL HOSPITAL, {rng.choice(DEPARTMENTS)}\n"
        f"Discharge summary of {dashed(moment(rng))}\n\n"
        f"Patient: {who.given} {who.family}   {who.mrn}   born {dashed(who.born)}\n"
        f"Diagnosis: {code} {name}\n"
    )
    parts = [head]
    used = len(head)
    while used < size_bytes:
        text = paragraph(rng) + "\n"
        parts.append(text)
        used += len(text) + 1
    return "\n".join(parts).encode()
