"""Emulated devices over SMP: MCUboot's slots and swaps, what a legacy server takes, what a guarded one denies."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from devguard import wire
from devguard.device.flash import FlashMemory, MemoryBackend, Operation, PowerCut, Tear
from devguard.device.models import all_names, load_model, model_names
from devguard.device.smp_lies import LieKind
from devguard.device.smp_serve import SmpServerEngine, open_legacy, server_for
from devguard.device.smp_server import SmpServer
from devguard.device.smp_slots import McubootSlots, factory_image
from devguard.device.smp_target import GuardedDevice, LegacyDevice
from devguard.errors import LocalProtocolError, Malformed, Refused
from devguard.link.smp_console import ConsoleReader, encode_lines
from devguard.session.smp_frame import Header, read_message
from devguard.session.smp_frame import Operation as Op
from rooms.smp_support import DUAL, LEGACY, image_hash, legacy, mcuboot
from sim.bench import Device, small

NEW = mcuboot(9000, (1, 1, 0, 0), "new")
OLD = mcuboot(6000, (1, 0, 0, 0), "old")


def ask(server: SmpServer, operation: int, group: int, command: int, values: Any = None, version: int = 1) -> Any:
    """One question; the values of the answer."""
    body = wire.encode(values or {})
    answer = server.answer(Header(Op(operation), version, len(body), group, 3, command).encode() + body)
    assert answer is not None
    message = read_message(answer)
    head = message.header
    assert (head.operation, head.version, head.group, head.sequence) == (operation + 1, version, group, 3)
    return message.values


def states(server: SmpServer) -> list[Any]:
    found = ask(server, 0, 1, 0)["images"]
    assert isinstance(found, list)
    return found


def upload(server: SmpServer, whole: bytes, piece: int = 1000, **more: Any) -> Any:
    offset, answer = 0, {}
    while offset < len(whole):
        first = {"len": len(whole), **more} if not offset else {}
        answer = ask(server, 2, 1, 1, {"off": offset, "data": whole[offset : offset + piece], **first})
        if "off" not in answer:
            break
        offset = answer["off"]
    return answer


def served(device: LegacyDevice | None = None, model: str = LEGACY) -> tuple[LegacyDevice, SmpServer]:
    one = device or legacy(model, (OLD,))
    return one, server_for(load_model(model), one)


def runs(device: LegacyDevice) -> tuple[str, bool]:
    image = device.images[0].image(0)
    assert image is not None
    return image.version_text, device.images[0].confirmed


def test_models_of_either_kind() -> None:
    assert set(model_names()) == {"insulin-pump", "pacemaker-programmer"}
    assert set(all_names()) - set(model_names()) == {LEGACY, DUAL}
    assert load_model("insulin-pump").smp.uploads == "authorised"
    assert load_model(LEGACY).smp.uploads == "anybody"


# slots


def test_an_image_is_tried_and_kept_or_goes_back() -> None:
    device, server = served()
    assert upload(server, NEW) == {"off": len(NEW)}
    first, second = states(server)
    assert (first["active"], first["confirmed"], second["hash"], second["pending"]) == (
        True,
        True,
        image_hash(NEW),
        False,
    )
    ask(server, 2, 1, 0, {"hash": image_hash(NEW), "confirm": False})
    assert [one["pending"] for one in states(server)] == [False, True]
    device.boot()
    assert runs(device) == ("1.1.0", False)
    device.boot()  # nobody has confirmed it
    assert runs(device) == ("1.0.0", True)
    assert [one["pending"] for one in states(server)] == [False, False]
    ask(server, 2, 1, 0, {"hash": image_hash(NEW), "confirm": False})
    device.boot()
    ask(server, 2, 1, 0, {"confirm": True})
    for _ in range(3):
        device.boot()
        assert runs(device) == ("1.1.0", True)
    ask(server, 2, 1, 0, {"hash": image_hash(OLD), "confirm": False})  # and back, on trial again
    device.boot()
    assert runs(device) == ("1.0.0", False)


def test_an_image_kept_at_once_needs_no_trial() -> None:
    device, server = served()
    upload(server, NEW)
    ask(server, 2, 1, 0, {"hash": image_hash(NEW), "confirm": True})
    assert states(server)[1]["permanent"]
    for _ in range(2):
        device.boot()
        assert runs(device) == ("1.1.0", True)


def test_what_is_not_whole_is_not_shown_and_not_started() -> None:
    device, server = served()
    broken = bytearray(NEW)
    broken[500] ^= 1
    assert upload(server, bytes(broken), sha=bytes(32))["match"] is False
    assert len(states(server)) == 1
    slots = device.images[0]
    slots.set_pending(permanent=False)
    device.boot()
    assert (runs(device), slots.pending) == (("1.0.0", True), False)


def test_the_factorys_image_is_written_once_and_whole() -> None:
    layout = load_model(LEGACY).layout
    slots = McubootSlots(FlashMemory(layout.flash, MemoryBackend(layout.flash.size)), layout)
    assert slots.new
    with pytest.raises(Refused):
        slots.factory(bytes(slots.capacity + 1))
    slots.factory(factory_image(0))
    stored = slots.image(0)
    assert stored is not None
    assert (stored.version_text, stored.hash) == ("0.1.0", image_hash(factory_image(0)))
    with pytest.raises(LocalProtocolError):
        slots.factory(OLD)
    other = McubootSlots(FlashMemory(layout.flash, MemoryBackend(layout.flash.size)), layout)
    with pytest.raises((Refused, Malformed)):
        other.factory(b"no image")


def cut_at(number: int, how: str) -> Any:
    left = [number]

    def fault(_operation: Operation, _address: int, length: int) -> Tear | None:
        left[0] -= 1
        if left[0]:
            return None
        if how == "before":
            raise PowerCut("cut")
        return Tear(length // 2 // 4 * 4, 0x5A)

    return fault


def power_cuts(numbers: range) -> int:
    """A swap cut at these flash operations; how many were reached."""
    reached = 0
    for number in numbers:
        device, server = served()
        upload(server, NEW)
        ask(server, 2, 1, 0, {"hash": image_hash(NEW), "confirm": False})
        slots = device.images[0]
        flash = slots._flash
        flash.fault = cut_at(number, "before" if number % 2 else "torn")
        try:
            device.boot()
        except PowerCut:
            reached += 1
        layout = load_model(LEGACY).layout
        after = McubootSlots(FlashMemory(layout.flash, flash._backend, None, flash.cells), layout)
        again = LegacyDevice((after,), layout.write_size)
        again.boot()
        version, confirmed = runs(again)
        assert (version, confirmed) in (("1.1.0", False), ("1.0.0", True))
        again.boot()
        assert runs(again) == ("1.0.0", True)
        assert after.image(1) is not None
    return reached


def test_a_power_cut_in_a_swap_leaves_one_whole_image() -> None:
    assert power_cuts(range(1, 60, 7)) == 9


@pytest.mark.slow
def test_every_power_cut_in_a_swap() -> None:
    assert power_cuts(range(1, 120)) > 50


# the server


def test_echo_parameters_and_what_it_does_not_know() -> None:
    _, server = served()
    assert ask(server, 2, 0, 0, {"d": "hello"}) == {"r": "hello"}
    assert ask(server, 0, 0, 6) == {"buf_size": 1024, "buf_count": 4}
    assert ask(server, 0, 0, 4) == {"rc": 8}
    assert ask(server, 2, 9, 0) == {"rc": 8}
    assert ask(server, 2, 0, 0, {"d": 5}) == {"rc": 3}
    assert ask(server, 2, 0, 0, {"d": "x" * 5000}) == {"rc": 3}
    ask(server, 2, 0, 5)
    assert server.reset_wanted


@pytest.mark.parametrize(
    ("values", "rc"),
    [
        ({"off": 0, "data": NEW[:100]}, 21),
        ({"off": 0, "data": NEW[:31], "len": len(NEW)}, 22),
        ({"off": 0, "data": bytes(64), "len": 64}, 23),
        ({"off": 0, "data": NEW[:64], "len": len(NEW), "sha": bytes(5)}, 24),
        ({"off": 0, "data": NEW[:64], "len": (1 << 32) - 1}, 30),
        ({"off": 0, "data": NEW[:64], "len": 60}, 31),
        ({"off": 0, "data": NEW[:64], "len": len(NEW), "image": 1}, 14),
        ({"off": 0, "data": OLD[:64], "len": len(OLD), "upgrade": True}, 27),
    ],
)
def test_uploads_that_a_server_refuses(values: dict[str, Any], rc: int) -> None:
    device, server = served()
    assert ask(server, 2, 1, 1, values) == {"err": {"group": 1, "rc": rc}}
    assert ask(server, 2, 1, 1, values, version=0) == {"rc": 3}
    assert runs(device) == ("1.0.0", True)


@pytest.mark.parametrize(
    "values",
    [{}, {"off": -1}, {"off": "0"}, {"off": 1 << 63, "data": b""}, {"off": 0, "data": "text"}, {"off": 0, "len": -5}],
)
def test_uploads_of_another_form(values: dict[str, Any]) -> None:
    assert ask(served()[1], 2, 1, 1, values) == {"rc": 3}


def test_an_upload_goes_on_by_its_name_and_begins_anew_under_another() -> None:
    _, server = served()
    first = {"off": 0, "data": NEW[:1000], "len": len(NEW), "sha": bytes(32)}
    assert ask(server, 2, 1, 1, first) == {"off": 1000}
    assert ask(server, 2, 1, 1, {"off": 1000, "data": NEW[1000:1003]}) == {"off": 1003}
    assert ask(server, 2, 1, 1, {"off": 5000, "data": b"far ahead"}) == {"off": 1003}
    assert ask(server, 2, 1, 1, first) == {"off": 1003}
    assert ask(server, 2, 1, 1, {**first, "sha": b"\x01" * 32}) == {"off": 1000}
    assert ask(server, 2, 1, 5) == {}
    assert ask(server, 2, 1, 1, {"off": 1000, "data": b"forgotten"}) == {"off": 0}


def test_slots_that_are_taken() -> None:
    device, server = served()
    upload(server, NEW)
    assert ask(server, 2, 1, 0, {"hash": image_hash(OLD), "confirm": False}) == {"err": {"group": 1, "rc": 33}}
    assert ask(server, 2, 1, 0, {"hash": bytes(32), "confirm": False}) == {"err": {"group": 1, "rc": 8}}
    assert ask(server, 2, 1, 0, {"hash": b"short", "confirm": False}) == {"err": {"group": 1, "rc": 24}}
    assert ask(server, 2, 1, 0, {"confirm": False}) == {"rc": 3}
    assert ask(server, 2, 1, 0, {"hash": "text"}) == {"rc": 3}
    ask(server, 2, 1, 0, {"hash": image_hash(NEW), "confirm": False})
    assert upload(server, NEW) == {"err": {"group": 1, "rc": 28}}
    device.boot()
    assert upload(server, NEW) == {"err": {"group": 1, "rc": 9}}
    assert ask(server, 2, 1, 5) == {"err": {"group": 1, "rc": 9}}
    assert ask(server, 2, 1, 5, {"slot": 0}) == {"err": {"group": 1, "rc": 14}}
    assert len(states(server)) == 2


def test_two_images_have_numbers() -> None:
    device, server = served(legacy(DUAL), DUAL)
    assert [(one["image"], one["slot"]) for one in states(server)] == [(0, 0), (1, 0)]
    upload(server, NEW, image=1)
    assert [(one["image"], one["slot"]) for one in states(server)] == [(0, 0), (1, 0), (1, 1)]
    ask(server, 2, 1, 0, {"hash": image_hash(NEW), "confirm": False})
    device.boot()
    assert [one.confirmed for one in device.images] == [True, False]


def requests(count: int, seed: int) -> None:
    """Requests with bytes changed: an answer or none, and the device runs what it ran."""
    chances = random.Random(seed)
    device, server = served()
    good = [
        Header(Op.WRITE, 1, 0, 1, 1, 1).encode() + wire.encode({"off": 0, "data": NEW[:64], "len": 9000}),
        Header(Op.WRITE, 1, 0, 1, 1, 0).encode() + wire.encode({"hash": bytes(32), "confirm": False}),
        Header(Op.READ, 0, 0, 1, 1, 0).encode() + b"\xa0",
        Header(Op.WRITE, 1, 0, 0, 1, 0).encode() + wire.encode({"d": "hello"}),
    ]
    for _ in range(count):
        data = bytearray(chances.choice(good))
        for _ in range(chances.randint(0, 3)):
            at = chances.randrange(len(data))
            data[at : at + chances.randint(0, 2)] = chances.randbytes(chances.randint(0, 2))
        data[2:4] = max(0, len(data) - 8).to_bytes(2, "big")
        answer = server.answer(bytes(data))
        if answer is not None:
            read_message(answer)
    device.boot()
    assert runs(device) == ("1.0.0", True)


def test_mutated_requests() -> None:
    requests(200, 1)


@pytest.mark.slow
def test_many_mutated_requests() -> None:
    requests(10_000, 2)


def test_what_a_server_lets_go() -> None:
    _, server = served()
    for frame in (b"", bytes(7), b"\xff" * 20, Header(Op.READ_ANSWER, 1, 1, 1, 0, 0).encode() + b"\xa0"):
        assert server.answer(frame) is None
    body = b"\x81" * 10_000
    answer = server.answer(Header(Op.WRITE, 1, len(body), 1, 0, 1).encode() + body)
    assert answer is not None
    assert read_message(answer).values == {"rc": 3}


def test_messages_longer_than_the_buffer_are_let_go() -> None:
    engine = SmpServerEngine(384)
    assert engine.receive_bytes(encode_lines(bytes(381)) + encode_lines(bytes(380)), 0.0) == [bytes(380)]
    engine.send(b"answer!!")
    assert ConsoleReader().feed(engine.data_to_send(0.0)) == [b"answer!!"]
    assert engine.data_to_send(0.0) == b""


# a device that demands authorisation


@pytest.mark.parametrize("model", model_names())
def test_a_guarded_device_may_be_looked_at_and_nothing_else(model: str) -> None:
    device = Device(small(model))
    node = device.node
    server = SmpServer(GuardedDevice(node), 512, 4)
    before = [bytes(node._flash.read(0, node.model.layout.flash.size)), node.store.load()]
    denied = {"rc": 11}
    assert upload(server, NEW) == denied
    assert ask(server, 2, 1, 0, {"hash": image_hash(NEW), "confirm": False}) == denied
    assert ask(server, 2, 1, 0, {"confirm": True}) == denied
    assert ask(server, 2, 1, 5) == denied
    assert ask(server, 2, 0, 5) == denied
    assert not server.reset_wanted
    assert ask(server, 2, 0, 0, {"d": "x"}) == {"r": "x"}
    found = states(server)
    assert all(
        set(one) <= {"slot", "version", "hash", "bootable", "pending", "confirmed", "active", "permanent"}
        for one in found
    )
    assert before == [bytes(node._flash.read(0, node.model.layout.flash.size)), node.store.load()]


def test_a_legacy_device_survives_its_process(tmp_path: Path) -> None:
    from contextlib import ExitStack

    model = load_model(DUAL)
    with ExitStack() as stack:
        device = open_legacy(tmp_path, model, stack)
        for slots in device.images:
            slots.factory(OLD)
        device.boot()
        server = server_for(model, device)
        upload(server, NEW, image=1)
        ask(server, 2, 1, 0, {"hash": image_hash(NEW), "confirm": True})
    with ExitStack() as stack:
        device = open_legacy(tmp_path, model, stack)
        assert [slots.new for slots in device.images] == [False, False]
        device.boot()
        found = [slots.image(0) for slots in device.images]
        assert [one and one.version_text for one in found] == ["1.0.0", "1.1.0"]


def test_lies_have_names() -> None:
    assert len(set(LieKind)) == 22
