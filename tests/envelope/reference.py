"""A second sealed file, in plain Python: reader and writer written from shield-envelope(5) alone.

It shares no code with the core: primitives are those of `cryptography`, CBOR, CRC-32C and BLAKE3 are spelled out here.
Slow, whole files in memory, no file system: it is the oracle of the tests.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

MAGIC = b"SHIELD\x00\x01"
SLOT = 4096
TAG = 16
METADATA_AT = 2 * SLOT
LOCAL = 1
FIELDS = (
    "name", "mode", "uid", "gid", "user", "group", "atime_ns", "mtime_ns", "size", "extents", "xattrs", "digest",
    "purpose", "why", "sealed_at_ns", "host_id",
)  # fmt: skip
"""Names of the metadata's keys 1 to 16."""


class Refused(Exception):  # noqa: N818 - the page's own word
    """A sealed file was refused; the first argument names the layer."""

    @property
    def layer(self) -> str:
        return str(self.args[0])


# --- primitives that the standard library lacks ---


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), RFC 3720 appendix B.4."""
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_PERMUTE = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_QUARTERS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def _compress(chaining: tuple[int, ...], block: bytes, counter: int, flags: int) -> tuple[int, ...]:
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = [*chaining, *_IV[:4], counter & 0xFFFFFFFF, counter >> 32, len(block), flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(_QUARTERS):
            for word, first, second in ((words[2 * i], 16, 12), (words[2 * i + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
                x = v[d] ^ v[a]
                v[d] = (x >> first) | (x << (32 - first)) & 0xFFFFFFFF
                v[c] = (v[c] + v[d]) & 0xFFFFFFFF
                x = v[b] ^ v[c]
                v[b] = (x >> second) | (x << (32 - second)) & 0xFFFFFFFF
        words = [words[i] for i in _PERMUTE]
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def blake3(data: bytes) -> bytes:
    """BLAKE3 with 32 bytes of output, after the reference in the BLAKE3 paper, section 2."""

    def subtree(piece: bytes, chunk: int, root: int) -> tuple[int, ...]:
        if len(piece) <= 1024:
            chaining: tuple[int, ...] = _IV
            blocks = [piece[i : i + 64] for i in range(0, len(piece), 64)] or [b""]
            for i, block in enumerate(blocks):
                last = i == len(blocks) - 1
                flags = (1 if i == 0 else 0) | (2 | root if last else 0)
                chaining = _compress(chaining, block, chunk, flags)
            return chaining
        left = 1024
        while left * 2 < len(piece):
            left *= 2
        pair = subtree(piece[:left], chunk, 0) + subtree(piece[left:], chunk + left // 1024, 0)
        return _compress(_IV, struct.pack("<16I", *pair), 0, 4 | root)

    return struct.pack("<8I", *subtree(data, 0, 8))


def hkdf(salt: bytes, secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 with 32 bytes of output (RFC 5869)."""
    return HKDFExpand(SHA256(), 32, info).derive(hmac.digest(salt, secret, "sha256"))


# --- deterministic CBOR, as far as the metadata goes ---


def cbor_head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes([major << 5 | value])
    for extra, code in ((1, 24), (2, 25), (4, 26)):
        if value < 1 << 8 * extra:
            return bytes([major << 5 | code]) + value.to_bytes(extra, "big")
    return bytes([major << 5 | 27]) + value.to_bytes(8, "big")


def cbor(value: object) -> bytes:
    if isinstance(value, int):
        return cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    if isinstance(value, str):
        return cbor_head(3, len(value.encode())) + value.encode()
    if isinstance(value, (list, tuple)):
        return cbor_head(4, len(value)) + b"".join(map(cbor, value))
    if isinstance(value, dict):
        return cbor_head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())
    raise TypeError(type(value))


def uncbor(data: bytes, at: int = 0) -> tuple[object, int]:
    """The value at `at`, and where the next begins; lengths must be the shortest."""
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    value = low
    if low >= 24:
        extra = {24: 1, 25: 2, 26: 4, 27: 8}[low]
        value = int.from_bytes(data[at : at + extra], "big")
        at += extra
    match major:
        case 0:
            return value, at
        case 1:
            return -1 - value, at
        case 2 | 3:
            if at + value > len(data):
                raise ValueError("cut short")
            piece = data[at : at + value]
            return (piece if major == 2 else piece.decode()), at + value
        case 4 | 5:
            items = []
            for _ in range(value * (major - 3)):
                item, at = uncbor(data, at)
                items.append(item)
            return (items if major == 4 else dict(zip(items[::2], items[1::2], strict=True))), at
    raise ValueError("major type")


# --- the format ---


@dataclass(frozen=True)
class Fixed:
    """Bytes 0..104 of a slot."""

    metadata_len: int
    payload_len: int
    file_id: bytes
    salt: bytes
    commitment: bytes = bytes(32)
    chunk_log2: int = 17
    suite: int = 1
    flags: int = 0

    def bound(self) -> bytes:
        head = struct.pack("<BBHIQ", self.suite, self.chunk_log2, self.flags, self.metadata_len, self.payload_len)
        return MAGIC + head + self.file_id + self.salt

    def binding(self) -> bytes:
        return hashlib.sha256(self.bound()).digest()

    def key(self, data_key: bytes, name: str) -> bytes:
        return hkdf(self.salt, data_key, b"shield/1/" + name.encode() + self.binding())

    @property
    def chunks(self) -> int:
        return max(1, -(-self.payload_len >> self.chunk_log2))

    @property
    def payload_at(self) -> int:
        return METADATA_AT + self.metadata_len + TAG

    @property
    def total(self) -> int:
        return self.payload_at + self.payload_len + TAG * self.chunks


@dataclass(frozen=True)
class Recipient:
    """A wrapped data key."""

    kind: int
    key_id: bytes
    version: int
    wrapped: bytes

    def encode(self) -> bytes:
        head = struct.pack("<B16sIH", self.kind, self.key_id, self.version, len(self.wrapped))
        return head + self.wrapped


@dataclass(frozen=True)
class Slot:
    """A header slot."""

    fixed: Fixed
    generation: int
    recipients: tuple[Recipient, ...]
    mac: bytes = b""

    def body(self) -> bytes:
        head = self.fixed.bound() + self.fixed.commitment
        head += struct.pack("<QB7x", self.generation, len(self.recipients))
        return (head + b"".join(r.encode() for r in self.recipients)).ljust(4060, b"\0")

    def encode(self, data_key: bytes) -> bytes:
        body = self.body()
        return with_crc(body + hmac.digest(self.fixed.key(data_key, "header"), body, "sha256"))


def with_crc(block: bytes) -> bytes:
    return block + struct.pack("<I", crc32c(block))


def wrap(kek: bytes, key_id: bytes, version: int, fixed: Fixed, data_key: bytes, salt: bytes) -> Recipient:
    info = b"shield/1/wrap" + fixed.binding() + struct.pack("<B16sI", LOCAL, key_id, version)
    sealed = AESGCM(hkdf(salt, kek, info)).encrypt(bytes(12), data_key, None)
    return Recipient(LOCAL, key_id, version, salt + sealed)


def nonce(index: int, last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([last])


def pad(encoded: bytes) -> bytes:
    return encoded.ljust(-(-len(encoded) // 256) * 256, b"\0")


@dataclass(frozen=True)
class Writer:
    """Seals; all that is random is an argument."""

    kek: bytes
    key_id: bytes
    version: int
    data_key: bytes
    file_id: bytes
    salt: bytes
    wrap_salt: bytes
    chunk_log2: int = 17
    generation: int = 2

    def metadata(self, payload: bytes, **changes: object) -> dict[int, object]:
        """Plausible metadata of a dense file; `changes` by name of field."""
        extents = [0, len(payload)] if payload else []
        values: dict[str, object] = {
            "name": b"ward/scan.dcm", "mode": 0o640, "uid": 0, "gid": 0, "user": b"root", "group": b"root",
            "atime_ns": 1_700_000_000_123_456_789, "mtime_ns": 1_600_000_000_987_654_321, "size": len(payload),
            "extents": extents, "xattrs": [], "digest": blake3(payload), "purpose": 1, "why": "test",
            "sealed_at_ns": 1_700_000_001_000_000_000, "host_id": b"host",
        }  # fmt: skip
        values.update(changes)
        return {i + 1: values[name] for i, name in enumerate(FIELDS)}

    def fixed(self, metadata_len: int, payload_len: int) -> Fixed:
        fixed = Fixed(metadata_len, payload_len, self.file_id, self.salt, chunk_log2=self.chunk_log2)
        return replace(fixed, commitment=fixed.key(self.data_key, "commitment"))

    def recipient(self, fixed: Fixed) -> Recipient:
        return wrap(self.kek, self.key_id, self.version, fixed, self.data_key, self.wrap_salt)

    def slots(self, fixed: Fixed) -> bytes:
        recipients = (self.recipient(fixed),)
        generations = (self.generation, self.generation - 1)
        return b"".join(Slot(fixed, g, recipients).encode(self.data_key) for g in generations)

    def body(self, fixed: Fixed, metadata: bytes, payload: bytes) -> bytes:
        """All behind the slots; `metadata` is padded already."""
        out = AESGCM(fixed.key(self.data_key, "metadata")).encrypt(bytes(12), metadata, None)
        cipher, size = AESGCM(fixed.key(self.data_key, "payload")), 1 << self.chunk_log2
        for i in range(fixed.chunks):
            out += cipher.encrypt(nonce(i, i == fixed.chunks - 1), payload[i * size : (i + 1) * size], None)
        return out

    def seal(self, payload: bytes, **changes: object) -> bytes:
        metadata = pad(cbor(self.metadata(payload, **changes)))
        fixed = self.fixed(len(metadata), len(payload))
        return self.slots(fixed) + self.body(fixed, metadata, payload)


@dataclass
class Reader:
    """Opens a sealed file held in memory.

    Attributes:
        keys: key-encryption keys by id and version.
    """

    keys: dict[tuple[bytes, int], bytes]
    slot: Slot = field(init=False)
    whole: int = field(init=False)
    data_key: bytes = field(init=False)
    metadata: dict[str, object] = field(init=False)

    def open(self, sealed: bytes) -> bytes:
        """The payload.

        Raises:
            Refused: with the layer.
        """
        self.slot = self._choose(sealed)
        self.data_key = self._unwrap(self.slot)
        self._check(self.slot)
        fixed = self.slot.fixed
        if len(sealed) != fixed.total:
            raise Refused("truncated" if len(sealed) < fixed.total else "trailing")
        self.metadata = self._metadata(sealed[METADATA_AT : fixed.payload_at])
        payload = b"".join(self._chunks(sealed))
        if blake3(payload) != self.metadata["digest"]:
            raise Refused("chunk", "digest")
        return payload

    def verify(self, sealed: bytes) -> bytes:
        """As `open`, and both slots must be whole and ours."""
        payload = self.open(sealed)
        if self.whole != 2:
            raise Refused("crc")
        for at in (0, SLOT):
            slot = parse(sealed[at : at + SLOT])
            if isinstance(slot, Slot):
                self._check(slot)
        return payload

    def _choose(self, sealed: bytes) -> Slot:
        if len(sealed) < 2 * SLOT:
            raise Refused("truncated" if sealed[:8] == MAGIC else "magic")
        states = [parse(sealed[at : at + SLOT]) for at in (0, SLOT)]
        if states == ["foreign", "foreign"]:
            raise Refused("magic")
        slots = [s for s in states if isinstance(s, Slot)]
        self.whole = len(slots)
        if not slots:
            raise Refused("crc")
        if len(slots) == 2 and (slots[0].fixed != slots[1].fixed or slots[0].generation == slots[1].generation):
            raise Refused("slot")
        return max(slots, key=lambda s: s.generation)

    def _unwrap(self, slot: Slot) -> bytes:
        unknown_version = False
        for r in slot.recipients:
            kek = self.keys.get((r.key_id, r.version))
            if r.kind != LOCAL:
                continue
            if kek is None:
                unknown_version |= any(r.key_id == key_id for key_id, _ in self.keys)
                continue
            info = b"shield/1/wrap" + slot.fixed.binding() + struct.pack("<B16sI", r.kind, r.key_id, r.version)
            try:
                plain = AESGCM(hkdf(r.wrapped[:32], kek, info)).decrypt(bytes(12), r.wrapped[32:], None)
            except (InvalidTag, ValueError):
                continue
            if len(plain) == 32:
                return plain
        raise Refused("version" if unknown_version else "recipient")

    def _check(self, slot: Slot) -> None:
        if not hmac.compare_digest(slot.fixed.key(self.data_key, "commitment"), slot.fixed.commitment):
            raise Refused("commitment")
        if not hmac.compare_digest(
            hmac.digest(slot.fixed.key(self.data_key, "header"), slot.body(), "sha256"), slot.mac
        ):
            raise Refused("header-mac")

    def _metadata(self, sealed: bytes) -> dict[str, object]:
        fixed = self.slot.fixed
        try:
            padded = AESGCM(fixed.key(self.data_key, "metadata")).decrypt(bytes(12), sealed, None)
            value, _end = uncbor(padded)
        except (InvalidTag, ValueError, IndexError, KeyError) as error:
            raise Refused("metadata") from error
        canonical = isinstance(value, dict) and list(value) == list(range(1, 17)) and pad(cbor(value)) == padded
        if not canonical:
            raise Refused("metadata")
        found = {name: value[i + 1] for i, name in enumerate(FIELDS)}  # type: ignore[index]
        if not sane(found) or sum(found["extents"][1::2]) != fixed.payload_len:  # type: ignore[index]
            raise Refused("metadata")
        return found

    def _chunks(self, sealed: bytes) -> Iterator[bytes]:
        fixed = self.slot.fixed
        cipher, stride, at = (
            AESGCM(fixed.key(self.data_key, "payload")),
            (1 << fixed.chunk_log2) + TAG,
            fixed.payload_at,
        )
        for i in range(fixed.chunks):
            try:
                piece = sealed[at : min(at + stride, len(sealed))]
                yield cipher.decrypt(nonce(i, i == fixed.chunks - 1), piece, None)
            except InvalidTag as error:
                raise Refused("chunk", i) from error
            at += stride

    def plain(self, payload: bytes) -> bytes:
        """The original, holes as zeros."""
        out = bytearray(int(self.metadata["size"]))  # type: ignore[call-overload]
        at = 0
        extents: list[int] = self.metadata["extents"]  # type: ignore[assignment]
        for offset, length in zip(extents[::2], extents[1::2], strict=True):
            out[offset : offset + length] = payload[at : at + length]
            at += length
        return bytes(out)


def sane(m: dict[str, object]) -> bool:
    """The limits of the page, "METADATA"."""
    kinds = {
        bytes: ("name", "user", "group", "digest", "host_id"), list: ("extents", "xattrs"), str: ("why",),
        int: ("mode", "uid", "gid", "atime_ns", "mtime_ns", "size", "purpose", "sealed_at_ns"),
    }  # fmt: skip
    if not all(isinstance(m[name], kind) for kind, names in kinds.items() for name in names):
        return False
    name, extents, xattrs = m["name"], m["extents"], m["xattrs"]
    assert isinstance(name, bytes) and isinstance(extents, list) and isinstance(xattrs, list)
    parts = name.split(b"/")
    if b"\0" in name or len(name) > 4096 or any(part in (b"", b".", b"..") for part in parts):
        return False
    if len(extents) % 2 or len(extents) > 2 * 16384 or len(xattrs) % 2 or len(xattrs) > 2 * 1024:
        return False
    end = -1
    for offset, length in zip(extents[::2], extents[1::2], strict=True):
        if offset <= end or length == 0 or offset + length > m["size"]:  # type: ignore[operator]
            return False
        end = offset + length
    names = xattrs[::2]
    if names != sorted(set(names)) or not all(0 < len(n) <= 255 and b"\0" not in n for n in names):
        return False
    limits = (("user", 256), ("group", 256), ("host_id", 256))
    return (
        len(m["digest"]) == 32  # type: ignore[arg-type]
        and 0 <= m["mode"] <= 0o7777  # type: ignore[operator]
        and len(m["why"].encode()) <= 1024  # type: ignore[attr-defined]
        and all(len(m[n]) <= most for n, most in limits)  # type: ignore[arg-type]
    )


def parse(block: bytes) -> Slot | str:
    """A slot, or "foreign" or "torn".

    Raises:
        Refused: the CRC holds but the slot is not as the page says.
    """
    if block[:8] != MAGIC:
        return "foreign"
    if struct.pack("<I", crc32c(block[:4092])) != block[4092:]:
        return "torn"
    suite, chunk_log2, flags, metadata_len, payload_len = struct.unpack_from("<BBHIQ", block, 8)
    file_id, salt, commitment = block[24:40], block[40:72], block[72:104]
    generation, count = struct.unpack_from("<QB", block, 104)
    if suite != 1 or flags:
        raise Refused("suite")
    if not 12 <= chunk_log2 <= 22 or payload_len > 1 << 62:
        raise Refused("slot")
    if metadata_len == 0 or metadata_len > 1 << 20 or metadata_len % 256:
        raise Refused("metadata")
    if generation == 0 or not 1 <= count <= 8 or any(block[113:120]):
        raise Refused("slot")
    recipients, at = [], 120
    for _ in range(count):
        if at + 23 > 4060:
            raise Refused("slot")
        kind, key_id, version, length = struct.unpack_from("<B16sIH", block, at)
        at += 23
        if kind == 0 or not 0 < length <= 1600 or at + length > 4060:
            raise Refused("slot")
        recipients.append(Recipient(kind, key_id, version, block[at : at + length]))
        at += length
    if any(block[at:4060]):
        raise Refused("slot")
    fixed = Fixed(metadata_len, payload_len, file_id, salt, commitment, chunk_log2, suite, flags)
    return Slot(fixed, generation, tuple(recipients), block[4060:4092])
