"""The demo's good half: keys, trust, a signed release, a grant, a push, a report. See `demo`."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from devguard.cli.context import Invocation
from devguard.errors import DevguardError, LinkError, Refused

SERIAL: Final = {"insulin-pump": "IP-4711", "pacemaker-programmer": "PP-0815"}
NEW, OLD = "1.1.0", "1.0.0"
CACHE: Final = Path(".cache") / "firmware"
# component -> (file, what it is) of the old and of the new release
REAL: Final = {
    "application": (
        ("microbit-micropython-1.0.hex", "MicroPython 1.0 for the micro:bit"),
        ("microbit-micropython-1.0.1.hex", "MicroPython 1.0.1 for the micro:bit"),
    ),
    "telemetry": (
        ("connectivity_1.1.0_1m_with_s132_3.0.hex", "nRF52 connectivity firmware 1.1.0"),
        ("connectivity_1.2.3_1m_with_s132_3.1.hex", "nRF52 connectivity firmware 1.2.3"),
    ),
}
# (name, person, role, algorithm)
KEYS: Final = (
    ("root", "Ada Root", "root", "ESP256"),
    ("release", "Ben Release", "release", "ESP256"),
    ("quality", "Cleo Quality", "quality", "ML-DSA-65"),
    ("authority", "Dana Head of Engineering", "technician-authority", "ESP256"),
    ("factory", "Emil Factory", "device-authority", "ESP256"),
    ("technician", "Finn Technician", "technician", "ESP256"),
)
WHY: Final = ("hybrid", "threshold", "class", "components", "image")
SECOND: Final = ("second", "Gus Technician", "technician", "Ed25519")
DESCRIPTION: Final = """\
[release]
vendor = "{vendor}"
model = "{model}"
revisions = ["{revision}"]
version = "{version}"
sequence = {sequence}
security_version = {sequence}
summary = "{summary}"

[safety]
minimum_battery_percent = 30
therapy_idle = true
"""
COMPONENT: Final = """
[[component]]
id = "{id}"
image = "{image}"
format = "auto"
ignore_ranges = [[0x10000000, 0x10002000]]
"""


@dataclass(slots=True)
class Story:
    """One run: what was done, how it came out, where it lies."""

    invocation: Invocation
    model: str
    folder: Path
    image: Path | None
    steps: list[dict[str, Any]] = field(default_factory=list)
    attacks: list[dict[str, Any]] = field(default_factory=list)
    firmware: dict[str, str] = field(default_factory=dict)
    port: str = ""
    recording: bytes = b""

    @property
    def home(self) -> Path:
        """The demo's own devguard home."""
        return self.folder / "home"

    @property
    def trust(self) -> Path:
        """The trust document in force."""
        return self.folder / "current.trust"

    @property
    def held(self) -> bool:
        """Whether every step and every attack came out as it must."""
        return len(self.attacks) == 6 and all(row["held"] for row in [*self.steps, *self.attacks])

    def suit(self, version: str) -> Path:
        """Where the signed release of a version lies."""
        return self.folder / ("release" if version == NEW else "old") / f"{self.model}-{version}.suit"

    # running commands

    def run(self, *args: str | Path, home: Path | None = None) -> tuple[int, dict[str, Any]]:
        """One devguard command in this process: (exit status, its JSON object)."""
        from devguard.cli.in_process import run_command

        quiet = [] if args[0] == "push" else ["-q"]  # a push shows its progress
        return run_command([*args, *quiet], home or self.home)

    def must(self, *args: str | Path, home: Path | None = None) -> dict[str, Any]:
        """A command that has to succeed."""
        status, data = self.run(*args, home=home)
        if status != 0:
            fault = data.get("error") or {"code": data.get("code") or "internal.error", "message": "refused"}
            raise Refused(fault["code"], f"devguard {' '.join(str(arg) for arg in args[:2])}: {fault['message']}")
        return data

    def say(self, name: str, text: str, *, held: bool = True) -> None:
        """One line of the story."""
        self.steps.append({"step": name, "text": text, "held": held})
        mark = click.style("ok  ", fg="green") if held else click.style("FAIL", fg="red", bold=True)
        self.invocation.say(f"{mark} {click.style(f'{name:9}', bold=True)} {text}")

    def broke(self, error: DevguardError) -> None:
        """The story could not go on."""
        self.say("stopped", f"{error.code}: {error.message} ({error.hint})", held=False)

    # the story

    def prepare(self) -> None:
        """Keys of all people, and the trust document that names them."""
        os.environ["DEVGUARD_PASSPHRASE"] = secrets.token_urlsafe(12)
        people = [*KEYS, SECOND] if self.model == "pacemaker-programmer" else list(KEYS)
        for name, person, role, algorithm in people:
            self.must("key", "new", name, "--person", person, "--role", role, "--alg", algorithm, "--development")
        self.say(
            "keys",
            f"{len(people)} people; release signs ESP256, quality ML-DSA-65 (post-quantum)",
        )
        expires = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 365 * 86_400))
        roles = ("release", "quality", "technician-authority=authority", "device-authority=factory")
        named = [f"--role={role if '=' in role else f'{role}={role}'}:1" for role in roles]
        nonce = ["--require-device-nonce"] if self.model == "insulin-pump" else []
        made = self.must(
            "trust", "init", self.folder / "trust", "--root", "root", "--threshold", "1", "--expires", expires,
            "--development", *named, *nonce,
        )  # fmt: skip
        self.trust.write_bytes(Path(made["path"]).read_bytes())
        self.say(
            "trust",
            "one document says who may release, check, grant and enrol",
        )

    def release(self) -> None:
        """Two releases of real firmware, each signed by two people, the new one verified."""
        for sequence, version in enumerate((OLD, NEW), start=1):
            self.build(version, sequence, self.suit(version))
            for person in ("release", "quality"):
                self.must("release", "sign", self.suit(version), "--key", person)
        self.say("release", f"{self.model} {NEW}: {self.firmware[NEW]}, signed")
        data = self.must("verify", self.suit(NEW), "--trust", self.trust, "--model", self.model)
        self.say(
            "verify",
            f"accepted: all {len(data['checks'])} checks hold; among them",
        )
        for check in data["checks"]:
            if check["name"] in WHY:
                self.invocation.say(f"                 {check['name']}: {check['detail']}")

    def build(self, version: str, sequence: int, out: Path) -> None:
        """An unsigned release at `out`."""
        from devguard.device.models import load_model

        model = load_model(self.model)
        out.parent.mkdir(parents=True, exist_ok=True)
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        sources = {name: self.source(version, name) for name in model.facts.components}
        for source, _ in sources.values():
            (work / source.name).write_bytes(source.read_bytes())
        what = " and ".join(text for _, text in sources.values())
        self.firmware[version] = what
        text = DESCRIPTION.format(
            vendor=model.facts.vendor,
            model=self.model,
            revision=model.default_revision,
            version=version,
            sequence=sequence,
            summary=what,
        )
        text += "".join(COMPONENT.format(id=name, image=source.name) for name, (source, _) in sources.items())
        description = work / f"{version}.toml"
        description.write_text(text, encoding="utf-8")
        self.must("release", "build", description, "-o", out)

    def source(self, version: str, component: str) -> tuple[Path, str]:
        """A component's image and what it is: given (the application), real, or generated and labelled so."""
        if self.image is not None and component == "application":
            if not self.image.is_file():
                raise Refused("file.missing", f"{self.image} does not exist")
            return self.image, f"{self.image.name} (given)"
        name, what = REAL[component][0 if version == OLD else 1]
        for base in (Path.cwd(), Path(__file__).resolve().parents[2]):
            if (base / CACHE / name).is_file():
                return base / CACHE / name, what
        made = self.folder / "work" / f"generated-{component}-{version}.bin"
        if not made.exists():
            self.invocation.note(
                f"no real firmware for the {component} in the cache (tools/fetch_firmware.py --all obtains it): "
                "a generated image is used"
            )
            made.write_bytes(bytes(range(256)) * 512 + f"{component} {version}".encode())
        return made, "GENERATED image (no real firmware at hand)"

    def start_device(self, stack: ExitStack) -> None:
        """An emulated device of its own process, enrolled by the factory."""
        command = [
            sys.executable, "-m", "devguard.cli.main", "emulate", self.model, "--trust", str(self.trust),
            "--device-authority", "factory", "--serial", SERIAL[self.model], "--state", str(self.folder / "device"),
            "--home", str(self.home),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603
        stack.callback(_stop, process)
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line:
            reason = process.stderr.read() if process.stderr is not None else ""
            raise LinkError("link.port", f"the emulated device did not start: {reason.strip()[:200]}")
        self.port = json.loads(line)["port"]
        self.say("device", f"{self.model} {SERIAL[self.model]} emulated on {self.port}, enrolled")

    def grants(self, serial: str, name: str) -> list[str]:
        """Options that push under fresh grants for a serial: the technician's, and the second's where two are asked."""
        info = self.must("device", "info", "--port", self.port, "--trust", self.trust)
        nonce = ["--device-nonce", info["nonce"]] if self.model == "insulin-pump" else []
        options: list[str] = []
        people = (("technician", "--key", "--grant"), ("second", "--second-key", "--second-grant"))
        for person, key_option, grant_option in people[: 2 if self.model == "pacemaker-programmer" else 1]:
            out = self.folder / "grants" / f"{name}-{person}.grant"
            out.parent.mkdir(exist_ok=True)
            self.must(
                "grant", "issue", "--authority", "authority", "--technician", person, "--model", self.model, "--serial",
                serial, "--expires", "8h", *nonce, "-o", out,
            )  # fmt: skip
            options += [key_option, person, grant_option, str(out)]
        return options

    def push(self) -> None:
        """The technician pushes over a tapped line; the device judges, boots on trial, confirms, signs a report."""
        from devguard.bench.tap import LineTap

        serial = SERIAL[self.model]
        options = self.grants(serial, "good")
        self.say(
            "grant",
            f"Dana grants Finn{' and Gus' if len(options) > 4 else ''} eight hours on {serial} alone",
        )
        with LineTap(self.port) as tap:
            data = self.must(
                "push", self.suit(NEW), "--port", tap.port, "--trust", self.trust, "--serial", serial, *options
            )
            self.recording = bytes(tap.to_device)
        device, link = data["device"], data["link"]
        good = device["confirmed"] and device["version_after"] == NEW
        self.say(
            "push",
            f"{link['payload_bytes']} bytes in {link['seconds']:.1f} s, judged by the device before it erased",
            held=good,
        )
        report = data["report"]
        unchanged = report["settings_before"] == report["settings_digest"]
        for one in report["components"]:
            self.invocation.say(f"                 {one['id']} {one['version']}: {one['size']} bytes, runs as signed")
        self.say(
            "report",
            f"{device['version_before']} -> {device['version_after']} {report['boot_state']}, "
            f"therapy settings {'unchanged' if unchanged else 'CHANGED'}, signed",
            held=good and unchanged,
        )

    def evidence(self) -> None:
        """The log of all of it still holds."""
        data = self.must("evidence", "verify")
        self.say("evidence", f"{data['records']} records, each sealed; checkpoint root {data['root'][:16]}...")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
