"""The programmer's two components over a conversation: pushed together, refused together, and each in the report."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from builders import make_envelope, make_image, measure_images, sign_envelope
from devguard import wire
from devguard.cose.sign import sign1
from devguard.device.models import Model
from devguard.errors import DeviceRefused, LinkError, Malformed, Refused
from devguard.session.report import TYP, Report, RunningPart, read_report, sign_report
from devguard.session.update import after_reboot, fetch_report
from devguard.session.verbs import Accept, Data, Offer
from sim.bench import (
    PROGRAMMER,
    TOM,
    Build,
    Device,
    Pipe,
    bench_for,
    build,
    grant,
    judged,
    push,
    small,
    update,
)
from sim.hostile import approve, refusal, refused_offer, send, with_old

MODEL = small(PROGRAMMER)
NAMES = MODEL.facts.components


def fresh() -> tuple[Device, Build]:
    return with_old(model=MODEL)


def session(device: Device, what: Build) -> Pipe:
    """A session in which both technicians have said yes to `what`."""
    pipe, one = Pipe(device), grant(device)
    approve(pipe, pipe.connect(one), device, what, one)
    return pipe


def yes(device: Device) -> Any:
    """The second technician, in this room."""
    from devguard.session.approval import sign_approval

    second = grant(device, TOM)
    digest = hashlib.sha256(second.untagged).digest()
    return lambda request: (sign_approval(request, TOM.signer, digest), second.untagged)


def other_components(components: tuple[str, ...], **fields: Any) -> Build:
    """A release signed by the device's vendor for its model, with other components than the model has."""
    device = Device(model=MODEL)
    facts = replace(MODEL.facts, components=components, image_capacity=2**66)
    images = {name: make_image(900, name) for name in components}
    envelope = make_envelope(images, model=facts, **{"version": "1.1.0", "sequence": 2, **fields})
    return Build(sign_envelope(envelope, device.vendor.release_signers), images, MODEL)


def running(device: Device) -> list[tuple[str, bytes, int]]:
    return [(one.id, one.digest, one.size) for one in device.node.state(bytes(16)).components]


def rows(what: Build) -> list[tuple[str, bytes, int]]:
    return [(name, hashlib.sha256(data).digest(), len(data)) for name, data in what.images.items()]


def test_a_push_changes_both_and_the_signed_report_shows_both() -> None:
    device, old = fresh()
    assert running(device) == rows(old)
    what, one = build(device), grant(device)
    pipe = push(device, what, one, approver=yes(device))
    report, _ = pipe.run(fetch_report(bench_for(device, one)))
    after_reboot(judged(device, what), report)
    assert report.image_digest == hashlib.sha256(what.image).digest()
    assert [(part.id, part.digest, part.size) for part in report.components] == rows(what)
    shown = report.to_json()["components"]
    assert shown == [
        {"id": name, "version": "1.1.0", "digest": digest.hex(), "size": size} for name, digest, size in rows(what)
    ]
    primary = MODEL.layout.primary.image
    assert bytes(device.backend.data[primary : primary + len(what.image)]) == what.image
    assert device.runs(what)


def test_a_lost_link_resumes_inside_the_second_component() -> None:
    device, old = fresh()
    what, one = build(device, size=70_000), grant(device, max_uses=1)
    first = len(what.images["application"])
    pipe = session(device, what)
    accept = pipe.ask(Offer(what.offer))
    assert isinstance(accept, Accept)
    for at in range(0, first + 9000, 4096):
        pipe.ask(Data(at, what.image[at : at + 4096]))
    pipe.lose()
    assert device.runs(old)
    assert first < device.node.loader.durable_offset() < len(what.image)
    push(device, what, one, approver=yes(device))
    assert device.runs(what)


@pytest.mark.parametrize("which", ["application", "telemetry", "order", "doubled", "shifted"])
def test_other_bytes_in_either_component_are_refused_and_both_stay(which: str) -> None:
    device, old = fresh()
    what = build(device)
    first, second = what.images.values()
    size = len(second)
    image = {
        "application": bytes([first[0] ^ 1]) + first[1:] + second,
        "telemetry": first + second[:-1] + bytes([second[-1] ^ 1]),
        "order": second + first,
        "doubled": first + first[:size],
        "shifted": first[1:] + second + b"\x00",
    }[which]
    pipe = session(device, what)
    assert refusal(send(pipe, what, image=image)) == "image.digest"
    assert device.runs(old)
    assert running(device) == rows(old)
    device.fresh_hour()
    push(device, what, approver=yes(device))
    assert device.runs(what)


def test_the_second_component_left_out_is_not_committed() -> None:
    device, old = fresh()
    what = build(device)
    pipe = session(device, what)
    answer = send(pipe, what, image=what.images["application"])
    assert refusal(answer) == "image.size"
    assert device.runs(old)
    pipe = session(device, what)
    assert refusal(send(pipe, what, image=what.image + b"x")) == "image.size"
    assert device.runs(old)


@pytest.mark.parametrize(
    "components",
    [
        ("application",),
        ("telemetry",),
        ("telemetry", "application"),
        ("application", "telemetry", "display"),
        ("application", "radio"),
    ],
)
def test_a_release_of_other_components_is_refused_before_anything_is_touched(components: tuple[str, ...]) -> None:
    device, _ = fresh()
    assert refused_offer(device, other_components(components)) == "release.components"


def test_a_release_that_fits_no_slot_together_is_refused() -> None:
    device, _ = fresh()
    room = MODEL.layout.image_capacity
    facts = replace(MODEL.facts, image_capacity=2**66)
    for sizes in ((room, 1), (1, room), (room // 2 + 1, room // 2)):
        images = {name: bytes(size) for name, size in zip(NAMES, sizes, strict=True)}
        envelope = make_envelope(images, model=facts, version="1.1.0", sequence=2)
        what = Build(sign_envelope(envelope, device.vendor.release_signers), images, MODEL)
        assert refused_offer(device, what) == "device.slot"


def test_a_component_under_the_digest_of_the_other_is_never_the_other() -> None:
    """Signed so by mistake: the telemetry module with the application's digest. Nothing else passes for it."""
    device, old = fresh()
    same = make_image(700, "same")
    envelope = make_envelope(same, model=MODEL.facts, version="1.1.0", sequence=2)
    what = Build(
        sign_envelope(envelope, device.vendor.release_signers),
        {"application": same, "telemetry": make_image(700, "telemetry")},
        MODEL,
    )
    assert refusal(send(session(device, what), what)) == "image.digest"
    assert device.runs(old)
    with pytest.raises(Refused, match=r"image\.digest"):
        judged(device, what)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_component_found_at_boot_takes_both_back(name: str) -> None:
    device, old = fresh()
    what = build(device)
    push(device, what, approver=yes(device))
    start = MODEL.layout.primary.image + (0 if name == NAMES[0] else len(what.images[NAMES[0]]))
    device.backend.data[start + 5] ^= 0x10
    device.power_cycle()
    assert device.node.state(bytes(16)).boot_state == "fallback"
    assert running(device) == rows(old)


def test_a_failed_self_test_takes_both_back() -> None:
    device, old = fresh()
    device.self_test = lambda: False
    what, one = build(device), grant(device)
    pipe = push(device, what, one, approver=yes(device))
    report, _ = pipe.run(fetch_report(bench_for(device, one)))
    with pytest.raises(DeviceRefused, match=r"device\.self-test"):
        after_reboot(judged(device, what), report)
    assert running(device) == rows(old)


def test_an_image_sealed_before_the_model_had_two_components_boots_under_a_flag() -> None:
    """Incomplete releases stop at installation, never at boot: a therapy device that does not start is worse."""
    before: Model = replace(MODEL, facts=replace(MODEL.facts, components=NAMES[:1]))
    device, old = with_old(model=before)
    device.model = MODEL
    device.power_cycle()
    state = device.node.state(bytes(16))
    assert (state.manifest_digest, state.confirmed) == (old.manifest_digest, True)
    assert state.flags == ("release.components",)
    push(device, build(device), approver=yes(device))
    assert device.runs(build(device))
    assert device.node.state(bytes(16)).flags == ()


def test_a_required_part_that_the_device_cannot_name_is_refused() -> None:
    """A requirement nobody can answer is not met."""
    from devguard.manifest.description import Requires

    device, _ = fresh()
    facts = replace(MODEL.facts, fixed=("display",))
    images = {name: make_image(900, name) for name in NAMES}
    fields = {"version": "1.1.0", "sequence": 2, "requires": Requires(None, {"display": "0.0.1"})}
    envelope = make_envelope(images, model=facts, **fields)
    what = Build(sign_envelope(envelope, device.vendor.release_signers), images, MODEL)
    assert refused_offer(device, what) == "version.requires"


# the report


def reported(device: Device) -> Report:
    return device.node.state(bytes(16))


def read(device: Device, data: bytes) -> Report:
    return read_report(data, key=device.identity.signer.key, challenge=bytes(16), serial=device.serial)


def test_a_report_of_one_component_is_what_it_was() -> None:
    device, _ = with_old()
    report = replace(reported(device), history_before=None)  # a place that benches of before are not told
    assert report.components == ()
    data = sign_report(report, device.identity.signer)
    assert len(wire.decode(_payload(data))) == 21
    assert read(device, data) == report
    assert report.to_json()["components"] == []


def _payload(data: bytes) -> bytes:
    from devguard.cose.sign import read_sign1

    found = read_sign1(data).payload
    assert found is not None
    return found


@pytest.mark.parametrize(
    "components",
    [
        [],
        [["application", bytes(32), 1]],
        [["application", bytes(32), 1], ["application", bytes(32), 1]],
        [["application", bytes(32), 1], ["telemetry", bytes(32), 0]],
        [["application", bytes(32), 1], ["telemetry", bytes(32), True]],
        [["application", bytes(32), 1], ["telemetry", "x", 1]],
        [["application", bytes(32), 1], ["telemetry", bytes(32)]],
        [["application", bytes(32), 1], ["tele\nmetry", bytes(32), 1]],
        [["application", bytes(32), 1], "telemetry"],
        [[str(number), bytes(32), 1] for number in range(17)],
        None,
        "two",
    ],
)
def test_a_report_whose_components_are_not_several_different_ones_is_malformed(components: object) -> None:
    device, _ = fresh()
    *items, history = wire.decode(_payload(sign_report(reported(device), device.identity.signer)))
    assert len(items) == 22
    assert len(history) == 32
    wrong = ([*items[:21], components], [*items, components], [*items[:21], components, history])
    for row in (*wrong, [*items, history[:31]], [*items, history, history], [*items, history, components]):
        data = sign1(device.identity.signer, wire.encode(row), typ=TYP).encode()
        with pytest.raises(Malformed):
            read(device, data)


def test_a_report_of_the_right_whole_and_a_wrong_component_is_not_the_release() -> None:
    device, _ = fresh()
    what = build(device)
    push(device, what, approver=yes(device))
    release, good = judged(device, what), reported(device)
    after_reboot(release, good)
    first, second = good.components
    for components in (
        (),
        (second, first),
        (first, replace(second, digest=first.digest)),
        (first, RunningPart("radio", second.digest, second.size)),
        (replace(first, size=first.size + 1), second),
    ):
        with pytest.raises(Refused, match=r"image\.digest"):
            after_reboot(release, replace(good, components=components))


def test_a_release_whose_images_were_not_measured_is_not_pushed() -> None:
    device = Device(model=MODEL)
    what = build(device)
    partly: Mapping[str, bytes] = {"application": what.images["application"]}
    with pytest.raises(Refused, match=r"image\.digest"):
        judged(device, what, payload=measure_images(partly))
    session = update(device, what, approver=yes(device))
    session.payload = io.BytesIO(what.images["application"])
    with pytest.raises(Refused, match=r"file\.changed"):
        Pipe(device).run(session.push())
    assert device.runs(None)


def test_a_cut_between_the_components_changes_neither() -> None:
    device, old = fresh()
    what, one = build(device, size=30_000), grant(device, max_uses=1)
    for cut in (5, 6, 7):
        pipe = Pipe(device)
        pipe.cut_after = cut
        with pytest.raises(LinkError):
            pipe.run(update(device, what, one, approver=yes(device)).push())
        assert device.runs(old)
        assert running(device) == rows(old)


def test_the_bootloader_asks_whether_the_slot_s_list_is_the_signed_one() -> None:
    device, _ = fresh()
    what = build(device)
    push(device, what, approver=yes(device))
    header = device.counters.sealed
    assert header is not None
    device.node._judge_slot(header, what.offer)
    first, second = header.parts
    single = replace(header, parts=())
    for other in (
        single,
        replace(header, parts=(second, first)),
        replace(header, parts=(first, replace(second, digest=first.digest))),
        replace(header, parts=(replace(first, size=first.size - 1), replace(second, size=second.size + 1))),
        replace(header, parts=(first, replace(second, id="radio"))),
    ):
        with pytest.raises(Refused, match=r"image\.digest"):
            device.node._judge_slot(other, what.offer)
