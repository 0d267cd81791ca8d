"""SMP messages, answers, images and uploads: what is taken, and everything a device can say that is not.

Invariant: bytes of an answer give a value of the right type, or one of devguard's own errors, in bounded time.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import itertools
import random
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("smp", reason="the extra `smp` is not installed")

from devguard import wire
from devguard.device.models import load_model
from devguard.errors import DevguardError, DeviceRefused, LocalProtocolError, Malformed, Refused, RemoteProtocolError
from devguard.grant.check import DeviceView
from devguard.manifest.model import Clock
from devguard.session import smp_requests as requests
from devguard.session.approval import sign_approval
from devguard.session.smp_answers import Parameters, parameters, slot_states, taken
from devguard.session.smp_cbor import decode_map
from devguard.session.smp_frame import (
    Group,
    Header,
    ImageCommand,
    Message,
    Operation,
    OsCommand,
    Request,
    read_header,
    read_message,
)
from devguard.session.smp_image import judged_images
from devguard.session.smp_proof import TYP, Statement, approval_request, check_second
from devguard.session.smp_standing import Standing
from devguard.session.smp_update import SmpUpdate, survey, version_of
from devguard.session.smp_upload import MAX_BACKWARD, MAX_IDLE, Upload, Window
from devguard.verdict.judge import Target, judge
from rooms.grant_support import TESS, TOM
from rooms.smp_support import (
    DUAL,
    LEGACY,
    NOW,
    SERIAL,
    VENDOR,
    envelope_of,
    grant_for,
    image_hash,
    judged,
    legacy,
    line_to,
    mcuboot,
    push,
    release_of,
)

STATE = [
    {"slot": 0, "version": "1.0.0", "hash": bytes(32), "active": True, "confirmed": True},
    {"slot": 1, "version": "1.1.0.7", "hash": b"\x01" * 32, "pending": True},
]
GOOD: dict[str, tuple[Any, dict[str, Any]]] = {
    "parameters": (parameters, {"buf_size": 384, "buf_count": 4}),
    "state": (slot_states, {"images": STATE, "splitStatus": 0}),
    "taken": (taken, {"off": 900, "match": True, "rc": 0}),
    "refused": (taken, {"err": {"group": 1, "rc": 9}}),
}


def answer(values: Any, group: int = 1, command: int = 1) -> Message:
    return Message(Header(Operation.WRITE_ANSWER, 1, 0, group, 0, command), values)


def frame(body: bytes) -> bytes:
    return Header(Operation.READ_ANSWER, 1, len(body), 1, 7, 0).encode() + body


def read(reader: Any, data: bytes) -> Any:
    return reader(read_message(data))


# messages


def test_requests_are_what_smp_servers_expect() -> None:
    asked = requests.go_on_upload(300, b"abc").frame(9)
    header = read_header(asked)
    assert (header.operation, header.version, header.group, header.command, header.sequence) == (2, 1, 1, 1, 9)
    assert cbor2.loads(asked[8:]) == {"off": 300, "data": b"abc"}
    first = requests.begin_upload(1, 3, bytes(32), b"abc")
    assert first.slow
    assert cbor2.loads(first.body) == {"off": 0, "data": b"abc", "image": 1, "len": 3, "sha": bytes(32)}
    assert cbor2.loads(requests.try_image(bytes(32)).body) == {"hash": bytes(32), "confirm": False}
    assert cbor2.loads(requests.confirm_image(bytes(32)).body) == {"hash": bytes(32), "confirm": True}
    assert requests.reset().frame(0)[:8] == bytes((10, 0, 0, 1, 0, 0, 0, OsCommand.RESET))
    assert requests.image_state().asks(Header(Operation.READ_ANSWER, 0, 0, Group.IMAGE, 3, ImageCommand.STATE))
    assert not requests.image_state().asks(Header(Operation.WRITE_ANSWER, 0, 0, Group.IMAGE, 3, ImageCommand.STATE))
    with pytest.raises(LocalProtocolError):
        Request(Operation.WRITE, 1, 1, bytes(70_000)).frame(0)


def test_bodies_as_zephyr_writes_them_are_read() -> None:
    """The answer of a real server: indefinite maps and lists."""
    body = bytes.fromhex("bf66696d616765739fbf64736c6f74006776657273696f6e65302e302e30ffff6b73706c697453746174757300ff")
    assert decode_map(body) == {"images": [{"slot": 0, "version": "0.0.0"}], "splitStatus": 0}
    assert decode_map(bytes.fromhex("a161645f42616242ffffff")) == {"d": b"ab\xff\xff"}
    assert decode_map(bytes.fromhex("a161747f61616162ff")) == {"t": "ab"}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "80",
        "00",
        "a0" + "00",
        "ff",
        "bf",
        "bfff00",
        "bf6161ff",
        "a1ff00",
        "a1010203",
        "a10102",
        "a2616101616102",
        "bf616101616102ff",
        "a2616101780161" + "02",  # the same key with a longer head
        "bf6161017f6161ff02ff",  # and in pieces
        "a16161a201010102",
        "a16161a201f5f501",
        "a1780161" + "01",
        "a16161c100",
        "a16161fb7ff0000000000000",
        "a16161c4821b7fffffffffffffff01",
        "a161615bffffffffffffffff",
        "a161615b7fffffffffffffff",
        "a161619bffffffffffffffff",
        "a16161bbffffffffffffffff",
        "bbffffffffffffffff",
        "a161615f5f4161ffff",
        "a161615f6161ff",
        "a161615f4161",
        "a161617fc0ff",
        "a16161f7",
        "a16161f818",
        "a161611c",
        "a161629f",
    ],
)
def test_bodies_that_are_none(body: str) -> None:
    with pytest.raises(Malformed) as refused:
        decode_map(bytes.fromhex(body))
    assert refused.value.code == "smp.malformed"


@pytest.mark.parametrize("opening", [b"\x81", b"\x9f", b"\xa1\x61a", b"\xbf\x61a", b"\xc1"])
def test_a_body_nested_ten_thousand_times(opening: bytes) -> None:
    with pytest.raises(Malformed):
        decode_map(b"\xa1\x61a" + opening * 10_000 + b"\x00")
    with pytest.raises(Malformed):
        decode_map(b"\xbf" + b"".join(b"\x19%c%c\x00" % divmod(n, 256) for n in range(16_000)) + b"\xff")


MAPS = st.dictionaries(
    st.text(max_size=30),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.binary(max_size=40)
        | st.text(max_size=40),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=6,
)


def indefinite(value: Any) -> bytes:
    """Without a length wherever CBOR can do without, except in keys: as Zephyr writes, and more."""
    if isinstance(value, dict):
        return b"\xbf" + b"".join(wire.encode(key) + indefinite(item) for key, item in value.items()) + b"\xff"
    if isinstance(value, list):
        return b"\x9f" + b"".join(map(indefinite, value)) + b"\xff"
    if isinstance(value, bytes):
        return b"\x5f" + b"".join(wire.encode(value[at : at + 7]) for at in range(0, len(value), 7)) + b"\xff"
    return wire.encode(value)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth_of, inner), default=0) if isinstance(value, dict | list) else 0


@given(MAPS)
@settings(max_examples=40)
def test_maps_are_read_as_they_were_written_in_either_form(value: dict[str, Any]) -> None:
    for body in (wire.encode(value), indefinite(value)):
        if depth_of(value) <= 8:
            assert decode_map(body) == value
        else:
            with pytest.raises(Malformed):
                decode_map(body)
        for end in range(0, len(body), 1 + len(body) // 5):
            with pytest.raises(Malformed):
                decode_map(body[:end])


def test_headers_that_are_none() -> None:
    good = frame(wire.encode({}))
    read_message(good)
    for data in (
        good[:7],
        b"",
        b"\x04" + good[1:],
        b"\x1a" + good[1:],
        good + b"\x00",
        good[:2] + b"\xff\xff" + good[4:],
    ):
        with pytest.raises(Malformed):
            read_message(data)


# answers


def test_answers_mean_what_they_say() -> None:
    assert parameters(answer({"buf_size": 384, "buf_count": 4})) == Parameters(384, 4)
    running, other = slot_states(answer({"images": [{**STATE[0], "vendor": "x"}, STATE[1]]}))
    assert (running.active, running.confirmed, running.pending, running.image) == (True, True, False, 0)
    assert (other.version, other.pending, other.hash) == ("1.1.0.7", True, b"\x01" * 32)
    assert slot_states(answer({"images": [{"slot": 0}]}))[0].hash is None
    assert taken(answer({"off": 7})).offset == 7


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rc": 11}, "eaccessdenied (rc 11)"),
        ({"rc": 8, "rsn": "no"}, "enotsup (rc 8): 'no'"),
        ({"err": {"group": 1, "rc": 9}}, "no free slot (group 1, rc 9)"),
        ({"err": {"group": 64, "rc": 3}}, "does not know (group 64, rc 3)"),
        ({"rc": 4000}, "does not know (rc 4000)"),
    ],
)
def test_a_devices_no_is_kept_as_it_is(values: dict[str, Any], named: str) -> None:
    for reader in (parameters, slot_states, taken):
        with pytest.raises(DeviceRefused, match=r".") as refused:
            reader(answer(values))
        assert refused.value.code == "smp.refused"
        assert named in refused.value.message


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"images": None},
        {"images": {}},
        {"images": [3]},
        {"images": [{}]},
        {"images": [{"slot": 0}] * 33},
        {"images": [{"slot": 0}, {"slot": 0}]},
        {"images": [{"slot": 0, "active": True}, {"slot": 1, "active": True}]},
        {"images": [{"slot": 16}]},
        {"images": [{"slot": -1}]},
        {"images": [{"slot": True}]},
        {"images": [{"slot": 1 << 63}]},
        {"images": [{"slot": 0, "image": 99}]},
        {"images": [{"slot": 0, "hash": b"short"}]},
        {"images": [{"slot": 0, "hash": "a" * 32}]},
        {"images": [{"slot": 0, "hash": bytes(60_000)}]},
        {"images": [{"slot": 0, "version": 1}]},
        {"images": [{"slot": 0, "version": "1" * 49}]},
        {"images": [{"slot": 0, "version": "1.0\x1b[2J"}]},
        {"images": [{"slot": 0, "active": 1}]},
        {"off": None},
        {"off": -1},
        {"off": 1 << 32},
        {"off": 1 << 63},
        {"off": True},
        {"off": 1, "match": 1},
        {"buf_size": -1, "buf_count": 1},
        {"buf_size": 1, "buf_count": "4"},
        {"err": 3},
        {"err": {}},
        {"err": {"group": "a", "rc": 3}},
        {"rc": -1},
        {"rc": "11"},
        {"rc": 1 << 40},
    ],
)
def test_answers_of_another_form(values: dict[str, Any]) -> None:
    for reader in (parameters, slot_states, taken):
        with pytest.raises(RemoteProtocolError) as refused:
            reader(answer(values))
        assert refused.value.code == "smp.malformed"


def mutations(count: int, seed: int) -> None:
    """Frames of good answers with bytes changed, cut out, doubled or put in."""
    chances = random.Random(seed)
    codes = set()
    for number in range(count):
        reader, values = GOOD[list(GOOD)[number % len(GOOD)]]
        data = bytearray(frame(wire.encode(values)))
        for _ in range(chances.randint(1, 4)):
            at = chances.randrange(len(data)) if data else 0
            what = chances.randrange(4)
            if what == 0 and data:
                data[at] = chances.randrange(256)
            elif what == 1:
                del data[at : at + chances.randint(1, 8)]
            elif what == 2:
                data[at:at] = data[at : at + chances.randint(1, 8)]
            else:
                data[at:at] = chances.randbytes(chances.randint(1, 8))
        try:
            read(reader, bytes(data))
        except DevguardError as error:
            codes.add(error.code)
    assert codes == {"smp.malformed", "smp.refused"}


def test_mutated_answers() -> None:
    mutations(800, 4)


@pytest.mark.slow
def test_many_mutated_answers() -> None:
    mutations(40_000, 5)


@pytest.mark.parametrize("name", GOOD)
def test_answers_cut_at_every_byte(name: str) -> None:
    reader, values = GOOD[name]
    whole = wire.encode(values)
    for end in range(len(whole)):
        with pytest.raises(Malformed):
            read(reader, frame(whole[:end]))


@given(st.binary(max_size=120))
def test_garbage_is_never_anything_but_our_own_error(data: bytes) -> None:
    for reader in (parameters, slot_states, taken):
        for one in (data, frame(data)):
            with contextlib.suppress(Malformed, RemoteProtocolError, DeviceRefused):
                read(reader, one)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1.2.3", (1, 2, 3, 0)),
        ("1.2.3.4", (1, 2, 3, 4)),
        ("1.2.3+4", (1, 2, 3, 4)),
        ("", None),
        ("1.2", None),
        ("1.2.x", None),
        ("1.2.3.4.5", None),
        ("1.2.²", None),
        ("1.2." + "9" * 11, None),
    ],
)
def test_versions_of_devices(text: str, found: object) -> None:
    assert version_of(text) == found


# images


def test_judged_images_have_the_hash_a_device_will_name() -> None:
    image = mcuboot(1000, (1, 2, 3, 4))
    [one] = judged(release_of({"application": image}), {"application": image})
    assert (one.hash, one.version, one.number, one.encrypted) == (image_hash(image), (1, 2, 3, 4), 0, False)
    assert one.read(1000, 5000) == image[1000:]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("neg_body_bitflip", "image.digest"),
        ("neg_version_tampered", "image.digest"),
        ("neg_seccnt_tampered", "image.digest"),
        ("neg_no_hash_tlv", "image.format"),
        ("neg_truncated_tlv", "image.format"),
        ("neg_img_size_overflow", "image.format"),
        ("neg_header_only", "image.format"),
    ],
)
def test_images_that_no_bootloader_would_start_are_not_pushed(vectors: Path, name: str, code: str) -> None:
    image = {"application": (vectors / "mcuboot" / "images" / f"{name}.bin").read_bytes()}
    with pytest.raises(DevguardError) as refused:
        judged(release_of(image), image)
    assert refused.value.code == code


def test_several_images_are_numbered_in_the_releases_order() -> None:
    both = {"application": mcuboot(100), "radio": mcuboot(200)}
    release = release_of(both, DUAL)
    found = judged_images(release, {name: io.BytesIO(data) for name, data in both.items()}, 1)
    assert [(one.number, one.component, one.size) for one in found] == [
        (1, "application", len(both["application"])),
        (2, "radio", len(both["radio"])),
    ]
    with pytest.raises(Refused, match="no image 16"):
        judged_images(release, {}, 15)


def test_an_encrypted_image_is_known_by_the_hash_it_states() -> None:
    image = mcuboot(100, flags=0x4, digest=b"\x07" * 32, tlvs=[(0x33, bytes(80))])
    [one] = judged(release_of({"application": image}), {"application": image})
    assert (one.encrypted, one.hash) == (True, b"\x07" * 32)


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"no firmware at all, only forty-odd bytes of text", "image.format"),
        (mcuboot()[:-1], "image.format"),
        (mcuboot(tlvs=[(0x11, bytes(48))]), "image.format"),
        (mcuboot() + b"\xff" * 64 + b"x", "image.trailing"),
        (
            mcuboot() + b"\xff" * 64 + b"\x01" + b"\xff" * 7 + bytes.fromhex("77c295f360d2ef7f3552500f2cb67980"),
            "image.trailing",
        ),
    ],
)
def test_images_that_an_mcumgr_device_is_not_sent(image: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        judged(release_of({"application": image}), {"application": image})
    assert refused.value.code == code


def test_an_image_whose_hash_is_not_its_own_or_whose_bytes_are_not_the_judged() -> None:
    image = mcuboot(digest=bytes(32))
    with pytest.raises(DevguardError) as refused:
        judged(release_of({"application": image}), {"application": image})
    assert refused.value.code == "image.digest"
    good, other = mcuboot(seed="a"), mcuboot(seed="b")
    with pytest.raises(Refused, match="not the one that was judged"):
        judged(release_of({"application": good}), {"application": other})


# proof


def test_an_update_needs_proof_of_release_and_grant() -> None:
    image = {"application": mcuboot(100)}
    release, grant = release_of(image), grant_for()
    images = judged(release, image)
    with pytest.raises(LocalProtocolError):
        SmpUpdate(object(), grant, images, lambda: NOW)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError):
        SmpUpdate(release, object(), images, lambda: NOW)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError):
        SmpUpdate(release, grant, (), lambda: NOW)
    with pytest.raises(Refused) as refused:
        SmpUpdate(release, grant, images, lambda: NOW, technicians=2)
    assert refused.value.code == "grant.quorum"
    with pytest.raises(Refused) as refused:
        SmpUpdate(release, grant, images, lambda: NOW, second=grant, technicians=2)
    assert refused.value.code == "grant.quorum"
    other = release_of({"application": mcuboot(100), "radio": mcuboot(100)}, DUAL)
    with pytest.raises((Refused, LocalProtocolError)):
        SmpUpdate(other, grant, images, lambda: NOW)


def test_an_update_needs_grants_for_this_very_release() -> None:
    image = {"application": mcuboot(100)}
    release = release_of(image)
    images = judged(release, image)
    tom = {"holder": TOM.key, "subject": "Tom Technician", "cti": b"another-token-id"}
    SmpUpdate(release, grant_for(release=release.manifest_digest), images, lambda: NOW, second=grant_for(**tom))
    for grants in (
        (grant_for(release=bytes(32)), None),
        (grant_for(), grant_for(release=bytes(32), **tom)),
        (grant_for(), grant_for()),
    ):
        with pytest.raises(Refused) as refused:
            SmpUpdate(release, grants[0], images, lambda: NOW, second=grants[1])
        assert refused.value.code in ("grant.scope", "grant.quorum")


def test_an_update_needs_an_image_that_was_measured() -> None:
    image = {"application": mcuboot(100)}
    release = release_of(image)
    unseen = judge(
        envelope_of(image), trust=VENDOR.trust, now=NOW, target=Target(model=load_model(LEGACY).facts), payload=None
    ).require()
    with pytest.raises(LocalProtocolError, match="not measured"):
        SmpUpdate(unseen, grant_for(), judged(release, image), lambda: NOW)


@pytest.mark.parametrize(
    ("boots", "left", "running"), [(0, Standing.UPLOADING, "1.0.0"), (1, Standing.ON_TRIAL, "1.1.0")]
)
def test_a_grant_that_runs_out_ends_the_push_before_the_next_step(boots: int, left: Standing, running: str) -> None:
    """Good when the push begins; over when the image is there, or when it runs on trial."""
    image = {"application": mcuboot(2000)}
    release, device = release_of(image), legacy()
    line = line_to(device)
    slots = device.images[0]
    update = SmpUpdate(release, grant_for(), judged(release, image), lambda: NOW)
    update.clock = lambda: NOW + 9 * 3600 if line.resets == boots and update.sent else NOW
    runner = line.runner()
    with pytest.raises(Refused) as refused:
        runner.run(update.push(runner.run(survey())))
    assert (refused.value.code, update.standing, line.resets) == ("grant.expired", left, boots)
    assert not slots.pending
    assert (slots.image(0) or pytest.fail("nothing runs")).version_text == running
    device.boot()
    assert (slots.image(0) or pytest.fail("nothing runs")).version_text == "1.0.0"


def test_the_second_technician_approves_this_very_push() -> None:
    release, first = release_of({"application": mcuboot(100)}), grant_for()
    request = approval_request(release, first, bytes(32), NOW)

    def approved(signer: Any = TOM, asked: Any = request, **fields: Any) -> Any:
        given = {"holder": signer.key, "subject": "Tom Technician", "cti": b"another-token-id", **fields}
        second = grant_for(**given)
        digest = hashlib.sha256(second.grant.untagged).digest()
        answer = sign_approval(asked, signer, digest), second.grant.untagged
        view = DeviceView(model=LEGACY, serial=SERIAL, site=None, clock=Clock.RTC, epoch=3, nonces=None)
        return check_second(answer, request, first=first, release=release, trust=VENDOR.trust, view=view, now=NOW)

    assert approved().grant.subject == "Tom Technician"
    other = approval_request(release, first, b"\x01" * 32, NOW)
    for wrong in (
        {"asked": other},
        {"release": bytes(32)},
        {"subject": "Tess Technician"},
        {"signer": TESS},
        {"holder": TESS.key},
    ):
        with pytest.raises(DevguardError) as refused:
            approved(**wrong)
        assert refused.value.code.partition(".")[0] in ("grant", "signature")


def test_the_statement_is_signed_by_the_grants_key_and_no_other() -> None:
    from devguard.cose.sign import read_sign1

    grant = grant_for()
    statement = Statement(bytes(32), "ML-0001", bytes(32), ((0, bytes(32)),), bytes(32), NOW)
    signed = statement.sign(TESS, grant)
    payload = wire.decode(read_sign1(signed, code="grant.malformed").verify(TESS.key, typ=TYP))
    assert payload == [1, bytes(32), "ML-0001", bytes(32), [[0, bytes(32)]], bytes(32), NOW]
    with pytest.raises(Refused) as refused:
        statement.sign(TOM, grant)
    assert refused.value.code == "grant.holder"


# uploads


def upload(size: int = 3000, message: int = 400, messages: int = 1) -> Upload:
    image = {"application": mcuboot(size - 72)}
    [one] = judged(release_of(image), image)
    return Upload(one, Window(message, messages), lambda _done, _whole: None)


def said(offset: int, **more: Any) -> Message:
    return answer({"off": offset, **more})


def body(request: Request | None) -> dict[str, Any]:
    assert request is not None
    return decode_map(request.body)


def test_windows_come_from_the_devices_parameters() -> None:
    assert Window.of(None) == Window(252, 1)
    assert Window.of(Parameters(384, 4)) == Window(380, 4)
    assert Window.of(Parameters((1 << 32) - 1, 1 << 31)) == Window(4092, 8)
    for small in (Parameters(0, 4), Parameters(79, 4), Parameters(384, 0)):
        with pytest.raises(RemoteProtocolError):
            Window.of(small)


def test_pieces_fill_the_buffer_and_end_where_flash_can_be_written() -> None:
    one = upload()
    first = body(one.next())
    assert (first["off"], first["len"], len(first["data"])) == (0, 3000, 64)
    assert len(first["sha"]) == 32
    one.sending(1)
    assert one.next() is None
    one.answered(1, said(64))
    request = one.next()
    assert request is not None
    piece = body(request)
    assert set(piece) == {"off", "data"}
    assert 400 - 32 < 8 + len(request.body) <= 400
    assert len(piece["data"]) % 16 == 0


@pytest.mark.parametrize("size", [80, 92, 96, 128])
def test_small_buffers_get_a_first_piece_without_a_name(size: int) -> None:
    one = upload(message=Window.of(Parameters(size, 1)).message)
    request = one.next()
    assert request is not None
    assert ("sha" in body(request)) == (size >= 128)
    assert len(body(request)["data"]) >= 32
    assert 8 + len(request.body) <= size - 4


def test_the_devices_offset_is_the_truth() -> None:
    one = upload(messages=4)
    one.next()
    one.sending(1)
    one.answered(1, said(1600))  # it had that from another time
    assert (one.resumed, one.acked) == (1600, 1600)
    assert body(one.next())["off"] == 1600
    one.sending(2)
    one.answered(2, said(1616))  # it takes less than was sent
    assert body(one.next())["off"] == 1616
    one.sending(3)
    one.answered(3, said(0))  # it was reset
    restarted = body(one.next())
    assert (restarted["off"], "sha" in restarted) == (0, True)


def test_late_answers_undo_what_the_losses_did() -> None:
    one = upload(message=1000)
    one.next()
    one.sending(1)
    one.answered(1, said(64))
    long = len(body(one.next())["data"])
    one.sending(2)
    one.lost(2)
    assert len(body(one.next())["data"]) == long
    one.sending(3)
    one.lost(3)
    assert len(body(one.next())["data"]) < long
    one.sending(4)
    assert one.waits_for(2)
    one.answered(2, said(64 + long))
    assert len(body(one.next())["data"]) == long
    assert not one.waits_for(2)


def test_a_busy_device_is_asked_again_and_an_error_is_one() -> None:
    one = upload()
    one.next()
    one.sending(1)
    one.answered(1, answer({"rc": 10}))
    assert not one.done
    one.next()
    one.sending(2)
    with pytest.raises(DeviceRefused):
        one.answered(2, answer({"rc": 11}))


@pytest.mark.parametrize(
    ("offset", "code"), [(2500, "image.digest"), (3001, "smp.malformed"), (1 << 31, "smp.malformed")]
)
def test_bytes_that_nobody_sent(offset: int, code: str) -> None:
    one = upload()
    one.next()
    one.sending(1)
    one.answered(1, said(64))
    one.next()
    one.sending(2)
    with pytest.raises(DevguardError) as refused:
        one.answered(2, said(offset))
    assert refused.value.code == code


def test_a_device_gets_on_by_shares_of_the_image() -> None:
    one = upload(size=3000, message=400)
    assert not one.gets_on()
    for number, offset in enumerate((64, 128, 150, 180, 192, 0), start=1):
        if one.next() is not None:
            one.sending(number)
        one.answered(number, said(offset))
        assert one.gets_on() == (offset in (64, 128, 192, 0))
    assert not one.gets_on()


def test_a_device_that_never_gets_on_is_given_up() -> None:
    for step, most in ((0, MAX_IDLE + 2), (16, 4 * MAX_BACKWARD + 8)):
        one = upload()
        with pytest.raises(RemoteProtocolError) as refused:
            for number in range(1, most + 1):
                if one.next() is not None:
                    one.sending(number)
                one.answered(number, said(64 + (number % 2) * step))
        assert refused.value.code == "smp.malformed"


def test_a_device_that_says_the_bytes_are_other_ones() -> None:
    one = upload(size=100)
    one.next()
    one.sending(1)
    with pytest.raises(Refused) as refused:
        one.answered(1, said(100, match=False))
    assert refused.value.code == "image.digest"


def test_the_last_answer_lost_leaves_it_to_the_slot() -> None:
    one = upload(size=100)
    one.next()
    one.sending(1)
    one.answered(1, said(64))
    one.next()
    one.sending(2)
    one.lost(2)
    one.next()
    one.sending(3)
    one.answered(3, said(0))
    assert one.done
    assert one.unsure


class Server:
    """Takes the next byte only, and forgets an upload that is complete, as Zephyr's does."""

    def __init__(self, size: int) -> None:
        self.size, self.held, self.whole = size, bytearray(), b""

    def serve(self, request: Request) -> int:
        piece = body(request)
        if piece["off"] == len(self.held) and (self.held or "len" in piece):
            self.held += piece["data"]
        offset = len(self.held)
        if offset == self.size:
            self.whole = bytes(self.held)
            self.held.clear()
        return offset


@given(
    st.lists(st.sampled_from(["ok", "ok", "ok", "question lost", "answer lost", "late", "reset"]), max_size=120),
    st.integers(1, 4),
)
def test_an_upload_over_any_line_leaves_the_image_or_does_not_say_that_it_has(events: list[str], most: int) -> None:
    one = upload(size=1500, message=200, messages=most)
    server, line, late = Server(1500), collections.deque[tuple[int, Request]](), []
    for number in itertools.count(1):
        if one.done or number > 2000:
            break
        if (request := one.next()) is not None:
            one.sending(number)
            line.append((number, request))
            continue
        sent, request = line.popleft()
        event = events.pop() if events else "ok"
        if event == "reset":
            server.held.clear()
        if event != "question lost":
            late.append((sent, server.serve(request)))
        if event in ("ok", "reset"):
            try:
                for answered, offset in late:
                    if one.waits_for(answered):
                        one.answered(answered, said(offset))
            except RemoteProtocolError:
                return  # it went back too often, and was given up
        else:
            one.lost(sent)
        if event != "late":
            late.clear()
    assert one.done
    assert one.unsure or server.whole == one.image.read(0, 1500)


def test_a_device_that_runs_and_keeps_the_image_already() -> None:
    image = mcuboot(500)
    device = legacy(factory=(image,))
    with pytest.raises(Refused) as refused:
        push(line_to(device), {"application": image})
    assert refused.value.code == "version.current"


def test_a_later_build_of_the_same_version_is_not_replaced() -> None:
    image = {"application": mcuboot(500, (1, 1, 0, 3))}
    push(line_to(legacy(factory=(mcuboot(600, (1, 1, 0, 2), "other"),))), image)
    with pytest.raises(Refused) as refused:
        push(line_to(legacy(factory=(mcuboot(600, (1, 1, 0, 4), "other"),))), image)
    assert refused.value.code == "version.rollback"


@pytest.mark.parametrize("body", ["c4821b7fffffffffffffff01", "c5821b7fffffffffffffff01"])
def test_decimals_beyond_any_number_are_malformed_not_a_crash(body: str) -> None:
    with pytest.raises(Malformed):
        wire.decode_foreign(bytes.fromhex(body))
