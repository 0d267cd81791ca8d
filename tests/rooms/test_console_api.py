"""The HTTP API against its own description: whatever is sent, the answer is one that the description has.

Schemathesis makes the requests, good ones and bad ones, from the OpenAPI document; every check it has is on. Commands
are a stand-in that answers as the command line does.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from console_support import HOST, Desk
from devguard.console.table import WAYS, Role
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
SCHEMA = schemathesis.openapi.from_asgi("/api/v1/openapi.json", DESK.client.app)
LIKE = settings(
    max_examples=6,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@SCHEMA.parametrize()
@LIKE
def test_every_answer_is_one_that_the_description_has(case: schemathesis.Case) -> None:
    case.call_and_validate(headers=HEADERS)


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(LIKE, max_examples=60)
def test_and_of_many_more_requests(case: schemathesis.Case) -> None:
    case.call_and_validate(headers=HEADERS)


def test_the_description_has_every_way_of_the_api_and_nothing_that_is_none() -> None:
    described = DESK.get("/api/v1/openapi.json").json()
    assert {(method.upper(), path) for path, ways in described["paths"].items() for method in ways} == {
        (way.method, way.path) for way in WAYS if way.api
    }
    assert "ValidationError" not in json.dumps(described)
    for path, ways in described["paths"].items():
        for operation in ways.values():
            assert {"200", "400", "401", "403", "409", "421", "500", "503"} <= operation["responses"].keys(), path
            assert operation["summary"]
            for status, answer in operation["responses"].items():
                assert answer["description"]
                assert status == "200" or "Fault" in json.dumps(answer["content"])
