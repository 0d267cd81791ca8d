"""The responder of EDHOC method 0: the device (RFC 9528 sections 5.2 to 5.5).

    new --read_message_1()--> got-message-1 --message_2()--> wait-message-3
        --read_message_3()--> peer-known --message_4()--> complete

message_4 is always sent (our application profile), so the initiator knows the keys are shared before it uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from devguard import wire
from devguard.errors import LocalProtocolError, Refused
from devguard.session import keyschedule as ks
from devguard.session.credentials import OwnCredential, PeerCredential, Resolver
from devguard.session.ephemeral import CODE, EphemeralKey
from devguard.session.handshake import METHOD, Machine, State, Steps
from devguard.session.messages import (
    ErrorMessage,
    Message1,
    Plaintext2,
    encode_identifier,
    identifier_bytes,
    parse_ciphertext,
    parse_message_1,
    parse_plaintext_3,
)
from devguard.session.suites import Suite, aead_open, aead_seal, negotiated, suite_of


class EdhocResponder(Machine):
    """One run as responder.

    credentials: for each suite we support, what we prove with in it (see `credentials.by_suite`).
    connection_id: C_R, bytes or the integer -24..23 that stands for them.
    """

    STEPS: ClassVar[Steps] = {
        "read_message_1": (State.NEW, State.GOT_MESSAGE_1),
        "message_2": (State.GOT_MESSAGE_1, State.WAIT_MESSAGE_3),
        "read_message_3": (State.WAIT_MESSAGE_3, State.PEER_KNOWN),
        "message_4": (State.PEER_KNOWN, State.COMPLETE),
    }

    def __init__(
        self,
        credentials: Mapping[int, OwnCredential],
        resolver: Resolver,
        random: Callable[[int], bytes],
        connection_id: bytes | int = 1,
        method: int = METHOD,
    ) -> None:
        super().__init__(resolver, random, method)
        for value, own in credentials.items():
            if not suite_of(value).fits(own.sign.key):
                raise LocalProtocolError("session.order", f"our key does not sign in cipher suite {value}")
        if not credentials:
            raise LocalProtocolError("session.order", "a responder supports at least one cipher suite")
        self._owns = dict(credentials)
        self._c_r = identifier_bytes(connection_id)
        self._first: Message1 | None = None
        self._message_1 = b""

    @property
    def suite(self) -> Suite:
        """The suite message_1 selected; `LocalProtocolError` before that."""
        return suite_of(self._received().selected)

    def _received(self) -> Message1:
        if self._first is None:
            raise LocalProtocolError("session.order", f"message_1 has not been accepted in state {self._state}")
        return self._first

    def read_message_1(self, data: bytes) -> None:
        """Accept message_1. A suite we do not support, or not their best that we do, leaves error 2 to send."""
        with self._step("read_message_1"):
            self._stop_at_error(data)
            message = parse_message_1(data)
            if message.method != METHOD:
                raise Refused(CODE, f"method {message.method} is not supported, only {METHOD}")
            self._negotiate(message)
            self._no_ead(message.ead, "message_1")
            self._first = message
            self._message_1 = bytes(data)

    def _negotiate(self, message: Message1) -> None:
        best = negotiated(message.suites, tuple(self._owns))
        if best == message.selected:
            return
        answer = tuple(self._owns) if best is None else (best,)
        self._reply = ErrorMessage(2, answer[0] if len(answer) == 1 else list(answer)).encode()
        raise Refused(CODE, f"cipher suite {message.selected} was selected, we would take {answer}")

    def message_2(self) -> bytes:
        """message_2, with a fresh ephemeral key and our proof."""
        with self._step("message_2"):
            first, suite, own = self._received(), self.suite, self._own()
            ephemeral = EphemeralKey(suite.curve, self._random)
            self._th = ks.transcript_2(ephemeral.public, self._message_1)
            self._prk = ks.extract(self._th, ephemeral.agree(first.g_x, "G_X"))
            context = ks.context_2(encode_identifier(self._c_r), wire.encode(own.id_cred), self._th, own.cred)
            proof = self._make_proof(own, suite, ks.Label.MAC_2, context)
            plaintext = Plaintext2(self._c_r, own.id_cred, proof).encode()
            ciphertext = ks.xor_keystream_2(self._prk, self._th, plaintext)
            self._th = ks.transcript_next(self._th, plaintext, own.cred)
        return wire.encode(ephemeral.public + ciphertext)

    def read_message_3(self, data: bytes) -> PeerCredential:
        """Verify message_3 and return the initiator's credential.

        Raises `Refused` or `RemoteProtocolError` with "session.handshake", or what the resolver raises.
        """
        with self._step("read_message_3"):
            self._stop_at_error(data)
            self._peer = self._verify_message_3(data)
        return self._peer

    def _verify_message_3(self, data: bytes) -> PeerCredential:
        suite = self.suite
        key, iv = self._key_iv(suite, ks.Label.K_3, ks.Label.IV_3)
        ciphertext = parse_ciphertext(data, "message_3")
        plaintext = aead_open(suite.aead, key, iv, ciphertext, ks.associated_data(self._th), "message_3")
        fields = parse_plaintext_3(plaintext, suite.signature_length)
        self._no_ead(fields.ead, "message_3")
        peer = self._resolve(fields.id_cred, suite, self._own())
        context = ks.context_3(wire.encode(fields.id_cred), self._th, peer.cred)
        self._check_proof(peer, fields.id_cred, ks.Label.MAC_3, context, fields.proof)
        self._th = ks.transcript_next(self._th, plaintext, peer.cred)
        return peer

    def message_4(self) -> bytes:
        """message_4, which confirms the keys; the exporter works from here."""
        with self._step("message_4"):
            key, iv = self._key_iv(self.suite, ks.Label.K_4, ks.Label.IV_4)
            sealed = aead_seal(self.suite.aead, key, iv, b"", ks.associated_data(self._th))
            self._finish(self.suite)
        return wire.encode(sealed)

    def _own(self) -> OwnCredential:
        return self._owns[self._received().selected]

    def _forget(self) -> None:
        super()._forget()
        self._first = None
