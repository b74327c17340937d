"""What a caller may ask: one frozen model per request, strict, unknown keys refused.

A path in JSON is a string (UTF-8, absolute) or, for bytes that are not UTF-8, `{"path_b64": "…"}`; inside the
daemon it is bytes. Limits stand here because this is the door: paths per request, path length, page size.
"""

from __future__ import annotations

import base64
import binascii
import os
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

PATH_MAX: Final = 4096  # bytes, Linux
PATHS_MAX: Final = 10_000  # per request; the client sends more in several requests
PAGE_MAX: Final = 10_000  # records per answer


def _absolute(value: object) -> bytes:
    """Path bytes from JSON (string or `{"path_b64"}`), or bytes as they are; absolute, no NUL, no `..`."""
    if isinstance(value, dict) and set(value) == {"path_b64"} and isinstance(value["path_b64"], str):
        try:
            raw = base64.b64decode(value["path_b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("path_b64 is not base64") from error
    elif isinstance(value, str):
        try:
            raw = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ValueError("path is not UTF-8, send it as path_b64") from error
    elif isinstance(value, bytes):
        raw = value
    else:
        # a TypeError would pass through pydantic as a fault of ours
        raise ValueError("a path is a string or an object with path_b64")
    if not raw.startswith(b"/"):
        raise ValueError("path is not absolute")
    if b"\0" in raw:
        raise ValueError("path holds a NUL byte")
    if len(raw) > PATH_MAX:
        raise ValueError("path is longer than 4096 bytes")
    if b".." in raw.split(b"/"):
        raise ValueError("path holds ..")
    return os.path.normpath(raw).replace(b"//", b"/")


def _to_json(raw: bytes) -> str | dict[str, str]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"path_b64": base64.b64encode(raw).decode()}


AbsPath = Annotated[
    bytes,
    BeforeValidator(_absolute),
    PlainSerializer(_to_json, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^/", "maxLength": PATH_MAX},
                {
                    "type": "object",
                    "properties": {"path_b64": {"type": "string", "contentEncoding": "base64"}},
                    "required": ["path_b64"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
Identifier = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Limit = Annotated[int, Field(ge=0, le=PAGE_MAX)]
Instant = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Request(BaseModel):
    """Base of all requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Empty(Request):
    """A request without parameters."""


class Judgement(StrEnum):
    """What a person says of a threat."""

    MALICIOUS = "malicious"
    BENIGN = "benign"


class EventsQuery(Request):
    """Which events: newest `limit` of those that match, given oldest first; times are wall clock, ns."""

    since_ns: Instant | None = None
    until_ns: Instant | None = None
    after_seq: Instant | None = None
    limit: Limit = 50
    kind: Word | None = None
    action: Word | None = None
    tree: AbsPath | None = None
    under: AbsPath | None = None


class AlertsQuery(Request):
    """Which alerts; `severity` is the lowest that is wanted, 1 to 5 as in OCSF."""

    since_ns: Instant | None = None
    limit: Limit = 50
    severity: Annotated[int, Field(ge=1, le=5)] = 1


class ThreatsQuery(Request):
    """Which threats, newest `limit`, given oldest first."""

    state: Annotated[str, Field(pattern="^(open|resolved)$")] | None = None
    severity: Annotated[int, Field(ge=1, le=5)] = 1
    since_ns: Instant | None = None
    limit: Limit = 50


class ById(Request):
    """One object by its id (a unique prefix of at least six characters will do)."""

    id: Identifier


class Resolve(Request):
    """A person's verdict on a threat."""

    id: Identifier
    verdict: Judgement
    note: Annotated[str, Field(max_length=1000)] = ""


class Release(Request):
    """Let the processes that are held for a threat go on."""

    id: Identifier
    reason: Annotated[str, Field(max_length=500)] = ""


class Kill(Request):
    """End the processes of a threat for good; why is for the record."""

    id: Identifier
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class Paths(Request):
    """Files to act on or look at; a directory stands for every regular file under it when `recursive`."""

    paths: Annotated[tuple[AbsPath, ...], Field(min_length=1, max_length=PATHS_MAX)]
    recursive: bool = False


class SealFiles(Paths):
    """Seal: each `FILE` becomes `FILE.shield`. `why` is sealed inside and shown by `files status`."""

    why: Annotated[str, Field(max_length=200)] = "asked for"
    dry_run: bool = False


class OpenFiles(Paths):
    """Open sealed files back to their own names; never overwrites."""

    dry_run: bool = False


class FilesStatus(Paths):
    """State of files; `verify` reads and checks every byte of the sealed ones."""

    verify: bool = False


class VerifyFiles(Request):
    """Read sealed files to the end and check every byte; without paths, all of the inventory and the quarantine."""

    paths: Annotated[tuple[AbsPath, ...], Field(max_length=PATHS_MAX)] = ()
    recursive: bool = False


class OnePath(Request):
    """One file."""

    path: AbsPath


class FilesQuery(Request):
    """Sealed files in the inventory, by path; `after` is the last path of the page before."""

    under: AbsPath | None = None
    after: AbsPath | None = None
    limit: Limit = 1000


class QuarantineQuery(Request):
    """Objects in quarantine, oldest first; `after` is the last id of the page before."""

    after: Identifier | None = None
    limit: Limit = 1000


class QuarantineAdd(Request):
    """Put files into quarantine by hand."""

    paths: Annotated[tuple[AbsPath, ...], Field(min_length=1, max_length=PATHS_MAX)]
    why: Annotated[str, Field(max_length=200)] = "asked for"
    dry_run: bool = False


class QuarantineRestore(Request):
    """Bring an object back to its place, or into the existing directory `to`; never overwrites."""

    id: Identifier
    to: AbsPath | None = None
    dry_run: bool = False


class QuarantinePurge(Request):
    """Destroy an object for good."""

    id: Identifier
    dry_run: bool = False


class RestorePlansQuery(Request):
    """Plans of one incident; without one, those that were begun and did not end."""

    threat: Identifier | None = None


class RestoreStepsQuery(Request):
    """Steps of a plan by number; `after` is the number of the last one of the page before."""

    id: Identifier
    after: Annotated[int, Field(ge=-1, le=2**31)] = -1
    limit: Limit = 1000


class RestoreRun(Request):
    """Bring back what an incident's actor touched: a plan that was begun is gone on with, else one is made and done.

    `plan` names the plan to do. `take` names files that somebody else changed since: what is there is set aside.
    """

    id: Identifier
    plan: Identifier | None = None
    take: Annotated[tuple[AbsPath, ...], Field(max_length=PATHS_MAX)] = ()
    dry_run: bool = False


class VersionsQuery(Request):
    """Preserved versions of one file, oldest first, the newest `limit`."""

    path: AbsPath
    limit: Limit = 1000


class VersionsRestore(Request):
    """Bring one file back as it was at a moment, to its place or into the existing directory `to`.

    At its place what is there is set aside as `NAME.before-restore`; in another directory nothing is overwritten.
    """

    path: AbsPath
    at_ns: Instant
    to: AbsPath | None = None
    dry_run: bool = False


class KeysRotate(Request):
    """New key version for one purpose (`files`, `quarantine`, `preserve`, `audit`), or for each; `due`: only where one
    is due by age or use."""

    purpose: Word | None = None
    due: bool = False
    dry_run: bool = False


class KeysRewrap(Request):
    """Re-wrap the headers of objects that are not under the active version."""

    purpose: Word | None = None
    revoke: bool = False  # also take the older recipients out of the header
    dry_run: bool = False


class PolicyEvaluate(Request):
    """Run the loaded policy over a recorded trace (.npz), or over the shipped one."""

    trace: AbsPath | None = None
