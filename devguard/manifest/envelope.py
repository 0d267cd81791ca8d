"""SUIT envelopes (draft-ietf-suit-manifest-37 section 8.2, 8.3): read, write, sever, sign.

`read_envelope` walks the outer map itself on an open seekable reader: byte strings over 64 KiB are located, never
read, so an integrated payload of 4 GiB costs no memory. The encoding must be deterministic to the byte. Nothing here
verifies a signature or knows a command; the manifest stays bytes (see `codec`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from cbor2 import CBORTag

from devguard import wire
from devguard.errors import LocalProtocolError, Malformed, Refused
from devguard.manifest._stream import Cursor
from devguard.manifest.suit import CODE, DISPENSABLE, ENVELOPE_TAG, Digest, EnvelopeKey, strict

SMALL: Final = 64 * 1024
MAX_ENTRIES: Final = 64
MAX_NAME: Final = 1024
MAX_BLOCKS: Final = 32
MAX_OFFER: Final = 12 * 1024
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Payload:
    """An integrated payload: where its bytes are in the reader, how many, and the bytes when at most 64 KiB."""

    offset: int
    size: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as it was read or built. `severable` holds the members beside the manifest by label."""

    digest_algorithm: int
    digest: bytes
    auth_blocks: tuple[bytes, ...]
    manifest: bytes
    severable: Mapping[int, bytes]
    payloads: Mapping[str, Payload]
    tagged: bool

    @property
    def manifest_digest(self) -> bytes:
        """The digest signers sign: of the byte-string-wrapped manifest, as the wrapper states it."""
        return self.digest


def read_envelope(reader: BinaryIO) -> Envelope:
    """The envelope from the reader's position to its end.

    Tagged (107) or bare; `Envelope.tagged` says which. Raises `Malformed`: envelope.malformed,
    envelope.not-deterministic, image.trailing (bytes after the envelope).
    """
    cursor = Cursor(reader)
    major, argument = cursor.head()
    tagged = major == 6
    if tagged:
        if argument != ENVELOPE_TAG:
            raise Malformed(CODE, f"CBOR tag {argument} where a SUIT envelope has {ENVELOPE_TAG}")
        major, argument = cursor.head()
    if major != 5:
        raise Malformed(CODE, "a SUIT envelope is a map")
    if argument > MAX_ENTRIES:
        raise Malformed(CODE, f"an envelope of {argument} members, more than {MAX_ENTRIES}")
    members, payloads = _read_members(cursor, argument)
    if cursor.at != cursor.end:
        raise Malformed("image.trailing", f"{cursor.end - cursor.at} bytes follow the envelope at offset {cursor.at}")
    wrapper = members.pop(EnvelopeKey.AUTHENTICATION, None)
    manifest = members.pop(EnvelopeKey.MANIFEST, None)
    if wrapper is None or manifest is None:
        raise Malformed(CODE, "an envelope needs an authentication wrapper (2) and a manifest (3)")
    digest, blocks = _read_wrapper(wrapper)
    return Envelope(digest.algorithm, digest.value, blocks, manifest, members, payloads, tagged)


def _read_members(cursor: Cursor, count: int) -> tuple[dict[int, bytes], dict[str, Payload]]:
    members: dict[int, bytes] = {}
    payloads: dict[str, Payload] = {}
    previous = b""
    for _ in range(count):
        key, encoded = cursor.key(MAX_NAME)
        if encoded == previous:
            raise Malformed(CODE, f"duplicate map key before offset {cursor.at}")
        if encoded < previous:
            raise Malformed("envelope.not-deterministic", f"map keys out of order before offset {cursor.at}")
        previous = encoded
        offset, size = cursor.byte_string()
        data = cursor.take(size) if size <= SMALL else None
        if isinstance(key, str):
            payloads[key] = Payload(offset, size, data)
        elif data is None:
            raise Malformed(CODE, f"envelope member {key} has {size} bytes, more than {SMALL}")
        else:
            members[key] = data
        cursor.jump(offset + size)
    return members, payloads


def _read_wrapper(data: bytes) -> tuple[Digest, tuple[bytes, ...]]:
    value = strict(data)
    if not isinstance(value, list) or not value or not all(isinstance(item, bytes) for item in value):
        raise Malformed(CODE, "the authentication wrapper is an array of byte strings, the digest first")
    if len(value) - 1 > MAX_BLOCKS:
        raise Malformed(CODE, f"{len(value) - 1} authentication blocks, more than {MAX_BLOCKS}")
    return Digest.decode(value[0]), tuple(value[1:])


def parse_offer(data: bytes) -> Envelope:
    """An offer as it travels: a tagged envelope of at most 12 KiB without payloads. Raises `Malformed`."""
    if len(data) > MAX_OFFER:
        raise Malformed(CODE, f"an offer of {len(data)} bytes, more than {MAX_OFFER}")
    env = read_envelope(io.BytesIO(data))
    if not env.tagged or env.payloads:
        raise Malformed(CODE, "an offer is a tagged envelope without payloads")
    return env


def encode_envelope(env: Envelope) -> bytes:
    """The deterministic bytes of an envelope whose payloads are all in memory."""
    entries = _members(env)
    for name, payload in env.payloads.items():
        if payload.data is None or len(payload.data) != payload.size:
            raise LocalProtocolError(CODE, f"payload {name} is not in memory: use write_envelope")
        entries[name] = payload.data
    return wire.encode(CBORTag(ENVELOPE_TAG, entries) if env.tagged else entries)


def _members(env: Envelope) -> dict[int | str, bytes]:
    blocks: list[object] = [signature_payload(env), *env.auth_blocks]
    wrapper = wire.encode(blocks)
    members: dict[int | str, bytes] = dict(env.severable.items())
    members[EnvelopeKey.AUTHENTICATION.value] = wrapper
    members[EnvelopeKey.MANIFEST.value] = env.manifest
    return members


def write_envelope(env: Envelope, payloads: Mapping[str, BinaryIO], out: BinaryIO) -> None:
    """Writes the envelope to `out`, each payload's `size` bytes streamed from its reader's position (or from memory).

    Raises `Refused` image.size when a reader holds more or fewer bytes than the envelope says.
    """
    if set(payloads) - set(env.payloads):
        raise LocalProtocolError(CODE, "a reader for a payload the envelope does not have")
    head = wire.head(6, ENVELOPE_TAG) if env.tagged else b""
    members = _members(env)
    out.write(head + wire.head(5, len(members) + len(env.payloads)))
    for encoded, key in sorted((wire.encode(key), key) for key in (*members, *env.payloads)):
        out.write(encoded)
        if isinstance(key, int):
            out.write(wire.encode(members[key]))
            continue
        payload = env.payloads[key]
        out.write(wire.head(2, payload.size))
        if key in payloads:
            _copy(payloads[key], payload.size, out, key)
        elif payload.data is not None and len(payload.data) == payload.size:
            out.write(payload.data)
        else:
            raise LocalProtocolError(CODE, f"no reader for payload {key}")


def _copy(reader: BinaryIO, size: int, out: BinaryIO, name: str) -> None:
    left = size
    while left:
        chunk = reader.read(min(left, _CHUNK))
        if not chunk:
            raise Refused("image.size", f"payload {name} ends {left} bytes before the {size} it was measured at")
        out.write(chunk)
        left -= len(chunk)
    if reader.read(1):
        raise Refused("image.size", f"payload {name} is longer than the {size} bytes it was measured at")


def sever(env: Envelope) -> bytes:
    """The offer: the envelope without payloads and without the members a device can do without (text, CoSWID).

    Severable command sequences stay: the device must execute them. Raises `Refused` when over 12 KiB.
    """
    kept = {key: value for key, value in env.severable.items() if key not in DISPENSABLE}
    data = encode_envelope(replace(env, severable=kept, payloads={}, tagged=True))
    if len(data) > MAX_OFFER:
        raise Refused(CODE, f"the offer has {len(data)} bytes, more than {MAX_OFFER}")
    return data


def add_signature(env: Envelope, block: bytes) -> Envelope:
    """The envelope with one more authentication block (an encoded, tagged COSE object)."""
    if len(env.auth_blocks) >= MAX_BLOCKS:
        raise Refused(CODE, f"an envelope carries at most {MAX_BLOCKS} authentication blocks")
    return replace(env, auth_blocks=(*env.auth_blocks, bytes(block)))


def signature_payload(env: Envelope) -> bytes:
    """The encoded SUIT_Digest that every authentication block covers as its detached payload (section 8.3)."""
    return Digest(env.digest_algorithm, env.digest).encode()


def check_digest(env: Envelope) -> None:
    """`Malformed` unless the wrapper's digest is that of the manifest the envelope carries."""
    if Digest.of_member(env.manifest, env.digest_algorithm).value != env.digest:
        raise Malformed(CODE, "the manifest is not the one the authentication wrapper covers")
