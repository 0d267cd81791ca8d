"""What both EDHOC machines share: the table of steps, the end of a failed run, proofs, and the session's keys.

A machine is sans-I/O and runs one session once (RFC 9528 section 5.1). "Failed" is its state while a step runs:
only a step that completes moves it on, so an error of any kind leaves a machine that answers nothing more.
After a failure `error_message()` gives the bytes to send to the peer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final, NoReturn

from devguard import wire
from devguard.errors import DevguardError, LocalProtocolError, Refused, RemoteProtocolError
from devguard.session import keyschedule as ks
from devguard.session.credentials import OwnCredential, PeerCredential, Resolver, UnknownCredential
from devguard.session.ephemeral import CODE
from devguard.session.messages import Ead, ErrorMessage, parse_error
from devguard.session.suites import Suite

METHOD: Final = 0  # signature keys on both sides; our application profile has no other
_MAX_TEXT: Final = 200


class State(enum.StrEnum):
    """Where a machine stands. Which of them a machine passes is in its table of steps."""

    NEW = "new"
    WAIT_MESSAGE_2 = "wait-message-2"
    GOT_MESSAGE_1 = "got-message-1"
    WAIT_MESSAGE_3 = "wait-message-3"
    PEER_KNOWN = "peer-known"
    WAIT_MESSAGE_4 = "wait-message-4"
    COMPLETE = "complete"
    FAILED = "failed"


Steps = Mapping[str, tuple[State, State]]


class Machine:
    """Base of `EdhocInitiator` and `EdhocResponder`; not used by itself."""

    STEPS: ClassVar[Steps] = {}

    def __init__(self, resolver: Resolver, random: Callable[[int], bytes], method: int) -> None:
        if method != METHOD:
            raise LocalProtocolError("session.order", f"EDHOC method {method} is not in our application profile")
        self._resolver = resolver
        self._random = random
        self._state = State.NEW
        self._reply = b""
        self._prk = b""  # PRK_2e, which with signature keys on both sides is PRK_3e2m and PRK_4e3m too
        self._th = b""
        self._keys: ks.SessionKeys | None = None
        self._peer: PeerCredential | None = None
        self._received_error: ErrorMessage | None = None

    @property
    def state(self) -> State:
        return self._state

    @property
    def received_error(self) -> ErrorMessage | None:
        """The error message that ended this run, if one did. It is not authenticated."""
        return self._received_error

    @property
    def peer(self) -> PeerCredential:
        """The credential the peer has proved to hold; `LocalProtocolError` before that and after a failure."""
        if self._peer is None:
            raise LocalProtocolError("session.order", f"the peer is not known in state {self._state}")
        return self._peer

    @property
    def session_keys(self) -> ks.SessionKeys:
        """PRK_out of the completed session; `LocalProtocolError` until message_4 has been made or verified."""
        if self._keys is None or self._state is not State.COMPLETE:
            raise LocalProtocolError("session.order", f"there are no session keys in state {self._state}")
        return self._keys

    def exporter(self, label: int, context: bytes, length: int) -> bytes:
        """EDHOC_Exporter (section 4.2.1) of the completed session."""
        return self.session_keys.exporter(label, context, length)

    def key_update(self, context: bytes) -> None:
        """EDHOC_KeyUpdate (appendix H): from here on the exporter gives new keys. Record layers made before
        keep their own chain."""
        self._keys = self.session_keys.updated(context)

    def error_message(self) -> bytes:
        """The EDHOC error message to send after a failure; b"" when none may be sent (section 6)."""
        return self._reply if self._state is State.FAILED else b""

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        before, after = self.STEPS[name]
        if self._state is not before:
            raise LocalProtocolError("session.order", f"{name} in state {self._state}, it belongs in {before}")
        self._state = State.FAILED
        try:
            yield
            self._state = after
        except DevguardError as error:
            if self._received_error is None and not self._reply:
                self._reply = _describe(error)
            raise
        finally:
            if self._state is State.FAILED:
                self._forget()

    def _forget(self) -> None:
        self._prk = self._th = b""
        self._keys = None
        self._peer = None

    def _stop_at_error(self, data: bytes) -> None:
        """Refuse when `data` is an error message instead of the awaited one; never answered by another error."""
        error = parse_error(data)
        if error is None:
            return
        self._received_error = error
        if error.code == 1:
            reason = ascii(error.info)[:_MAX_TEXT]
        elif error.code == 2:
            reason = f"it takes cipher suites {', '.join(map(str, error.suites[:16]))}"
        else:
            reason = "it does not have our credential" if error.code == 3 else "no reason devguard knows"
        raise Refused(CODE, f"the other end stopped the handshake with EDHOC error {error.code}: {reason}")

    def _make_proof(self, own: OwnCredential, suite: Suite, label: int, context: bytes) -> bytes:
        """Signature_or_MAC_x with our key, over the transcript as it stands."""
        mac = ks.kdf(self._prk, label, context, ks.HASH_LENGTH)
        proof = own.sign.sign(ks.to_be_signed(wire.encode(own.id_cred), self._th, own.cred, mac))
        if len(proof) != suite.signature_length:
            raise LocalProtocolError("session.order", f"our signer made {len(proof)} bytes")
        return proof

    def _resolve(self, id_cred: Mapping[Any, Any], suite: Suite, own: OwnCredential | None) -> PeerCredential:
        peer = self._resolver.resolve(id_cred)
        if not suite.fits(peer.key):
            raise Refused(CODE, f"the other end's key does not sign in cipher suite {suite.value}")
        # A peer with our own credential is our own message come back, or a copy of our key: neither is a peer.
        if own is not None and (peer.cred == own.cred or peer.key.thumbprint == own.sign.key.thumbprint):
            raise Refused(CODE, "the other end uses our own credential")
        return peer

    def _check_proof(
        self, peer: PeerCredential, id_cred: Mapping[Any, Any], label: int, context: bytes, proof: bytes
    ) -> None:
        mac = ks.kdf(self._prk, label, context, ks.HASH_LENGTH)
        signed = ks.to_be_signed(wire.encode(id_cred), self._th, peer.cred, mac)
        try:
            # `Suite.fits` has bound the key's own algorithm to the suite's: the same primitive by its other name.
            peer.key.verify(peer.key.algorithm, signed, proof)
        except Refused as error:
            raise Refused(CODE, "the other end's signature over this handshake does not verify") from error

    @staticmethod
    def _no_ead(ead: tuple[Ead, ...], what: str) -> None:
        if ead:
            kind = "critical " if any(item.critical for item in ead) else ""
            raise RemoteProtocolError(CODE, f"{what} carries {kind}EAD, which our application profile does not use")

    def _finish(self, suite: Suite) -> None:
        self._keys = ks.SessionKeys(suite, ks.kdf(self._prk, ks.Label.PRK_OUT, self._th, ks.HASH_LENGTH))

    def _key_iv(self, suite: Suite, key: int, iv: int) -> tuple[bytes, bytes]:
        return (
            ks.kdf(self._prk, key, self._th, suite.aead.key_length),
            ks.kdf(self._prk, iv, self._th, suite.aead.iv_length),
        )


def refuse(reason: str) -> NoReturn:
    """Stop the handshake for a fault of the peer."""
    raise Refused(CODE, reason)


def _describe(error: DevguardError) -> bytes:
    """EDHOC error 3 for a reference we cannot follow, else error 1.

    Anyone on the line can read it: our own reasons go out in full, those of credentials by their code alone.
    """
    if isinstance(error, UnknownCredential):
        return ErrorMessage(3, True).encode()
    text = str(error) if error.code == CODE else error.code
    return ErrorMessage(1, text[:_MAX_TEXT]).encode()
