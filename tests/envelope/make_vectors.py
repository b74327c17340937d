"""Makes the golden vectors in tests/vectors/envelope: one scenario a file, from fixed inputs.

usage: python -m tests.envelope.make_vectors

A vector is a header of `name: value` lines, an empty line, and the sealed file, deflated (zlib):

    expect   pass, or the code of the layer that must refuse to open it
    verify   the same for a full check, where it differs
    comment  what was done to it
    kek, key-id, key-version   the only key at hand, hexadecimal
    sha256   of the plain file, where it opens
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.envelope.reference import LOCAL, SLOT, Recipient, Slot, Writer, cbor, cbor_head, crc32c, pad, with_crc

HERE = Path(__file__).resolve().parent.parent / "vectors" / "envelope"
CHUNK = 4096
KEK, KEY_ID, VERSION = bytes(range(32)), b"ward-key-0000001", 7


@dataclass(frozen=True)
class Vector:
    """One scenario."""

    name: str
    expect: str
    comment: str
    sealed: bytes
    plain: bytes | None = None
    verify: str = ""

    def encode(self) -> bytes:
        head = {"expect": self.expect, "verify": self.verify or self.expect, "comment": self.comment, "kek": KEK.hex()}
        head |= {"key-id": KEY_ID.hex(), "key-version": str(VERSION)}
        if self.plain is not None:
            head["sha256"] = hashlib.sha256(self.plain).hexdigest()
        lines = "".join(f"{key}: {value}\n" for key, value in head.items())
        return lines.encode() + b"\n" + zlib.compress(self.sealed, 9)


def random(label: str, count: int) -> bytes:
    """The same bytes for the same label."""
    return hashlib.shake_128(label.encode()).digest(count)


def writer(label: str) -> Writer:
    r = random(label, 112)
    return Writer(KEK, KEY_ID, VERSION, r[:32], r[32:48], r[48:80], r[80:112], chunk_log2=12)


def payload(size: int) -> bytes:
    return random("payload", size)


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def recrc(sealed: bytes, at: int = 0) -> bytes:
    """Makes the CRC of the slot at `at` right again."""
    crc = crc32c(sealed[at : at + 4092]).to_bytes(4, "little")
    return sealed[: at + 4092] + crc + sealed[at + SLOT :]


def edit(sealed: bytes, at: int, new: bytes) -> bytes:
    """Writes `new` at `at` of both slots and makes both CRCs right."""
    for slot in (0, SLOT):
        sealed = sealed[: slot + at] + new + sealed[slot + at + len(new) :]
        sealed = recrc(sealed, slot)
    return sealed


def with_slots(w: Writer, sealed: bytes, change: Callable[[Slot], Slot]) -> bytes:
    """Writes both slots anew, properly authenticated, after `change`."""
    p = int.from_bytes(sealed[16:24], "little")
    m = int.from_bytes(sealed[12:16], "little")
    fixed = w.fixed(m, p)
    slots = [change(Slot(fixed, g, (w.recipient(fixed),))).encode(w.data_key) for g in (w.generation, w.generation - 1)]
    return b"".join(slots) + sealed[2 * SLOT :]


def with_metadata(w: Writer, data: bytes, padded: bytes) -> bytes:
    """A file whose metadata are these very bytes."""
    fixed = w.fixed(len(padded), len(data))
    return w.slots(fixed) + w.body(fixed, padded, data)


def chunks(w: Writer, data: bytes) -> tuple[bytes, list[bytes]]:
    """A sealed file, as what comes before the chunks, and the chunks."""
    sealed = w.seal(data)
    at = len(sealed) - (len(data) + 16 * max(1, -(-len(data) // CHUNK)))
    return sealed[:at], [sealed[i : i + CHUNK + 16] for i in range(at, len(sealed), CHUNK + 16)]


def passing() -> Iterator[Vector]:
    for name, size, comment in (
        ("empty", 0, "empty file: one empty chunk"),
        ("one-byte", 1, "one byte"),
        ("one-chunk", CHUNK, "exactly one chunk"),
        ("one-chunk-and-a-byte", CHUNK + 1, "one byte over a chunk"),
        ("three-chunks", 3 * CHUNK, "exactly three chunks"),
    ):
        data = payload(size)
        yield Vector(name, "pass", comment, writer(name).seal(data), data)
    data = payload(5000)
    whole = writer("torn").seal(data)
    yield Vector("torn-slot-a", "pass", "slot A cut off in the middle", whole[:512] + bytes(SLOT - 512) + whole[SLOT:],
                 data, "envelope.crc")  # fmt: skip
    yield Vector("torn-slot-b", "pass", "slot B cut off in the middle", whole[: SLOT + 512] + bytes(SLOT - 512)
                 + whole[2 * SLOT :], data, "envelope.crc")  # fmt: skip
    yield Vector("blank-slot-a", "pass", "slot A wiped", bytes(SLOT) + whole[SLOT:], data, "envelope.crc")
    w = writer("last-generation")
    last = replace(w, generation=(1 << 64) - 1).seal(data)
    yield Vector("last-generation", "pass", "the highest generation there is", last, data)
    sparse = payload(3000)
    holes = {"size": 1 << 20, "extents": [4096, 1000, 65536, 2000]}
    plain = bytearray(1 << 20)
    plain[4096:5096], plain[65536:67536] = sparse[:1000], sparse[1000:]
    yield Vector("sparse", "pass", "two regions, three holes", writer("sparse").seal(sparse, **holes), bytes(plain))
    rich = {"name": bytes(range(1, 47)) + b"\xff/\n\x1b[31m", "xattrs": [b"user.a", b"1", b"user.b", bytes(700)],
            "mode": 0o4755, "atime_ns": -1, "why": "ärztlich"}  # fmt: skip
    yield Vector(
        "rich-metadata", "pass", "odd name, attributes, time before 1970", writer("rich").seal(data, **rich), data
    )
    w = writer("unknown-kind-beside")
    other = Recipient(9, b"escrow-key-00001", 1, random("escrow", 1168))
    many = with_slots(w, w.seal(data), lambda s: replace(s, recipients=(other, *s.recipients)))
    yield Vector("unknown-kind-beside", "pass", "a recipient of an unknown kind beside ours", many, data)


def headers() -> Iterator[Vector]:
    data = payload(5000)
    w = writer("header")
    whole = w.seal(data)
    yield Vector("foreign", "envelope.magic", "some other file", payload(20000))
    yield Vector("short-foreign", "envelope.magic", "shorter than a header, no magic", b"%PDF-1.7\n")
    yield Vector("no-magic", "envelope.magic", "one bit of both magics flipped", flip(flip(whole, 0), SLOT))
    yield Vector("torn-both", "envelope.crc", "both slots cut off",
                 whole[:512] + bytes(SLOT - 512) + whole[SLOT : SLOT + 512] + bytes(SLOT - 512)
                 + whole[2 * SLOT :])  # fmt: skip
    yield Vector("torn-and-blank", "envelope.crc", "slot A cut off, slot B wiped",
                 whole[:512] + bytes(2 * SLOT - 512) + whole[2 * SLOT :])  # fmt: skip
    yield Vector("header-only", "envelope.truncated", "cut in the middle of slot B", whole[: SLOT + 100])
    yield Vector("unknown-suite", "envelope.suite", "suite 2", edit(whole, 8, b"\2"))
    yield Vector("unknown-flag", "envelope.suite", "a flag", edit(whole, 10, b"\1\0"))
    yield Vector("chunk-too-small", "envelope.slot", "chunk of 2^11", edit(whole, 9, b"\x0b"))
    yield Vector("chunk-too-large", "envelope.slot", "chunk of 2^23", edit(whole, 9, b"\x17"))
    yield Vector("payload-too-long", "envelope.slot", "payload of 2^63", edit(whole, 16, bytes(7) + b"\x80"))
    yield Vector(
        "generation-zero", "envelope.slot", "generation 0 in slot A", recrc(whole[:104] + bytes(8) + whole[112:])
    )
    wrapped = replace(w, generation=(1 << 64) - 1).seal(data)
    zero = with_crc(wrapped[SLOT : SLOT + 104] + bytes(8) + wrapped[SLOT + 112 : 2 * SLOT - 4])
    yield Vector("generation-wrap", "envelope.slot", "slot A has the last generation, slot B wrapped around to 0",
                 wrapped[:SLOT] + zero + wrapped[2 * SLOT :])  # fmt: skip
    yield Vector(
        "same-generation", "envelope.slot", "both slots have one generation", whole[:SLOT] * 2 + whole[2 * SLOT :]
    )
    stranger = writer("stranger").seal(data)
    yield Vector("slots-disagree", "envelope.slot", "slot B of another file", whole[:SLOT] + stranger[SLOT : 2 * SLOT]
                 + whole[2 * SLOT :])  # fmt: skip
    yield Vector("no-recipient", "envelope.slot", "recipient count 0", edit(whole, 112, b"\0"))
    yield Vector("nine-recipients", "envelope.slot", "recipient count 9", edit(whole, 112, b"\x09"))
    yield Vector("reserved", "envelope.slot", "a reserved byte is not 0", edit(whole, 113, b"\1"))
    yield Vector("padding", "envelope.slot", "a byte behind the recipients is not 0", edit(whole, 4000, b"\1"))
    yield Vector("kind-zero", "envelope.slot", "recipient of kind 0", edit(whole, 120, b"\0"))
    yield Vector("wrapped-too-long", "envelope.slot", "wrapped key of 1,601 bytes", edit(whole, 141, b"\x41\x06"))
    unknown = with_slots(w, whole, lambda s: replace(s, recipients=(replace(s.recipients[0], kind=9),)))
    yield Vector("unknown-recipient-kind", "envelope.recipient", "no recipient but one of an unknown kind", unknown)
    nobody = with_slots(
        w, whole, lambda s: replace(s, recipients=(replace(s.recipients[0], key_id=b"another-key-0000"),))
    )
    yield Vector("unknown-key", "envelope.recipient", "wrapped for a key that is not at hand", nobody)
    later = with_slots(w, whole, lambda s: replace(s, recipients=(replace(s.recipients[0], version=8),)))
    yield Vector("unknown-version", "keys.version", "wrapped for a version that is not at hand", later)
    foreign = Slot(writer("stranger").fixed(256, 5000), 2, ()).fixed
    moved = with_slots(w, whole, lambda s: replace(s, recipients=(writer("stranger").recipient(foreign),)))
    yield Vector("recipient-of-another-file", "envelope.recipient", "the wrapped key of another file", moved)
    yield Vector("wrong-key", "envelope.recipient", "wrapped under another key of the same name",
                 replace(w, kek=random("other", 32)).seal(data))  # fmt: skip
    yield Vector("wrapped-too-short", "envelope.recipient", "a wrapped key of 47 bytes",
                 with_slots(w, whole, lambda s: replace(
                     s, recipients=(Recipient(LOCAL, KEY_ID, VERSION, bytes(47)),))))  # fmt: skip
    swapped = writer("stranger").seal(data)[: 2 * SLOT] + whole[2 * SLOT :]
    yield Vector("header-of-another-file", "envelope.metadata", "both slots of another file of the same size", swapped)
    yield Vector("salt", "envelope.recipient", "another salt", edit(whole, 40, bytes(32)))
    yield Vector("two-keys", "envelope.commitment", "another data key, properly wrapped: two keys for one ciphertext",
                 two_keys(w, whole))  # fmt: skip
    yield Vector("commitment", "envelope.commitment", "one bit of both commitments flipped", flip_both(whole, 72))
    yield Vector("header-mac", "envelope.header-mac", "one bit of both MACs flipped", flip_both(whole, 4060))
    yield Vector("mac-no-fallback", "envelope.header-mac", "slot A's MAC wrong, slot B whole", recrc(flip(whole, 4060)))
    added = replace(Slot(w.fixed(256, 5000), 2, (w.recipient(w.fixed(256, 5000)), Recipient(9, KEY_ID, 1, b"x"))))
    body = added.body() + whole[4060:4092]
    yield Vector("recipient-added", "envelope.header-mac", "a recipient added by who has no key",
                 with_crc(body) + whole[SLOT:])  # fmt: skip


def flip_both(sealed: bytes, at: int) -> bytes:
    return recrc(recrc(flip(flip(sealed, at), SLOT + at)), SLOT)


def two_keys(w: Writer, whole: bytes) -> bytes:
    fixed = w.fixed(int.from_bytes(whole[12:16], "little"), 5000)
    second = replace(w, data_key=random("second", 32))
    slots = b"".join(Slot(fixed, g, (second.recipient(fixed),)).encode(second.data_key) for g in (2, 1))
    return slots + whole[2 * SLOT :]


def bodies() -> Iterator[Vector]:
    data = payload(3 * CHUNK + 100)
    w = writer("body")
    head, parts = chunks(w, data)
    whole = head + b"".join(parts)
    yield Vector(
        "swapped-chunks", "envelope.chunk", "chunks 0 and 1 exchanged", head + parts[1] + parts[0] + parts[2] + parts[3]
    )
    yield Vector("repeated-chunk", "envelope.chunk", "chunk 0 twice", head + parts[0] + parts[0] + parts[2] + parts[3])
    yield Vector("chunk-bit", "envelope.chunk", "one bit of chunk 1 flipped", flip(whole, len(head) + CHUNK + 16 + 9))
    yield Vector("tag-bit", "envelope.chunk", "one bit of the last tag flipped", flip(whole, len(whole) - 1))
    yield Vector("dropped-last-chunk", "envelope.truncated", "the last chunk left out", head + b"".join(parts[:3]))
    yield Vector("truncated-byte", "envelope.truncated", "the last byte left out", whole[:-1])
    yield Vector("no-payload", "envelope.truncated", "all chunks left out", head)
    yield Vector("trailing-byte", "envelope.trailing", "one byte more", whole + b"\0")
    yield Vector("trailing-chunk", "envelope.trailing", "the last chunk twice", whole + parts[-1])
    other_head, other = chunks(writer("spliced"), data)
    assert len(other_head) == len(head)
    yield Vector(
        "spliced-chunk", "envelope.chunk", "chunk 2 of another file", head + parts[0] + parts[1] + other[2] + parts[3]
    )
    fixed = w.fixed(int.from_bytes(head[12:16], "little"), len(data))
    cipher_early = chunk_as(w, fixed.payload_len, 1, data[CHUNK : 2 * CHUNK], last=True, like=head)
    yield Vector("last-flag-early", "envelope.chunk", "chunk 1 sealed as the last one",
                 head + parts[0] + cipher_early + parts[2] + parts[3])  # fmt: skip
    cipher_late = chunk_as(w, fixed.payload_len, 3, data[3 * CHUNK :], last=False, like=head)
    yield Vector(
        "last-flag-missing",
        "envelope.chunk",
        "the last chunk not sealed as one",
        head + b"".join(parts[:3]) + cipher_late,
    )
    m = len(head) - 20
    yield Vector("metadata-bit", "envelope.metadata", "one bit of the metadata flipped", flip(whole, m))
    other_meta = other_head[2 * SLOT :]
    yield Vector("metadata-of-another-file", "envelope.metadata", "the metadata of another file",
                 head[: 2 * SLOT] + other_meta + b"".join(parts))  # fmt: skip
    yield Vector("oversize-metadata", "envelope.metadata", "metadata of 1 MiB and 256 bytes",
                 edit(whole, 12, ((1 << 20) + 256).to_bytes(4, "little")))  # fmt: skip
    yield Vector("metadata-unpadded", "envelope.metadata", "a metadata length that is no multiple of 256",
                 edit(whole, 12, (300).to_bytes(4, "little")))  # fmt: skip


def chunk_as(w: Writer, payload_len: int, index: int, data: bytes, *, last: bool, like: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from tests.envelope.reference import nonce

    fixed = w.fixed(int.from_bytes(like[12:16], "little"), payload_len)
    return AESGCM(fixed.key(w.data_key, "payload")).encrypt(nonce(index, last), data, None)


def metadata() -> Iterator[Vector]:
    data = payload(100)
    w = writer("metadata")
    good = w.metadata(data)

    def bad(which: str, comment: str, padded: bytes) -> Vector:
        return Vector(f"metadata-{which}", "envelope.metadata", comment, with_metadata(w, data, padded))

    def changed(which: str, comment: str, **changes: object) -> Vector:
        return bad(which, comment, pad(cbor(w.metadata(data, **changes))))

    encoded = cbor(good)
    long_form = encoded.replace(cbor(2) + cbor(0o640), cbor(2) + b"\x1a" + (0o640).to_bytes(4, "big"), 1)
    yield bad("non-canonical", "a number longer than it must be", pad(long_form))
    yield bad("indefinite-map", "a map of indefinite length", pad(b"\xbf" + encoded[1:] + b"\xff"))
    yield bad("unordered", "keys out of order", pad(cbor(dict([*list(good.items())[1:], (1, good[1])]))))
    yield bad("missing-key", "a key left out", pad(cbor({k: v for k, v in good.items() if k != 14})))
    yield bad("extra-key", "a key too many", pad(cbor(good | {17: 0})))
    yield bad("not-cbor", "no CBOR at all", pad(b"\xff" * 100))
    yield bad("padding", "padding that is not zero", pad(encoded)[:-1] + b"\1")
    yield bad("padding-long", "256 bytes of padding more than needed", pad(encoded) + bytes(256))
    yield bad(
        "deep", "an array that claims 2^60 elements", pad(encoded.split(cbor(10))[0] + cbor(10) + cbor_head(4, 1 << 60))
    )
    yield changed("absolute", "an absolute path", name=b"/etc/shadow")
    yield changed("dotdot", "a path that climbs out", name=b"a/../../etc/shadow")
    yield changed("nul", "a zero byte in the path", name=b"a\0b")
    yield changed("no-name", "an empty path", name=b"")
    yield changed("mode", "mode bits beyond 07777", mode=0o100644)
    yield changed("overlap", "regions that overlap", size=200, extents=[0, 60, 50, 40])
    yield changed("touching", "regions that touch", size=200, extents=[0, 60, 60, 40])
    yield changed("outside", "a region beyond the size", size=90)
    yield changed("sum", "regions that are not the payload", size=200, extents=[0, 99])
    yield changed("odd-extents", "an offset without a length", extents=[0, 100, 200])
    yield changed("xattr-order", "attributes out of order", xattrs=[b"user.b", b"", b"user.a", b""])
    yield changed("xattr-twice", "an attribute twice", xattrs=[b"user.a", b"", b"user.a", b""])
    yield changed("digest", "a digest of 31 bytes", digest=bytes(31))
    yield changed("why-bytes", "a reason that is no text", why=b"test")
    yield Vector("wrong-digest", "pass", "a digest of other content: tags hold, the full check refuses",
                 w.seal(data, digest=bytes(32)), data, "envelope.chunk")  # fmt: skip


def vectors() -> list[Vector]:
    """All of them."""
    return [*passing(), *headers(), *bodies(), *metadata()]


def main() -> None:
    HERE.mkdir(parents=True, exist_ok=True)
    for old in HERE.glob("*.vector"):
        old.unlink()
    for vector in vectors():
        (HERE / f"{vector.name}.vector").write_bytes(vector.encode())


if __name__ == "__main__":
    main()
