"""A worker of a simulated campaign: a process that takes devices' jobs from the queue and pushes to light devices.

It goes the way of a bench: lease, grant, push, signed report, evidence, outcome; each in its own transaction, so that
it can be killed between any two. What is light: the authority answers at once, and the evidence goes straight into
the ledger's tables, without a station's log.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from devguard.bench.campaign_setup import Setup
from devguard.campaign.leases import Delivery, Lease, claim, deliver
from devguard.campaign.queue import Pace, Queue
from devguard.campaign.state import Outcome, outcome_of
from devguard.campaign.store import moment
from devguard.cose.keys import CoseKey
from devguard.errors import DevguardError, DeviceRefused, LinkError, Refused
from devguard.grant.claims import read_grant
from devguard.ledger.schema import devices, grant_uses, pushes, reports
from devguard.ledger.store import Store
from devguard.session.report import Report, parse_report

STATION: Final = "devguard/simulation"
REPLY: Final = 1 << 26


class Line:
    """The connection to the devices; one request at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stream: Any = None

    def ask(self, **asked: Any) -> dict[str, Any]:
        """The answer. Raises `DeviceRefused`, or `LinkError("link.timeout")` where none comes."""
        with self._lock:
            try:
                answer = self._exchange(asked)
            except (OSError, ValueError) as error:
                self._stream = None
                raise LinkError("link.timeout", f"the devices do not answer: {error}") from None
        if "code" in answer:
            raise DeviceRefused(answer["code"], answer["message"])
        return answer

    def _exchange(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self._stream is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(60)
            sock.connect(self._path)
            self._stream = sock.makefile("rwb")
        self._stream.write(json.dumps(asked).encode() + b"\n")
        self._stream.flush()
        answer = json.loads(self._stream.readline(REPLY))
        if not isinstance(answer, dict):
            raise ValueError("no object")
        return answer


class Worker:
    """One worker. `act` is the job of a device."""

    def __init__(self, setup: Setup, store: Store) -> None:
        self.setup = setup
        self.store = store
        self.line = Line(setup.socket)
        self.name = f"worker {os.getpid()}"
        self.dice = random.Random(f"{setup.seed}/{os.getpid()}")  # noqa: S311 (which outcomes are said twice)

    def act(self, campaign: str, serial: str) -> None:
        """Push to one device, if it is to be had. Raises `LinkError` for what ought to be tried again."""
        token = os.urandom(12).hex()
        try:
            lease = self.store.run(lambda conn: self.claim(conn, campaign, serial, token))
        except Refused:  # paused, stopped or over: nobody is handed out
            return
        if lease is None:
            return
        try:
            code, outcome, proof = None, Outcome.CONFIRMED, self._push(lease)
        except DeviceRefused as error:
            code, proof = error.code, b""
            outcome = outcome_of(error.code, met=True, by_device=True) or Outcome.REFUSED
        self._deliver(lease, outcome, code)
        self.line.ask(op="committed", lease=lease.token, report=proof.hex())
        if self.dice.randrange(100) < self.setup.twice:
            self._deliver(lease, outcome, code)

    def claim(self, conn: Connection, campaign: str, serial: str, token: str) -> Lease | None:
        """The lease, None where it is not to be had."""
        return claim(conn, campaign, self.name, moment(conn, int(time.time())), token, serial=serial)

    def _push(self, lease: Lease) -> bytes:
        """From the grant to the evidence of a signed report; its digest."""
        given = self.line.ask(op="grant", serial=lease.serial)
        grant, key = bytes.fromhex(given["grant"]), CoseKey.decode(bytes.fromhex(given["key"]))
        self.store.run(lambda conn: self._begun(conn, lease, grant))
        try:
            self.line.ask(op="push", serial=lease.serial, grant=grant.hex())
            if self.setup.install:
                time.sleep(self.setup.install)
        except DeviceRefused as error:
            if error.code != "version.current":
                raise
        challenge = os.urandom(16)
        signed = bytes.fromhex(self.line.ask(op="report", serial=lease.serial, challenge=challenge.hex())["report"])
        said = parse_report(signed, key)
        if said.challenge != challenge or said.serial != lease.serial:
            raise DeviceRefused("session.replay", "the report answers somebody else")
        digest = hashlib.sha256(signed).digest()
        self.store.run(lambda conn: self._evidence(conn, lease, said, digest, grant))
        return digest

    def _begun(self, conn: Connection, lease: Lease, grant: bytes) -> None:
        row = {"origin": STATION, "request": lease.token, "action": "release.push", "actor": self.name}
        values = {"serial": lease.serial, "state": "begun", "begun": int(time.time()), "grant": _digest_of(grant)}
        conn.execute(insert(pushes).values(**row, **values))

    def _evidence(self, conn: Connection, lease: Lease, said: Report, digest: bytes, grant: bytes) -> None:
        """What the ledger would make of the station's record of this push."""
        now = int(time.time())
        shown = {"model": said.model, "version": said.version, "sequence": said.sequence}
        shown |= {"security_version": said.security_version, "boot_state": said.boot_state}
        shown |= {"confirmed": said.confirmed, "manifest_digest": said.manifest_digest}
        where = {"time": now, "origin": STATION, "index": 0}
        conn.execute(insert(reports).values(digest=digest, serial=lease.serial, **shown, **where))
        row = {"report_digest": digest, "reported": now, "report_origin": STATION, "report_index": 0, "seen": now}
        conn.execute(update(devices).where(devices.c.serial == lease.serial).values(**shown, **row))
        use = {"grant": _digest_of(grant), "serial": lease.serial, "release": said.manifest_digest}
        known = select(grant_uses.c.request).where(*(grant_uses.c[name] == value for name, value in use.items()))
        if conn.execute(known).first() is None:
            conn.execute(insert(grant_uses).values(request=lease.token, **use, **where))
        done = (pushes.c.origin == STATION, pushes.c.request == lease.token)
        conn.execute(update(pushes).where(*done).values(state="done", ended=now, manifest_digest=said.manifest_digest))

    def _deliver(self, lease: Lease, outcome: Outcome, code: str | None) -> None:
        self.store.run(lambda conn: self.deliver(conn, lease, outcome, code))

    def deliver(self, conn: Connection, lease: Lease, outcome: Outcome, code: str | None) -> Delivery:
        """Hand the outcome back."""
        return deliver(conn, lease, outcome, code, moment(conn, int(time.time())))


def _digest_of(grant: bytes) -> bytes:
    return hashlib.sha256(read_grant(grant).untagged).digest()


def main(path: str, kind: type[Worker] = Worker) -> int:
    """Work for the setup in that file until told to stop; 4 where the database was lost."""
    logging.disable(logging.CRITICAL)
    setup = Setup.read(Path(path))
    try:
        with Store.open(setup.store, create=False) as store:
            worker = kind(setup, store)
            pace = Pace(cron="* * * * * *", dead=float(max(setup.lease, 3)), alive=0.5)
            Queue(store, worker.act, pace).work(name=worker.name)
    except DevguardError as error:
        print(error, file=sys.stderr)
        return int(error.exit_status)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
