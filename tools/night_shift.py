"""Write docs/night-shift.md: a night and a morning on an emulated pump, each command with what it really says.

The commands run in this process by a clock of their own, so that the night is at night; the pump is a process of its
own on a pseudo-terminal. What differs between two runs is made stable afterwards, and nothing else is: the date,
seconds, the port's name and hexadecimal. A slow test plays it anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from devguard.cli.context import Invocation
from devguard.cli.main import run

PAGE = Path(__file__).resolve().parent.parent / "docs" / "night-shift.md"
SERIAL, MODEL, DAY = "IP-4711", "insulin-pump", "2026-03-04"
# name, person, role, algorithm
PEOPLE = (
    ("root", "Ada Root", "root", "ESP256"),
    ("release", "Ben Release", "release", "ESP256"),
    ("quality", "Cleo Quality", "quality", "ML-DSA-65"),
    ("officer", "Olga Officer", "technician-authority", "ESP256"),
    ("factory", "Emil Factory", "device-authority", "ESP256"),
    ("day", "Dora Day", "technician", "ESP256"),
    ("night", "Nils Night", "technician", "ESP256"),
)
DESCRIPTION = """\
[release]
vendor = "devices.devguard.example"
model = "insulin-pump"
revisions = ["revA"]
version = "{version}"
sequence = {sequence}
security_version = 1
summary = "Release {version}"

[[component]]
id = "application"
image = "{version}.bin"
format = "raw"
"""
DATE = re.compile(r"\b20[0-9]{2}-[01][0-9]-[0-3][0-9](?![0-9])")
EPOCH = re.compile(r"\b[12][0-9]{9}\b")
HEX = re.compile(r"\b[0-9a-f]{16,}\b")


@dataclass
class Scene:
    """One run in `folder`. `today`: midnight of the day it is played on; `clock`: epoch seconds of the scene; `lines`:
    what the page shows so far; `names`: hexadecimal that was met, by the number it was met as."""

    folder: Path
    today: datetime
    clock: float = 0.0
    port: str = ""
    lines: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def quiet(self, *args: object, home: str = "bench", status: int = 0) -> str:
        """A command that the page does not show; its output. Fails when it ends otherwise than it must."""
        out = io.StringIO()
        invocation = Invocation(clock=self.now, home_path=self.folder / home)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            ended = run(["--home", str(self.folder / home), *map(str, args)], invocation)
        if ended != status:
            raise SystemExit(f"devguard {' '.join(map(str, args))}: ended with {ended}, not {status}\n{out.getvalue()}")
        return out.getvalue()

    def now(self) -> float:
        """Later each time it is asked, as a clock is."""
        self.clock += 0.25
        return self.clock

    def show(self, *args: object, home: str = "bench", status: int = 0) -> None:
        """A command with its output and, where it is not 0, its exit status."""
        said = self.stable(self.quiet(*args, home=home, status=status))
        typed = self.stable(shlex.join(map(str, args)))
        text = f"$ devguard {typed}\n{said.rstrip()}" + (f"\n(exit status {status})" if status else "")
        self.lines.append(f"```\n{text}\n```")

    def say(self, text: str) -> None:
        """A paragraph."""
        self.lines.append(text)

    def at(self, hour: int, minute: int, days: int = 0) -> None:
        """Set the scene's clock, by UTC of the day it is played on."""
        self.clock = (self.today + timedelta(days=days, hours=hour, minutes=minute)).timestamp()

    def stable(self, text: str) -> str:
        """The same in every run."""
        early = self.today - datetime.fromisoformat(DAY).replace(tzinfo=UTC)
        text = DATE.sub(lambda found: self.dated(found[0], early), text)
        text = EPOCH.sub(lambda found: str(int(found[0]) - int(early.total_seconds())), text)
        text = text.replace(self.port, "/dev/ttyUSB0") if self.port else text
        text = text.replace(f"{self.folder}/", "")
        text = re.sub(r"(\d{2}:\d{2}):\d{2}Z", r"\1:00Z", text)
        return HEX.sub(lambda found: self.named(found[0]), text)

    def dated(self, text: str, early: timedelta) -> str:
        """A day of the scene, or one that it counts from there; every other day is one of the text."""
        day = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return (day - early).strftime("%Y-%m-%d") if abs(day - self.today) < timedelta(days=100) else text

    def named(self, digits: str) -> str:
        """Digits for digits: which come first, come first. Short forms of one value stay short forms of it."""
        known = next((one for one in self.names if one.startswith(digits[:16])), digits)
        self.names.setdefault(known, str(len(self.names)))
        made = "".join(hashlib.sha256(f"{self.names[known]}.{part}".encode()).hexdigest() for part in range(80))
        return made[: len(digits)]


def prepare(scene: Scene) -> None:
    """The day before: vendor, trust document, two releases, grants for two technicians; the pump runs 1.1.0."""
    scene.at(15, 0, days=-1)
    for name, person, role, algorithm in PEOPLE:
        scene.quiet("key", "new", name, "--person", person, "--role", role, "--alg", algorithm, home="vendor")
    listed = [f"--role={role}={name}:1" for name, _, role, _ in PEOPLE if role not in ("root", "technician")]
    scene.quiet("trust", "init", "trust", "--root", "root", "--threshold", 1, "--expires", "2099-01-01", *listed,
                home="vendor")  # fmt: skip
    for sequence, version in ((1, "1.0.0"), (2, "1.1.0")):
        Path(f"{version}.bin").write_bytes(hashlib.sha256(version.encode()).digest() * 200)
        Path(f"{version}.toml").write_text(DESCRIPTION.format(version=version, sequence=sequence))
        scene.quiet("release", "build", f"{version}.toml", "-o", f"{version}.suit", home="vendor")
        for name in ("release", "quality"):
            scene.quiet("release", "sign", f"{version}.suit", "--key", name, home="vendor")
    past = shutil.ignore_patterns("evidence", "station.key", "memory.cbor")
    for home in ("factory", "bench", "laptop"):
        shutil.copytree("vendor", home, ignore=past)
    Path("bench/config.toml").write_text('[incidents]\nnight = "22:00-06:00"\n')
    for name in ("day", "night"):
        scene.quiet("technician", "add", name, "--any-site", "--trained-until", "2098-01-01")
    grant(scene, "day", "8h")


def grant(scene: Scene, name: str, hours: str) -> None:
    """A grant for one shift."""
    Path(f"{name}.grant").unlink(missing_ok=True)
    actions = ("--action", "update", "--action", "read-log")
    scene.quiet("grant", "issue", "--authority", "officer", "--technician", name, "--model", MODEL, "--serial", SERIAL,
                "--expires", hours, *actions, "-o", f"{name}.grant")  # fmt: skip


@contextlib.contextmanager
def pump(scene: Scene) -> Iterator[None]:
    """The emulated pump, switched on."""
    command = [sys.executable, "-m", "devguard.cli.main", "emulate", MODEL, "--serial", SERIAL, "--state", "state",
               "--home", "factory"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            if process.stdout is None:
                raise SystemExit("no output of the emulated pump")
            scene.port = json.loads(process.stdout.readline())["port"]
            yield
        finally:
            process.terminate()


def line(scene: Scene, name: str) -> list[object]:
    """Options of a visit to the pump by one of the technicians."""
    return ["--port", scene.port, "--key", name, "--grant", f"{name}.grant"]


def play(scene: Scene) -> None:
    """The night and the morning."""
    scene.quiet("push", "1.1.0.suit", *line(scene, "day"), "--reason", "planned update")
    scene.at(20, 0, days=-1)
    grant(scene, "night", "12h")
    scene.quiet("evidence", "checkpoint", "-o", "yesterday.checkpoint")
    scene.quiet("key", "export", "station", "--public", "-o", "station.pub")
    night(scene)
    morning(scene)


def night(scene: Scene) -> None:
    """Nils pushes the old release, twice."""
    scene.say("## At night")
    scene.say("Nils works nights. His key is his own and his grant holds: he may update this pump. Release 1.0.0 is "
              "genuine, both signatures are good, and it has a hole that 1.1.0 closed.")  # fmt: skip
    scene.at(2, 13)
    scene.show("push", "1.0.0.suit", *line(scene, "night"), "--reason", "battery gauge", status=1)
    scene.say("The bench has asked the pump what it runs and gone no further. Nils tries his own laptop, a home with "
              "the same keys and no past:")  # fmt: skip
    scene.at(2, 21)
    scene.show("push", "1.0.0.suit", *line(scene, "night"), home="laptop", status=1)
    scene.say("No flag gets him on: the pump would refuse it by itself, its counter does not go back.")


def morning(scene: Scene) -> None:
    """What Olga does, in the order in which she does it."""
    scene.say("## In the morning")
    scene.say("Olga is the officer. She first asks whether the log can be believed at all: every record, every seal, "
              "what the pump signed inside it, and the checkpoint she carried home yesterday.")  # fmt: skip
    scene.at(7, 0)
    grant(scene, "day", "8h")
    scene.at(7, 30)
    scene.show("evidence", "verify", "--earlier", "yesterday.checkpoint")
    scene.say("It holds. What happened since?")
    scene.show("evidence", "show", "--last", 4)
    scene.say("A refused downgrade, by name. A push in hours that her policy calls unusual (`night = \"22:00-06:00\"` "
              "in config.toml) is an incident by itself, raised the moment it was recorded:")  # fmt: skip
    scene.show("evidence", "incident", "list")
    incident = json.loads(scene.quiet("evidence", "incident", "list", "--json"))["incidents"][0]["id"]
    scene.show("evidence", "incident", "show", incident)
    scene.say("Is the pump as it was? It signs what it runs, for this very question:")
    scene.at(7, 34)
    scene.show("device", "info", *line(scene, "day"), "-o", "pump.report")
    scene.say("It is. Did anybody meet it elsewhere? The pump keeps a log of its own, which the bench cannot write:")
    scene.at(7, 36)
    scene.show("device", "log", *line(scene, "day"), "-o", "pump.log")
    scene.say("Held against the bench's log, one session is nobody's here. Nils's laptop was at the line:")
    scene.show("evidence", "verify", "--report", "pump.log", status=1)
    scene.say("Nils's grants are of no use from here on:")
    scene.at(7, 41)
    scene.show("technician", "suspend", "night", "--reason", "downgrade at night")
    scene.say("He comes back before his shift ends, to the bench:")
    scene.at(7, 52)
    scene.show("push", "1.1.0.suit", *line(scene, "night"), status=1)
    scene.say("What she found out goes on record, and the incident leaves the house as one file, which the authority "
              "verifies with the station's public key and nothing else:")  # fmt: skip
    scene.at(8, 20)
    scene.show("evidence", "incident", "release", incident, "--officer", "Olga Officer", "--reason",
               "refused here and elsewhere, technician suspended", "--decision", "controlled")  # fmt: skip
    scene.show("evidence", "incident", "export", incident, "-o", "night.bundle")
    scene.show("evidence", "verify", "night.bundle", "--key", "station.pub", home="elsewhere")
    scene.say("And what runs on her pumps, how far behind, supported until when:")
    scene.show("fleet", "age")


def page() -> str:
    """The page, from a scene played anew."""
    head = (
        "# A downgrade at night, and the morning after\n\nAn insider with a valid key and a valid grant pushes a "
        "release with a known hole. What the officer does the next morning, command by command.\n\nWritten by "
        "`tools/night_shift.py`, which plays it on an emulated pump. All output is real; date, seconds, port and "
        "hexadecimal are made the same in every run."
    )
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        saved = dict(os.environ)
        os.environ.update({"DEVGUARD_PASSPHRASE": secrets.token_hex(16), "LOGNAME": "bench", "TZ": "UTC"})
        clock.tzset()
        try:
            scene = Scene(Path(folder).resolve(), datetime.combine(datetime.now(UTC), time.min, UTC))
            prepare(scene)
            with pump(scene):
                play(scene)
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(saved)
            clock.tzset()
    return "\n\n".join([head, *scene.lines]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
