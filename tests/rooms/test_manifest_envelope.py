"""Envelopes: published examples byte for byte, bounds of the outer map, streaming, offers, signatures."""

from __future__ import annotations

import hashlib
import io
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from builders import make_envelope, make_image
from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.sign import read_sign1
from devguard.errors import DevguardError, LocalProtocolError, Malformed, Refused
from devguard.manifest.codec import decode_manifest, encode_manifest, resolve
from devguard.manifest.envelope import (
    MAX_BLOCKS,
    MAX_ENTRIES,
    MAX_OFFER,
    SMALL,
    Envelope,
    Payload,
    add_signature,
    check_digest,
    encode_envelope,
    parse_offer,
    read_envelope,
    sever,
    signature_payload,
    write_envelope,
)
from devguard.manifest.release import release_facts
from devguard.manifest.suit import Digest

TAG = b"\xd8\x6b"
EXAMPLES = (
    "example0_envelope.cbor",
    "example0_with_cose.cbor",
    "example1_envelope.cbor",
    "example1_with_cose.cbor",
    "example2_envelope.cbor",
    "example2_full_with_cose.cbor",
    "example2_severed_with_cose.cbor",
    "libcsuit/suit_manifest_exp0.suit",
    "libcsuit/suit_manifest_exp1.suit",
    "libcsuit/suit_manifest_exp2A.suit",
    "libcsuit/suit_manifest_expS0.suit",
    "libcsuit/suit_manifest_expI.suit",
    "libcsuit/suit_manifest_expU.suit",
)


def read(data: bytes) -> Envelope:
    return read_envelope(io.BytesIO(data))


def outer(*entries: bytes, count: int | None = None) -> bytes:
    """A tagged envelope from encoded key-value pairs."""
    return TAG + bytes([0xA0 | (len(entries) if count is None else count)]) + b"".join(entries)


def entry(key: object, value: object) -> bytes:
    return wire.encode(key) + wire.encode(value)


WRAPPER = wire.encode([Digest(-16, bytes(32)).encode()])
PAIR = (entry(2, WRAPPER), entry(3, b"\xa0"))


@pytest.fixture(scope="module")
def small() -> bytes:
    return encode_envelope(make_envelope(make_image(48)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_published_envelope_reads_and_writes_the_same_bytes(vectors: Path, name: str) -> None:
    data = (vectors / "suit" / name).read_bytes()
    env = read(data)
    assert encode_envelope(env) == data
    out = io.BytesIO()
    write_envelope(env, {}, out)
    assert out.getvalue() == data
    assert encode_manifest(decode_manifest(env.manifest)) == env.manifest
    check_digest(env)
    assert env.tagged is (name not in ("libcsuit/suit_manifest_expI.suit", "libcsuit/suit_manifest_expU.suit"))
    resolve(decode_manifest(env.manifest), env.severable)


@pytest.mark.parametrize("name", [one for one in EXAMPLES if "with_cose" in one or "libcsuit" in one])
def test_published_signatures_cover_the_wrapped_digest(vectors: Path, name: str) -> None:
    pem = "libcsuit/key/trust_anchor_secp256r1_pub.pem" if "libcsuit" in name else "public_key.pem"
    key = CoseKey.from_pem((vectors / "suit" / pem).read_bytes())
    env = read((vectors / "suit" / name).read_bytes())
    (block,) = env.auth_blocks
    signed = read_sign1(block)
    assert signed.verify(key, payload=signature_payload(env)) == signature_payload(env)
    with pytest.raises(Refused):
        signed.verify(key, payload=signature_payload(replace(env, digest=bytes(32))))


def test_severed_and_full_forms_share_one_signature(vectors: Path) -> None:
    full = read((vectors / "suit/example2_full_with_cose.cbor").read_bytes())
    severed = read((vectors / "suit/example2_severed_with_cose.cbor").read_bytes())
    assert full.manifest_digest == severed.manifest_digest == full.digest
    assert set(full.severable) == {20, 23}
    assert set(parse_offer(sever(full)).severable) == {20}  # a device cannot install without it


def test_an_untagged_envelope_reads_and_says_so(small: bytes) -> None:
    env = read(small[2:])
    assert not env.tagged
    assert encode_envelope(env) == small[2:]
    with pytest.raises(Malformed, match="tag 107") as caught:
        release_facts(env)
    assert caught.value.code == "envelope.malformed"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "envelope.malformed"),
        (b"\x00", "envelope.malformed"),
        (b"\x80", "envelope.malformed"),
        (b"\xf6", "envelope.malformed"),
        (b"\xd8\x6a" + outer(*PAIR)[2:], "envelope.malformed"),
        (TAG + TAG + outer(*PAIR)[2:], "envelope.malformed"),
        (TAG + b"\xa0", "envelope.malformed"),
        (outer(PAIR[0]), "envelope.malformed"),
        (outer(PAIR[1]), "envelope.malformed"),
        (outer(*PAIR, count=3), "envelope.malformed"),
        (outer(*PAIR, count=1), "image.trailing"),
        (outer(*PAIR) + b"\x00", "image.trailing"),
        (outer(*PAIR) + outer(*PAIR), "image.trailing"),
        (TAG + b"\xbf" + b"".join(PAIR) + b"\xff", "envelope.not-deterministic"),
        (TAG + b"\xb8\x02" + b"".join(PAIR), "envelope.not-deterministic"),
        (b"\xd9\x00\x6b" + outer(*PAIR)[2:], "envelope.not-deterministic"),
        (outer(PAIR[1], PAIR[0]), "envelope.not-deterministic"),
        (outer(PAIR[0], PAIR[0], PAIR[1]), "envelope.malformed"),
        (outer(PAIR[0], b"\x18\x03\x41\xa0"), "envelope.not-deterministic"),
        (outer(PAIR[0], b"\x03\x5f\x41\xa0\xff"), "envelope.not-deterministic"),
        (outer(*PAIR, entry("#b", b""), entry("#a", b"")), "envelope.not-deterministic"),
        (outer(*PAIR, entry("#a", b""), entry("#a", b"")), "envelope.malformed"),
        (outer(*PAIR, entry("#a", "text")), "envelope.malformed"),
        (outer(*PAIR, entry("#a", 7)), "envelope.malformed"),
        (outer(*PAIR, b"\x41\x61\x40"), "envelope.malformed"),
        (outer(*PAIR, b"\xf5\x40"), "envelope.malformed"),
        (outer(*PAIR, b"\x62\xc3\x28\x40"), "envelope.malformed"),
        (outer(*PAIR, entry("x" * 1025, b"")), "envelope.malformed"),
        (outer(*PAIR, entry(20, bytes(SMALL + 1))), "envelope.malformed"),
        (TAG + b"\xbb" + b"\xff" * 8, "envelope.malformed"),
        (TAG + b"\xba\xff\xff\xff\xff", "envelope.malformed"),
        (outer(*PAIR, b"\x61\x23\x5a\xff\xff\xff\xff"), "envelope.malformed"),
        (outer(*PAIR, b"\x61\x23\x5b\x80" + bytes(7)), "envelope.malformed"),
        (outer(*PAIR, b"\x7b\x80" + bytes(7)), "envelope.malformed"),
        (outer(entry(2, b"\x80"), PAIR[1]), "envelope.malformed"),
        (outer(entry(2, b"\x81\x00"), PAIR[1]), "envelope.malformed"),
        (outer(entry(2, WRAPPER + b"\x00"), PAIR[1]), "envelope.malformed"),
        (outer(entry(2, wire.encode([wire.encode([-16, bytes(31)])])), PAIR[1]), "envelope.malformed"),
        (outer(entry(2, wire.encode([wire.encode([-16, bytes(32), 1])])), PAIR[1]), "envelope.malformed"),
        (outer(entry(2, wire.encode([wire.encode([True, bytes(32)])])), PAIR[1]), "envelope.malformed"),
        (outer(entry(2, b"\x81" * 10_000 + b"\x80"), PAIR[1]), "envelope.malformed"),
        (TAG + b"\x81" * 10_000, "envelope.malformed"),
    ],
)
def test_what_is_no_envelope_is_refused_with_its_code(data: bytes, code: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(data)
    assert caught.value.code == code


def test_counts_of_members_and_blocks_are_bounded() -> None:
    many = [entry(f"#{index:02}", b"") for index in range(MAX_ENTRIES - 1)]
    with pytest.raises(Malformed, match="members"):
        read(TAG + b"\xb8\x41" + b"".join((*PAIR, *many)))
    digest = Digest(-16, bytes(32)).encode()
    with pytest.raises(Malformed, match="blocks"):
        read(outer(entry(2, wire.encode([digest, *[b"x"] * (MAX_BLOCKS + 1)])), PAIR[1]))
    env = read(outer(entry(2, wire.encode([digest, *[b"x"] * MAX_BLOCKS])), PAIR[1]))
    with pytest.raises(Refused):
        add_signature(env, b"y")


def test_truncation_at_every_byte_is_malformed(small: bytes) -> None:
    for cut in range(len(small)):
        with pytest.raises(Malformed) as caught:
            read(small[:cut])
        assert caught.value.code in ("envelope.malformed", "envelope.not-deterministic"), cut


def flipped(data: bytes, position: int, original: Envelope) -> None:
    """A flipped bit is refused here, or shows: in the digest, the payload, the signature blocks or the text."""
    changed = bytearray(data)
    changed[position // 8] ^= 1 << position % 8
    try:
        env = read(bytes(changed))
        release_facts(env)
    except Malformed:
        return
    assert (env.payloads, env.digest, env.auth_blocks) != (original.payloads, original.digest, original.auth_blocks)


def test_sampled_bit_flips_never_pass_unseen(small: bytes) -> None:
    original = read(small)
    for position in random.Random(2).sample(range(8 * len(small)), 300):
        flipped(small, position, original)


@pytest.mark.slow
def test_every_bit_flip_never_passes_unseen(small: bytes) -> None:
    original = read(small)
    for position in range(8 * len(small)):
        flipped(small, position, original)


def test_garbage_only_raises_the_own_error() -> None:
    source = random.Random(5)
    for _ in range(500):
        data = TAG * source.randint(0, 1) + bytes([source.choice((0xA2, 0xA3, 0xB8))]) + source.randbytes(60)
        with pytest.raises(DevguardError):
            release_facts(read(data))


class Sparse(io.RawIOBase):
    """A reader of `head`, then `hole` zero bytes, then `tail`; it fails the test when the hole is read."""

    def __init__(self, head: bytes, hole: int, tail: bytes = b"") -> None:
        self.head, self.hole, self.tail, self.at = head, hole, tail, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset if whence == 0 else len(self.head) + self.hole + len(self.tail) + offset
        return self.at

    def read(self, size: int = -1) -> bytes:
        start, hole_end = self.at, len(self.head) + self.hole
        assert size >= 0
        if start < len(self.head):
            data = self.head[start : start + size]
        else:
            assert start >= hole_end, "the payload was read"
            data = self.tail[start - hole_end : start - hole_end + size]
        self.at += len(data)
        return data


def test_a_payload_of_four_gib_is_located_and_never_read() -> None:
    size = 4 * 1024**3
    head = outer(*PAIR, b"\x65#main" + b"\x5b" + size.to_bytes(8, "big"))
    reader: BinaryIO = Sparse(head, size)  # type: ignore[assignment]  # a raw reader serves as a binary one here
    tracemalloc.start()
    env = read_envelope(reader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert env.payloads == {"#main": Payload(len(head), size, None)}
    assert peak < 1 << 20
    with pytest.raises(LocalProtocolError):
        encode_envelope(env)


class Failing(io.BytesIO):
    """A reader that fails from its `good`-th operation on, as a pulled stick does."""

    def __init__(self, data: bytes, good: int) -> None:
        super().__init__(data)
        self.good = good

    def _operation(self) -> None:
        self.good -= 1
        if self.good < 0:
            raise OSError(5, "Input/output error")

    def read(self, size: int | None = -1, /) -> bytes:
        self._operation()
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._operation()
        return super().seek(offset, whence)

    def tell(self) -> int:
        self._operation()
        return super().tell()


def test_a_reader_that_fails_at_any_moment_is_unreadable(small: bytes) -> None:
    env = read_envelope(io.BytesIO(small))
    data = encode_envelope(replace(env, payloads={"#large": Payload(0, SMALL + 1, bytes(SMALL + 1))}))
    operations = Failing(data, 1 << 20)
    read_envelope(operations)
    used = (1 << 20) - operations.good
    assert used > 20
    for good in range(used):
        with pytest.raises(Refused) as caught:
            read_envelope(Failing(data, good))
        assert caught.value.code == "file.unreadable"


def test_reading_starts_where_the_reader_stands(small: bytes) -> None:
    reader = io.BytesIO(b"before" + small)
    reader.seek(6)
    (payload,) = read_envelope(reader).payloads.values()
    assert reader.getvalue()[payload.offset :][: payload.size] == payload.data == make_image(48)


def test_large_payloads_stream_in_and_out() -> None:
    image = make_image(3 * SMALL)
    env = make_envelope(image)
    built = replace(env, payloads={"#main": Payload(0, len(image), None)})
    out = io.BytesIO()
    write_envelope(built, {"#main": io.BytesIO(image)}, out)
    again = read(out.getvalue())
    assert again.payloads["#main"].data is None
    assert out.getvalue()[again.payloads["#main"].offset :][: len(image)] == image
    assert out.getvalue() == encode_envelope(env)


@pytest.mark.parametrize("wrong", [lambda image: image[:-1], lambda image: image + b"\x00"])
def test_an_image_that_changed_its_size_since_it_was_measured_is_refused(wrong: Callable[[bytes], bytes]) -> None:
    env = make_envelope(make_image(100))
    with pytest.raises(Refused) as caught:
        write_envelope(env, {"#main": io.BytesIO(wrong(make_image(100)))}, io.BytesIO())
    assert caught.value.code == "image.size"


def test_writing_asks_for_exactly_the_payloads_that_are_there() -> None:
    env = make_envelope(make_image(100))
    with pytest.raises(LocalProtocolError):
        write_envelope(env, {"#other": io.BytesIO(b"")}, io.BytesIO())
    with pytest.raises(LocalProtocolError):
        write_envelope(replace(env, payloads={"#main": Payload(0, 100, None)}), {}, io.BytesIO())


def test_an_offer_has_no_payload_no_text_and_a_limit(small: bytes) -> None:
    env = add_signature(read(small), b"block")
    offer = parse_offer(sever(env))
    assert (offer.payloads, offer.severable, offer.auth_blocks) == ({}, {}, (b"block",))
    assert offer.manifest_digest == env.manifest_digest
    assert replace(release_facts(env), text=None) == release_facts(offer)
    with pytest.raises(Refused) as caught:
        sever(add_signature(env, bytes(MAX_OFFER)))
    assert caught.value.code == "envelope.malformed"


def test_what_is_no_offer_is_refused(small: bytes) -> None:
    offer = sever(read(small))
    for data in (small, offer[2:], offer + b"\x00", offer[:-1], bytes(MAX_OFFER + 1)):
        with pytest.raises(Malformed):
            parse_offer(data)


def test_the_wrapper_covers_the_manifest_with_its_head(small: bytes) -> None:
    env = read(small)
    assert env.digest == hashlib.sha256(wire.encode(env.manifest)).digest()
    for algorithm in (-16, -43, -44):
        digest = Digest.of_member(env.manifest, algorithm)
        check_digest(replace(env, digest_algorithm=algorithm, digest=digest.value))
    for wrong in (
        replace(env, digest=bytes(32)),
        replace(env, manifest=env.manifest[:-1]),
        replace(env, digest_algorithm=-18),
    ):
        with pytest.raises(Malformed) as caught:
            check_digest(wrong)
        assert caught.value.code == "envelope.malformed"
