"""A device's log as it leaves the device: signed, bounded, and the same chain that the device keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import sign1
from devguard.custody.memory import MemorySigner
from devguard.device.audit import AuditEvent, AuditRing
from devguard.errors import DevguardError, Malformed
from devguard.evidence.device_log import (
    FORMAT,
    TYP,
    DeviceEvent,
    DeviceLog,
    read_device_log,
    sign_device_log,
)

DEVICE = MemorySigner.from_seed(Algorithm.ESP256, b"device".ljust(32, b"."))
EVENTS = (
    DeviceEvent(5, "session", None, bytes(range(32)) + b"g" * 32),
    DeviceEvent(6, "accepted", None, b"m" * 32),
    DeviceEvent(9, "refused", "device.battery", b""),
)
LOG = DeviceLog("insulin-pump", "IP-0001", 10, 3, bytes(32), EVENTS, bytes(16))

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64)
events = st.builds(
    DeviceEvent,
    st.integers(0, (1 << 64) - 1),
    texts,
    st.none() | texts,
    st.sampled_from([0, 32, 48, 64]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
)


def signed(*fields: object, typ: str = TYP) -> bytes:
    return sign1(DEVICE, wire.encode(list(fields)), typ=typ).encode()


@given(st.lists(events, max_size=20), st.binary(min_size=16, max_size=16))
def test_it_comes_back_as_it_was_signed(rows: list[DeviceEvent], challenge: bytes) -> None:
    log = replace(LOG, events=tuple(rows), count=len(rows), challenge=challenge)
    assert read_device_log(sign_device_log(log, DEVICE), DEVICE.key) == log


def test_its_chain_is_the_device_s() -> None:
    ring = AuditRing()
    for number in range(70):
        ring = ring.append(AuditEvent(number, "session", None, number.to_bytes(32, "big") + bytes(32)))
    rows = tuple(DeviceEvent(one.time, one.name, one.code, one.subject) for one in ring.events)
    log = DeviceLog("insulin-pump", "IP-0001", 99, ring.count, ring.base, rows, bytes(16))
    assert log.head == ring.head
    assert not log.whole
    assert read_device_log(sign_device_log(log, DEVICE), DEVICE.key).heads[0] == ring.base


def test_a_session_event_names_session_and_grant() -> None:
    assert (EVENTS[0].session, EVENTS[0].grant) == (bytes(range(32)), b"g" * 32)
    assert (EVENTS[1].session, EVENTS[1].grant) == (None, None)


PLAIN = [[one.time, one.name, one.code, one.subject] for one in EVENTS]
GOOD = (FORMAT, "insulin-pump", "IP-0001", 10, 3, bytes(32), PLAIN, bytes(16))


def other(place: int, value: object) -> tuple[object, ...]:
    return (*GOOD[:place], value, *GOOD[place + 1 :])


@pytest.mark.parametrize(
    "fields",
    [
        other(0, 2),
        other(1, ""),
        other(2, "IP\n1"),
        other(3, -1),
        other(4, 2),
        other(4, True),
        other(4, 4),
        other(5, b"x" * 32),
        other(5, bytes(31)),
        other(6, [[1, "a", None]]),
        other(6, [[1, "", None, b""]] * 3),
        other(6, [[1, "a", "", b""]] * 3),
        other(6, [[-1, "a", None, b""]] * 3),
        other(6, [[1, "a", None, b"x"]] * 3),
        other(6, [["1", "a", None, b""]] * 3),
        other(7, bytes(15)),
        GOOD[:-1],
        (*GOOD, 1),
        (*other(4, 300)[:6], [[1, "a", None, b""]] * 300, bytes(16)),
    ],
    ids=lambda fields: wire.encode(list(fields)).hex()[:24] + str(len(wire.encode(list(fields)))),
)
def test_anything_else_is_no_log(fields: tuple[object, ...]) -> None:
    assert read_device_log(signed(*GOOD), DEVICE.key) == LOG
    with pytest.raises(Malformed, match=r"wire\.malformed"):
        read_device_log(signed(*fields), DEVICE.key)


def test_another_key_another_type_and_damage() -> None:
    other_key = MemorySigner.from_seed(Algorithm.ESP256, b"o" * 32).key
    data = sign_device_log(LOG, DEVICE)
    for wrong, key in ((data, other_key), (signed(*GOOD, typ="application/other"), DEVICE.key), (b"", DEVICE.key)):
        with pytest.raises(DevguardError):
            read_device_log(wrong, key)
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(DevguardError):
            read_device_log(bytes(changed), DEVICE.key)
    with pytest.raises(Malformed):
        read_device_log(bytes(33 * 1024), DEVICE.key)
