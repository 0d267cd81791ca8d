"""Class C, second part: parts of releases in the wrong company, and a release that is itself known to be broken."""

from __future__ import annotations

import datetime
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from devguard.bench.attacks.oracle import Attempt
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.attacks.vendor import image_of
from devguard.bench.hostile import accepted, ask
from devguard.bench.stage import split
from devguard.session.script import Flush, Script, Send
from devguard.session.verbs import Commit, Data, Message, encode_message

_PIECE: Final = 2048
_BEGUN: Final = (*ACCEPTED_OFFER, "boot")  # the slot of the image before is the one that is written


class MixAndMatch(Row):
    """Genuine parts of two releases in one, a part left out, and the power gone between two parts."""

    id = "C06"
    title = "Mix-and-match and partial bundles"
    precedent = "Uptane mixed bundles and partial installation; SWUpdate: signed parts can be combined; MCUboot #506"
    attacker = Attacker.MALICIOUS_REPOSITORY
    regulation = ("1.H3",)

    def play(self, scene: Scene) -> None:
        new, old = scene.next.image, scene.current.image
        half = len(new) // 2
        mixed = new[:half] + old[half:]
        file = scene.file(replace(scene.next, image=mixed))
        scene.refuses("half of each, in the file", scene.pushing(file), "image.digest", by=By.OFFLINE)
        sent = scene.hostile(lambda: scene.update(scene.next, mixed).push())
        scene.refuses("half of each, on the line", sent, "image.digest", by=By.DEVICE_ALONE, allowed=_BEGUN)
        scene.runs_whole("after that", scene.current)
        scene.again()
        cut = scene.hostile(functools.partial(_part, scene, new[:half]))
        scene.refuses("the second half left out", cut, "image.size", "session.order", by=By.DEVICE_ALONE,
                      allowed=_BEGUN)  # fmt: skip
        scene.again()
        self._one_part(scene)
        scene.again()
        self._power(scene, new[:half])

    @staticmethod
    def _one_part(scene: Scene) -> None:
        """A release, signed by all, of one component where the model has two, or of one the model does not have."""
        facts = scene.world.model.facts
        for names in (facts.components[:1], (*facts.components[:-1], "radio")):
            if names == facts.components:
                continue
            build = scene.vendor.release(replace(facts, components=names), "1.2.0", 3)
            codes = ("release.components", "device.slot")
            scene.refuses(f"only {', '.join(names)}", scene.offering(build), *codes, by=By.DEVICE_ALONE)

    @staticmethod
    def _power(scene: Scene, first: bytes) -> None:
        """The cut after the first part: what ran runs, and the next push brings both."""
        scene.comes_to_nothing("the first part alone", lambda: scene.play(_began(scene, first)), allowed=_BEGUN)
        scene.device.power_off()
        scene.device.power_on()
        scene.runs_whole("after the cut", scene.current)
        scene.goes_through("the whole release", scene.pushing(scene.file(scene.next)))
        scene.runs_whole("afterwards", scene.next)


def _began(scene: Scene, piece: bytes) -> Script[None]:
    """An honest offer and the first part of its image."""
    first = scene.grant()
    yield from accepted(scene.bench(first), scene.offer(scene.next), scene.approval(scene.next, first))
    for at in range(0, len(piece), _PIECE):
        yield Send(encode_message(Data(at, piece[at : at + _PIECE])), sealed=True)
    yield Flush()


def _part(scene: Scene, piece: bytes) -> Script[Message]:
    """The same, and the word that this is all."""
    yield from _began(scene, piece)
    return (yield from ask(Commit(scene.next.envelope.manifest_digest)))


class KnownExploited(Row):
    """The vendor's newest release has a part that is known to be exploited, and nobody says why that is no harm."""

    id = "C08"
    title = "Newest release is itself known-exploited: SBOM component in CISA KEV, no VEX"
    precedent = "FD&C Act 524B(b)(2)-(3); CareLink 2090 on an unsupported system; CVE-2020-6963 (GE MDhex)"
    attacker = Attacker.LAZY_VENDOR
    regulation = ("2.4", "13.7")
    needs = ("cyclonedx", "sbom")

    def play(self, scene: Scene) -> None:
        suit = self._built(scene)
        listed, quiet = _catalogue(scene, "kev", "Arm", "Mbed TLS"), _catalogue(scene, "quiet", "x", "y")
        stale = _catalogue(scene, "stale", "x", "y", days=60)
        sign = functools.partial(self._sign, scene, suit)
        scene.refuses("signed", sign(listed), "release.vulnerable", by=By.OFFLINE)
        scene.refuses("signed by a stale catalogue", sign(stale), "sbom.stale", by=By.OFFLINE)
        for status in ("affected", "under_investigation"):
            said = self._state(scene, status, "--status", status)
            scene.refuses(f"stated {status}", sign(listed, "--vex", said), "release.vulnerable", by=By.OFFLINE)
        bill = suit.with_suffix(".cdx.json")
        honest = bill.read_bytes()
        bill.write_bytes(honest.replace(b"2.28.0", b"9.99.9"))
        scene.refuses("with another bill", sign(listed), "sbom.digest", by=By.OFFLINE)
        bill.unlink()
        scene.refuses("without its bill", sign(listed), "sbom.missing", by=By.OFFLINE)
        bill.write_bytes(honest)
        why = ("--status", "not_affected", "--justification", "vulnerable_code_not_present")
        harmless = self._state(scene, "harmless", *why)
        for name in ("release", "release-2", "quality"):
            scene.goes_through(f"{name} signs what is stated harmless", sign(listed, "--vex", harmless, key=name))
        push = functools.partial(scene.pushing, suit, "--known-exploited")
        scene.refuses("pushed without the statement", push(listed), "release.vulnerable", by=By.OFFLINE)
        scene.goes_through("pushed with it", push(listed, "--vex", harmless))
        check = scene.commanding("release", "check", suit, "--known-exploited", quiet)
        scene.goes_through("looked into with a catalogue that knows nothing of it", check)

    def _built(self, scene: Scene) -> Path:
        """A description with a bill of materials, built as a vendor does; nobody has signed it yet."""
        folder, facts = scene.folder / "build", scene.world.model.facts
        folder.mkdir()
        parts = [
            {"type": "library", "bom-ref": "tls", "name": "mbedtls", "version": "2.28.0", "supplier": {"name": "Arm"}}
        ]
        bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": parts}
        (folder / "bill.json").write_text(json.dumps(bill))
        text = [
            "[release]",
            f'vendor = "{facts.vendor}"\nmodel = "{facts.name}"\nrevisions = ["{facts.revisions[0]}"]',
            'version = "1.2.0"\nsequence = 3\nsecurity_version = 2\nsummary = "made for the attack bench"',
        ]
        for name, piece in split(facts, image_of("1.2.0")).items():
            (folder / f"{name}.bin").write_bytes(piece)
            text.append(f'[[component]]\nid = "{name}"\nimage = "{name}.bin"\nformat = "raw"')
        text.append('[sbom]\nfile = "bill.json"')
        (folder / "release.toml").write_text("\n".join(text))
        scene.world.must(scene.vendor.home, "release", "build", folder / "release.toml", "-o", folder / "release.suit")
        return folder / "release.suit"

    @staticmethod
    def _sign(scene: Scene, suit: Path, listed: Path, *more: str | Path, key: str = "release") -> Attempt:
        reference = scene.vendor.home / "keys" / f"{key}.key"
        return scene.commanding("release", "sign", suit, "--key", reference, "--known-exploited", listed, *more)

    @staticmethod
    def _state(scene: Scene, name: str, *status: str) -> Path:
        bill, out = scene.folder / "build" / "release.cdx.json", scene.folder / f"{name}.vex"
        asked = ("CVE-2024-0001", "--sbom", bill, "--part", "tls", "--key", "quality", "-o", out)
        scene.world.must(scene.vendor.home, "release", "state", *asked, *status)
        return out


def _catalogue(scene: Scene, name: str, vendor: str, product: str, days: int = 0) -> Path:
    """A catalogue of known exploited vulnerabilities that lists one product, so many days old."""
    moment = datetime.datetime.fromtimestamp(scene.world.now - days * 86_400, datetime.UTC).isoformat()
    row: dict[str, Any] = {"cveID": "CVE-2024-0001", "vendorProject": vendor, "product": product}
    found = {"catalogVersion": "1", "dateReleased": moment, "count": 1, "vulnerabilities": [row]}
    path = scene.folder / f"{name}.json"
    path.write_text(json.dumps(found))
    return path


ROWS: Final[tuple[type[Row], ...]] = (MixAndMatch, KnownExploited)
