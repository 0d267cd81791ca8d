"""Class J: those who want that it never happened, or happened otherwise."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.vendor import HOUR
from devguard.custody.keyfile import export_public, load_signer, read_info
from devguard.evidence.frame import HEAD, LEAD, frame
from devguard.evidence.log import EvidenceLog, read_records
from devguard.evidence.record import Record

Damage = Callable[[Path], object]
_GONE: Final = ("log.truncated", "log.tampered", "log.missing", "trust.rollback")
_CHANGED: Final = ("log.tampered",)
_MONTH: Final = 30 * 24 * HOUR


def _segment(home: Path) -> Path:
    return max((home / "evidence").glob("segment-*.log"))


def _entries(home: Path) -> tuple[bytes, list[bytes]]:
    """The lead of the last segment, and the bodies of its entries."""
    data = _segment(home).read_bytes()
    at, bodies = LEAD, []
    while at + HEAD.size <= len(data):
        length, _ = HEAD.unpack_from(data, at)
        bodies.append(data[at + HEAD.size :][:length])
        at += HEAD.size + length
    return data[:LEAD], bodies


def _rewrite(home: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """The entries changed, every length and checksum mended."""
    lead, bodies = _entries(home)
    _segment(home).write_bytes(lead + b"".join(map(frame, change(bodies))))


def _own_log(home: Path, change: Callable[[list[Record]], list[Record]]) -> None:
    """All of the log written anew by who has the station's key: seals, tree and head are the station's own."""
    records = change(list(read_records(home / "evidence")))
    shutil.rmtree(home / "evidence")
    (home / "evidence").mkdir(mode=0o700)
    log = EvidenceLog.open(home / "evidence", load_signer(home / "keys" / "station.key", lambda: b""))
    for record in records:
        log.append(record)


class CutLog(Row):
    """The last records cut off, all of them, the log deleted, begun anew, put back from a copy; then a push."""

    id = "J01"
    title = "Delete the last records or the whole log"
    precedent = "HIPAA 164.312(b), OCR: how do you know these logs have not been edited; truncation of hash chains"
    attacker = Attacker.INSIDER
    regulation = ("1.F2", "14.1")

    def play(self, scene: Scene) -> None:
        damages: dict[str, Damage] = {
            "the last record": lambda home: _rewrite(home, lambda entries: entries[:-1]),
            "the last five": lambda home: _rewrite(home, lambda entries: entries[:-5]),
            "all records": lambda home: _rewrite(home, lambda _entries: []),
            "the log": lambda home: shutil.rmtree(home / "evidence"),
            "all records, an empty log begun by the station's key,": lambda home: _own_log(home, lambda _all: []),
        }
        for what, damage in damages.items():
            scene.again()
            damage(scene.home)
            self._missed(scene, f"{what} deleted")
        self._put_back(scene)

    @staticmethod
    def _missed(scene: Scene, what: str) -> None:
        scene.finds(f"{what}: verify", scene.commanding("evidence", "verify"), *_GONE)
        scene.finds(f"{what}: the next push", scene.pushing(scene.next), *_GONE)

    def _put_back(self, scene: Scene) -> None:
        """Yesterday's copy: of the log alone, then of everything the station remembers, which was true once."""
        scene.again()
        yesterday, today = scene.folder / "yesterday", scene.folder / "head"
        shutil.copytree(scene.home, yesterday)
        scene.goes_through("a push that shall not have been", scene.pushing(scene.next))
        scene.goes_through("its head, carried away", scene.commanding("evidence", "checkpoint", "-o", today))
        shutil.rmtree(scene.home / "evidence")
        shutil.copytree(yesterday / "evidence", scene.home / "evidence")
        self._missed(scene, "yesterday's log put back")
        shutil.rmtree(scene.home)
        shutil.copytree(yesterday, scene.home)
        earlier = scene.commanding("evidence", "verify", "--earlier", today)
        scene.finds("yesterday's everything put back: verify with the head", earlier, "log.truncated")
        newer = scene.release("1.3.0", 4)
        scene.finds("yesterday's everything put back: the next push", scene.pushing(newer), "device.changed")
        scene.again()


class EditedLog(Row):
    """One record changed, two exchanged, the whole log written anew with the station's own key, dated back."""

    id = "J02"
    title = "Edit, reorder or back-date a record"
    precedent = "insider concealment; 21 CFR 11, FDA premarket guidance, appendix 1.F"
    attacker = Attacker.INSIDER
    regulation = ("1.F2", "14.1", "14.4")

    def play(self, scene: Scene) -> None:
        person, other = (scene.person(name).encode() for name in ("technician", "second"))
        puppet = other[: len(person)].ljust(len(person), b"x")
        for what, change in (
            ("another technician", lambda entries: [body.replace(person, puppet) for body in entries]),
            ("two records exchanged", lambda entries: [*entries[:4], entries[5], entries[4], *entries[6:]]),
            ("a record twice", lambda entries: [*entries[:5], *entries[4:]]),
        ):
            scene.again()
            _rewrite(scene.home, change)
            scene.finds(f"{what}: verify", scene.commanding("evidence", "verify"), *_CHANGED)
            answer = scene.run("evidence", "verify")
            scene.holds(f"{what}: it names the record", "record " in str(answer.data.get("error")))
            scene.finds(f"{what}: the next push", scene.pushing(scene.next), *_CHANGED)
        self._with_the_key(scene, person.decode(), other.decode())
        self._clock(scene)
        scene.again()

    @staticmethod
    def _with_the_key(scene: Scene, person: str, other: str) -> None:
        """Seals and head come out right; what technicians and devices signed does not, nor a head carried away."""
        scene.again()
        head = scene.folder / "head"
        scene.goes_through("a head, carried away", scene.commanding("evidence", "checkpoint", "-o", head))

        def renamed(records: list[Record]) -> list[Record]:
            return [replace(one, actor=other) if one.actor == person else one for one in records]

        def invented(records: list[Record]) -> list[Record]:
            begun = next(one for one in records if one.action == "release.push-begun")
            made = replace(begun, actor=other, request="0123456789abcdef", statements={}, time=records[-1].time)
            return [*records, made]

        for what, change in (("another technician", renamed), ("a push that never was", invented)):
            kept = scene.folder / what.replace(" ", "-")
            shutil.copytree(scene.home, kept)
            _own_log(scene.home, change)
            scene.finds(f"{what}, by the station's key: verify", scene.commanding("evidence", "verify"), *_CHANGED)
            shutil.rmtree(scene.home)
            shutil.copytree(kept, scene.home)
        _own_log(scene.home, lambda records: [replace(one, statements={}, digests={}) for one in records])
        earlier = scene.commanding("evidence", "verify", "--earlier", head)
        scene.finds("every signature of others left out: verify with the head", earlier, *_CHANGED)

    @staticmethod
    def _clock(scene: Scene) -> None:
        scene.again()
        scene.world.clock.wrong = -_MONTH
        scene.refuses("a push dated a month back", scene.pushing(scene.next), "clock.rollback", by=By.OFFLINE)
        scene.world.clock.wrong = 0


class AnotherTool(Row):
    """The device gets another release from elsewhere; the station finds out at its next look, and asks who answers."""

    id = "J03"
    title = "Out-of-band change: someone used another tool (dfu-util, mcumgr, JTAG)"
    precedent = "Contec CMS8000 silent overwrite; CareLink and other vendors' software"
    attacker = Attacker.INSIDER
    regulation = ("1.F1", "3.3", "10.3")

    def play(self, scene: Scene) -> None:
        elsewhere, serial = scene.folder / "elsewhere", scene.device.serial
        shutil.copytree(scene.home, elsewhere)
        scene.world.honest_push(scene.next, elsewhere)
        newer = scene.release("1.3.0", 4)
        scene.refuses("the next push", scene.pushing(newer), "device.changed", by=By.HOST)
        found = list(read_records(scene.home / "evidence"))[-1]
        scene.holds("the incident names the device", (found.device, found.code) == (serial, "device.changed"))
        shown = " ".join(found.details.values())
        both = all(version in shown for version in ("1.1.0", "1.2.0"))
        scene.holds("and says what was on record and what was found", both)
        own = ("--key", "technician", "--reason", "it was nothing")
        denied = scene.commanding("device", "acknowledge", serial, *own)
        scene.finds("acknowledged by who wants to push", denied, "key.purpose", "key.unknown")
        scene.refuses("and pushed again", scene.pushing(newer), "device.changed", by=By.HOST)
        key = str(scene.vendor.home / "keys" / "authority.key")
        answers = ("--key", key, "--reason", "bench 8 pushed it, work order 311")
        scene.goes_through("an authority answers for it", scene.commanding("device", "acknowledge", serial, *answers))
        scene.goes_through("and pushes go on", scene.pushing(newer))


class SplitView(Row):
    """Two hospitals are shown two releases under one name, and two heads of one log; they meet with a stick."""

    id = "J05"
    title = "Split view: different release or log shown to different hospitals"
    precedent = "Uptane director compromise, the case for transparency logs; relabelled Contec devices"
    attacker = Attacker.MALICIOUS_REPOSITORY
    regulation = ("1.F1", "7.3")

    def play(self, scene: Scene) -> None:
        other = scene.release(image=b"\x55" * len(scene.next.image))
        scene.holds("both are genuinely signed", self._accepted(scene, scene.home, scene.file(scene.next, "a")))
        hospital = scene.folder / "hospital"
        shutil.copytree(scene.world.station, hospital)
        (hospital / "keys" / "station.key").unlink()
        (hospital / "memory.cbor").unlink()
        shutil.rmtree(hospital / "evidence")
        scene.holds("and both are accepted", self._accepted(scene, hospital, scene.file(other, "b")))
        proof = scene.folder / "proof"
        attempt = scene.commanding("evidence", "compare", scene.home, hospital, "-o", proof)
        scene.finds("the two logs compared", attempt, "release.equivocation")
        scene.holds("both signed statements are kept as proof", len(list(proof.glob("*.tlog-proof"))) == 2)
        self._forked(scene)

    @staticmethod
    def _accepted(scene: Scene, home: Path, file: Path) -> bool:
        return scene.world.run(home, "verify", file).status == 0

    @staticmethod
    def _forked(scene: Scene) -> None:
        """One station, two histories: one for the auditor, one for the hospital."""
        scene.again()
        fork = scene.folder / "fork"
        shutil.copytree(scene.home, fork)
        heads = [scene.folder / "auditors", scene.folder / "hospitals"]
        for home, head, version in zip((scene.home, fork), heads, ("1.2.0", "1.2.1"), strict=True):
            scene.world.must(home, "verify", scene.file(scene.release(version)))
            scene.world.must(home, "evidence", "checkpoint", "-o", head)
        proof = scene.folder / "proof"
        attempt = scene.commanding("evidence", "compare", *heads, "-o", proof)
        scene.finds("two heads of one log compared", attempt, "log.tampered")
        scene.holds("both heads are kept as proof", len(list(proof.iterdir())) == 2)


class NeverSurfacing(Row):
    """A storm of refusals, a grant tried on another device, pushes at night, at many devices: each has to be an
    incident by the end of the command, be in the way of more, and leave as a bundle without what people typed."""

    id = "J06"
    title = "Refused attempts and insider anomalies never surface; incident cannot be reported"
    precedent = "FDA premarket guidance, appendix 1.F; FDA postmarket guidance: 30 and 60 days"
    attacker = Attacker.INSIDER
    regulation = ("1.F1", "1.F2", "1.F3", "3.1", "3.3", "7.3")

    def play(self, scene: Scene) -> None:
        hour = time.localtime(scene.world.now).tm_hour
        (scene.home / "config.toml").write_text(
            f'[incidents]\nblock = ["burst"]\nnight = "{hour:02}:00-{(hour + 2) % 24:02}:00"\n'
        )
        used = [scene.grant(name) for name in scene.world.technicians()]
        scene.goes_through("a push at night", scene.pushing(scene.next, grants=used))
        self._raised(scene, "night")
        elsewhere = scene.pushing(scene.next, "--port", scene.another("XX-9").port, grants=used)
        scene.refuses("its grant, tried on another device", elsewhere, "grant.scope", by=By.HOST)
        self._raised(scene, "second-device")
        grant = [scene.grant(name, serials=frozenset({"XX-9"})) for name in scene.world.technicians()]
        patient = scene.file(scene.release(signers=()), _PATIENT)
        for number in range(12):
            code = scene.pushing(patient if number % 2 else scene.next, grants=grant)()
            scene.attempts.append(f"refused push {number + 1}: {code}")
        burst = self._raised(scene, "burst")
        self._raised(scene, "outside")
        fresh = scene.release("1.3.0", 4)
        scene.refuses("the next push of all", scene.pushing(fresh), "incident.open", by=By.OFFLINE)
        self._reported(scene, burst)
        answers = ("--officer", "Olga Officer", "--reason", "talked to Finn", "--decision", "controlled")
        scene.goes_through(
            "an officer releases it", scene.commanding("evidence", "incident", "release", burst, *answers)
        )
        scene.goes_through("and pushes go on", scene.pushing(fresh))

    @staticmethod
    def _raised(scene: Scene, kind: str) -> str:
        """The incident of that kind, on record by now; its id."""
        rows = scene.run("evidence", "incident", "list").data.get("incidents", ())
        found = [str(one["id"]) for one in rows if one["kind"] == kind]
        scene.holds(f"an incident of kind {kind} is on record", len(found) == 1)
        return found[0] if found else ""

    @staticmethod
    def _reported(scene: Scene, incident: str) -> None:
        bundle, before = scene.folder / "incident.bundle", scene.look().log
        scene.goes_through("its bundle", scene.commanding("evidence", "incident", "export", incident, "-o", bundle))
        added = [one.action for one in before.added(scene.look().log) or ()]
        scene.holds("the export is on record itself", "incident.export" in added)
        scene.holds("what people typed is not in it", _PATIENT.encode() not in bundle.read_bytes())
        scene.holds("and stands in the log", any(_PATIENT in str(one.details) for one in scene.look().log.records))
        elsewhere = scene.folder / "authority"
        key = scene.folder / "station.pub"
        key.write_bytes(export_public(read_info(scene.home / "keys" / "station.key")))
        answer = scene.world.run(elsewhere, "evidence", "verify", bundle, "--key", key)
        scene.holds("anybody verifies it by the public key alone", answer.status == 0)
        changed = bundle.read_bytes().replace(b"Finn", b"Gina")
        bundle.write_bytes(changed)
        answer = scene.world.run(elsewhere, "evidence", "verify", bundle, "--key", key)
        scene.holds("and finds what was changed in it", answer.code == "log.tampered")


_PATIENT: Final = "for-Maria-Muster-born-1950"

ROWS: Final[tuple[type[Row], ...]] = (CutLog, EditedLog, AnotherTool, SplitView, NeverSurfacing)
