"""The command line as a person or a program uses it: in this process for speed, or as a process of its own.

A `World` is one vendor's home with a key of every role, its trust document and two signed releases, made once by the
commands themselves. Tests work in copies of that home.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from builders import make_envelope, make_image, sign_envelope
from devguard.cli.main import main
from devguard.custody.keyfile import FileSigner, load_signer
from devguard.device.models import load_model
from devguard.evidence.log import read_records
from devguard.grant.claims import issue_grant
from devguard.grant.scope import ANY, Scope
from devguard.manifest.description import ComponentDescription
from devguard.manifest.envelope import Envelope, encode_envelope

PASSPHRASE = "correct horse battery staple"
ROOT = Path(__file__).resolve().parents[2]
STATION_OWN = shutil.ignore_patterns("evidence", "station.key", "memory.cbor")
PUMP, PROGRAMMER = "insulin-pump", "pacemaker-programmer"
VENDOR = load_model(PUMP).facts.vendor
# name, person, role, algorithm
PEOPLE = (
    ("root", "Rhea Root", "root", "ESP256"),
    ("release", "Remy Release", "release", "ESP256"),
    ("quality", "Quinn Quality", "quality", "ML-DSA-65"),
    ("authority", "Thea Authority", "technician-authority", "ESP256"),
    ("factory", "Dana Factory", "device-authority", "ESP256"),
    ("tech", "Tess Technician", "technician", "ESP256"),
    ("second", "Tom Technician", "technician", "Ed25519"),
)
DESCRIPTION = """\
[release]
vendor = "{vendor}"
model = "{model}"
revisions = ["revA"]
version = "{version}"
sequence = {sequence}
security_version = 1
summary = "a release for tests"

[[component]]
id = "application"
image = "{image}"
format = "{format}"
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What one command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; fails when there is anything else."""
        assert self.out.count("\n") == 1, self.out
        assert self.out.endswith("\n"), self.out
        data = json.loads(self.out)
        assert isinstance(data, dict)
        return data

    @property
    def code(self) -> str | None:
        """The refusal code, from JSON or from the `error:` line."""
        if self.out.startswith("{"):
            data = self.json
            return data["error"]["code"] if "error" in data else data.get("code")
        line = next((one for one in self.err.splitlines() if one.startswith("error: ")), None)
        return line.split(": ")[1] if line is not None else None


def devguard(*args: object) -> Result:
    """One command in this process. Its status is `main`'s; anything but SystemExit is a test failure."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(arg) for arg in args])
        except SystemExit as done:
            status = done.code
    assert isinstance(status, int), "main() has to end with a status"
    assert "Traceback" not in err.getvalue()
    return Result(status, out.getvalue(), err.getvalue())


def ok(*args: object) -> Result:
    """A command that has to succeed."""
    result = devguard(*args)
    assert result.status == 0, result.out + result.err
    return result


def start(*args: object, **options: Any) -> subprocess.Popen[str]:
    """The same as a process of its own."""
    command = [sys.executable, "-m", "devguard.cli.main", *map(str, args)]
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(command, **given)


def finish(process: subprocess.Popen[str], timeout: float = 60) -> Result:
    """Wait for a process and take what it said."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout} s; it said {out!r} {err!r}") from None
    assert "Traceback" not in err, err
    return Result(process.returncode, out, err)


def until(true: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for another process to reach a point; bounded."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.005)


@dataclass(slots=True)
class World:
    """One vendor, made once in `folder`: home, trust and two releases of the pump."""

    folder: Path
    home: Path
    trust: Path
    suits: dict[str, Path]
    image: Path
    signers: dict[str, FileSigner] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> World:
        """By the commands of the contract."""
        home = folder / "home"
        for name, person, role, algorithm in PEOPLE:
            ok("key", "new", name, "--person", person, "--role", role, "--alg", algorithm, "--home", home)
        roles = (
            "release=release:1",
            "quality=quality:1",
            "technician-authority=authority:1",
            "device-authority=factory:1",
        )
        named = [f"--role={one}" for one in roles]
        ok(
            "trust",
            "init",
            folder / "trust",
            "--root",
            "root",
            "--threshold",
            1,
            "--expires",
            "2099-01-01",
            *named,
            "--home",
            home,
        )
        world = cls(folder, home, folder / "trust" / "current.trust", {}, folder / "image-1.1.0.bin")
        for sequence, version in ((1, "1.0.0"), (2, "1.1.0")):
            (folder / f"image-{version}.bin").write_bytes(make_image(6000 + sequence, version))
            text = world.description(version=version, sequence=sequence, image=f"image-{version}.bin")
            (folder / f"{version}.toml").write_text(text)
            suit = world.suits[version] = folder / f"{version}.suit"
            ok("release", "build", folder / f"{version}.toml", "-o", suit, "--home", home)
            for name in ("release", "quality"):
                ok("release", "sign", suit, "--key", name, "--home", home)
        return world

    @staticmethod
    def description(**fields: object) -> str:
        """The text of a description."""
        given = {
            "vendor": VENDOR,
            "model": PUMP,
            "version": "1.1.0",
            "sequence": 2,
            "image": "image.bin",
            "format": "raw",
        }
        return DESCRIPTION.format(**{**given, **fields})

    def copy(self, folder: Path) -> Path:
        """A home of one's own, with all keys and the trust document and no evidence."""
        home = folder / "home"
        shutil.copytree(self.home, home)
        shutil.rmtree(home / "evidence", ignore_errors=True)
        (home / "keys" / "station.key").unlink(missing_ok=True)
        (home / "memory.cbor").unlink(missing_ok=True)
        return home

    def signer(self, name: str) -> FileSigner:
        """An opened key; each is opened once."""
        if name not in self.signers:
            self.signers[name] = load_signer(self.home / "keys" / f"{name}.key", PASSPHRASE.encode)
        return self.signers[name]

    def envelope(
        self,
        *,
        model: str = PUMP,
        image: bytes | Mapping[str, bytes] | None = None,
        signers: Sequence[str] = ("release", "quality"),
        **fields: Any,
    ) -> Envelope:
        """A release made in memory; `fields` replace those of its description."""
        serials = fields.pop("serials", ())
        facts = load_model(model).facts
        parts = tuple(ComponentDescription(one, f"{one}.bin", "raw", serials, ()) for one in facts.components)
        given = {"components": parts, "revisions": ("revA",), **fields}
        envelope = make_envelope(image, model=replace(facts, vendor=given.get("vendor", facts.vendor)), **given)
        return sign_envelope(envelope, [self.signer(name) for name in signers])

    def suit(self, path: Path, **fields: Any) -> Path:
        """The same as a file."""
        path.write_bytes(encode_envelope(self.envelope(**fields)))
        return path

    def grant(
        self, path: Path, serial: str, *, name: str = "tech", model: str = PUMP, hours: int = 8, **scope: Any
    ) -> Path:
        """A grant by the authority, made in memory."""
        now = int(time.time())
        given: dict[str, Any] = {
            "models": frozenset([model]),
            "serials": frozenset([serial]),
            "sites": frozenset([ANY]),
            "actions": frozenset(["update"]),
            "epoch": 0,
            "release_digest": None,
            "any_release": True,
            "max_uses": None,
            "trained_until": None,
            "device_nonce": None,
        }
        holder = self.signer(name)
        data = issue_grant(
            [self.signer("authority")],
            issuer="Thea Authority",
            subject=holder.info.person,
            holder=holder.key,
            scope=Scope(**{**given, **scope}),
            now=now,
            expires=now + hours * 3600,
            cti=hashlib.sha256(str(path).encode()).digest()[:16],
        )
        path.write_bytes(data)
        return path


def records(home: Path, *, raised: bool = False) -> list[dict[str, Any]]:
    """All evidence records of a home; the incidents that rules put behind them only with `raised`."""
    folder = home / "evidence"
    found = [one.to_json() for one in read_records(folder)] if folder.is_dir() else []
    return [one for one in found if raised or one["action"] != "incident.open"]


def in_evidence(home: Path, text: str) -> bool:
    """Whether a record with `text` has reached the log, looked at from outside while another process writes it."""
    return any(text.encode() in path.read_bytes() for path in (home / "evidence").glob("*") if path.is_file())


@dataclass(slots=True)
class Emulator:
    """A running emulated device."""

    process: subprocess.Popen[str]
    port: str
    serial: str
    state: Path

    @classmethod
    def start(cls, world: World, folder: Path, serial: str, *more: object, model: str = PUMP) -> Emulator:
        """The first line says where it is."""
        home = folder / "factory"
        if not home.exists():
            shutil.copytree(world.home, home, ignore=STATION_OWN)
        process = start(
            "emulate", model, "--serial", serial, "--state", folder / f"state-{serial}", "--home", home, *more
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        said = json.loads(line)
        assert set(said) >= {"port", "model", "serial", "state"}
        return cls(process, said["port"], said["serial"], Path(said["state"]))

    def stop(self) -> int:
        """As a person would."""
        self.process.terminate()
        status = self.process.wait(timeout=20)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status


@contextlib.contextmanager
def emulator(world: World, folder: Path, serial: str, *more: object, model: str = PUMP) -> Iterator[Emulator]:
    """A running device that is stopped whatever happens."""
    device = Emulator.start(world, folder, serial, *more, model=model)
    try:
        yield device
    finally:
        if device.process.poll() is None:
            device.process.kill()
        device.process.wait()
        for stream in (device.process.stdout, device.process.stderr):
            if stream is not None:
                stream.close()


def descriptor(text: str) -> int:
    """A file descriptor from which `text` can be read; the caller closes it."""
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    return read
