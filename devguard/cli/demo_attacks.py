"""The demo's other half: six attacks. Each must be refused with its code and leave the device as it was.

Where a host program would refuse before the port is opened, the attack is also made by a hostile host that skips every
check, straight at the device, which has to refuse by itself. See `demo`, `bench.hostile`.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from devguard.cli.context import Invocation
from devguard.cli.demo_story import NEW, OLD, SERIAL, Story
from devguard.device.snapshot import Snapshot, take
from devguard.errors import DevguardError, LinkError

if TYPE_CHECKING:
    from devguard.session.script import Script

Attack = Callable[[Story], list[str | None]]


def six_attacks(story: Story) -> None:
    """Make all six and note how each came out."""
    story.invocation.say("\nsix attacks, each refused by the host program (h), by the device itself (d), or both")
    for title, code, who, attack in ATTACKS:
        before = _snapshot(story)
        try:
            answers = attack(story)
        except DevguardError as error:
            answers = [f"the attack itself failed: {error}"]
        after = _snapshot(story)
        unchanged = before.same_state(after)
        wanted = code.split(" or ")
        held = bool(answers) and all(answer in wanted for answer in answers) and unchanged
        row: dict[str, Any] = {
            "title": title,
            "refused_by": who.split(" and "),
            "code": answers[0] if answers else None,
            "answers": answers,
            "unchanged": unchanged,
            "held": held,
        }
        story.attacks.append(row)
        mark = click.style("ok  ", fg="green") if held else click.style("FAIL", fg="red", bold=True)
        state = "device unchanged" if unchanged else click.style("DEVICE CHANGED", fg="red", bold=True)
        shown = click.style(f"{row['code']!s:18}", fg="yellow")
        story.invocation.say(f"{mark} {title:32} {shown} {state} {SHORT[who]}")


def _snapshot(story: Story) -> Snapshot:
    from devguard.device.models import load_model

    return take(story.folder / "device", load_model(story.model))


def _push(story: Story, file: Path, options: list[str]) -> str | None:
    """The refusal code of an ordinary push; None when it was accepted."""
    status, data = story.run("push", file, "--port", story.port, "--trust", story.trust, "-q", *options)
    return None if status == 0 else str(data.get("code") or data["error"]["code"])


def _offer(story: Story, file: Path, options: list[str]) -> str | None:
    """The device's own refusal code, offered the file by a host that checks nothing."""
    from devguard.bench.hostile import offer_unjudged
    from devguard.cli.files import open_input
    from devguard.manifest.envelope import read_envelope, sever

    with open_input(file) as stream:
        offer = sever(read_envelope(stream))
    return _at_device(story, options, lambda bench: offer_unjudged(bench, offer))


def _at_device(story: Story, options: list[str], script: Callable[[Any], Any]) -> str | None:
    """Run a hostile script with genuine credentials; the code of the refusal that ends it."""
    from devguard.grant.claims import read_grant
    from devguard.session.connect import Bench

    invocation = Invocation(home_path=story.home)
    signer = invocation.signer("technician", None)
    one = read_grant(Path(options[options.index("--grant") + 1]).read_bytes())
    trust = invocation.home.trust(story.trust)
    return _refusal(story, script(Bench(trust, invocation.now(), os.urandom, one.untagged, signer)))


def _refusal(story: Story, script: Script[Any]) -> str | None:
    """Run a script against the device; the code of the refusal that ends it, None when nothing refused."""
    from devguard.cli.line import BAUD, runner_on
    from devguard.link.driver import SerialDriver

    try:
        with SerialDriver.open(story.port, BAUD) as driver:
            runner_on(driver).run(script)
    except DevguardError as error:
        return error.code
    return None


def _attack_file(story: Story, name: str) -> Path:
    folder = story.folder / "attacks"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}.suit"


def flipped_bit(story: Story) -> list[str | None]:
    """One bit of the image differs; all signatures still hold."""
    from devguard.manifest.envelope import read_envelope

    file = _attack_file(story, "flipped-bit")
    data = bytearray(story.suit(NEW).read_bytes())
    with story.suit(NEW).open("rb") as stream:
        payload = next(iter(read_envelope(stream).payloads.values()))
    data[payload.offset + payload.size // 2] ^= 0x01
    file.write_bytes(data)
    return [_push(story, file, story.grants(SERIAL[story.model], "flipped"))]


def unknown_vendor(story: Story) -> list[str | None]:
    """A well-made release by two people nobody named."""
    file = _attack_file(story, "unknown-vendor")
    rogue = story.folder / "attacks" / "rogue-home"
    story.build(NEW, 3, file)
    for name, algorithm in (("release", "ESP256"), ("quality", "ML-DSA-65")):
        story.must(
            "key", "new", name, "--person", f"Mallory {name}", "--role", name, "--alg", algorithm, "--development",
            home=rogue,
        )  # fmt: skip
        story.must("release", "sign", file, "--key", name, home=rogue)
    options = story.grants(SERIAL[story.model], "unknown")
    return [_push(story, file, options), _offer(story, file, options)]


def stripped_half(story: Story) -> list[str | None]:
    """The post-quantum signature is taken off; the classical one still holds."""
    from devguard.cose.algorithms import POST_QUANTUM
    from devguard.cose.sign import read_sign1
    from devguard.manifest.envelope import read_envelope, write_envelope

    file = _attack_file(story, "stripped-post-quantum")
    with story.suit(NEW).open("rb") as stream:
        envelope = read_envelope(stream)
        kept = tuple(block for block in envelope.auth_blocks if read_sign1(block).algorithm not in POST_QUANTUM)
        images: dict[str, BinaryIO] = {}
        for name, payload in envelope.payloads.items():
            stream.seek(payload.offset)
            images[name] = io.BytesIO(stream.read(payload.size))
    with file.open("wb") as out:
        write_envelope(replace(envelope, auth_blocks=kept), images, out)
    options = story.grants(SERIAL[story.model], "stripped")
    return [_push(story, file, options), _offer(story, file, options)]


def rollback(story: Story) -> list[str | None]:
    """The older release, with all its valid signatures."""
    options = story.grants(SERIAL[story.model], "rollback")
    return [_push(story, story.suit(OLD), options), _offer(story, story.suit(OLD), options)]


def other_serial(story: Story) -> list[str | None]:
    """A genuine grant, for another device."""
    options = story.grants("XX-9999", "other")
    from devguard.session.connect import connect

    return [_push(story, story.suit(NEW), options), _at_device(story, options, connect)]


def replay(story: Story) -> list[str | None]:
    """The recorded good session: first its very bytes, then its messages on a connection of the thief's own."""
    from devguard.bench.hostile import play_back
    from devguard.bench.tap import plain_messages

    _raw_bytes(story)
    return [_refusal(story, play_back(messages)) for messages in plain_messages(story.recording)[-2:]]


def _raw_bytes(story: Story) -> None:
    """Play the recording onto the line as it was."""
    try:
        descriptor = os.open(story.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise LinkError("link.port", f"cannot open {story.port}: {error.strerror}") from error
    try:
        data, end = story.recording, time.monotonic() + 5
        while data and time.monotonic() < end:
            try:
                data = data[os.write(descriptor, data[:4096]) :]
            except BlockingIOError:
                time.sleep(0.01)
    except OSError as error:
        raise LinkError("link.port", f"the device hung up: {error.strerror}") from error
    finally:
        os.close(descriptor)


SHORT = {"host": "h", "device": "  d", "host and device": "h d"}
ATTACKS: tuple[tuple[str, str, str, Attack], ...] = (
    ("one flipped bit in the image", "image.digest", "host", flipped_bit),
    ("a release by an unknown vendor", "key.unknown", "host and device", unknown_vendor),
    ("post-quantum signature stripped", "signature.hybrid", "host and device", stripped_half),
    ("older release, valid signatures", "version.rollback", "host and device", rollback),
    ("grant for another serial", "grant.scope", "device", other_serial),
    ("recorded good session replayed", "session.handshake or session.replay", "device", replay),
)
