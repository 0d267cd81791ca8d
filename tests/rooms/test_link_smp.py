"""SMP over a line: console lines in noise, questions asked again, whole updates over bit errors, drops and lies."""

from __future__ import annotations

import hashlib
import random
import re
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("smp", reason="the extra `smp` is not installed")

from smp import packet

from devguard.device.smp_lies import LieKind
from devguard.errors import DevguardError, LinkError, LocalProtocolError, RemoteProtocolError
from devguard.link.smp_console import FIRST, MAX_LINE, ConsoleReader, encode_lines
from devguard.link.smp_engine import MOST_HELD, Expired, Garbled, Replied, SmpEngine, smp_parameters
from devguard.link.smp_runner import SmpRunner
from devguard.session import smp_requests as requests
from devguard.session.smp_answers import slot_states
from devguard.session.smp_frame import read_message
from devguard.session.smp_script import Ask, Now, Pause, Reopen, Script
from devguard.session.smp_update import SmpUpdate, survey
from rooms.smp_support import (
    DUAL,
    NOW,
    Line,
    grant_for,
    image_hash,
    judged,
    legacy,
    line_to,
    mcuboot,
    push,
    release_of,
)

FRAMES = [bytes(8), b"hello, device", bytes(range(256)) * 2, bytes(1400)]
LOG = b"[00:00:01.907,020] \x1b[0m<inf> mcuboot_util: Image index: 0, Swap type: none\x1b[0m\r\n"


@pytest.mark.parametrize("frame", FRAMES, ids=len)
def test_lines_are_those_of_the_smp_package(frame: bytes) -> None:
    assert encode_lines(frame) == b"".join(packet.encode(frame, 128))
    decoder = packet.decode()
    next(decoder)
    with pytest.raises(StopIteration) as done:
        for line in encode_lines(frame).splitlines(keepends=True):
            decoder.send(line)
    assert done.value.value == frame


def test_messages_are_found_in_noise_at_any_split() -> None:
    data = LOG + b"\xff\x00junk" + LOG.join(encode_lines(frame) for frame in FRAMES) + FIRST
    with_logs = LOG.join(encode_lines(FRAMES[2]).splitlines(keepends=True))
    assert ConsoleReader().feed(with_logs) == [FRAMES[2]]
    for seed in range(20):
        chances, reader, found, at = random.Random(seed), ConsoleReader(), [], 0
        while at < len(data):
            size = chances.randint(1, 90)
            found += reader.feed(data[at : at + size])
            at += size
        assert found == FRAMES
        assert (reader.damaged, reader.noise > 0) == (0, True)


def test_a_console_reader_holds_no_more_than_a_line_and_a_message() -> None:
    reader = ConsoleReader(largest=100)
    assert reader.feed(b"x" * 1_000_000) == []
    assert reader.noise > 1_000_000 - 2 * MAX_LINE
    assert reader.feed(b"\n" + encode_lines(bytes(101))) == []
    assert reader.damaged == 1
    assert reader.feed(encode_lines(bytes(100))) == [bytes(100)]
    for bad in (
        b"\x06\x09////\n",
        b"\x06\x09AAA=\n",
        b"\x06\x09AAE=\n",
        b"\x06\x09!!!!\n",
        b"\x06\x09\n",
        b"\x04\x14AAAA\n",
    ):
        assert ConsoleReader().feed(bad) == []


def mutate(count: int, seed: int) -> None:
    chances = random.Random(seed)
    whole = encode_lines(FRAMES[2])
    reader = ConsoleReader()
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(chances.randint(1, 3)):
            at = chances.randrange(len(data))
            data[at : at + chances.randint(0, 2)] = chances.randbytes(chances.randint(0, 2))
        assert set(reader.feed(bytes(data) + b"\n")) <= {FRAMES[2]}
    assert reader.feed(whole) == [FRAMES[2]]


def test_mutated_lines_give_the_message_or_none() -> None:
    mutate(200, 1)
    for cut in range(len(encode_lines(FRAMES[1]))):
        reader = ConsoleReader()
        assert reader.feed(encode_lines(FRAMES[1])[:cut] + b"\n") in ([], [FRAMES[1]])
        assert reader.feed(encode_lines(FRAMES[0])) == [FRAMES[0]]


@pytest.mark.slow
def test_many_mutated_lines() -> None:
    mutate(10_000, 2)


# the engine


def answer_to(asked: bytes, body: bytes = b"\xa0", **changes: int) -> bytes:
    """An answer to a frame; `changes` set bytes of its header by position."""
    head = bytearray(asked[:8])
    head[0] |= 1
    head[2:4] = len(body).to_bytes(2, "big")
    for name, value in changes.items():
        head[int(name[1:])] = value
    return encode_lines(bytes(head) + body)


def asked(engine: SmpEngine) -> list[bytes]:
    return ConsoleReader().feed(engine.data_to_send(0.0))


def test_every_transmission_has_a_number_of_its_own_and_any_answer_counts() -> None:
    engine = SmpEngine(smp_parameters(0), 254)
    first, second = (engine.send(requests.image_state(), 0.0) for _ in range(2))
    one, two = asked(engine)
    assert (one[6], two[6]) == (255, 0)
    assert engine.receive_bytes(b"", 1.5) == [Expired(first), Expired(second)]
    assert engine.next_timeout(1.5) is None
    [event] = engine.receive_bytes(answer_to(one), 1.6)
    assert isinstance(event, Replied)
    assert event.number == first
    assert engine.receive_bytes(answer_to(one), 1.7) == []
    assert engine.strangers == 1
    assert engine.round_trip.smoothed == pytest.approx(1.6)


@pytest.mark.parametrize("changes", [{"_6": 99}, {"_5": 3}, {"_7": 1}, {"_0": 9 | 2}, {"_0": 0x20 | 1}, {"_0": 7}])
def test_answers_to_other_questions_are_not_taken(changes: dict[str, int]) -> None:
    engine = SmpEngine(smp_parameters(0), 0)
    engine.send(requests.image_state(), 0.0)
    [one] = asked(engine)
    assert engine.receive_bytes(answer_to(one, **changes), 0.1) == []


def test_answers_without_sense_are_told_from_silence() -> None:
    engine = SmpEngine(smp_parameters(0), 0)
    number = engine.send(requests.image_state(), 0.0)
    [one] = asked(engine)
    for data in (answer_to(one, b"\xff"), answer_to(one, _2=9)):
        [event] = engine.receive_bytes(data, 0.1)
        assert isinstance(event, Garbled)
        assert event.number == number


def test_a_spoilt_answer_ends_the_doubling_and_silence_does_not() -> None:
    """The line is nobody else's: where answers come and are damaged, waiting longer would mend nothing."""
    engine = SmpEngine(smp_parameters(0), 0)
    engine.send(requests.image_state(), 0.0)
    spoilt = answer_to(asked(engine)[0])[:-4] + b"AAA\n"
    assert [engine.receive_bytes(data, 1.5) for data in (b"", spoilt, LOG)] == [[Expired(1)], [], []]
    assert engine.round_trip.backoff == 0
    engine.send(requests.image_state(), 2.0)
    engine.receive_bytes(LOG, 9.0)
    assert engine.round_trip.backoff == 1


def test_what_an_engine_remembers_is_bounded() -> None:
    engine = SmpEngine(smp_parameters(0), 0)
    for _ in range(3 * MOST_HELD):
        engine.send(requests.image_state(), 0.0)
    assert len(engine.receive_bytes(b"", 100.0)) == MOST_HELD


# the runner


def ask(patience: float = 20.0, once: bool = False) -> Script[Any]:
    return (yield Ask(requests.image_state(), patience, once))


def test_questions_are_repeated_and_what_must_not_be_is_not() -> None:
    line = line_to(legacy(), drop=1.0)
    runner = line.runner()
    with pytest.raises(LinkError) as failed:
        runner.run(ask())
    assert failed.value.code == "link.timeout"
    assert 20 <= line.now - 100 < 45
    assert runner.retransmits >= 3
    sent, began = runner.retransmits, line.now
    with pytest.raises(LinkError):
        runner.run(ask(5.0, once=True))
    assert runner.retransmits == sent
    assert line.now - began < 8


def test_a_script_may_go_on_after_a_failure_and_open_the_port_again() -> None:
    line = line_to(legacy())

    def script() -> Script[tuple[float, int]]:
        began = yield Now()
        line.drop = 1.0
        try:
            yield Ask(requests.image_state(), 1.0)
        except LinkError:
            line.drop = 0.0
            yield Reopen()
        yield Pause(3.0)
        yield Ask(requests.image_state())
        return (yield Now()) - began, line.closed

    took, closed = line.runner().run(script())
    assert closed == 1
    assert 4 <= took < 12


def test_a_step_that_is_none_and_a_closed_port() -> None:
    runner = SmpRunner(lambda: line_to(legacy()), smp_parameters(0), bytes)
    with pytest.raises(LinkError):
        runner.run(ask())

    def wrong() -> Any:
        yield "step"

    with pytest.raises(LocalProtocolError):
        runner.run(wrong())


# whole updates


IMAGE = {"application": mcuboot(24_000)}
RELEASE = release_of(IMAGE)


def update(line: Line, **fields: Any) -> Any:
    one = SmpUpdate(RELEASE, grant_for(), judged(RELEASE, IMAGE), lambda: NOW, **fields)
    runner = line.runner()
    return runner.run(one.push(runner.run(survey()))), runner


def test_an_update_ends_confirmed_and_the_old_image_is_kept() -> None:
    device = legacy()
    line = line_to(device)
    seen: list[tuple[int, int]] = []
    outcome, runner = update(line, progress=lambda done, whole: seen.append((done, whole)))
    slots = device.images[0]
    assert [one and one.version_text for one in map(slots.image, (0, 1))] == ["1.1.0", "1.0.0"]
    assert (slots.confirmed, slots.pending, line.resets) == (True, False, 1)
    assert (outcome.sent, outcome.resumed, outcome.trial) == (RELEASE.size, 0, True)
    assert [one.hash for one in outcome.states if one.active] == [image_hash(IMAGE["application"])]
    assert seen[-1] == (RELEASE.size, RELEASE.size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    data = line.asked
    assert max(map(len, data)) > 1000  # the device's buffers are filled
    assert runner.wire_bytes < 1.6 * RELEASE.size


def erasing() -> Any:
    """A device that is busy for long when an upload begins, and not again when it is asked again."""
    begun: list[bytes] = []

    def seconds(frame: bytes) -> float:
        if b"csha" not in frame or begun:
            return 0.01
        begun.append(frame)
        return 22.0

    return seconds


@pytest.mark.parametrize(
    "faults",
    [
        {"drop": 0.05},
        {"drop": 0.2},
        {"ber": 1e-4},
        {"ber": 4e-4, "seed": 1},
        {"most_lines": 2},
        {"noise": LOG},
        {"ber": 1e-4, "drop": 0.05, "noise": LOG, "seed": 3},
        {"service": lambda frame: 2.5 if len(frame) > 500 else 0.01},
        {"service": erasing()},
        {"latency": 0.4},
        {"baud": 9600},
    ],
    ids=lambda faults: "-".join(faults),
)
def test_an_update_over_a_bad_line(faults: dict[str, Any]) -> None:
    device = legacy()
    line = line_to(device, **faults)
    outcome, runner = update(line)
    assert runner.retransmits > 0 or not {"drop", "ber"} & set(faults)
    assert (device.images[0].confirmed, line.resets) == (True, 1)
    running = device.images[0].image(0)
    assert running is not None
    assert running.hash == image_hash(IMAGE["application"])
    assert outcome.sent >= RELEASE.size


def lossy(seeds: range) -> None:
    for seed in seeds:
        chances = random.Random(seed)
        device = legacy()
        line = line_to(
            device, ber=chances.choice([0, 1e-5, 1e-4, 4e-4]), drop=chances.choice([0, 0.02, 0.1]), seed=seed
        )
        update(line)
        assert (device.images[0].confirmed, line.resets) == (True, 1)


def test_lossy_lines_by_seed() -> None:
    lossy(range(6))


@pytest.mark.slow
def test_many_lossy_lines_by_seed() -> None:
    lossy(range(100, 400))


def test_a_line_that_dies_is_given_up_and_a_second_push_goes_on() -> None:
    device = legacy()
    line = line_to(device)

    def dies(done: int, _whole: int) -> None:
        line.drop = 1.0 if done > 10_000 else 0.0

    with pytest.raises(LinkError) as failed:
        update(line, progress=dies)
    assert failed.value.code == "link.timeout"
    line.drop = 0.0
    outcome, _ = update(line)
    assert outcome.resumed >= 10_000
    assert outcome.sent <= RELEASE.size - 10_000 + 100
    assert device.images[0].confirmed


def test_a_device_that_is_reset_in_the_middle_begins_anew() -> None:
    device = legacy()
    line = line_to(device)
    once: list[int] = []

    def reset(done: int, _whole: int) -> None:
        if done > 8000 and not once:
            once.append(done)
            device.boot()

    outcome, _ = update(line, progress=reset)
    assert outcome.sent > RELEASE.size + 8000
    assert device.images[0].confirmed


class Stopped(Exception):
    """The bench was killed."""


@pytest.mark.parametrize("step", ["test", "reset", "confirm"])
def test_a_push_that_was_killed_before_a_step_goes_on_there(step: str) -> None:
    device = legacy()

    def watch(frame: bytes, answer: Any) -> bytes | None:
        kind = {(1, 0): "confirm" if b"gconfirm\xf5" in frame else "test", (0, 5): "reset"}.get((frame[5], frame[7]))
        if frame[0] & 7 == 2 and kind == step:
            raise Stopped
        return answer(frame)  # type: ignore[no-any-return]

    line = line_to(device, tap=watch)
    with pytest.raises(Stopped):
        update(line)
    assert line.resets == (1 if step == "confirm" else 0)
    again = line_to(device)
    outcome, _ = update(again)
    assert outcome.sent == 0
    assert again.resets == (0 if step == "confirm" else 1)
    running = device.images[0].image(0)
    assert running is not None
    assert (running.hash, device.images[0].confirmed) == (image_hash(IMAGE["application"]), True)


def test_two_images_are_tried_and_kept_together() -> None:
    both = {"application": mcuboot(9000, seed="a"), "radio": mcuboot(5000, seed="r")}
    device = legacy(DUAL)
    line = line_to(device, DUAL)
    outcome = push(line, both, DUAL)
    assert line.resets == 1
    for slots, data in zip(device.images, both.values(), strict=True):
        running = slots.image(0)
        assert running is not None
        assert (running.hash, slots.confirmed) == (image_hash(data), True)
    assert sorted((one.image, one.slot) for one in outcome.states) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_encrypted_image_goes_through_by_the_hash_it_states() -> None:
    image = mcuboot(4000, flags=0x4, digest=b"\x07" * 32, tlvs=[(0x33, bytes(80))])
    device = legacy()
    outcome = push(line_to(device), {"application": image})
    assert [one.hash for one in outcome.states if one.active] == [b"\x07" * 32]


@pytest.mark.parametrize("name", ["ed25519", "rsa2048", "p256_enc_ec256", "rsa2048_enc_rsa2048"])
def test_images_that_imgtool_made_go_through(vectors: Path, name: str) -> None:
    """Signed and encrypted ones. The hash that the device names is that of header and plain bytes, by imgtool."""
    folder = vectors / "mcuboot" / "images"
    image, plain = (folder / f"{name}.bin").read_bytes(), (folder / "unsigned_sha256.bin").read_bytes()
    outcome = push(line_to(legacy()), {"application": image})
    [running] = [one for one in outcome.states if one.active]
    head, body = struct.unpack_from("<H", image, 8)[0], struct.unpack_from("<I", image, 12)[0]
    assert running.hash == hashlib.sha256(image[:head] + plain[head : head + body]).digest()
    assert (image[head : head + body] == plain[head : head + body]) == ("enc" not in name)


def test_a_trial_that_fails_is_a_refusal() -> None:
    device = legacy(self_test=False)
    with pytest.raises(DevguardError) as refused:
        update(line_to(device))
    assert refused.value.code == "device.self-test"
    running = device.images[0].image(0)
    assert running is not None
    assert running.version_text == "1.0.0"


LIES = {
    LieKind.NOTHING_WRITTEN: "image.digest",
    LieKind.WRONG_HASH: "image.digest",
    LieKind.CLAIMED_HASH: "smp.state",
    LieKind.NO_TRIAL: "smp.state",
    LieKind.SILENT_REVERT: "image.digest",
    LieKind.NOT_KEPT: "smp.state",
    LieKind.PERMANENT: "smp.state",
    LieKind.GOES_BACK: "smp.state",
    LieKind.VERSION: "smp.state",
    LieKind.NO_RESET: "smp.state",
    LieKind.OFFSET_AHEAD: "image.digest",
    LieKind.OFFSET_BACK: "smp.malformed",
    LieKind.STUCK: "smp.malformed",
    LieKind.DRIP: "smp.malformed",
    LieKind.HUGE: "smp.malformed",
    LieKind.CBOR: "smp.malformed",
    LieKind.TRUNCATED: "smp.malformed",
    LieKind.DEEP: "smp.malformed",
    LieKind.SEQUENCE: "link.timeout",
    LieKind.LENGTH: "smp.malformed",
    LieKind.TEXTS: "smp.malformed",
    LieKind.MUTE: "link.timeout",
}


@pytest.mark.parametrize("kind", LieKind)
def test_a_device_that_lies_is_found_out(kind: LieKind) -> None:
    line = line_to(legacy(), lie=kind)
    with pytest.raises(DevguardError) as refused:
        update(line)
    assert refused.value.code == LIES[kind]
    assert line.now - 100 < 400
    assert len(line.asked) < 2000


def spoil(seeds: range) -> dict[str, int]:
    """How pushes end whose answers are changed behind their checksum."""
    image = {"application": mcuboot(600)}
    release = release_of(image)
    grant, images = grant_for(), judged(release, image)
    ends: dict[str, int] = {}
    for seed in seeds:
        chances = random.Random(seed)
        device = legacy()

        def spoilt(frame: bytes, honest: Any, chances: random.Random = chances) -> bytes | None:
            answer: bytes | None = honest(frame)
            if answer is None or chances.random() < 0.8:
                return answer
            data = bytearray(answer)
            for _ in range(chances.randint(1, 3)):
                data[chances.randrange(len(data))] = chances.randrange(256)
            return bytes(data)

        line = line_to(device, tap=spoilt)
        runner = line.runner()
        try:
            runner.run(SmpUpdate(release, grant, images, lambda: NOW).push(runner.run(survey())))
            code = "done"
            assert device.images[0].confirmed
        except DevguardError as error:
            code = error.code
        ends[code] = ends.get(code, 0) + 1
        assert line.now - 100 < 1000
    return ends


ENDS = {"done", "smp.malformed", "smp.refused", "smp.state", "link.timeout", "image.digest", "device.self-test"}


def test_answers_spoilt_at_random_end_in_our_own_error_or_an_update() -> None:
    ends = spoil(range(40))
    assert set(ends) <= ENDS
    assert ends["done"] > 4


@pytest.mark.slow
def test_many_answers_spoilt_at_random() -> None:
    assert set(spoil(range(1000, 3000))) <= ENDS


def test_uploads_whose_answers_make_no_sense_are_given_up_at_once() -> None:
    """Nine are enough; two minutes of them would be no better."""

    def spoilt(frame: bytes, honest: Any) -> bytes | None:
        answer: bytes | None = honest(frame)
        return answer if frame[7] != 1 or not answer else answer[:2] + b"\x00\x04" + answer[4:8] + b"none"

    line = line_to(legacy(), tap=spoilt)
    with pytest.raises(RemoteProtocolError) as refused:
        update(line)
    assert refused.value.code == "smp.malformed"
    assert line.now - 100 < 2


def test_a_stranger_on_the_port_is_no_device() -> None:
    """Another program's console: text, but no answer."""

    class Chatter:
        reset_wanted = False
        buffer_size = 512

        def answer(self, frame: bytes) -> bytes:
            return b"hello" + frame

    line = line_to(legacy())
    line.server = Chatter()  # type: ignore[assignment]
    with pytest.raises((LinkError, RemoteProtocolError)):
        line.runner().run(survey())


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "smp.md").read_text(encoding="utf-8")


def test_the_example_on_the_page() -> None:
    """docs/smp.md, "Example"."""
    [block] = [one for one in PAGE.split("```") if one.startswith("\n09 00")]
    rows = block.splitlines()
    frame = bytes.fromhex(rows[1][:49] + rows[2][:49])
    assert slot_states(read_message(frame))[0].slot == 0
    text = rows[4].split('"')[1].encode()
    assert encode_lines(frame) == FIRST + text + b"\n"


def test_the_lies_on_the_page() -> None:
    """docs/smp.md, "A device that lies"."""
    told = {}
    for row in PAGE.splitlines():
        if found := re.fullmatch(r"\| (`[a-z`, -]+`) \| `([a-z.-]+)` \|", row):
            told |= dict.fromkeys(re.findall(r"`([a-z-]+)`", found[1]), found[2])
    assert told == {kind.value: code for kind, code in LIES.items()}
