"""Sound objects of every parser that is neither a packet nor an image, made by devguard's own writers; and how each is
read. Keys come from seeds, so that two runs start from the same bytes.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from builders import NOW, make_image, make_release, make_signer, make_vendor
from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.cose.sign import read_sign1, sign1
from devguard.custody.keyfile import parse_info
from devguard.device.counters import Counters
from devguard.device.counters_codec import decode_counters, encode_counters
from devguard.device.rebuild import rebuild
from devguard.evidence.checkpoint import Checkpoint, origin_of, parse_text, read_note, sign_checkpoint
from devguard.evidence.record import DigestOf, Entry, Record, decode_entry, decode_record, encode_entry, encode_record
from devguard.grant.chain import read_chain
from devguard.grant.claims import read_grant
from devguard.grant.credential import issue_credential, read_credential
from devguard.grant.request import make_request
from devguard.grant.request import read_request as read_grant_request
from devguard.grant.roster import decode_roster, encode_roster, make_technician
from devguard.grant.suspensions import make_list, read_list
from devguard.grant.technicians import Roster
from devguard.image.delta import compress
from devguard.link.frames import (
    FrameReader,
    Kind,
    decode_announcement,
    decode_frame,
    encode_announcement,
    encode_frame,
    encode_header,
)
from devguard.link.smp_console import ConsoleReader, encode_lines
from devguard.manifest.codec import decode_manifest
from devguard.manifest.description import parse_description, scaffold
from devguard.manifest.envelope import parse_offer, read_envelope
from devguard.session import messages, verbs
from devguard.session.approval import ApprovalRequest, Asking, pack_answer, read_answer, read_request
from devguard.session.armor import Kind as Text
from devguard.session.armor import armor, dearmor, in_groups
from devguard.session.smp_frame import read_message
from devguard.session.suites import Curve
from devguard.trust.document import peek_trust
from grant_support import SCOPE, TESS, VENDOR, make_grant
from session_support import initiator, responder, run

STATION = make_signer(Algorithm.ED25519, "station")


class Parser(NamedTuple):
    """One door: what reads the bytes, and sound ones."""

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


@functools.cache
def _vendor() -> Any:
    return make_vendor("fuzz")


@functools.cache
def _release() -> bytes:
    return make_release(_vendor(), make_image(64))


@functools.cache
def _offer() -> bytes:
    from devguard.manifest.envelope import sever

    return sever(read_envelope(io.BytesIO(_release())))


@functools.cache
def _handshake() -> list[bytes]:
    return run(initiator(), responder())


def _envelope(data: bytes) -> object:
    return read_envelope(io.BytesIO(data))


def _manifests() -> list[bytes]:
    return [read_envelope(io.BytesIO(_release())).manifest]


def _sign1(data: bytes) -> object:
    found = read_sign1(data)
    return found.payload


def _cose() -> list[bytes]:
    return [sign1(make_signer(), b"payload", typ=None).encode(), sign1(STATION, b"", typ="x/y").encode()]


def _keys() -> list[bytes]:
    return [make_signer(one).key.encode() for one in (Algorithm.ESP256, Algorithm.ED25519)]


def _foreign() -> list[bytes]:
    return [*_said(True), b"\xbf\x62rc\x00\xff", b"\xc1\xfb\x41\xd4" + bytes(6)]


def _grants() -> list[bytes]:
    return [make_grant().raw, make_grant(SCOPE, subject="Tom").raw]


def _grant(data: bytes) -> object:
    return read_chain(read_grant(data))


def _credentials() -> list[bytes]:
    factory = VENDOR.signer(RoleName.DEVICE_AUTHORITY)
    facts = {"vendor": "devices.example", "model": "insulin-pump", "revision": "revA", "serial": "IP-0001"}
    return [issue_credential(factory, issuer="factory", key=TESS.key, now=NOW, **facts)]


def _records() -> list[bytes]:
    plain = Record(time=NOW, actor="Tess", action="release.verify", request="r-1")
    full = Record(
        time=NOW, actor="Tess", action="device.push", request="r-2", device="IP-0001", release="insulin-pump 1.1.0",
        code="image.digest", digests={DigestOf.GRANT: b"g" * 32}, details={"port": "line", "empty": ""},
    )  # fmt: skip
    return [encode_record(plain), encode_record(full)]


def _entries() -> list[bytes]:
    return [encode_entry(Entry(7, b"s" * 64, body)) for body in _records()]


def _entry(data: bytes) -> object:
    return decode_entry(data).record


def _notes() -> list[bytes]:
    return [sign_checkpoint(Checkpoint(origin_of(STATION.key), 7, bytes(range(32))), STATION)]


def _note(data: bytes) -> object:
    return parse_text(read_note(data).text)


def _frames() -> list[bytes]:
    nonce = b"\xa1\xb2\xc3\xd4"
    made = [
        encode_frame(encode_header(Kind.OPEN, nonce=nonce), encode_announcement(16384, 4096)),
        encode_frame(encode_header(Kind.DATA, record=(6, 0x203), sequence=9, fin=True), b"T" * 40),
    ]
    return [frame.strip(b"\0") for frame in made]


def _stream(data: bytes) -> object:
    reader = FrameReader(2048)
    return [frame for at in range(0, len(data), 7) for frame in reader.feed(data[at : at + 7])]


def _console(data: bytes) -> object:
    reader = ConsoleReader()
    return [frame for at in range(0, len(data), 7) for frame in reader.feed(data[at : at + 7])]


def _said(sealed: bool) -> list[bytes]:
    plain = [verbs.Hello((2, 1)), verbs.HelloReply(2, "confirmed", (3, 5), bytes(16)), verbs.Edhoc(b"\3\2")]
    made = [
        verbs.Offer(b"envelope"),
        verbs.Data(4096, b"\xff" * 9),
        verbs.Accept(1, 16384, 4096, 0, bytes(32)),
        verbs.RefusedReply("version.rollback", "older", "install the newest"),
        verbs.TrustChain(b"t", 2),
    ]
    return [verbs.encode_message(one) for one in (made if sealed else plain)]


def _requests() -> list[bytes]:
    fields = (bytes(32), "IP-0001", bytes(32), "update", bytes(32), NOW)
    return [ApprovalRequest(*fields).encode(), ApprovalRequest(*fields, Asking("Tess", bytes(32), bytes(32))).encode()]


def _texts() -> list[bytes]:
    made = [armor(Text.CODE, bytes(64)), armor(Text.REQUEST, _requests()[0])]
    return [*(text.encode() for text in made), in_groups(made[0]).encode()]


def _roster() -> Roster:
    tess = make_technician("tess", "Tess", TESS.key, ["ward-4"], {"*": NOW})
    gone = Roster().with_technician(tess).suspended("Tess", [], now=NOW, reason="left")
    return gone.merged((), {bytes(16): NOW + 9}).raised(3)


def _lists() -> list[bytes]:
    authority = VENDOR.signer(RoleName.TECHNICIAN_AUTHORITY)
    return [make_list(_roster(), [authority], issuer="Thea", now=NOW, many=many).tagged for many in (False, True)]


def _wishes() -> list[bytes]:
    asked = {"person": "Tess", "life": 3600, "reason": "why", "now": NOW, "nonce": bytes(16)}
    return [make_request(TESS, wish=replace(SCOPE, trained_until=0), **asked)]


def _counters() -> list[bytes]:
    from test_device_counters import full

    return [encode_counters(Counters()), encode_counters(full())]


def _rebuilt(data: bytes) -> object:
    source = make_image(300, "old")
    pieces = rebuild(
        lambda at, size: data[at : at + size], len(data), lambda at, size: source[at : at + size], len(source), 300
    )
    return [len(piece) for piece in pieces]


def _key_files() -> list[bytes]:
    from devguard.custody.keytext import KeyInfo, format_public

    return [format_public(KeyInfo("station", "Bench 1", "station", STATION.key, False))]


def _smp_messages() -> list[bytes]:
    heads = b"\x0b\x00\x00\x06\x00\x01\x07\x01", b"\x0b\x00\x00\x06\x00\x01\x07\x00"
    return [heads[0] + b"\xa1\x63off\x00", heads[1] + b"\xbf\x62rc\x00\xff"]


PARSERS: dict[str, Parser] = {
    "wire": Parser(lambda data: wire.decode(data, tags=None), lambda: [*_records(), *_said(True), _offer()]),
    "wire-sequence": Parser(wire.decode_sequence, lambda: [*_handshake(), b"".join(_said(True))]),
    "wire-foreign": Parser(wire.decode_foreign, _foreign),
    "cose-sign1": Parser(_sign1, _cose),
    "cose-key": Parser(CoseKey.decode, _keys),
    "envelope": Parser(_envelope, lambda: [_release()]),
    "offer": Parser(parse_offer, lambda: [_offer()]),
    "manifest": Parser(decode_manifest, _manifests),
    "description": Parser(parse_description, lambda: [scaffold("pump-x", "1.0.0", "a.example", "revA").encode()]),
    "trust": Parser(peek_trust, lambda: [_vendor().trust_bytes]),
    "grant": Parser(_grant, _grants),
    "grant-request": Parser(read_grant_request, _wishes),
    "technicians": Parser(decode_roster, lambda: [encode_roster(_roster())]),
    "suspensions": Parser(read_list, _lists),
    "approval-text": Parser(lambda data: dearmor(data.decode("ascii", "replace"), bare=Text.CODE), _texts),
    "credential": Parser(read_credential, _credentials),
    "approval-request": Parser(read_request, _requests),
    "approval-answer": Parser(read_answer, lambda: [pack_answer(b"approval", b"grant")]),
    "edhoc-message-1": Parser(messages.parse_message_1, lambda: [_handshake()[0]]),
    "edhoc-message-2": Parser(lambda data: messages.parse_message_2(data, Curve.P256), lambda: [_handshake()[1]]),
    "edhoc-error": Parser(messages.parse_error, lambda: [b"\x01\x63bad", b"\x02\x82\x03\x05"]),
    "verbs-plain": Parser(lambda data: verbs.decode_message(data, sealed=False), lambda: _said(False)),
    "verbs-sealed": Parser(lambda data: verbs.decode_message(data, sealed=True), lambda: _said(True)),
    "link-frame": Parser(decode_frame, _frames),
    "link-stream": Parser(_stream, lambda: [b"\0".join([b"", *_frames(), b""])]),
    "link-announcement": Parser(decode_announcement, lambda: [encode_announcement(16384, 4096)]),
    "smp-message": Parser(read_message, _smp_messages),
    "smp-console": Parser(_console, lambda: [encode_lines(bytes(range(250)))]),
    "evidence-record": Parser(decode_record, _records),
    "evidence-entry": Parser(_entry, _entries),
    "checkpoint": Parser(_note, _notes),
    "device-counters": Parser(decode_counters, _counters),
    "transfer-patch": Parser(_rebuilt, lambda: [compress(make_image(300))]),
    "key-file": Parser(parse_info, _key_files),
}
