"""Class A, the rest: what rides along with a genuine release, what becomes of it on its way, and whom it is for."""

from __future__ import annotations

import functools
import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from devguard.bench.attacks.meddle import on_number
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.attacks.vendor import write_release
from devguard.bench.hostile import accepted, ask, offer_unjudged
from devguard.bench.stage import Build
from devguard.bench.tap import Heading, Passing
from devguard.device.models import load_model, model_names
from devguard.grant.claims import ANY
from devguard.link.frames import DELIMITER, Kind, encode_frame
from devguard.manifest.description import ComponentDescription
from devguard.manifest.envelope import Envelope, encode_envelope
from devguard.manifest.model import ModelFacts
from devguard.session.script import Script, Send
from devguard.session.verbs import Data, encode_message


class RidingAlong(Row):
    """Bytes that no signature covers: behind the file, beside the manifest, beyond the image in the slot."""

    id = "A06"
    title = "Unsigned bytes ride along: trailing data, padding, unprotected TLVs"
    precedent = "MCUboot #1894, #506, PR #1938 and ALLOW_ROGUE_TLVS"
    attacker = Attacker.MALICIOUS_REPOSITORY
    regulation = ("1.D1",)

    def play(self, scene: Scene) -> None:
        honest = scene.next
        for count in (1, 16, 4096):
            path = scene.file(honest)
            path.write_bytes(path.read_bytes() + b"\x90" * count)
            scene.refuses(f"{count} bytes behind it, pushed", scene.pushing(path), "image.trailing", by=By.OFFLINE)
            offer = scene.offer(honest) + b"\x90" * count
            attempt = scene.hostile(functools.partial(offer_unjudged, scene.bench(), offer))
            scene.refuses(f"{count} bytes behind the offer", attempt, "image.trailing", by=By.DEVICE_ALONE)
        members = {**honest.envelope.severable, 99: b"rides along"}
        riding = replace(honest, envelope=replace(honest.envelope, severable=members))
        codes = ("envelope.malformed", "envelope.version")
        scene.refuses("a member nobody knows, pushed", scene.pushing(riding), *codes, by=By.OFFLINE)
        attempt = scene.hostile(
            functools.partial(offer_unjudged, scene.bench(), encode_envelope(_bare(riding.envelope)))
        )
        scene.refuses("a member nobody knows, offered", attempt, *codes, by=By.DEVICE_ALONE)
        self._beyond_the_end(scene)
        scene.again()
        scene.goes_through("the honest release", scene.pushing(honest))
        slot, flash = scene.world.model.layout.primary, scene.device.backend
        area = flash.read(slot.image, slot.image_capacity)
        padding = area[len(honest.image) :]
        scene.holds(
            "its slot is the image and erased flash to the end",
            area.startswith(honest.image) and not padding.strip(b"\xff"),
        )

    @staticmethod
    def _beyond_the_end(scene: Scene) -> None:
        """More data than the release has, said by a host without a conscience."""
        first = scene.grant()

        def script() -> Script[None]:
            build = scene.next
            yield from accepted(scene.bench(first), scene.offer(build), scene.approval(build, first))
            for at in range(0, len(build.image), 3000):
                yield Send(encode_message(Data(at, build.image[at : at + 3000])), sealed=True)
            yield from ask(Data(len(build.image), b"\x90" * 256))

        codes = ("image.size", "session.order")
        scene.refuses("data beyond the end", scene.hostile(script), *codes, by=By.DEVICE_ALONE, allowed=ACCEPTED_OFFER)


def _bare(envelope: Envelope) -> Envelope:
    """Without payloads and texts, but with whatever else it has: an offer that was not made by `sever`."""
    kept = {label: data for label, data in envelope.severable.items() if label == 99}
    return replace(envelope, severable=kept, payloads={})


class SwappedFile(Row):
    """The file becomes another one while it is being sent, in four ways; and the bytes on their way do."""

    id = "A08"
    title = "Time-of-check/time-of-use: file swapped between verification and transmission"
    precedent = "CVE-2020-25860 (RAUC), CVE-2020-27252 (MyCareLink Smart), RFC 9124 THREAT.MFST.TOCTOU"
    attacker = Attacker.INSIDER
    regulation = ("1.D1", "1.D2")

    def play(self, scene: Scene) -> None:
        for what, swap in _SWAPS.items():
            path = scene.file(scene.next)
            evil = path.with_name("evil.suit")
            evil.write_bytes(path.read_bytes().replace(scene.next.image[:64], bytes(64)))

            def during(
                passing: Passing, swap: Callable[[Path, Path], object] = swap, evil: Path = evil, path: Path = path
            ) -> Iterable[bytes]:
                swap(evil, path)
                return (passing.raw,)

            attempt = scene.under(on_number(_OFFERED, during), scene.pushing(path))
            scene.goes_through(f"{what} while it is sent: the bytes that were judged go on", attempt)
            scene.runs_whole(what, scene.next)
            scene.holds(f"{what}: it did happen", path.read_bytes() == evil.read_bytes() or what == "mapped memory")
            scene.again()
        path = scene.file(scene.next)
        scene.holds("verified", scene.run("verify", path).status == 0)
        path.write_bytes(path.read_bytes().replace(scene.next.image[:64], bytes(64)))
        scene.refuses("swapped after `verify`, then pushed", scene.pushing(path), "image.digest", by=By.OFFLINE)
        other = os.urandom(len(scene.next.image))
        attempt = scene.hostile(lambda: scene.update(scene.next, other).push())
        scene.refuses(
            "other bytes than were judged", attempt, "image.digest", by=By.DEVICE_ALONE, allowed=ACCEPTED_OFFER
        )
        scene.runs_whole("other bytes than were judged", scene.current)


_OFFERED: Final = 5  # sealed frames of the bench by which the offer has been judged and data flow


def _rewrite(evil: Path, path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(evil.read_bytes())


def _map(evil: Path, path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:] = evil.read_bytes()


def _link(evil: Path, path: Path) -> None:
    path.unlink()
    path.symlink_to(evil)


_SWAPS: Final[dict[str, Callable[[Path, Path], object]]] = {
    "renamed over": lambda evil, path: shutil.copyfile(evil, path.with_suffix(".tmp")).replace(path),
    "truncated and rewritten": _rewrite,
    "mapped memory": _map,
    "a link in its place": _link,
}


class WrongDevice(Row):
    """A genuine release, genuinely signed, for another model, revision, serial or vendor; and a device that lies."""

    id = "A09"
    title = "Authentic image for the wrong device, hardware revision or clinical configuration"
    precedent = "RFC 9124 THREAT.IMG.INCOMPATIBLE, RAUC ignore-compatible, Abbott 2017 (per-family images)"
    attacker = Attacker.INSIDER
    regulation = ("4.3",)

    def play(self, scene: Scene) -> None:
        for what, build, code, by in self._releases(scene):
            anything = [scene.grant(name, models=frozenset({ANY})) for name in scene.world.technicians()]
            path = scene.folder / "wrong.suit"
            write_release(build, _facts_of(scene, build), path)
            scene.refuses(f"{what}, pushed", scene.pushing(path, grants=anything), code, by=by)
            scene.refuses(f"{what}, offered", scene.offering(build, anything[0]), code, by=By.DEVICE_ALONE)
        file = scene.file(scene.next)
        own = scene.device.identity.credentials[_SUITE].cred
        attempt = scene.under(functools.partial(_renamed, own, scene.device.serial), scene.pushing(file))
        codes = ("session.handshake", "signature.invalid")
        scene.refuses("the device's serial number rewritten on the line", attempt, *codes, by=By.HOST)
        scene.holds("no option of push skips a check", scene.run("push", file, "--force").status == _USAGE)

    @staticmethod
    def _releases(scene: Scene) -> Iterator[tuple[str, Build, str, By]]:
        facts = scene.world.model.facts
        other = next(name for name in model_names() if name != facts.name)
        yield "for another model", scene.vendor.release(load_model(other).facts, "1.2.0", 3), "image.class", By.HOST
        # The host learns a revision from nobody: this one is the device's to refuse.
        yield "for another revision", scene.release(revisions=facts.revisions[1:]), "image.class", By.DEVICE
        elsewhere = tuple(ComponentDescription(name, f"{name}.bin", "raw", ("XX-1",), ()) for name in facts.components)
        yield "for another serial", scene.release(components=elsewhere), "image.device", By.HOST
        foreign = replace(facts, vendor="devices.other.example")
        yield "of another vendor", scene.vendor.release(foreign, "1.2.0", 3), "image.vendor", By.HOST


_USAGE: Final = 2


def _facts_of(scene: Scene, build: Build) -> ModelFacts:
    """The model whose components a release brings."""
    models = [load_model(name).facts for name in model_names()]
    return next((one for one in models if len(one.components) == len(build.measured.parts)), scene.world.model.facts)


def _renamed(credential: bytes, serial: str, passing: Passing) -> Iterable[bytes]:
    """Message 2, in which the device says who it is, is a stream cipher's: who knows where the serial number stands
    changes its last digit without a key. Behind the credential comes a signature of 64 bytes with its head."""
    frame = passing.frame
    here = len(credential) - credential.index(serial.encode()) - len(serial) + 1 + _SIGNATURE
    if passing.heading is Heading.TO_DEVICE or frame is None or frame.kind is not Kind.DATA or len(frame.body) < here:
        return (passing.raw,)
    body = bytearray(frame.body)
    body[-here] ^= 1
    return (encode_frame(frame.header, bytes(body)).removesuffix(DELIMITER),)


_SUITE: Final = 3
_SIGNATURE: Final = 66

ROWS: Final[tuple[type[Row], ...]] = (RidingAlong, SwappedFile, WrongDevice)
