"""The HTTP API against its own description: whatever is sent, the answer is one that the description has.

Schemathesis makes the requests, good ones and bad ones, from the OpenAPI document; every check it has is on. Commands
are a stand-in that answers as the command line does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, settings

from console_support import HOST, Desk
from devguard.console.table import Role
from devguard.console.tokens import Tokens
from devguard.evidence.log import EvidenceLog
from evidence_support import STATION, record

# Answers by what was asked, in the shapes of the command line.
_STUB = """\
import json, sys
args = sys.argv[1:]
if args[:2] == ["fleet", "age"]:
    print(json.dumps({"devices": [DEVICE]}))
elif args[:3] == ["evidence", "incident", "list"]:
    print(json.dumps({"incidents": [INCIDENT]}))
elif args[:3] == ["evidence", "incident", "show"]:
    if args[3] == "burst-1":
        print(json.dumps({**INCIDENT, "timeline": [], "overdue": False}))
    else:
        print(json.dumps({"error": {"code": "incident.unknown", "message": "none", "hint": "list them"}}))
        sys.exit(1)
elif args[:2] == ["evidence", "verify"]:
    print(json.dumps({"ok": True, "records": 3, "root": "00", "origin": "test"}))
elif args[:2] == ["evidence", "prove"]:
    with open(args[args.index("-o") + 1], "w") as file:
        file.write("a proof")
    print("{}")
elif args[:2] == ["technician", "list"]:
    print(json.dumps({"technicians": [], "suspended": [], "revoked": {}, "epoch": 0}))
elif args[:2] == ["grant", "list"]:
    print(json.dumps({"grants": [], "issued": []}))
elif args[0] == "verify":
    print(json.dumps({"file": args[-1], "accepted": False, "code": "envelope.malformed", "checks": []}))
    sys.exit(3)
else:
    print("{}")
"""
DEVICE = {
    "serial": "IP-1", "model": "insulin-pump", "version": "1.0.0", "sequence": 1, "boot_state": "confirmed",
    "confirmed": True, "components": [], "flags": [], "reported": "2026-01-01T00:00:00Z", "record": 1, "sites": ["a"],
    "newest": None, "behind": None, "support": {"release": None, "model": None, "parts": None, "first_part": None},
    "red": [],
}  # fmt: skip
INCIDENT = {
    "id": "burst-1", "kind": "burst", "subject": "Tess", "record": 1, "time": "2026-01-01T00:00:00Z", "device": None,
    "records": [1], "open": True, "decision": "undecided", "released": None, "clocks": [], "blocks": False,
}  # fmt: skip


def desk_of(folder: Path) -> Desk:
    """A console whose commands are that stand-in, over a log of three records."""
    desk = Desk.make(folder, hosts=frozenset({HOST, "testserver", "localhost"}))
    given = f"DEVICE = {DEVICE!r}\nINCIDENT = {INCIDENT!r}\n"
    (folder / "stub.py").write_text(given + _STUB)
    log = EvidenceLog.open(folder / "home" / "evidence", STATION)
    for number in range(3):
        log.append(record(number))
    return desk


_FOLDER = tempfile.TemporaryDirectory()
DESK = desk_of(Path(_FOLDER.name))
_NOW = int(DESK.clock())
TOKEN = Tokens(DESK.console.settings.folder).make("tests", Role.VIEWER, _NOW, _NOW + 3600)
schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", DESK.client.app)


@schema.parametrize()
@settings(max_examples=15, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck),
          phases=(Phase.explicit, Phase.generate))  # fmt: skip
def test_every_answer_is_one_that_the_description_has(case: schemathesis.Case) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
