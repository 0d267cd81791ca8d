"""Light emulated devices, all in one process that no killed worker and no restarted database takes with it.

What is real: each device reads its grant and runs `check_grant` with its own view, remembers the uses it spent by the
device's own rule, refuses what it runs already, and signs its report with its own key. What is light: no session, no
line, no transfer, no flash, no trial boot, no therapy; the release is judged once for all of them; grant epoch and
clock floor stand still. The process also plays the authority, which issues one grant for each device, and keeps what
workers said they had committed, so that a database that forgets is caught.
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devguard.bench import stage
from devguard.bench.campaign_setup import MODEL, Setup
from devguard.bench.campaign_stage import OLD, build, device_signer, grant_for
from devguard.device.models import load_model
from devguard.errors import DevguardError, Malformed, Refused
from devguard.grant.check import DeviceView, check_grant
from devguard.grant.claims import Action, read_grant
from devguard.grant.uses import Spent
from devguard.session.report import Report, sign_report
from devguard.verdict.judge import Release, Target, judge

LINE: int = 65_536


def judged() -> Release:
    """The release, judged as a device does that runs the one before."""
    what, facts = build(), load_model(MODEL).facts
    target = Target(model=facts, installed_sequence=1)
    return judge(what.envelope, trust=stage.trust(), now=stage.NOW, target=target, payload=what.measured).require()


@dataclass(slots=True)
class LightDevice:
    """One device. installs: how often an image was put in; spends: the grants whose uses it counted, in their order."""

    serial: str
    digest: bytes = OLD
    trial: bytes | None = None
    installs: int = 0
    spent: dict[bytes, Spent] = field(default_factory=dict)
    spends: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def push(self, release: Release, data: bytes) -> None:
        """Take the release under a grant, as far as a trial. Raises what `check_grant` and `spend` raise, and
        `Refused("version.current")`."""
        self.boot()
        if self.digest == release.manifest_digest:
            raise Refused("version.current", f"device {self.serial} runs this very release")
        grant, clock = read_grant(data), load_model(MODEL).facts.clock
        view = DeviceView(MODEL, self.serial, None, clock, 0, frozenset(), self.spent)
        checked = check_grant(grant, trust=stage.trust(), now=stage.NOW, device=view, action=Action.UPDATE, holder=None)
        kept = checked.spend(release, stage.trust().issued)
        if kept != self.spent:
            self.spends.append(grant.cti)
        self.spent, self.trial = kept, release.manifest_digest
        self.installs += 1

    def boot(self) -> None:
        """What was on trial is confirmed: the self-test of a light device always passes."""
        if self.trial is not None:
            self.digest, self.trial = self.trial, None

    def report(self, challenge: bytes) -> bytes:
        """The signed report, after a boot where an image waits for one."""
        self.boot()
        new = self.digest != OLD
        said = Report(
            model=MODEL,
            serial=self.serial,
            version="1.1.0" if new else "1.0.0",
            image_digest=self.digest,
            manifest_digest=self.digest,
            sequence=2 if new else 1,
            security_version=1,
            boot_state="confirmed",
            confirmed=True,
            flags=(),
            trust_version=1,
            grant_epoch=0,
            clock_floor=stage.trust().issued,
            spent_grants=len(self.spent),
            settings_digest=bytes(32),
            settings_before=None,
            history_digest=bytes(32),
            battery_percent=100,
            log_head=bytes(32),
            challenge=challenge,
        )
        return sign_report(said, device_signer(self.serial))

    def end(self) -> dict[str, Any]:
        """What became of it."""
        uses = {cti.hex(): one.uses for cti, one in self.spent.items()}
        return {
            "serial": self.serial,
            "digest": self.digest.hex(),
            "confirmed": self.trial is None,
            "installs": self.installs,
            "uses": uses,
            "spends": [cti.hex() for cti in self.spends],
        }


class Devices:
    """All devices, and what workers said they had committed."""

    def __init__(self, setup: Setup) -> None:
        self.release = judged()
        self.devices = {serial: LightDevice(serial) for serial in setup.serials()}
        self.committed: list[list[str]] = []

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One request. Raises `DevguardError`."""
        what = asked.get("op")
        if what == "ends":
            return {"devices": [one.end() for one in self.devices.values()], "committed": self.committed}
        if what == "committed":
            self.committed.append([str(asked["lease"]), str(asked["report"])])
            return {}
        device = self.devices.get(str(asked.get("serial")))
        if device is None:
            raise Malformed("wire.malformed", "no such device")
        if what == "grant":
            key = device_signer(device.serial).key.encode()
            return {"grant": grant_for(device.serial).hex(), "key": key.hex()}
        with device.lock:
            if what == "push":
                device.push(self.release, bytes.fromhex(asked["grant"]))
                return {}
            if what == "report":
                return {"report": device.report(bytes.fromhex(asked["challenge"])).hex()}
        raise Malformed("wire.malformed", f"no request {what!r}")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
    devices: Devices


class _Handler(socketserver.StreamRequestHandler):
    """One worker's connection: a JSON object a line, both ways."""

    server: _Server

    def handle(self) -> None:
        """Answer until the worker is gone."""
        try:
            while line := self.rfile.readline(LINE):
                self.wfile.write(json.dumps(self._one(line)).encode() + b"\n")
        except OSError:  # a worker that was killed
            return

    def _one(self, line: bytes) -> dict[str, Any]:
        try:
            return self.server.devices.answer(json.loads(line))
        except DevguardError as error:
            return {"code": error.code, "message": error.message}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"code": "wire.malformed", "message": str(error)}


def serve(setup: Setup) -> None:
    """Answer at the setup's socket until the process is ended."""
    with _Server(setup.socket, _Handler) as server:
        server.devices = Devices(setup)
        print("ready", flush=True)
        server.serve_forever(poll_interval=0.5)


if __name__ == "__main__":
    serve(Setup.read(Path(sys.argv[1])))
