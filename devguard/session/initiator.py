"""The initiator of EDHOC method 0: the bench (RFC 9528 sections 5.2 to 5.5).

    new --message_1()--> wait-message-2 --read_message_2()--> peer-known
        --message_3()--> wait-message-4 --read_message_4()--> complete

`read_message_2` returns the device's proven credential; who only wants that stops there and owes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from devguard import wire
from devguard.errors import LocalProtocolError
from devguard.session import keyschedule as ks
from devguard.session.credentials import OwnCredential, PeerCredential, Resolver
from devguard.session.ephemeral import EphemeralKey
from devguard.session.handshake import METHOD, Machine, State, Steps, refuse
from devguard.session.messages import (
    Message1,
    Plaintext3,
    encode_identifier,
    identifier_bytes,
    parse_ciphertext,
    parse_message_2,
    parse_plaintext_2,
    parse_plaintext_4,
)
from devguard.session.suites import Suite, aead_open, aead_seal, negotiated, suite_of


class EdhocInitiator(Machine):
    """One run as initiator.

    suites: all suites we support, most preferred first, the same in every run. selected: the one this run uses.
    credential: what we prove with; None for a run that stops after message_2. random: n -> n random bytes.
    connection_id: C_I, bytes or the integer -24..23 that stands for them.
    """

    STEPS: ClassVar[Steps] = {
        "message_1": (State.NEW, State.WAIT_MESSAGE_2),
        "read_message_2": (State.WAIT_MESSAGE_2, State.PEER_KNOWN),
        "message_3": (State.PEER_KNOWN, State.WAIT_MESSAGE_4),
        "read_message_4": (State.WAIT_MESSAGE_4, State.COMPLETE),
    }

    def __init__(
        self,
        suites: Sequence[int],
        selected: int,
        credential: OwnCredential | None,
        resolver: Resolver,
        random: Callable[[int], bytes],
        connection_id: bytes | int = 0,
        method: int = METHOD,
    ) -> None:
        super().__init__(resolver, random, method)
        if selected not in suites:
            raise LocalProtocolError("session.order", f"the selected suite {selected} is not in our list")
        self._suites = tuple(suites)
        self._suite: Suite = suite_of(selected)
        if credential is not None and not self._suite.fits(credential.sign.key):
            raise LocalProtocolError("session.order", f"our key does not sign in cipher suite {selected}")
        self._own = credential
        self._c_i = identifier_bytes(connection_id)
        self._ephemeral: EphemeralKey | None = None
        self._message_1 = b""

    @property
    def suite(self) -> Suite:
        return self._suite

    def message_1(self) -> bytes:
        """message_1, with a fresh ephemeral key. SUITES_I is our list up to the selected suite (section 5.2.2)."""
        with self._step("message_1"):
            self._ephemeral = EphemeralKey(self._suite.curve, self._random)
            offered = self._suites[: self._suites.index(self._suite.value) + 1]
            self._message_1 = Message1(METHOD, offered, self._ephemeral.public, self._c_i).encode()
        return self._message_1

    def read_message_2(self, data: bytes) -> PeerCredential:
        """Verify message_2 and return the responder's credential.

        Raises `Refused` or `RemoteProtocolError` with "session.handshake", or what the resolver raises.
        """
        with self._step("read_message_2"):
            if bytes(data) == self._message_1:
                refuse("our own message_1 came back")
            self._stop_at_error(data)
            self._peer = self._verify_message_2(data)
        return self._peer

    def _verify_message_2(self, data: bytes) -> PeerCredential:
        ephemeral, self._ephemeral = self._ephemeral, None
        if ephemeral is None:
            raise LocalProtocolError("session.order", "the ephemeral key has been used")
        g_y, ciphertext = parse_message_2(data, self._suite.curve)
        if g_y == ephemeral.public:
            refuse("G_Y is our own ephemeral key")
        self._th = ks.transcript_2(g_y, self._message_1)
        self._prk = ks.extract(self._th, ephemeral.agree(g_y, "G_Y"))
        plaintext = ks.xor_keystream_2(self._prk, self._th, ciphertext)
        fields = parse_plaintext_2(plaintext, self._suite.signature_length)
        self._no_ead(fields.ead, "message_2")
        peer = self._resolve(fields.id_cred, self._suite, self._own)
        id_cred = wire.encode(fields.id_cred)
        context = ks.context_2(encode_identifier(fields.c_r), id_cred, self._th, peer.cred)
        self._check_proof(peer, fields.id_cred, ks.Label.MAC_2, context, fields.proof)
        self._th = ks.transcript_next(self._th, plaintext, peer.cred)
        return peer

    def message_3(self) -> bytes:
        """message_3, which proves us to the responder and shows it our credential."""
        own = self._own
        if own is None:
            raise LocalProtocolError("session.order", "a run without a credential of ours ends after message_2")
        with self._step("message_3"):
            context = ks.context_3(wire.encode(own.id_cred), self._th, own.cred)
            proof = self._make_proof(own, self._suite, ks.Label.MAC_3, context)
            plaintext = Plaintext3(own.id_cred, proof).encode()
            key, iv = self._key_iv(self._suite, ks.Label.K_3, ks.Label.IV_3)
            sealed = aead_seal(self._suite.aead, key, iv, plaintext, ks.associated_data(self._th))
            self._th = ks.transcript_next(self._th, plaintext, own.cred)
        return wire.encode(sealed)

    def read_message_4(self, data: bytes) -> None:
        """Verify message_4: from here the responder is known to hold the same keys, and the exporter works."""
        with self._step("read_message_4"):
            self._stop_at_error(data)
            key, iv = self._key_iv(self._suite, ks.Label.K_4, ks.Label.IV_4)
            ciphertext = parse_ciphertext(data, "message_4")
            associated = ks.associated_data(self._th)
            plaintext = aead_open(self._suite.aead, key, iv, ciphertext, associated, "message_4")
            self._no_ead(parse_plaintext_4(plaintext), "message_4")
            self._finish(self._suite)

    def retry_suite(self) -> int | None:
        """After error 2 in place of message_2: the suite to select in a new run, or None if there is none.

        Error 2 is not authenticated; a forged one only makes the responder refuse the next message_1.
        """
        error = self._received_error
        if error is None or error.code != 2:
            return None
        suite = negotiated(self._suites, error.suites)
        return None if suite == self._suite.value else suite

    def _forget(self) -> None:
        super()._forget()
        self._ephemeral = None
