"""The worked example of shield-envelope(5), made by the independent writer."""

from __future__ import annotations

import hashlib
import textwrap

from tests.envelope.reference import METADATA_AT, SLOT, Writer, cbor, pad

PAYLOAD = b"hello, ward 7\n"


def _run(first: int, count: int) -> bytes:
    return bytes(range(first, first + count))


WRITER = Writer(
    kek=_run(0x50, 32), key_id=_run(0x70, 16), version=3, data_key=_run(0, 32), file_id=_run(0x20, 16),
    salt=_run(0x30, 32), wrap_salt=_run(0x80, 32),
)  # fmt: skip


def sealed() -> bytes:
    """The whole sealed file."""
    return WRITER.seal(PAYLOAD)


def values() -> dict[str, bytes]:
    """Every intermediate value, in the order of the page."""
    metadata = cbor(WRITER.metadata(PAYLOAD))
    fixed = WRITER.fixed(len(pad(metadata)), len(PAYLOAD))
    whole = sealed()
    key = {name: fixed.key(WRITER.data_key, name) for name in ("header", "metadata", "payload", "commitment")}
    return {
        "slot, bytes 0 to 71": fixed.bound(),
        "F": fixed.binding(),
        "K_header": key["header"],
        "K_metadata": key["metadata"],
        "K_payload": key["payload"],
        "commitment": key["commitment"],
        "wrapped DEK": WRITER.recipient(fixed).wrapped,
        "slot A, MAC and CRC": whole[4060:SLOT],
        "slot B, MAC and CRC": whole[SLOT + 4060 : 2 * SLOT],
        "metadata, CBOR": metadata,
        "metadata, tag": whole[fixed.payload_at - 16 : fixed.payload_at],
        "chunk 0 with its tag": whole[fixed.payload_at :],
        f"SHA-256 of the file ({len(whole)} bytes)": hashlib.sha256(whole).digest(),
    }


def page() -> str:
    """The section as scdoc source."""
    out = []
    for name, value in values().items():
        lines = textwrap.wrap(value.hex(), 64)
        out.append(f"{name}\n" + "```\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(out)


assert METADATA_AT == 2 * SLOT
