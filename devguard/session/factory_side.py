"""A device that is nobody yet, or no more: its side of the one conversation it has, over the same table of states.

It says hello, it can be enrolled, and one that was decommissioned shows its certificate. Everything else is refused: no
handshake, no verb of an update, nothing of a therapy. One connection is one attempt. Sans-I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from devguard.errors import CODES, DevguardError, Refused, RemoteProtocolError
from devguard.session.device_side import Action, Ended, RebootNow, Reply, newest_common
from devguard.session.enrolment import Name
from devguard.session.factory_verbs import (
    Enrol,
    EnrolCredentials,
    EnrolKeys,
    EnrolTaken,
    EnrolTrust,
    Erasure,
    ErasureReply,
)
from devguard.session.table import TABLE, State, after_refusal, following
from devguard.session.verbs import (
    FACTORY,
    EdhocFailure,
    Ending,
    Hello,
    HelloReply,
    Message,
    Verb,
    decode_message,
    encode_message,
    verb_of,
)


class FactoryPort(Protocol):
    """What the conversation asks of the device. Every method may raise a `DevguardError`: that is the refusal."""

    def hello(self) -> HelloReply: ...
    def closed(self) -> Refused:
        """Why nothing but this conversation is to be had: `device.unprovisioned` or `device.decommissioned`."""
        ...

    def name(self, name: Name, challenge: bytes) -> Sequence[bytes]:
        """Make the keys of a device of that name; a request for each."""
        ...

    def trust(self, piece: bytes, *, last: bool) -> None:
        """Take a piece of the trust document."""
        ...

    def enrol(self, credentials: Sequence[bytes]) -> None:
        """Judge all of it, and be that device from now on; durable, whole or not at all."""
        ...

    def erasure(self) -> bytes:
        """The certificate of a decommissioned device."""
        ...

    def refused(self, error: DevguardError) -> None:
        """Note the refusal in the device's own log."""
        ...


class FactoryConversation:
    """One connection's conversation. `heard` takes a message and gives back what to do, in order."""

    def __init__(self, port: FactoryPort) -> None:
        self._port = port
        self.state = State.BLANK

    def heard(self, data: bytes, *, sealed: bool) -> list[Action]:
        """Judge one message. A refusal is answered and ends the attempt."""
        if self.state is State.CLOSED:
            return [Ended()]
        verb: Verb | None = None
        try:
            message = decode_message(data, sealed=sealed)
            verb = verb_of(message)
            if verb not in FACTORY and (self.state, verb) not in TABLE:
                raise self._port.closed()
            after = following(self.state, verb)
            actions = self._act(message)
        except DevguardError as error:
            return self._refuse(error, verb, sealed=sealed)
        self.state = after
        return [*actions, RebootNow()] if after is State.CLOSED else actions

    def _refuse(self, error: DevguardError, verb: Verb | None, *, sealed: bool) -> list[Action]:
        self._port.refused(error)
        self.state = after_refusal(self.state, verb)
        if sealed:
            return [Ended()]  # there is no session to answer in
        known = CODES.get(error.code)
        reply = EdhocFailure(b"", error.code, known.cause if known is not None else error.code)
        return [Reply(encode_message(reply), sealed=False), Ended()]

    def _act(self, message: Message) -> list[Action]:
        answer: Message
        if isinstance(message, Hello):
            answer = replace(self._port.hello(), version=newest_common(message))
        elif isinstance(message, Enrol):
            name = Name(message.model, message.revision, message.serial, message.site or None)
            answer = EnrolKeys(tuple(self._port.name(name, message.challenge)))
        elif isinstance(message, Erasure):
            answer = ErasureReply(self._port.erasure())
        elif isinstance(message, EnrolTrust):
            self._port.trust(message.piece, last=message.ending == Ending.DOCUMENT)
            answer = EnrolTaken(int(Verb.ENROL_TRUST))
        elif isinstance(message, EnrolCredentials):
            self._port.enrol(message.credentials)
            answer = EnrolTaken(int(Verb.ENROL_CREDENTIALS))
        else:
            raise RemoteProtocolError("session.order", "no such verb before enrolment")
        return [Reply(encode_message(answer), sealed=False)]
