"""Counters: what only grows, what a grant's use costs, the audit chain, and a stored form that is strict."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard import wire
from devguard.device.audit import RING_SIZE, AuditEvent, AuditRing
from devguard.device.counters import (
    Counters,
    Download,
    MemoryCounterStore,
    Outcome,
    Staging,
    check_no_regression,
    recent_erasures,
    seconds_to_wait,
)
from devguard.device.counters_codec import decode_counters, encode_counters
from devguard.errors import LocalProtocolError, Refused
from devguard.grant.uses import SPENT_LIMIT, Spent
from device_support import make_build

A, B = b"\xaa" * 32, b"\xbb" * 32
HEADER = make_build("1.0.0", 1, 100).header


def grant(cti: bytes = bytes(16), uses: int | None = 1, expires: int = 1000) -> Any:
    return SimpleNamespace(cti=cti, expires=expires, scope=SimpleNamespace(max_uses=uses))


def full() -> Counters:
    return Counters(
        security_version=3, installed_sequence=2**64 - 1, installed_digest=A, clock_floor=10, grant_epoch=4,
        trust_version=5, spent=MappingProxyType({bytes(16): Spent(A, 2, 99)}), nonce=b"n" * 16,
        audit=AuditRing().append(AuditEvent(1, "confirmed", None, A)), erase_times=(1, 2), failed_handshakes=7,
        sealed=HEADER, previous=HEADER, pending=HEADER,
        download=Download(B, 100, 64, True, True, Staging(1, 80, A, 32, True)),
        outcome=Outcome(A, "image.digest", 5), settings_before=B,
        installed_manifest=A, epoch_reset=(6, 2), history_before=A,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["clock_floor", "grant_epoch", "trust_version"])
def test_what_grows_never_goes_back(name: str) -> None:
    counters = getattr(Counters(), f"with_{name}")(5)
    assert getattr(getattr(counters, f"with_{name}")(5), name) == 5
    with pytest.raises(LocalProtocolError):
        getattr(counters, f"with_{name}")(4)


@pytest.mark.parametrize(
    "name", ["security_version", "installed_sequence", "clock_floor", "grant_epoch", "trust_version"]
)
def test_a_store_refuses_every_regression(name: str) -> None:
    store = MemoryCounterStore(full())
    with pytest.raises(LocalProtocolError):
        store.save(replace(full(), **{name: getattr(full(), name) - 1}))
    assert store.load() == full()


def test_a_store_refuses_to_forget_events_and_spent_grants() -> None:
    for change in ({"audit": AuditRing()}, {"spent": {}}, {"spent": {bytes(16): Spent(A, 1, 99)}}):
        with pytest.raises(LocalProtocolError):
            check_no_regression(full(), replace(full(), **change))
    check_no_regression(full(), replace(full(), spent={}, clock_floor=99))


def test_a_use_is_bound_to_one_release_and_resumption_is_free() -> None:
    counters = Counters().with_spent((grant(),), A)
    assert counters.spent == {bytes(16): Spent(A, 1, 1000)}
    assert counters.with_spent((grant(),), A) is counters
    with pytest.raises(Refused) as refused:
        counters.with_spent((grant(),), B)
    assert refused.value.code == "grant.replay"
    two = Counters().with_spent((grant(uses=2),), A).with_spent((grant(uses=2),), B)
    assert two.spent[bytes(16)].uses == 2
    with pytest.raises(Refused):
        two.with_spent((grant(uses=2),), A)


def test_spent_grants_leave_only_when_the_floor_has_passed_their_expiry() -> None:
    counters = Counters()
    for number in range(SPENT_LIMIT):
        counters = counters.with_spent((grant(number.to_bytes(16, "big")),), A)
    with pytest.raises(Refused) as refused:
        counters.with_spent((grant(b"x" * 16),), A)
    assert refused.value.code == "grant.replay"
    with pytest.raises(Refused):
        counters.with_clock_floor(999).with_spent((grant(b"x" * 16, expires=5000),), A)
    late = counters.with_clock_floor(1000).with_spent((grant(b"x" * 16, expires=5000),), A)
    assert set(late.spent) == {b"x" * 16}
    check_no_regression(counters, late)


def test_stored_form_round_trips() -> None:
    for counters in (Counters(), full()):
        assert decode_counters(encode_counters(counters)) == counters


def test_every_truncation_and_flip_is_refused_or_still_whole() -> None:
    data = encode_counters(full())
    for length in range(len(data)):
        with pytest.raises(Refused) as refused:
            decode_counters(data[:length])
        assert refused.value.code == "device.state"
        flipped = bytearray(data)
        flipped[length] ^= 1 << (length % 8)
        with contextlib.suppress(Refused):  # a flip may give another whole value: the file's checksum finds that
            decode_counters(bytes(flipped))


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        decode_counters(data)


@pytest.mark.parametrize("label", range(22))
def test_every_field_is_typed(label: int) -> None:
    value = wire.decode(encode_counters(full()))
    for wrong in ("text", -1, [[]], {1: 2}, b"\x00"):
        with pytest.raises(Refused):
            decode_counters(wire.encode({**value, label: wrong}))


def test_a_newer_format_says_so() -> None:
    value = wire.decode(encode_counters(Counters()))
    with pytest.raises(Refused, match="newer"):
        decode_counters(wire.encode({**value, 0: 4}))


def test_counters_of_the_format_before_are_read_and_encoded_images_belong_to_the_new_one() -> None:
    value = wire.decode(encode_counters(full()))
    old = {label: value[label] for label in range(18)} | {0: 1}
    before = replace(
        full(), download=Download(B, 100, 64, True), installed_manifest=None, epoch_reset=None, history_before=None
    )
    assert decode_counters(wire.encode(old)) == before
    second = {label: value[label] for label in range(19)} | {0: 2}
    assert decode_counters(wire.encode(second)) == replace(before, download=full().download)
    running = {**old, 2: HEADER.sequence}  # what runs is what was confirmed last: so is its manifest
    assert decode_counters(wire.encode(running)).installed_manifest == HEADER.manifest_digest
    for wrong in ({**old, 18: value[18]}, {**old, 0: 2}, {**value, 0: 1}, {**value, 15: None}, {**old, 0: True}):
        with pytest.raises(Refused):
            decode_counters(wire.encode(wrong))
    for staging in ([1, 80, A, 81, True], [256, 80, A, 0, True], [1, 80, A[:-1], 0, True], [1, 80, A, 0, 1], []):
        with pytest.raises(Refused):
            decode_counters(wire.encode({**value, 18: [False, staging]}))


def test_the_epoch_goes_back_by_a_trust_document_that_was_noted_before_and_no_further() -> None:
    store = MemoryCounterStore(Counters(grant_epoch=20, trust_version=5, epoch_reset=(6, 2)))
    for wrong in (
        replace(store.load(), grant_epoch=2),
        replace(store.load(), grant_epoch=1, trust_version=6, epoch_reset=None),
        replace(store.load(), clock_floor=-1, trust_version=6),
    ):
        with pytest.raises(LocalProtocolError):
            store.save(wrong)
    assert store.load().under_trust(5).grant_epoch == 20
    store.save(store.load().under_trust(6))
    assert (store.load().grant_epoch, store.load().trust_version, store.load().epoch_reset) == (2, 6, None)
    with pytest.raises(LocalProtocolError):
        store.save(replace(store.load(), grant_epoch=1, trust_version=9))
    assert Counters(grant_epoch=1, epoch_reset=(1, 2)).under_trust(1).grant_epoch == 1


def test_the_audit_ring_forgets_events_but_not_the_chain() -> None:
    ring, heads = AuditRing(), []
    for number in range(RING_SIZE + 10):
        ring = ring.append(AuditEvent(number, "event", "image.digest", A))
        heads.append(ring.head)
    assert (ring.count, len(ring.events), ring.events[0].time) == (RING_SIZE + 10, RING_SIZE, 10)
    assert ring.base == heads[9]
    assert AuditRing.from_list(wire.decode(wire.encode(ring.to_list()))) == ring
    for events in (ring.events[1:], ring.events[:-1], (ring.events[1], ring.events[0], *ring.events[2:])):
        with pytest.raises(Refused):
            AuditRing.from_list(replace(ring, events=events).to_list())
    with pytest.raises(LocalProtocolError):
        ring.append(AuditEvent(1, "x" * 65))


@given(st.lists(st.integers(0, 10_000), max_size=6), st.integers(0, 10_000))
def test_the_wait_is_exact(times: list[int], now: int) -> None:
    recent = recent_erasures(Counters(erase_times=tuple(times)), now)
    wait = seconds_to_wait(recent, 3, now)
    assert 0 <= wait <= 3600
    later = recent_erasures(Counters(erase_times=recent), now + wait)
    assert seconds_to_wait(later, 3, now + wait) == 0
    if wait > 1:
        earlier = recent_erasures(Counters(erase_times=recent), now + wait - 1)
        assert seconds_to_wait(earlier, 3, now + wait - 1) == 1
