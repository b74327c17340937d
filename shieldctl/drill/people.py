"""Made-up patients and staff; nobody of these exists.

Identifiers are of the right form and belong to no one: card numbers are the schemes' published test numbers, social
security numbers are two that the US administration withdrew after they were printed in public (1938, 1940).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

_FAMILIES: Final = (
    "Ashdown Birkett Calloway Dunmore Ellerby Fairholm Garside Hollis Ingram Jessop Kestrel Lindqvist Marchetti "
    "Nakahara Okonjo Petrov Quillfeather Rosenthal Saarinen Tanaka Umarova Vasquez Wetherby Yilmaz Zielinski Choi "
    "Park Seo Haddad Nguyen"
)
FAMILY: Final = tuple(_FAMILIES.split())
_GIVEN: Final = (
    "Ada Bruno Clara Dario Elif Femi Greta Hana Ivo Jun Kaya Leon Mira Noor Oskar Paula Ravi Sofia Teo Una Viktor "
    "Wren Yuna Zahra Minseo Jiho"
)
GIVEN: Final = tuple(_GIVEN.split())
STREETS: Final = ("Harbour Lane", "Mill Road", "Chapel Street", "Orchard Way", "Station Square", "Quarry Hill")
TOWNS: Final = ("Northmere", "Eastvale", "Saltwick", "Brackenford", "Low Haven")
DEPARTMENTS: Final = ("Cardiology", "Oncology", "Radiology", "Nephrology", "Neurology", "Orthopaedics", "Paediatrics")
DIAGNOSES: Final = (
    ("I10", "essential hypertension"),
    ("E11.9", "type 2 diabetes mellitus without complications"),
    ("J18.9", "pneumonia, unspecified organism"),
    ("N18.3", "chronic kidney disease, stage 3"),
    ("C50.9", "malignant neoplasm of breast, unspecified"),
    ("I48.0", "paroxysmal atrial fibrillation"),
    ("S72.0", "fracture of neck of femur"),
    ("G40.9", "epilepsy, unspecified"),
)
LABS: Final = (
    ("2345-7", "Glucose", "mg/dL", 70.0, 180.0),
    ("2160-0", "Creatinine", "mg/dL", 0.5, 2.4),
    ("718-7", "Hemoglobin", "g/dL", 9.0, 17.0),
    ("6690-2", "Leukocytes", "10*3/uL", 3.0, 14.0),
    ("777-3", "Platelets", "10*3/uL", 120.0, 420.0),
    ("2823-3", "Potassium", "mmol/L", 3.2, 5.6),
    ("2951-2", "Sodium", "mmol/L", 130.0, 148.0),
    ("1988-5", "C-reactive protein", "mg/L", 0.2, 140.0),
)
_WITHDRAWN_SSN: Final = ("078-05-1120", "219-09-9999")
_TEST_CARDS: Final = ("4111 1111 1111 1111", "5555 5555 5555 4444", "4012 8888 8888 1881")
_SENTENCES: Final = (
    "Admitted through the emergency department with {complaint}.",
    "On examination alert and oriented, heart sounds normal, chest clear to the bases.",
    "Blood pressure {systolic}/{diastolic} mmHg, pulse {pulse} per minute, temperature {temperature} C.",
    "Imaging showed no acute change compared with the previous study.",
    "Started on {drug}; renal function and electrolytes to be repeated in {days} days.",
    "Seen by the physiotherapist, mobilising with one stick over ten metres.",
    "Family informed and in agreement with the plan; advance directive is on file.",
    "Allergies reviewed with the patient: none known.",
    "To be reviewed in the outpatient clinic in {days} days, earlier should symptoms return.",
    "Wound dry and clean, sutures to be removed by the community nurse.",
)
_COMPLAINTS: Final = ("chest pain", "shortness of breath", "a fall at home", "fever and cough", "left-sided weakness")
_DRUGS: Final = ("amlodipine 5 mg", "metformin 500 mg", "apixaban 5 mg", "ceftriaxone 2 g", "levetiracetam 500 mg")


@dataclass(frozen=True, slots=True)
class Patient:
    """One made-up person; `born` is YYYYMMDD, `sex` F or M."""

    family: str
    given: str
    mrn: str
    born: str
    sex: str
    ssn: str
    card: str
    street: str
    town: str
    phone: str


def patient(rng: Random) -> Patient:
    """A patient drawn from `rng`."""
    return Patient(
        family=rng.choice(FAMILY),
        given=rng.choice(GIVEN),
        mrn=f"MRN{rng.randrange(10**7, 10**8)}",
        born=f"{rng.randrange(1931, 2021)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}",
        sex=rng.choice("FM"),
        ssn=rng.choice(_WITHDRAWN_SSN),
        card=rng.choice(_TEST_CARDS),
        street=f"{rng.randrange(1, 240)} {rng.choice(STREETS)}",
        town=rng.choice(TOWNS),
        phone=f"555-01{rng.randrange(100):02d}",
    )


def moment(rng: Random) -> str:
    """A time in the made-up year, YYYYMMDDHHMMSS."""
    return (
        f"2025{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
        f"{rng.randrange(24):02d}{rng.randrange(60):02d}{rng.randrange(60):02d}"
    )


def dashed(day: str) -> str:
    """YYYYMMDD… → YYYY-MM-DD."""
    return f"{day[:4]}-{day[4:6]}-{day[6:8]}"


def sentence(rng: Random) -> str:
    """One sentence of clinical prose."""
    return rng.choice(_SENTENCES).format(
        complaint=rng.choice(_COMPLAINTS),
        systolic=rng.randrange(96, 181),
        diastolic=rng.randrange(52, 101),
        pulse=rng.randrange(52, 121),
        temperature=f"{rng.uniform(36.0, 39.4):.1f}",
        drug=rng.choice(_DRUGS),
        days=rng.randrange(2, 30),
    )


def paragraph(rng: Random) -> str:
    """Four to eight sentences."""
    return " ".join(sentence(rng) for _ in range(rng.randrange(4, 9)))
