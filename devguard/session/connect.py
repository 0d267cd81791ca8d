"""The bench's way into a session: hello, EDHOC messages 1 to 4, keys on the line.

EDHOC (RFC 9528) method 0; the technician's credential is the grant itself, the device's a CWT by a device
authority of the trust document, both by value as `kcwt`. Nothing of the device is believed before message_2
verified. `identify` stops there: it reads the proven serial and ends, which is no failed handshake.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer
from devguard.errors import DeviceRefused, LinkError, Refused, RemoteProtocolError
from devguard.grant.credential import DeviceCredential, DeviceIdentity, check_credential, read_credential
from devguard.session.credentials import KcwtResolver, OwnCredential
from devguard.session.initiator import EdhocInitiator
from devguard.session.records import RecordLayer
from devguard.session.report import Report, read_report
from devguard.session.script import Attach, Flush, OpenPlain, Receive, Script, Send
from devguard.session.suites import production_suites
from devguard.session.verbs import (
    NONCE_SIZE,
    PROTOCOL_VERSIONS,
    Edhoc,
    EdhocFailure,
    Hello,
    HelloReply,
    Message,
    RefusedReply,
    ReportReply,
    ReportRequest,
    decode_message,
    encode_message,
)
from devguard.trust.document import TrustDocument

ANSWER_SECONDS: Final = 30.0
BUSY_SECONDS: Final = 5.0
"""A device that backs off after failed handshakes does so for 4 s at most: whoever may come in waits that long."""
_BUSY_PAUSE: Final = 1.0
IDENTIFY_SUITES: Final = (3, 5)  # every device holds a P-256 credential
EDWARDS_SUITES: Final = (1, 4)  # and its other key, for technicians with an Ed25519 one
_CODE: Final = re.compile(r"[a-z]{1,24}(\.[a-z0-9-]{1,32}){1,2}")
_OWN_ROOMS: Final = ("log", "internal")
M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Bench:
    """Who pushes: trust, time, entropy, the grant (untagged CWT) and its holder's signer (None: identify only).

    `serial` is the device asked for; any other proven serial refuses. `older`: documents whose device authorities may
    vouch for a device that is about to be given the newer one. `device_key`: the thumbprint of the key that was proved
    before; with the same serial and another key it is another device. `challenge`: makes the 16 bytes that a device is
    asked for its report with (None: random ones). `opened` is told of every session once its keys are on the line.
    """

    trust: TrustDocument
    now: int
    random: Callable[[int], bytes]
    grant: bytes | None = None
    signer: Signer | None = None
    serial: str | None = None
    older: tuple[TrustDocument, ...] = ()
    device_key: bytes | None = None
    challenge: Callable[[], bytes] | None = None
    opened: Callable[[Connected], None] | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """A session: the proven device, its credential as it came, what it said in clear, and the record layer with its
    session id."""

    identity: DeviceIdentity
    credential: bytes
    hello: HelloReply
    records: RecordLayer

    @property
    def session_id(self) -> bytes:
        """EDHOC_Exporter(32770, h'', 32)."""
        return self.records.session_id


def expect(data: bytes, kind: type[M], *, sealed: bool) -> M:
    """The message in `data` if it is of `kind`; a refusal by the device becomes `DeviceRefused`."""
    message: Message = decode_message(data, sealed=sealed)
    if isinstance(message, kind):
        return message
    if isinstance(message, RefusedReply):
        raise DeviceRefused(
            _code(message.code), f"the device refused: {_line(message.text)}", _line(message.hint) or None
        )
    if isinstance(message, EdhocFailure):
        raise DeviceRefused(_code(message.code), f"the device refused: {_line(message.text)}")
    raise RemoteProtocolError("session.order", f"expected {kind.__name__}, the device sent {type(message).__name__}")


def _code(said: str) -> str:
    """A refusal code as a device may give it. Of what is no code, and of codes that are the bench's own affair (its
    log, its inside), nothing is kept: anybody on the line may have said it."""
    room = said.partition(".")[0]
    return said if _CODE.fullmatch(said) and room not in _OWN_ROOMS else "session.handshake"


def _line(said: str) -> str:
    """What the other end said, on one line of printable text: nothing in it can pass for words of ours."""
    return "".join(char if char.isprintable() else " " for char in said)


def greet() -> Script[HelloReply]:
    """Open the line and exchange hello."""
    yield OpenPlain()
    yield Send(encode_message(Hello(PROTOCOL_VERSIONS)), sealed=False)
    reply = expect((yield Receive(sealed=False, timeout=ANSWER_SECONDS)), HelloReply, sealed=False)
    if reply.version not in PROTOCOL_VERSIONS:
        raise RemoteProtocolError("link.protocol", f"the device speaks protocol {reply.version}", "update devguard")
    return reply


Begun: TypeAlias = tuple[HelloReply, EdhocInitiator, DeviceIdentity, bytes]


def _begin(bench: Bench, suites: tuple[int, ...] = IDENTIFY_SUITES) -> Script[Begun]:
    """Hello, message_1, message_2, of a device that backs off after a while: ends with its proven identity and its
    credential."""
    waited = 0.0
    while True:
        try:
            return (yield from _attempt(bench, suites))
        except DeviceRefused as error:
            if error.code != "device.busy" or waited >= BUSY_SECONDS:
                raise
        yield Receive(sealed=False, timeout=_BUSY_PAUSE, optional=True)
        waited += _BUSY_PAUSE


def _attempt(bench: Bench, suites: tuple[int, ...]) -> Script[Begun]:
    hello = yield from greet()
    found: list[tuple[DeviceIdentity, bytes]] = []

    def check(cwt: bytes) -> CoseKey:
        identity = _known_device(read_credential(cwt), bench)
        found.append((identity, cwt))
        return identity.key

    own = None
    if bench.grant is not None and bench.signer is not None:
        own = OwnCredential.kcwt(bench.grant, bench.signer)
    if bench.signer is not None:
        suites = production_suites(bench.signer.key)
    if not suites:
        raise Refused("key.purpose", "a technician's key is P-256 or Ed25519: EDHOC has no other suites")
    edhoc = EdhocInitiator(
        suites=suites, selected=suites[0], credential=own, resolver=KcwtResolver(check), random=bench.random
    )
    yield Send(encode_message(Edhoc(edhoc.message_1())), sealed=False)
    answer = expect((yield Receive(sealed=False, timeout=ANSWER_SECONDS)), Edhoc, sealed=False)
    edhoc.read_message_2(answer.message)
    identity, credential = found[-1]
    if bench.serial is not None and identity.serial != bench.serial:
        raise Refused("device.identity", f"asked for serial {bench.serial}, the device proved {identity.serial}")
    if bench.device_key not in (None, identity.key.thumbprint):
        raise Refused("device.identity", f"another device than before calls itself {identity.serial}")
    return hello, edhoc, identity, credential


def _known_device(credential: DeviceCredential, bench: Bench) -> DeviceIdentity:
    """By the bench's trust document, or by an older one where that is asked for; what is revoked stays revoked."""
    try:
        return check_credential(credential, bench.trust, bench.now)
    except Refused as error:
        if error.code != "key.unknown":
            raise
        for older in reversed(bench.older):
            known = replace(older, revoked=older.revoked | bench.trust.revoked)
            with contextlib.suppress(Refused):
                return check_credential(credential, known, bench.now)
        raise


def identify(bench: Bench, suites: tuple[int, ...] = IDENTIFY_SUITES) -> Script[tuple[DeviceIdentity, HelloReply]]:
    """The serial the device proves, with the key it has for these suites, without opening a session."""
    hello, _, identity, _ = yield from _begin(bench, suites)
    yield Flush()
    return identity, hello


def connect(bench: Bench) -> Script[Connected]:
    """A session with keys on the line; the device has judged the grant when this returns."""
    hello, edhoc, identity, credential = yield from _begin(bench)
    yield Send(encode_message(Edhoc(edhoc.message_3())), sealed=False)
    try:
        answer = expect((yield Receive(sealed=False, timeout=ANSWER_SECONDS)), Edhoc, sealed=False)
    except DeviceRefused as error:
        error.serial = identity.serial  # it proved that before it said no
        raise
    edhoc.read_message_4(answer.message)
    records = RecordLayer.for_initiator(edhoc)
    yield Attach(records)
    session = Connected(identity, credential, hello, records)
    if bench.opened is not None:
        bench.opened(session)
    return session


def need_version(session: Connected, version: int) -> None:
    """Return when the device speaks at least that version of the protocol; `LinkError("link.protocol")`."""
    if session.hello.version < version:
        what = f"the device speaks protocol {session.hello.version}, and this takes {version}"
        raise LinkError("link.protocol", what, "the device learns it with a newer release")


def ask_report(session: Connected, bench: Bench) -> Script[tuple[Report, bytes]]:
    """The device's report, signed over a challenge of this session: (what it says, its bytes)."""
    challenge = bench.random(NONCE_SIZE) if bench.challenge is None else bench.challenge()
    yield Send(encode_message(ReportRequest(challenge)), sealed=True)
    reply = expect((yield Receive(sealed=True, timeout=ANSWER_SECONDS)), ReportReply, sealed=True)
    identity = session.identity
    return read_report(reply.report, key=identity.key, challenge=challenge, serial=identity.serial), reply.report
