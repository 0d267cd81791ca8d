"""The record layer: two sides over one session, key updates, replay, and a line that does what it wants.

Invariant: what `open` returns is byte for byte what the peer sealed under that header, each record at most once;
no (key, nonce) pair seals twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import session_support as support
from devguard import wire
from devguard.errors import DevguardError, LocalProtocolError, Refused
from devguard.session import records
from devguard.session.keyschedule import SessionKeys
from devguard.session.records import RecordLayer, ReplayWindow, Side
from devguard.session.suites import SUITES

LOCKED = {
    3: "26885ea534508ddbfcd03d6ffddb6c30ccc24e9ce4d95c",
    5: "1ffc1d9cd76089d3ae125c07fc28fd716e6b37a7804748",
}
Record = tuple[int, int, bytes, bytes]  # low 2 bits of the epoch, low 16 bits of the counter, header, ciphertext


def keys(suite: int = 3, prk: bytes = b"\x07" * 32) -> SessionKeys:
    return SessionKeys(SUITES[suite], prk)


def pair(suite: int = 3, per_epoch: int = 256) -> tuple[RecordLayer, RecordLayer]:
    shared = keys(suite)
    return (
        RecordLayer(shared, Side.HOST, records_per_epoch=per_epoch),
        RecordLayer(shared, Side.DEVICE, records_per_epoch=per_epoch),
    )


def send(layer: RecordLayer, plaintext: bytes, header: bytes = b"head") -> Record:
    epoch, counter = layer.next()
    return epoch & 3, counter & 0xFFFF, header, layer.seal(epoch, counter, header, plaintext)


def refused(code: str, layer: RecordLayer, record: Record) -> None:
    with pytest.raises(Refused) as caught:
        layer.open(*record)
    assert caught.value.code == code


@pytest.mark.parametrize("suite", [1, 3, 4, 5])
def test_records_of_a_real_handshake_pass_both_ways(suite: int) -> None:
    i, r = support.initiator(suite), support.responder()
    support.run(i, r)
    host, device = RecordLayer.for_initiator(i), RecordLayer.for_responder(r)
    assert host.session_id == device.session_id == i.exporter(32770, b"", 32)
    assert host.tag_size == 16
    for n in range(5):
        plaintext = bytes([n]) * n * 300
        record = send(host, plaintext)
        assert len(record[3]) == len(plaintext) + 16
        assert device.open(*record) == plaintext
        assert host.open(*send(device, plaintext)) == plaintext


@pytest.mark.parametrize("suite", [0, 2])
def test_suites_with_short_tags_carry_no_records(suite: int) -> None:
    with pytest.raises(Refused) as caught:
        RecordLayer(keys(suite), Side.HOST)
    assert caught.value.code == "session.handshake"


@pytest.mark.parametrize("suite", [3, 5])
def test_the_bytes_of_a_record_are_those_of_the_design(suite: int) -> None:
    """Labels, nonce and associated data, built here by hand; locked, for both ends must agree for ever."""
    shared = keys(suite)
    host, _ = pair(suite)
    host.next()
    epoch, counter = host.next()
    assert (epoch, counter) == (0, 1)
    sealed = host.seal(epoch, counter, b"\x12\x34", b"payload")
    key_length, iv_length = (32, 12) if suite == 5 else (16, 13)
    key, iv = shared.exporter(32768, b"", key_length), shared.exporter(32771, b"", iv_length)
    nonce = iv[:-1] + bytes([iv[-1] ^ 1])
    cipher = ChaCha20Poly1305(key) if suite == 5 else AESCCM(key, 16)
    assert cipher.encrypt(nonce, b"payload", b"\x12\x34" + bytes(8) + bytes(7) + b"\x01") == sealed
    device = RecordLayer(shared, Side.DEVICE)
    sealed = device.seal(*device.next(), b"", b"")
    key, iv = shared.exporter(32769, b"", key_length), shared.exporter(32772, b"", iv_length)
    cipher = ChaCha20Poly1305(key) if suite == 5 else AESCCM(key, 16)
    assert cipher.encrypt(iv, b"", bytes(16)) == sealed
    later = shared.updated(wire.encode(1))
    assert later.prk_out == shared.updated(b"\x01").prk_out


@pytest.mark.parametrize("suite", [3, 5])
def test_locked_wire_bytes(suite: int) -> None:
    host, _ = pair(suite)
    assert send(host, b"payload", b"\x12\x34")[3].hex() == LOCKED[suite]


def test_nothing_is_sealed_twice_under_one_pair() -> None:
    host, _ = pair()
    epoch, counter = host.next()
    host.seal(epoch, counter, b"", b"one")
    with pytest.raises(LocalProtocolError):
        host.seal(epoch, counter, b"", b"two")
    first = host.next()
    host.next()
    with pytest.raises(LocalProtocolError):
        host.seal(*first, b"", b"an older pair is lost")
    epoch, counter = host.next()
    for wrong in ((epoch, counter + 1), (epoch + 1, counter), (epoch, -1)):
        with pytest.raises(LocalProtocolError):
            host.seal(*wrong, b"", b"")
        epoch, counter = host.next()


def test_a_retransmission_is_another_record() -> None:
    host, device = pair()
    first, again = send(host, b"same"), send(host, b"same")
    assert first[1] != again[1]
    assert first[3] != again[3]
    assert device.open(*first) == device.open(*again) == b"same"


ALTERATIONS: dict[str, Callable[[Record], Record]] = {
    "epoch": lambda r: (r[0] ^ 1, *r[1:]),
    "counter": lambda r: (r[0], r[1] ^ 1, *r[2:]),
    "counter far": lambda r: (r[0], r[1] ^ 0x8000, *r[2:]),
    "header": lambda r: (*r[:2], b"heae", r[3]),
    "header longer": lambda r: (*r[:2], r[2] + b"\x00", r[3]),
    "header empty": lambda r: (*r[:2], b"", r[3]),
    "first byte": lambda r: (*r[:3], bytes([r[3][0] ^ 1]) + r[3][1:]),
    "tag": lambda r: (*r[:3], r[3][:-1] + bytes([r[3][-1] ^ 0x80])),
    "cut": lambda r: (*r[:3], r[3][:-1]),
    "longer": lambda r: (*r[:3], r[3] + b"\x00"),
    "empty": lambda r: (*r[:3], b""),
    "tag alone": lambda r: (*r[:3], r[3][-16:]),
    "huge": lambda r: (*r[:3], bytes(1 << 17)),
}


@pytest.mark.parametrize("suite", [3, 5])
@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_record_ends_the_session(suite: int, name: str) -> None:
    host, device = pair(suite)
    assert device.open(*send(host, b"before")) == b"before"
    record = send(host, b"payload")
    refused("session.tampered", device, ALTERATIONS[name](record))
    # Dead: not even the honest record passes, and nothing more is sealed.
    refused("session.tampered", device, record)
    for call in (device.next, lambda: device.seal(0, 0, b"", b"")):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.code == "session.tampered"


def test_every_flipped_bit_of_a_record_refuses() -> None:
    host, _ = pair()
    record = send(host, b"0123456789")
    draw = random.Random(9)
    for _ in range(150):
        at, bit = draw.randrange(len(record[3])), draw.randrange(8)
        altered = bytearray(record[3])
        altered[at] ^= 1 << bit
        refused("session.tampered", pair()[1], (*record[:3], bytes(altered)))


def test_records_reflected_or_of_another_session_refuse() -> None:
    host, device = pair()
    record = send(host, b"payload")
    refused("session.tampered", host, record)
    refused("session.tampered", RecordLayer(keys(prk=b"\x08" * 32), Side.DEVICE), record)
    assert device.open(*record) == b"payload"


def test_a_replayed_record_refuses_and_the_session_lives() -> None:
    host, device = pair(per_epoch=1000)
    sent = [send(host, bytes([n])) for n in range(200)]
    for record in sent[:50]:
        device.open(*record)
        refused("session.replay", device, record)
    device.open(*sent[199])
    # 136..198 are within the window of 64 below 199; what lies before is too old although never seen.
    refused("session.replay", device, sent[135])
    assert device.open(*sent[136]) == bytes([136])
    refused("session.replay", device, sent[136])
    assert device.open(*sent[198]) == bytes([198])
    assert device.open(*send(host, b"goes on")) == b"goes on"


def test_counters_beyond_16_bits_are_reconstructed() -> None:
    host, device = pair(per_epoch=1 << 20)
    for n in range(3 * (1 << 16)):
        epoch, counter = host.next()
        if n % 30_000 == 29_999 or n == 3 * (1 << 16) - 1:
            sealed = host.seal(epoch, counter, b"", n.to_bytes(4, "big"))
            assert device.open(0, counter & 0xFFFF, b"", sealed) == n.to_bytes(4, "big")
    assert counter > 0xFFFF


@given(highest=st.integers(-1, 1 << 40), step=st.integers(-(1 << 15) + 1, 1 << 15))
def test_the_nearest_counter_is_found(highest: int, step: int) -> None:
    window = ReplayWindow()
    if highest >= 0:
        window.accept(highest)
    counter = highest + 1 + step
    if counter >= 0:
        assert window.nearest(counter & 0xFFFF) == counter
    assert window.nearest(counter & 0xFFFF) >= 0


@given(st.lists(st.integers(0, 300), max_size=200))
def test_the_window_accepts_what_a_set_would(counters: list[int]) -> None:
    window, seen = ReplayWindow(), set[int]()
    for counter in counters:
        highest = max(seen, default=-1)
        expected = counter > highest or (counter > highest - 64 and counter not in seen)
        assert window.accept(counter) is expected
        if expected:
            seen.add(counter)


# Key update


@pytest.mark.parametrize("leader", [Side.HOST, Side.DEVICE])
def test_either_side_leads_a_key_update_and_the_other_follows(leader: Side) -> None:
    layers = dict(zip((Side.HOST, Side.DEVICE), pair(per_epoch=8), strict=True))
    lead, other = layers.pop(leader), layers.popitem()[1]
    for n in range(8 * 6):
        assert other.open(*send(lead, bytes([n]))) == bytes([n])
        assert lead.open(*send(other, b"ack")) == b"ack"
    assert lead.sending_epoch == other.sending_epoch == 5
    assert lead.receiving_epoch == other.receiving_epoch == 5


def test_counters_start_again_in_a_new_epoch_under_new_keys() -> None:
    host, device = pair(per_epoch=2)
    first = [send(host, b"same") for _ in range(2)]
    epoch, counter = host.next()
    assert (epoch, counter) == (1, 0)
    sealed = host.seal(1, 0, b"head", b"same")
    assert sealed not in [record[3] for record in first]
    assert device.open(1, 0, b"head", sealed) == b"same"


def test_a_leader_waits_for_its_peer_to_follow() -> None:
    """However many frames the line eats, the two are never more than one epoch apart."""
    host, device = pair(per_epoch=4)
    lost = [send(host, bytes([n])) for n in range(40)]
    assert host.sending_epoch == 1
    last = send(host, b"through")
    assert device.open(*last) == b"through"
    assert (device.receiving_epoch, device.sending_epoch) == (1, 1)
    assert host.open(*send(device, b"ack")) == b"ack"
    assert send(host, b"")[0] == 2
    assert device.open(*lost[3]) == b"\x03"  # one epoch back
    assert device.receiving_epoch == 1


def test_one_epoch_of_overlap_is_kept_and_older_ones_refuse() -> None:
    host, device = pair(per_epoch=4)
    late = [send(host, bytes([n])) for n in range(4)]
    assert device.open(*send(host, b"epoch 1")) == b"epoch 1"
    assert device.open(*late[2]) == b"\x02"  # one epoch back: still good, once
    refused("session.replay", device, late[2])
    assert host.open(*send(device, b"ack")) == b"ack"
    while host.sending_epoch < 2:
        record = send(host, b"on")
    assert device.open(*record) == b"on"
    refused("session.replay", device, late[3])
    assert device.open(*send(host, b"alive")) == b"alive"


def test_a_follower_may_lead_on_before_it_is_heard() -> None:
    """The host follows to epoch 1 and leads to 2 while all it sent before is lost: the device reads it."""
    host, device = pair(per_epoch=2)
    for _ in range(2):
        send(device, b"lost")
    assert host.open(*send(device, b"epoch 1")) == b"epoch 1"
    late = [send(host, b"late") for _ in range(2)]
    record = send(host, b"epoch 2")
    assert (record[0], device.receiving_epoch, device.sending_epoch) == (2, 0, 1)
    assert device.open(*record) == b"epoch 2"
    assert (device.receiving_epoch, device.sending_epoch) == (2, 2)
    assert device.open(*late[0]) == b"late"
    assert host.open(*send(device, b"ack")) == b"ack"


def test_both_sides_may_lead_at_once() -> None:
    host, device = pair(per_epoch=4)
    for _ in range(4):
        send(host, b"lost")
        send(device, b"lost")
    from_host, from_device = send(host, b"h"), send(device, b"d")
    assert from_host[0] == from_device[0] == 1
    assert device.open(*from_host) == b"h"
    assert host.open(*from_device) == b"d"
    assert device.open(*send(host, b"more")) == b"more"


def test_a_forged_epoch_moves_nothing() -> None:
    host, device = pair(per_epoch=4)
    low2, counter, header, ciphertext = send(host, b"payload")
    refused("session.tampered", device, (low2 + 1, counter, header, ciphertext))
    assert device.receiving_epoch == 0
    for low2 in (2, 3):  # no epoch of this session can have these bits yet
        refused("session.tampered", pair()[1], (low2, counter, header, ciphertext))


def test_old_keys_are_dropped() -> None:
    """Forward secrecy: after two updates nothing reachable from a layer holds the first PRK_out or its chain."""
    host, device = pair(per_epoch=2)
    for _ in range(12):
        device.open(*send(host, b"x"))
        host.open(*send(device, b"y"))
    assert host.sending_epoch >= 4
    for layer in (host, device):
        for epoch in (layer._older, layer._receiving):
            assert epoch is None or epoch is layer._sending or epoch.chain is None
        assert layer._sending.chain is not None
        assert layer._sending.chain.prk_out != keys().prk_out


def test_a_silent_peer_ends_the_session_before_the_cipher_wears_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORDS", 100)
    host, _ = pair(per_epoch=10)
    for _ in range(110):
        host.next()
    with pytest.raises(Refused) as caught:
        host.next()
    assert caught.value.code == "session.timeout"


@pytest.mark.parametrize("per_epoch", [0, -1, (1 << 23) + 1])
def test_impossible_epoch_lengths_refuse(per_epoch: int) -> None:
    with pytest.raises(LocalProtocolError):
        pair(per_epoch=per_epoch)


def test_a_record_too_large_for_the_cipher_is_our_own_fault() -> None:
    host, _ = pair()
    with pytest.raises(LocalProtocolError):
        host.seal(*host.next(), b"", bytes(65_536))


@settings(max_examples=40, stateful_step_count=60)
class HostileLine(RuleBasedStateMachine):
    """Frames are lost, doubled, delayed and reordered within the window; each arrives at most once, unchanged."""

    @initialize(suite=st.sampled_from([3, 5]), per_epoch=st.integers(1, 12))
    def start(self, suite: int, per_epoch: int) -> None:
        self.layers = dict(zip(Side, pair(suite, per_epoch), strict=True))
        self.line: dict[Side, list[tuple[tuple[int, int], bytes, Record]]] = {side: [] for side in Side}
        self.delivered: dict[Side, set[tuple[int, int]]] = {side: set() for side in Side}
        self.used: set[tuple[Side, int, int]] = set()
        self.sent = 0

    @rule(side=st.sampled_from(list(Side)), count=st.integers(1, 6))
    def transmit(self, side: Side, count: int) -> None:
        for _ in range(count):
            layer, self.sent = self.layers[side], self.sent + 1
            epoch, counter = layer.next()
            assert (side, epoch, counter) not in self.used
            self.used.add((side, epoch, counter))
            plaintext, header = self.sent.to_bytes(4, "big"), bytes([epoch & 3]) + counter.to_bytes(2, "big")
            record = (epoch & 3, counter & 0xFFFF, header, layer.seal(epoch, counter, header, plaintext))
            self.line[side].append(((epoch, counter), plaintext, record))
        del self.line[side][:-40]  # what is older is lost for good

    @rule(side=st.sampled_from(list(Side)), pick=st.integers(0, 39), keep=st.booleans())
    @precondition(lambda self: any(self.line.values()))
    def arrive(self, side: Side, pick: int, keep: bool) -> None:
        waiting = self.line[side]
        if not waiting:
            return
        name, plaintext, record = waiting[pick % len(waiting)]
        if not keep:
            waiting.remove((name, plaintext, record))
        receiver = self.layers[Side.DEVICE if side is Side.HOST else Side.HOST]
        left_behind = name[0] <= receiver.receiving_epoch - 2
        if not left_behind and name not in self.delivered[side]:
            assert receiver.open(*record) == plaintext
            self.delivered[side].add(name)
            return
        with pytest.raises(Refused) as caught:
            receiver.open(*record)
        if caught.value.code != "session.replay":
            assert left_behind  # its two bits mean another epoch by now: a record no honest line still carries
            self.start(3, 5)

    @rule(side=st.sampled_from(list(Side)), drop=st.integers(1, 30))
    def lose(self, side: Side, drop: int) -> None:
        del self.line[side][:drop]

    @invariant()
    def never_more_than_one_epoch_apart(self) -> None:
        if hasattr(self, "layers"):
            host, device = self.layers[Side.HOST], self.layers[Side.DEVICE]
            assert abs(host.sending_epoch - device.sending_epoch) <= 1
            for layer in (host, device):
                assert 0 <= layer.sending_epoch - layer.receiving_epoch <= 1


TestHostileLine = HostileLine.TestCase


@given(st.integers(), st.integers(), st.binary(max_size=40), st.binary(max_size=60))
def test_any_frame_refuses_with_our_own_error(low2: int, low16: int, header: bytes, ciphertext: bytes) -> None:
    with pytest.raises(DevguardError):
        pair()[1].open(low2, low16, header, ciphertext)
