"""Sending less. Invariant: however an image travels, the device installs exactly the one that was judged, and a form
that comes to nothing costs its bytes and not the push."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_envelope, sign_envelope
from devguard.errors import DeviceRefused, LinkError, RemoteProtocolError
from devguard.image.delta import compress, make_patch
from devguard.manifest.description import ComponentDescription
from devguard.session.approval import sign_approval
from devguard.session.delta import Encoded, Sent, choose
from devguard.session.table import State
from devguard.session.update import UpdateSession
from devguard.session.verbs import (
    Accept,
    Commit,
    Data,
    Durable,
    Encoding,
    Hello,
    HelloReply,
    Offer,
    RefusedReply,
    Transfer,
    decode_message,
    encode_message,
)
from rooms.link_support import Faults
from sim.bench import PROGRAMMER, TOM, Build, Device, Pipe, build, grant, small, split_image, update
from sim.hostile import refusal
from sim.line import VirtualLine
from sim.state import snapshot

pytest.importorskip("detools", reason="the extra `delta` is not installed")

SIZE = 20_000


def made(device: Device, image: bytes, version: str = "1.1.0", sequence: int = 2) -> Build:
    """A release of that image, in the model's components."""
    images = split_image(image, device.model.facts.components)
    parts = tuple(ComponentDescription(name, f"{name}.bin", "raw", (), ()) for name in images)
    envelope = make_envelope(images, model=device.model.facts, components=parts, version=version, sequence=sequence)
    return Build(sign_envelope(envelope, device.vendor.release_signers), images, device.model)


def near(device: Device, old: Build, version: str = "1.1.0", sequence: int = 2, fresh: int = 0) -> Build:
    """A release with little of the old image changed, and `fresh` bytes at its end that are new."""
    image = old.image[:1000] + version.encode() + old.image[1005 : SIZE - fresh] + random.Random(1).randbytes(fresh)
    return made(device, image, version, sequence)


@pytest.fixture(scope="module")
def running() -> tuple[Device, Build]:
    """A device that runs release 1 of `SIZE` bytes, an hour ago. Take a copy."""
    device = Device()
    old = build(device, "1.0.0", 1, SIZE)
    Pipe(device).run(update(device, old).push())
    device.fresh_hour()
    device.power_cycle()
    return device, old


def approver(device: Device) -> Any:
    """A second technician who says yes."""
    second = grant(device, TOM)
    digest = hashlib.sha256(second.untagged).digest()
    return lambda request: (sign_approval(request, TOM.signer, digest), second.untagged)


def patch(old: Build, new: Build) -> Encoded:
    return Encoded(Encoding.DELTA, make_patch(old.image, new.image), hashlib.sha256(old.image).digest())


def pushed(device: Device, new: Build, *forms: Encoded, pipe: Pipe | None = None) -> tuple[UpdateSession, Pipe]:
    session, pipe = update(device, new, forms=forms), pipe or Pipe(device)
    pipe.run(session.push())
    return session, pipe


def said(pipe: Pipe) -> list[Any]:
    return [decode_message(message, sealed=True) for message, sealed in pipe.sent if sealed]


def carried(pipe: Pipe) -> int:
    return sum(len(one.payload) for one in said(pipe) if isinstance(one, Data))


def test_a_patch_is_sent_and_the_judged_image_runs(running: tuple[Device, Build]) -> None:
    device, old = running[0].copy(), running[1]
    new, before = near(device, old), snapshot(device)
    form = patch(old, new)
    shown: list[tuple[int, int]] = []
    session = update(device, new, forms=(form,), progress=lambda *now: shown.append(now))
    pipe = Pipe(device)
    pipe.run(session.push())
    assert session.sent == Sent("delta", len(form.data))
    assert carried(pipe) == len(form.data) < SIZE // 20
    assert shown[-1] == (len(form.data), len(form.data))
    assert device.runs(new)
    assert snapshot(device).therapy == before.therapy
    assert len(device.counters.erase_times) == 1


@pytest.mark.parametrize("good", [True, False])
def test_over_a_line_that_loses_and_damages_frames(running: tuple[Device, Build], good: bool) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old, fresh=12_000)
    form = patch(old, new)
    if not good:
        form = replace(form, data=form.data[:-9] + bytes(9))
    line = VirtualLine(device, faults=Faults(baud=115_200, loss=0.02, flip=1e-5, double=0.02))
    session = update(device, new, forms=(form,))
    line.runner().run(session.push())
    size = len(form.data)
    assert session.sent == (Sent("delta", size) if good else Sent("full", SIZE, "device.transfer", size))
    assert device.runs(new)


def test_two_components_travel_in_one_patch() -> None:
    device = Device(model=small(PROGRAMMER))
    old = build(device, "1.0.0", 1, SIZE)
    Pipe(device).run(update(device, old, approver=approver(device)).push())
    device.fresh_hour()
    new = near(device, old)
    running = device.node.loader.result.header
    assert running is not None
    assert running.digest == hashlib.sha256(old.image).digest()
    session = update(device, new, forms=(patch(old, new),), approver=approver(device))
    Pipe(device).run(session.push())
    assert session.sent.encoding == "delta"
    assert device.runs(new)
    wrong = near(device, new, "1.2.0", 3)
    device.fresh_hour()
    bad = Encoded(Encoding.DELTA, make_patch(new.image, wrong.image[:-1] + b"?"), hashlib.sha256(new.image).digest())
    session = update(device, wrong, forms=(bad,), approver=approver(device))
    Pipe(device).run(session.push())
    assert session.sent.refused == "device.transfer"
    assert device.runs(wrong)


def test_a_device_fresh_from_the_factory_takes_a_compressed_image() -> None:
    device = Device()
    plain = made(device, bytes(SIZE))
    zero = Encoded(Encoding.DELTA, b"never sent", bytes(32))
    session, pipe = pushed(device, plain, Encoded(Encoding.COMPRESSED, compress(plain.image)), zero)
    assert (session.sent.encoding, carried(pipe)) == ("compressed", session.sent.size)
    assert session.sent.size < 100
    assert device.runs(plain)


@pytest.mark.parametrize("wrong", ["garbage", "other source", "other result"])
def test_a_form_that_comes_to_nothing_is_followed_by_the_whole_image(running: tuple[Device, Build], wrong: str) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old)
    source = hashlib.sha256(old.image).digest()
    data = {
        "garbage": b"\x01" * 300,
        "other source": make_patch(b"zz" + old.image, new.image),
        "other result": make_patch(old.image, bytes(9) + new.image[9:]),
    }[wrong]
    one, pipe = grant(device, max_uses=1), Pipe(device)
    session = update(device, new, one, forms=(Encoded(Encoding.DELTA, data, source),))
    pipe.run(session.push())
    assert session.sent == Sent("full", len(new.image), "device.transfer", len(data))
    assert carried(pipe) == len(data) + len(new.image)
    assert [type(one) for one in said(pipe)].count(Offer) == 2
    assert len([sealed for message, sealed in pipe.sent if not sealed]) == 3  # one session
    assert device.runs(new)
    assert device.counters.spent[one.cti].uses == 1
    assert len(device.counters.erase_times) == (2 if wrong == "other result" else 1)


def test_a_spent_erase_budget_is_no_reason_to_give_up(running: tuple[Device, Build]) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old)
    layout = device.model.layout
    end = layout.secondary.image + layout.image_capacity
    device.backend.data[end - 10 : end] = bytes(10)  # in the way of what is staged
    device.store.save(replace(device.counters, erase_times=(device.node.steady(), device.node.steady())))
    session, _ = pushed(device, new, patch(old, new))
    assert session.sent == Sent("full", len(new.image), "device.busy", 0)
    assert device.runs(new)


def test_other_refusals_end_the_push(running: tuple[Device, Build], monkeypatch: pytest.MonkeyPatch) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old)
    session, pipe = update(device, new, forms=(patch(old, new),)), Pipe(device)
    honest = UpdateSession._commit

    def meanwhile(self: UpdateSession) -> Any:
        device.battery = 3
        yield from honest(self)

    monkeypatch.setattr(UpdateSession, "_commit", meanwhile)
    with pytest.raises(DeviceRefused, match=r"device\.battery"):
        pipe.run(session.push())
    assert [type(one) for one in said(pipe)].count(Offer) == 1
    assert device.runs(old)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut", range(3, 12))
def test_a_lost_link_in_any_phase_costs_no_byte_twice(running: tuple[Device, Build], cut: int, reset: bool) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old, fresh=15_000)
    form = patch(old, new)
    assert len(form.data) > 15_000
    one = grant(device, max_uses=1)
    pipe = Pipe(device)
    pipe.cut_after = cut
    session = update(device, new, one, forms=(form,))
    try:
        pipe.run(session.push())
    except LinkError:
        if reset:
            device.power_cycle()
    if not device.copy().runs(new):
        second = Pipe(device)
        again = update(device, new, one, forms=(form,))
        second.run(again.push())
        pieces = [message for message in said(second) if isinstance(message, Data)]
        assert carried(pipe) + carried(second) <= len(form.data) + 256
        assert not pieces or pieces[-1].offset + len(pieces[-1].payload) == len(form.data)
    assert device.runs(new)
    assert device.counters.spent[one.cti].uses == 1
    assert len(device.counters.erase_times) == 1


def test_a_patch_against_another_image_than_the_one_that_runs_is_not_sent(running: tuple[Device, Build]) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old)
    session, pipe = pushed(device, new, replace(patch(old, new), source=bytes(32)))
    assert session.sent == Sent("full", len(new.image))
    assert not [one for one in said(pipe) if isinstance(one, Transfer)]


# who speaks what


def test_benches_and_devices_of_before_get_along(
    running: tuple[Device, Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old)
    offered = []
    for versions in ((1,), (2, 1), (3, 2), (0, 1)):
        other = device.copy()
        pipe = Pipe(other)
        monkeypatch.setattr("devguard.session.connect.PROTOCOL_VERSIONS", versions)
        if 1 in versions or 2 in versions:
            pipe.connect(grant(other))
            offered.append(pipe.ask(Offer(new.offer)).encodings)
    assert offered == [(), (1, 2), (1, 2), ()]
    monkeypatch.undo()
    monkeypatch.setattr("devguard.session.device_side.PROTOCOL_VERSIONS", (1,))  # a device that knows only the first
    session, _ = pushed(device, new, patch(old, new))
    assert session.sent == Sent("full", len(new.image))
    assert device.runs(new)


def test_the_device_answers_in_the_newest_version_both_speak() -> None:
    device = Device()
    for versions, answer in (((1,), 1), ((2, 1), 2), ((9, 2), 2), ((1, 7), 1)):
        pipe = Pipe(device)
        pipe.open()
        said_ = pipe.ask(Hello(versions), sealed=False)
        assert isinstance(said_, HelloReply)
        assert said_.version == answer


def test_a_resume_offset_past_what_is_sent_is_refused(running: tuple[Device, Build]) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old)
    session = update(device, new, forms=(patch(old, new),))
    accept = Accept(1, 4096, 4096, 0, bytes(32), (1, 2))
    script = session._send_encoded(session.forms[0], accept)
    next(script)
    script.send(None)
    with pytest.raises(RemoteProtocolError, match="past the end"):
        script.send(encode_message(Durable(len(session.forms[0].data) + 1)))


# hostile benches


def test_a_refused_transfer_leads_back_to_the_offer_and_only_there(running: tuple[Device, Build]) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old)
    pipe = Pipe(device)
    pipe.connect(grant(device))
    for wrong in (Transfer(9, 100, bytes(32)), Transfer(1, 0, bytes(32)), Transfer(1, 2**32 - 1, bytes(32))):
        assert isinstance(pipe.ask(Offer(new.offer)), Accept)
        before = snapshot(device)
        assert refusal(pipe.ask(wrong)) in ("device.transfer", "device.slot")
        assert pipe.state is State.AUTHORISED
        assert snapshot(device).all_but_log == before.all_but_log
    assert refusal(pipe.ask(Commit(new.manifest_digest))) == "session.order"
    assert pipe.state is State.CLOSED
    assert device.runs(old)


def test_a_patch_never_widens_what_was_accepted(running: tuple[Device, Build]) -> None:
    """The patch is good, and of a release that the device would take; it is not the one it accepted."""
    device, old = running[0].copy(), running[1]
    accepted, other = near(device, old), near(device, old, "1.2.0", 3)
    form = patch(old, other)
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert isinstance(pipe.ask(Offer(accepted.offer)), Accept)
    assert pipe.ask(Transfer(1, len(form.data), form.digest)) == Durable(0)
    pipe.ask(Data(0, form.data))
    assert refusal(pipe.ask(Commit(other.manifest_digest))) == "session.order"
    device = running[0].copy()
    pipe = Pipe(device)
    pipe.connect(grant(device))
    pipe.ask(Offer(accepted.offer))
    pipe.ask(Transfer(1, len(form.data), form.digest))
    pipe.ask(Data(0, form.data))
    assert refusal(pipe.ask(Commit(accepted.manifest_digest))) == "device.transfer"
    assert device.counters.pending is None
    assert device.runs(old)


def test_the_session_ends_after_five_refusals_of_any_kind(running: tuple[Device, Build]) -> None:
    device, old = running[0].copy(), running[1]
    new = near(device, old)
    pipe = Pipe(device)
    pipe.connect(grant(device))
    for _ in range(5):
        assert isinstance(pipe.ask(Offer(new.offer)), Accept)
        assert isinstance(pipe.ask(Transfer(9, 1, bytes(32))), RefusedReply)
    assert pipe.state is State.CLOSED


# the choice


ACCEPT = Accept(1, 16384, 4096, 0, b"s" * 32, (1, 2))
DELTA, SMALL_DELTA = Encoded(Encoding.DELTA, bytes(900), b"s" * 32), Encoded(Encoding.DELTA, bytes(500), b"o" * 32)
SQUEEZED = Encoded(Encoding.COMPRESSED, bytes(4000))


@pytest.mark.parametrize(
    ("accept", "size", "chosen"),
    [
        (ACCEPT, 10_000, DELTA),
        (replace(ACCEPT, encodings=(2,)), 10_000, SQUEEZED),
        (replace(ACCEPT, encodings=()), 10_000, None),
        (replace(ACCEPT, encodings=(7, 250)), 10_000, None),
        (replace(ACCEPT, source_digest=bytes(32)), 10_000, SQUEEZED),
        (replace(ACCEPT, source_digest=b"o" * 32), 10_000, SMALL_DELTA),
        (replace(ACCEPT, resume_offset=9_000), 10_000, None),
        (replace(ACCEPT, resume_offset=8_500), 10_000, DELTA),
        (replace(ACCEPT, resume_offset=10_000), 10_000, None),
        (ACCEPT, 1000, None),
    ],
)
def test_the_smallest_form_that_is_worth_it(accept: Accept, size: int, chosen: Encoded | None) -> None:
    assert choose(accept, size, (SQUEEZED, DELTA, SMALL_DELTA)) == chosen


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 12_000))
def test_what_is_chosen_is_always_less(size: int, resume: int, form: int) -> None:
    accept = replace(ACCEPT, resume_offset=min(resume, size))
    found = choose(accept, size, (Encoded(Encoding.COMPRESSED, bytes(form)),))
    assert found is None or len(found.data) < size - accept.resume_offset
