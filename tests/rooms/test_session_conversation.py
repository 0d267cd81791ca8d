"""The honest conversation, both sides joined: a push, a lost link, the report, and what an update is built from."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import Any

import pytest

from builders import NOW
from devguard.device.models import model_names
from devguard.errors import DevguardError, DeviceRefused, LinkError, LocalProtocolError, Refused, RemoteProtocolError
from devguard.session.approval import ApprovalRequest, sign_approval
from devguard.session.connect import expect, greet, identify
from devguard.session.report import read_report
from devguard.session.script import Receive
from devguard.session.update import DATA_CHUNK, UpdateSession, after_reboot, fetch_report
from devguard.session.verbs import (
    Accept,
    Data,
    Done,
    Durable,
    EdhocFailure,
    HelloReply,
    Offer,
    RefusedReply,
    Verb,
    decode_message,
    encode_message,
)
from devguard.verdict.judge import Target
from sim.bench import (
    PROGRAMMER,
    SERIAL,
    TESS,
    TOM,
    Build,
    Device,
    Pipe,
    bench_for,
    build,
    checked,
    grant,
    judged,
    push,
    small,
    update,
    vendor_of,
)
from sim.line import VirtualLine
from sim.state import snapshot


def approver(device: Device, *, after: int = 0) -> Any:
    """A second technician who says yes when asked for the `after`-th time more."""
    second, asked = grant(device, TOM), [after]

    def answer(request: ApprovalRequest) -> tuple[bytes, bytes] | None:
        asked[0] -= 1
        if asked[0] >= 0:
            return None
        return sign_approval(request, TOM.signer, hashlib.sha256(second.untagged).digest()), second.untagged

    return answer


def prepared(device: Device, what: Build, **fields: Any) -> UpdateSession:
    """An honest push, with a second technician where the model asks for one."""
    two = device.model.facts.technicians > 1
    return update(device, what, **({"approver": approver(device)} if two else {}) | fields)


@pytest.mark.parametrize("model", model_names())
@pytest.mark.parametrize("road", ["pipe", "line"])
def test_a_good_push_ends_in_a_confirmed_image_and_a_signed_report(model: str, road: str) -> None:
    device = Device(model=small(model))
    what, before = build(device, size=20_001), snapshot(device)
    session, shown = prepared(device, what), []
    session.progress = lambda done, total: shown.append((done, total))
    runner: Any = Pipe(device) if road == "pipe" else VirtualLine(device).runner()
    connected = runner.run(session.push())
    assert (connected.identity.serial, connected.identity.model) == (SERIAL, model)
    report, signed = runner.run(fetch_report(session.bench))
    after_reboot(session.release, report)
    assert (report.version, report.sequence, report.boot_state, report.confirmed) == ("1.1.0", 2, "confirmed", True)
    assert report.settings_before == report.settings_digest == before.therapy[0]
    assert report.log_head == device.counters.audit.head or road == "line"
    assert signed
    assert shown == sorted(shown)
    assert shown[-1] == (20_001, 20_001)
    assert device.runs(what)


@pytest.mark.parametrize("technician", [TESS, TOM], ids=["P-256", "Ed25519"])
def test_both_kinds_of_technician_keys_push(technician: Any) -> None:
    device = Device()
    push(device, build(device), technician=technician)
    assert device.runs(build(device))


def test_the_second_technician_may_take_their_time_but_not_for_ever() -> None:
    device = Device(model=small(PROGRAMMER))
    push(device, build(device), approver=approver(device, after=7))
    assert device.runs(build(device))
    device.fresh_hour()
    before = snapshot(device)
    with pytest.raises(Refused, match=r"grant\.quorum"):
        push(device, build(device, "1.2.0", 3), approver=lambda request: None)
    assert snapshot(device).all_but_log == before.all_but_log


def test_the_approver_is_asked_about_exactly_this_push() -> None:
    device, asked = Device(model=small(PROGRAMMER)), []
    what, one = build(device), grant(device)
    session = update(device, what, one, approver=lambda request: asked.append(request) or approver(device)(request))
    connected = Pipe(device).run(session.push())
    digest = hashlib.sha256(one.untagged).digest()
    assert asked == [ApprovalRequest(connected.session_id, SERIAL, what.manifest_digest, "update", digest, NOW + 540)]


def test_a_push_without_the_second_technician_is_refused_by_the_programmer() -> None:
    device = Device(model=small(PROGRAMMER))
    with pytest.raises(DeviceRefused, match=r"grant\.quorum"):
        push(device, build(device))


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut", [6, 7, 8])
def test_a_push_goes_on_where_the_lost_link_left_it(cut: int, reset: bool) -> None:
    device = Device()
    what, one = build(device, size=5 * DATA_CHUNK + 77), grant(device, max_uses=1)
    pipe = Pipe(device)
    pipe.cut_after = cut
    with pytest.raises(LinkError):
        pipe.run(update(device, what, one).push())
    arrived = sum(len(m.payload) for m in said(pipe) if isinstance(m, Data))
    if reset:
        device.power_cycle()
    second = Pipe(device)
    second.run(update(device, what, one).push())
    pieces = [message for message in said(second) if isinstance(message, Data)]
    assert pieces[0].offset == arrived // 256 * 256
    assert [piece.offset for piece in pieces[1:]] == [piece.offset + len(piece.payload) for piece in pieces[:-1]]
    assert sum(len(piece.payload) for piece in pieces) == len(what.image) - pieces[0].offset
    assert device.counters.spent[one.cti].uses == 1
    assert len(device.counters.erase_times) == 1
    assert device.runs(what)


def test_a_link_lost_between_commit_and_reboot_costs_no_byte_of_payload() -> None:
    device = Device()
    what, one = build(device), grant(device)
    pipe = Pipe(device)
    pipe.cut_after = 7  # hello, message_1, message_3, offer, two pieces, commit
    with pytest.raises(LinkError):
        pipe.run(update(device, what, one).push())
    second = Pipe(device)
    second.run(update(device, what, one).push())
    assert not [message for message in said(second) if isinstance(message, Data)]
    assert device.runs(what)


def said(pipe: Pipe) -> list[Any]:
    """What the bench said under the session's keys."""
    return [decode_message(message, sealed=True) for message, sealed in pipe.sent if sealed]


def test_the_report_is_for_this_challenge_and_this_device_alone() -> None:
    device = Device()
    session = prepared(device, build(device))
    pipe = Pipe(device)
    connected = pipe.run(session.push())
    _, signed = pipe.run(fetch_report(session.bench))
    key = connected.identity.key
    with pytest.raises(Refused, match=r"session\.replay"):
        read_report(signed, key=key, challenge=bytes(16), serial=SERIAL)
    with pytest.raises(DevguardError):
        read_report(signed, key=TESS.signer.key, challenge=bytes(16), serial=SERIAL)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"boot_state": "reverted"}, "device.self-test"),
        ({"confirmed": False}, "device.unconfirmed"),
        ({"manifest_digest": bytes(32)}, "image.digest"),
        ({"manifest_digest": None}, "image.digest"),
        ({"image_digest": bytes(32)}, "image.digest"),
        ({"settings_before": bytes(32)}, "device.state"),
    ],
)
def test_a_report_that_shows_anything_but_the_release_is_refused(change: dict[str, Any], code: str) -> None:
    device = Device()
    session = prepared(device, build(device))
    pipe = Pipe(device)
    pipe.run(session.push())
    report, _ = pipe.run(fetch_report(session.bench))
    after_reboot(session.release, report)
    with pytest.raises(DevguardError) as error:
        after_reboot(session.release, replace(report, **change))
    assert error.value.code == code


# -- what an update is built from ---------------------------------------------------------------------------------


def parts(device: Device, what: Build) -> dict[str, Any]:
    one = grant(device)
    return {
        "release": judged(device, what),
        "grant": checked(device, one),
        "bench": bench_for(device, one),
        "offer": what.offer,
        "payload": io.BytesIO(what.image),
    }


def test_an_update_needs_proof_of_release_and_of_grant() -> None:
    device = Device()
    what = build(device)
    good = parts(device, what)
    UpdateSession(**good)
    for name, wrong in (
        ("release", None),
        ("release", what.envelope),
        ("release", object()),
        ("grant", None),
        ("grant", grant(device)),
        ("grant", good["release"]),
    ):
        with pytest.raises(LocalProtocolError, match=r"session\.order"):
            UpdateSession(**{**good, name: wrong})


def test_an_update_of_an_image_nobody_measured_is_not_built() -> None:
    device = Device()
    what = build(device)
    unseen = judged(device, what, payload=None, target=Target(model=device.model.facts))
    assert not unseen.payload_checked
    with pytest.raises(LocalProtocolError, match="not measured"):
        UpdateSession(**{**parts(device, what), "release": unseen})


def test_an_update_the_grant_does_not_cover_is_not_built() -> None:
    device = Device()
    what = build(device)
    for fields in ({"any_release": False, "sequences": (7, 9)}, {"any_release": False, "release_digest": bytes(32)}):
        with pytest.raises(Refused, match=r"grant\.scope"):
            UpdateSession(**{**parts(device, what), "grant": checked(device, grant(device, **fields))})
    other = Device(model=small(PROGRAMMER))
    with pytest.raises(Refused, match=r"grant\.scope"):
        UpdateSession(**{**parts(device, what), "grant": checked(other, grant(other))})


def test_an_image_that_became_shorter_is_noticed_and_nothing_is_committed() -> None:
    device = Device()
    session = prepared(device, build(device))
    session.payload = io.BytesIO(build(device).image[:5000])
    with pytest.raises(Refused, match=r"file\.changed"):
        Pipe(device).run(session.push())
    assert device.runs(None)


# -- what the bench does not believe ------------------------------------------------------------------------------


def test_another_serial_than_the_one_asked_for_is_refused_before_the_grant_is_shown() -> None:
    device = Device()
    pipe = Pipe(device)
    with pytest.raises(Refused, match=r"device\.identity"):
        pipe.connect(grant(device), serial="SN-0002")
    assert len(pipe.sent) == 2


def test_a_device_nobody_enrolled_is_refused_before_the_grant_is_shown() -> None:
    device = Device()
    stranger = Device(seed="other")
    foreign = Device(vendor=vendor_of("mallory"))
    pipe = Pipe(foreign)
    with pytest.raises(Refused, match=r"key\.unknown"):
        pipe.connect(grant(device), trust=device.vendor.trust)
    assert len(pipe.sent) == 2
    identity, hello = Pipe(stranger).run(identify(bench_for(stranger, grant(stranger), signer=None, grant=None)))
    assert (identity.serial, hello.boot_state) == (SERIAL, "empty")


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [
        (RefusedReply("device.busy", "no", ""), DeviceRefused, "device.busy"),
        (RefusedReply("made.up", "no", "hint"), DeviceRefused, "made.up"),
        (Done(int(Verb.COMMIT)), RemoteProtocolError, "session.order"),
        (Durable(4), RemoteProtocolError, "session.order"),
    ],
)
def test_any_answer_but_the_awaited_one_is_an_error(reply: Any, error: type[DevguardError], code: str) -> None:
    with pytest.raises(error) as raised:
        expect(encode_message(reply), Accept, sealed=True)
    assert raised.value.code == code


def test_a_refusal_in_the_clear_keeps_its_code() -> None:
    with pytest.raises(DeviceRefused, match=r"device\.busy"):
        expect(encode_message(EdhocFailure(b"", "device.busy", "wait")), HelloReply, sealed=False)
    with pytest.raises(DeviceRefused, match=r"session\.handshake"):
        expect(encode_message(EdhocFailure(b"", "", "")), HelloReply, sealed=False)


def test_a_device_of_another_protocol_version_is_refused() -> None:
    script = greet()
    next(script)
    script.send(None)
    assert isinstance(script.send(None), Receive)
    with pytest.raises(RemoteProtocolError, match=r"link\.protocol"):
        script.send(encode_message(HelloReply(4, "confirmed", (3,), bytes(16))))


def test_a_resume_offset_past_the_end_is_refused() -> None:
    device = Device()
    what = build(device)
    session = prepared(device, what)
    script = session._offer()
    assert decode_message(next(script).message, sealed=True) == Offer(what.offer)
    script.send(None)
    with pytest.raises(RemoteProtocolError, match="past the end"):
        script.send(encode_message(Accept(1, 16_384, 4096, len(what.image) + 1, bytes(32))))


def test_a_refusal_in_the_middle_of_the_download_reaches_the_bench() -> None:
    device = Device()
    what = build(device, size=40_000)
    session = prepared(device, what)
    line = VirtualLine(device)
    line.faults = replace(line.faults, baud=115_200)
    skipped: list[int] = []

    class Skipping(io.BytesIO):
        def read(self, size: int = -1) -> bytes:  # a bench that loses bytes of its own: the device sees the end early
            skipped.append(size)
            return super().read(size) if len(skipped) != 2 else super().read(size)[:-1]

    session.payload = Skipping(what.image)
    with pytest.raises(DevguardError) as error:
        line.runner().run(session.push())
    assert error.value.code in ("image.digest", "file.changed", "image.size")
    assert device.runs(None)


def test_two_technicians_by_one_person_are_refused_where_they_stand() -> None:
    device = Device(model=small(PROGRAMMER))
    second = grant(device, TESS)

    def alone(request: ApprovalRequest) -> tuple[bytes, bytes]:
        return sign_approval(request, TESS.signer, hashlib.sha256(second.untagged).digest()), second.untagged

    with pytest.raises(DeviceRefused, match=r"grant\.quorum"):
        push(device, build(device), approver=alone)
