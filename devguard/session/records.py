"""The record layer: what every frame after the handshake is sealed with (RFC 9528 section 4.2, appendix H).

Key and IV of each direction come from EDHOC_Exporter; the AEAD is the suite's EDHOC AEAD with its 16-byte tag.
Every transmission, retransmissions included, takes a fresh 64-bit counter; nonce = IV xor counter; the header,
the full epoch and the full counter are associated data. A frame carries only their low bits: what they stand
for is reconstructed as in RFC 9000 appendix A.3. Framing and retransmission are the link's.

Epochs: after `records_per_epoch` records a sender goes on to the keys of EDHOC_KeyUpdate(context = CBOR of the
epoch number). It leads the highest epoch it has seen of its peer by one at most, and who sees a higher epoch
authenticate follows with its own sending; so the two never lose each other however many frames the line eats.
The receiver keeps one older epoch for late frames.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag

from devguard import wire
from devguard.errors import LocalProtocolError, Refused
from devguard.session.keyschedule import SessionKeys
from devguard.session.suites import MAX_PLAINTEXT

REPLAY_WINDOW: Final = 64
RECORDS_PER_EPOCH: Final = 1 << 16
# No more than 2^23 records under one AES-CCM key (RFC 9147 section 4.5.3). It is reached only when the peer stays
# silent, and so never follows, for that long.
MAX_RECORDS: Final = 1 << 23
_COUNTER_SPAN: Final = 1 << 16
TAG_LENGTH: Final = 16


class ExporterLabel(enum.IntEnum):
    """Our private-use labels of EDHOC_Exporter (RFC 9528 section 10.1)."""

    HOST_KEY = 32768
    DEVICE_KEY = 32769
    SESSION_ID = 32770
    HOST_IV = 32771
    DEVICE_IV = 32772


class Side(enum.StrEnum):
    """Which end a record layer is: the host is the EDHOC initiator."""

    HOST = "host"
    DEVICE = "device"


class Completed(Protocol):
    """A completed EDHOC machine."""

    @property
    def session_keys(self) -> SessionKeys: ...


class ReplayWindow:
    """Which counters of one epoch have been seen: the highest, and a bitmap of the 64 up to it."""

    __slots__ = ("_bitmap", "highest")

    def __init__(self) -> None:
        self.highest = -1
        self._bitmap = 0

    def nearest(self, low16: int) -> int:
        """The full counter nearest to the one expected next whose low 16 bits are `low16`."""
        expected = self.highest + 1
        candidate = (expected & ~(_COUNTER_SPAN - 1)) | low16
        if candidate <= expected - _COUNTER_SPAN // 2:
            return candidate + _COUNTER_SPAN
        if candidate > expected + _COUNTER_SPAN // 2 and candidate >= _COUNTER_SPAN:
            return candidate - _COUNTER_SPAN
        return candidate

    def accept(self, counter: int) -> bool:
        """Note an authenticated counter; False if it was seen before or is older than the window."""
        if counter > self.highest:
            shift = counter - self.highest
            kept = self._bitmap << shift if shift < REPLAY_WINDOW else 0
            self._bitmap = (kept | 1) & ((1 << REPLAY_WINDOW) - 1)
            self.highest = counter
            return True
        behind = self.highest - counter
        if behind >= REPLAY_WINDOW or self._bitmap >> behind & 1:
            return False
        self._bitmap |= 1 << behind
        return True


class _Direction:
    """Key and IV of one direction in one epoch."""

    __slots__ = ("_cipher", "_epoch", "_iv", "_iv_length")

    def __init__(self, keys: SessionKeys, epoch: int, key_label: int, iv_label: int) -> None:
        aead = keys.suite.aead
        self._cipher = aead.cipher(keys.exporter(key_label, b"", aead.key_length))
        self._iv = int.from_bytes(keys.exporter(iv_label, b"", aead.iv_length), "big")
        self._iv_length = aead.iv_length
        self._epoch = epoch.to_bytes(8, "big")

    def seal(self, counter: int, header: bytes, plaintext: bytes) -> bytes:
        return self._cipher.encrypt(self._nonce(counter), plaintext, self._associated(counter, header))

    def open(self, counter: int, header: bytes, ciphertext: bytes) -> bytes:
        return self._cipher.decrypt(self._nonce(counter), ciphertext, self._associated(counter, header))

    def _nonce(self, counter: int) -> bytes:
        return (self._iv ^ counter).to_bytes(self._iv_length, "big")

    def _associated(self, counter: int, header: bytes) -> bytes:
        # The fixed 16 bytes stand last, so a header of any length leaves one reading only.
        return header + self._epoch + counter.to_bytes(8, "big")


class _Epoch:
    """Both directions' keys of one epoch, and the replay window of the receiving one."""

    __slots__ = ("chain", "number", "receive", "send", "window")

    def __init__(self, chain: SessionKeys, number: int, side: Side) -> None:
        host = _Direction(chain, number, ExporterLabel.HOST_KEY, ExporterLabel.HOST_IV)
        device = _Direction(chain, number, ExporterLabel.DEVICE_KEY, ExporterLabel.DEVICE_IV)
        self.chain: SessionKeys | None = chain
        self.number = number
        self.send, self.receive = (host, device) if side is Side.HOST else (device, host)
        self.window = ReplayWindow()

    def following(self, side: Side) -> _Epoch:
        """The next epoch. This one keeps its chain until it is released, for a trial that may fail."""
        if self.chain is None:
            raise LocalProtocolError("session.order", "the key chain of an older epoch is gone")
        number = self.number + 1
        return _Epoch(self.chain.updated(wire.encode(number)), number, side)


class RecordLayer:
    """Seals and opens the records of one session; structurally the link's `Protector`.

    After `session.tampered` the layer is dead and every call refuses; `session.replay` leaves it alive.
    """

    tag_size: int = TAG_LENGTH

    def __init__(self, keys: SessionKeys, side: Side, *, records_per_epoch: int = RECORDS_PER_EPOCH) -> None:
        if keys.suite.aead.tag_length != TAG_LENGTH:
            raise Refused("session.handshake", f"cipher suite {keys.suite.value} has too short a tag for records")
        if not 1 <= records_per_epoch <= MAX_RECORDS:
            raise LocalProtocolError("session.order", f"{records_per_epoch} records in an epoch")
        self._side = side
        self._per_epoch = records_per_epoch
        self._session_id = keys.exporter(ExporterLabel.SESSION_ID, b"", 32)
        self._sending = _Epoch(keys, 0, side)
        self._receiving = self._sending  # the peer's highest epoch seen: ours, or the one before ours
        self._older: _Epoch | None = None
        self._trial: _Epoch | None = None
        self._counter = 0
        self._pending: tuple[_Epoch, int] | None = None
        self._dead = False

    @classmethod
    def for_initiator(cls, machine: Completed, *, records_per_epoch: int = RECORDS_PER_EPOCH) -> RecordLayer:
        """The host's layer of a completed handshake."""
        return cls(machine.session_keys, Side.HOST, records_per_epoch=records_per_epoch)

    @classmethod
    def for_responder(cls, machine: Completed, *, records_per_epoch: int = RECORDS_PER_EPOCH) -> RecordLayer:
        """The device's layer of a completed handshake."""
        return cls(machine.session_keys, Side.DEVICE, records_per_epoch=records_per_epoch)

    @property
    def session_id(self) -> bytes:
        """EDHOC_Exporter(32770, h'', 32) of the session as it began, 32 bytes."""
        return self._session_id

    @property
    def sending_epoch(self) -> int:
        return self._sending.number

    @property
    def receiving_epoch(self) -> int:
        return self._receiving.number

    def next(self) -> tuple[int, int]:
        """(epoch, counter) for one transmission, never given twice; goes on to a new epoch when it is time.

        `Refused("session.timeout")` when the peer has not followed for 2^23 records. An unused pair is lost.
        """
        self._alive()
        if self._counter >= self._per_epoch and self._receiving is self._sending:
            self._enter(self._trial or self._sending.following(self._side))
        if self._counter >= MAX_RECORDS:
            raise Refused("session.timeout", f"the other end did not renew its keys for {MAX_RECORDS} records")
        self._pending = (self._sending, self._counter)
        self._counter += 1
        return self._pending[0].number, self._pending[1]

    def seal(self, epoch: int, counter: int, header: bytes, plaintext: bytes) -> bytes:
        """Ciphertext and tag under the pair that the latest `next()` gave; a pair seals once.

        `header` is associated data of any length. `LocalProtocolError("session.order")` for any other pair.
        """
        self._alive()
        pending, self._pending = self._pending, None
        if pending is None or (pending[0].number, pending[1]) != (epoch, counter):
            raise LocalProtocolError("session.order", "seal() takes the pair of the next() just before it, once")
        if len(plaintext) > MAX_PLAINTEXT:
            raise LocalProtocolError("session.order", f"{len(plaintext)} bytes are too many for one record")
        return pending[0].send.seal(counter, header, plaintext)

    def open(self, epoch_low2: int, counter_low16: int, header: bytes, ciphertext: bytes) -> bytes:
        """The plaintext of a record, from the low 2 bits of its epoch and the low 16 bits of its counter.

        `Refused("session.replay")`: authentic but seen before or too old, or of an epoch no longer kept.
        `Refused("session.tampered")`: not made by the peer in this session; the layer is dead from then on.
        """
        self._alive()
        epoch = self._epoch_of(epoch_low2)
        counter = epoch.window.nearest(counter_low16 & (_COUNTER_SPAN - 1))
        try:
            if not TAG_LENGTH <= len(ciphertext) <= MAX_PLAINTEXT + TAG_LENGTH:
                raise InvalidTag
            plaintext = epoch.receive.open(counter, header, ciphertext)
        except InvalidTag:
            raise self._die("a record was not made by the other end in this session") from None
        # Only an authentic record moves anything: the window, and the epoch.
        if not epoch.window.accept(counter):
            raise Refused("session.replay", f"record {counter} of epoch {epoch.number} came a second time or too late")
        if epoch.number > self._receiving.number:
            self._follow(epoch)
        return plaintext

    def _epoch_of(self, low2: int) -> _Epoch:
        """The epoch with these low bits, of those a record may come from: the peer's as last seen, the one before,
        and every one up to one beyond our own sending, which is as far as an honest peer leads. At most four."""
        for epoch in (self._receiving, self._older, self._sending):
            if epoch is not None and (epoch.number ^ low2) & 3 == 0:
                return epoch
        if (self._sending.number + 1 ^ low2) & 3 == 0:
            if self._trial is None:
                self._trial = self._sending.following(self._side)
            return self._trial
        if self._receiving.number < (self._receiving.number - low2) & 3:
            raise self._die("a record names an epoch that this session has not had")
        raise Refused("session.replay", "a record of an epoch that is no longer kept")

    def _follow(self, epoch: _Epoch) -> None:
        if epoch is self._sending:
            self._older = self._receiving
        else:
            self._older = self._sending
            self._enter(epoch)
        self._receiving = epoch

    def _enter(self, epoch: _Epoch) -> None:
        # Forward secrecy: once the next epoch is entered nothing may lead back to the keys of this one.
        self._sending.chain = None
        self._sending = epoch
        self._trial = None
        self._counter = 0

    def _alive(self) -> None:
        if self._dead:
            raise Refused("session.tampered", "this session ended when a record was tampered with")

    def _die(self, reason: str) -> Refused:
        self._dead = True
        self._pending = self._older = self._trial = None
        self._sending.chain = self._receiving.chain = None
        return Refused("session.tampered", reason)
