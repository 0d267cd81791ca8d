"""The device's side of one conversation: a sans-I/O machine over the table of states.

It looks every message up in the table first, asks the device (a `DevicePort`) to judge, and answers. One
conversation is one attempt: the next connection gets a new one. Nothing here decides by itself that an image is
good; it only keeps the order in which the deciding rooms are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeAlias

from devguard.cose.keys import CoseKey
from devguard.errors import CODES, DevguardError, Malformed, Refused, RemoteProtocolError
from devguard.grant.claims import Action as GrantAction
from devguard.session.credentials import KcwtResolver, OwnCredential
from devguard.session.records import RecordLayer
from devguard.session.responder import EdhocResponder
from devguard.session.table import ACTION_OF, TABLE, State, after_refusal, following
from devguard.session.verbs import (
    FACTORY,
    MAX_TEXT,
    PROTOCOL_VERSIONS,
    TRANSFER_VERSION,
    Accept,
    Approve,
    Certificate,
    Close,
    Commit,
    Data,
    Decommission,
    Done,
    Durable,
    Edhoc,
    EdhocFailure,
    Hello,
    HelloReply,
    LogPiece,
    LogRequest,
    Message,
    Offer,
    Reboot,
    Recover,
    RefusedReply,
    ReportReply,
    ReportRequest,
    Transfer,
    TrustChain,
    Verb,
    decode_message,
    encode_message,
    verb_of,
)

MAX_REFUSALS: Final = 5


class DevicePort(Protocol):
    """What a conversation asks of the device. Every method may raise a `DevguardError`: that is the refusal."""

    def hello(self) -> HelloReply: ...
    def credentials(self) -> Mapping[int, OwnCredential]:
        """The device's own credential for each EDHOC cipher suite it accepts."""
        ...

    def handshake_begins(self) -> None:
        """Called before any public-key work: the place for the back-off after failed handshakes."""
        ...

    def handshake_failed(self) -> None:
        """Called once for each handshake that failed."""
        ...

    def judge_technician(self, cwt: bytes) -> CoseKey:
        """Check the grant and give back its holder's key."""
        ...

    def authorised(self, session_id: bytes) -> None:
        """Called when message_3 has proved that key, before message_4 says so."""
        ...

    def limit(self) -> DevguardError | None:
        """Why this conversation may hand over trust documents and nothing else; None when it may do what it asks."""
        ...

    def trust_chain(self, piece: bytes, ending: int) -> None:
        """Take a piece of a chain of trust documents; at its end judge it, keep it, and judge the grant again."""
        ...

    def allow(self, action: GrantAction) -> None:
        """Called before anything of that action is done: whether the grant names it."""
        ...

    def approve(self, approval: bytes, grant: bytes) -> None:
        """Take the second technician's word; what it names is compared when the offer is known."""
        ...

    def offer(self, envelope: bytes) -> Accept: ...
    def recover(self, envelope: bytes) -> Accept:
        """As `offer`, of the release that was confirmed last, where it is damaged."""
        ...

    def log(self, challenge: bytes, offset: int) -> LogPiece:
        """The device's own log, signed over the challenge, from that byte on."""
        ...

    def transfer(self, encoding: int, size: int, digest: bytes) -> int:
        """Make room for an encoded image and give back the offset to send it from."""
        ...

    def data(self, offset: int, payload: bytes) -> int:
        """Write and give back the offset up to which the payload is durable."""
        ...

    def commit(self, manifest_digest: bytes) -> None: ...
    def reboot(self) -> None:
        """Called before the boot that was asked for: the moment is judged once more."""
        ...

    def decommission(self, challenge: bytes) -> bytes:
        """Erase what makes the device somebody's; the certificate. Called before the boot into nothing."""
        ...

    def report(self, challenge: bytes, version: int) -> bytes:
        """The signed report, as a bench of that version of the protocol reads it."""
        ...

    def refused(self, error: DevguardError) -> None:
        """Note the refusal in the device's own log."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """Send a message on the plain or the sealed channel. `passing`: it may stay unsaid, the next one says more."""

    message: bytes
    sealed: bool
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Keys:
    """Put these keys on the sealed channel; an older session ends."""

    records: RecordLayer


@dataclass(frozen=True, slots=True)
class Ended:
    """The conversation is over."""


@dataclass(frozen=True, slots=True)
class RebootNow:
    """Boot, once the answer is on its way."""


Action: TypeAlias = Reply | Keys | Ended | RebootNow


def newest_common(hello: Hello) -> int:
    """The newest version of the protocol that both speak; `RemoteProtocolError("link.protocol")` without one."""
    common = set(hello.versions) & set(PROTOCOL_VERSIONS)
    if not common:
        known = f"1 to {max(PROTOCOL_VERSIONS)}"
        raise RemoteProtocolError("link.protocol", f"the bench speaks protocols {hello.versions}, not {known}")
    return max(common)


class DeviceConversation:
    """One connection's conversation. `heard` takes a message and gives back what to do, in order."""

    def __init__(self, port: DevicePort, random: Callable[[int], bytes]) -> None:
        self._port = port
        self._random = random
        self._edhoc: EdhocResponder | None = None
        self._records: RecordLayer | None = None
        self._refusals = 0
        self._version = min(PROTOCOL_VERSIONS)
        self.state = State.WAITING

    def heard(self, data: bytes, *, sealed: bool) -> list[Action]:
        """Judge one message. A refusal is answered and noted; what is out of order ends the conversation."""
        if not sealed and self._records is not None:
            return []  # nobody authenticated the open channel: what is said there touches no session
        if self.state is State.CLOSED:
            return [Ended()]
        verb: Verb | None = None
        try:
            message = decode_message(data, sealed=sealed)
            verb = verb_of(message)
            after = self._following(verb)
            if verb in ACTION_OF:
                self._port.allow(ACTION_OF[verb])
            actions = self._act(message)
            if isinstance(message, TrustChain) or after is State.AUTHORISED:
                after = State.AUTHORISED if self._port.limit() is None else State.LIMITED
        except DevguardError as error:
            return self._refuse(error, verb, sealed=sealed)
        self.state = after
        if after is State.CLOSED:
            actions.append(Ended())
        return actions

    def _following(self, verb: Verb) -> State:
        limit = self._port.limit() if self.state is State.LIMITED else None
        if limit is not None and (State.AUTHORISED, verb) in TABLE and (State.LIMITED, verb) not in TABLE:
            raise Refused(limit.code, limit.message, limit.hint)
        if verb in FACTORY:
            raise Refused("device.provisioned", "this device is enrolled; it is once, and never again")
        return following(self.state, verb)

    def _refuse(self, error: DevguardError, verb: Verb | None, *, sealed: bool) -> list[Action]:
        self._port.refused(error)
        self._refusals += 1
        fatal = isinstance(error, (RemoteProtocolError, Malformed)) and self.state is not State.AUTHORISED
        out_of_order = error.code in ("session.order", "wire.malformed")
        handshake = self.state in (State.WAITING, State.GREETED, State.ANSWERED)
        if self._edhoc is not None and handshake:
            self._port.handshake_failed()
        self.state = after_refusal(self.state, verb)
        if fatal or out_of_order or self._refusals >= MAX_REFUSALS:
            self.state = State.CLOSED
        reply: Message
        if handshake:
            failure = self._edhoc.error_message() if self._edhoc is not None else b""
            # Anyone at the port reads this: the code's own words, never a message that may name a person.
            known = CODES.get(error.code)
            reply = EdhocFailure(failure, error.code, known.cause if known is not None else error.code)
        else:
            reply = RefusedReply(error.code, error.message[:MAX_TEXT], (error.hint or "")[:MAX_TEXT])
        actions: list[Action] = [Reply(encode_message(reply), sealed=sealed)]
        if self.state is State.CLOSED:
            actions.append(Ended())
        return actions

    def _act(self, message: Message) -> list[Action]:
        if isinstance(message, Hello):
            return [self._greet(message)]
        if isinstance(message, Edhoc):
            return self._answer() if self._take(message.message) else self._authorise(message.message)
        return self._act_sealed(message)

    def _greet(self, hello: Hello) -> Reply:
        self._version = newest_common(hello)
        return Reply(encode_message(replace(self._port.hello(), version=self._version)), sealed=False)

    def _take(self, message: bytes) -> bool:
        """Whether this was message_1."""
        if self._edhoc is not None:
            return False
        self._port.handshake_begins()
        self._edhoc = EdhocResponder(
            credentials=self._port.credentials(),
            resolver=KcwtResolver(self._port.judge_technician),
            random=self._random,
        )
        self._edhoc.read_message_1(message)
        return True

    def _answer(self) -> list[Action]:
        return [Reply(encode_message(Edhoc(self._handshake().message_2())), sealed=False)]

    def _handshake(self) -> EdhocResponder:
        if self._edhoc is None:
            raise RemoteProtocolError("session.order", "no handshake is under way")
        return self._edhoc

    def _authorise(self, message_3: bytes) -> list[Action]:
        edhoc = self._handshake()
        edhoc.read_message_3(message_3)
        message_4 = edhoc.message_4()
        records = RecordLayer.for_responder(edhoc)
        self._port.authorised(records.session_id)
        self._records = records
        return [Keys(records), Reply(encode_message(Edhoc(message_4)), sealed=False)]

    def _act_sealed(self, message: Message) -> list[Action]:
        if isinstance(message, Close):
            return []
        answer = self._answer_of(message)
        if answer is None:
            self._do(message)
            answer = Done(int(verb_of(message)))
        actions: list[Action] = [Reply(encode_message(answer), sealed=True, passing=isinstance(message, Data))]
        if isinstance(message, (Reboot, Decommission)):
            actions.append(RebootNow())
        return actions

    def _answer_of(self, message: Message) -> Message | None:
        """What the device says to a question; None for a verb that is only done."""
        if isinstance(message, Data):
            return Durable(self._port.data(message.offset, message.payload))
        if isinstance(message, (Offer, Recover)):
            judge = self._port.offer if isinstance(message, Offer) else self._port.recover
            accept = judge(message.envelope)
            # A bench of before would not know what to make of encodings.
            return accept if self._version >= TRANSFER_VERSION else replace(accept, encodings=())
        if isinstance(message, LogRequest):
            return self._port.log(message.challenge, message.offset)
        if isinstance(message, Transfer):
            return Durable(self._port.transfer(message.encoding, message.size, message.digest))
        if isinstance(message, Decommission):
            return Certificate(self._port.decommission(message.challenge))
        if isinstance(message, ReportRequest):
            return ReportReply(self._port.report(message.challenge, self._version))
        return None

    def _do(self, message: Message) -> None:
        if isinstance(message, Approve):
            self._port.approve(message.approval, message.grant)
        elif isinstance(message, Commit):
            self._port.commit(message.manifest_digest)
        elif isinstance(message, Reboot):
            self._port.reboot()
        elif isinstance(message, TrustChain):
            self._port.trust_chain(message.piece, message.ending)
