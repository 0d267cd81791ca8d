"""The pages Devices, Evidence and People, and the API, on a home where things happened; commands are the real ones."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cli_support import PASSPHRASE, World, devguard, emulator, ok, records
from console_support import Desk, code_of
from devguard.cli.home import Home
from devguard.console.commands import Answer, Commands, secret_pipe
from devguard.console.table import Role
from devguard.custody import pkcs8
from devguard.evidence.log import EvidenceLog
from evidence_support import STATION

SERIAL = "IP-81"
_ONE = threading.Lock()


class Here(Commands):
    """Commands that run in this process: the real command line without what a process costs."""

    async def ask(self, args: Sequence[str], **how: Any) -> Answer:
        passphrase = how.get("passphrase")
        secret = None if passphrase is None else secret_pipe(passphrase)
        with _ONE:  # standard output is everybody's
            done = devguard(*self.line(args, secret=secret)[len(self.settings.command) :])
        data = json.loads(done.out) if done.out else {}
        return Answer(done.status, data, self.shown(how.get("shown") or args), done.err)


@pytest.fixture(scope="session")
def happened(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home: a pump pushed to 1.0.0, 1.1.0 known, technicians listed, grants issued, an incident, a refusal."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEVGUARD_PASSPHRASE", PASSPHRASE)
        patch.setattr(pkcs8, "PARALLEL", 1)
        return happening(world, folder)


def happening(world: World, folder: Path) -> Path:
    """What happens there, by the commands themselves."""
    home = world.copy(folder / "bench")
    at = ("--home", home)
    grant = world.grant(folder / "tech.grant", SERIAL, sites=frozenset(["ward-3"]))
    with emulator(world, folder, SERIAL, "--site", "ward-3") as device:
        ok("push", world.suits["1.0.0"], "--port", device.port, "--key", "tech", "--grant", grant, *at)
    ok("verify", world.suits["1.1.0"], *at)
    for name, extra in (("tech", ("--trained-until", "2099-01-01")), ("second", ("--trained-until", "2020-01-01"))):
        ok("technician", "add", name, "--any-site", *extra, *at)
    ok("grant", "issue", "--authority", "authority", "--technician", "tech", "--model", "insulin-pump", "--serial",
       SERIAL, "-o", folder / "g.grant", *at)  # fmt: skip
    ok("evidence", "incident", "new", "--title", "<b>odd</b> noise", "--device", SERIAL, *at)
    devguard("verify", world.image, *at)
    return home


@pytest.fixture
def mine(happened: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(happened, tmp_path / "home"))


def desk_on(home: Path, tmp_path: Path, role: Role = Role.ADMIN, **more: Any) -> Desk:
    """A console on that home, at the time it is."""
    desk = Desk.make(tmp_path / "desk", real=True, home=Home(home), **more)
    desk.clock.now = time.time()
    console = desk.console
    console.commands = console.facts.reads.commands = console.facts.watch.commands = Here(console.settings)
    console.facts.watch.patience = console.facts.watch.again = 60.0
    return desk.as_role(role)


def test_devices_from_the_log_and_from_the_ledger_are_the_same(mine: Path, tmp_path: Path) -> None:
    desk = desk_on(mine, tmp_path)
    text = desk.get("/devices").text
    assert SERIAL in text
    assert "ledger.missing" in text
    by_log = desk.get("/api/v1/devices").json()
    assert (by_log["source"], by_log["note"], by_log["total"]) == ("log", "ledger.missing", 1)
    said = ok("fleet", "age", "--home", mine, "--json").json["devices"]
    (row,) = by_log["devices"]
    assert {name: row[name] for name in said[0]} == said[0]
    ok("ledger", "update", "--home", mine)
    by_ledger = desk.get("/api/v1/devices").json()
    assert (by_ledger["source"], by_ledger["note"], by_ledger["total"]) == ("ledger", None, 1)
    (found,) = by_ledger["devices"]
    assert {name: found[name] for name in said[0]} == said[0]
    assert (found["behind"], found["newest"], found["sites"]) == ({"versions": 1, "days": 0}, "1.1.0", ["ward-3"])
    text = desk.get("/devices").text
    assert "ledger.missing" not in text
    assert "<svg" in text
    assert "insulin-pump 1.0.0" in text
    whole = desk.get(f"/api/v1/devices/{SERIAL}").json()
    assert whole["source"] == "ledger"
    assert whole["components"] == found["components"]
    assert [push["state"] for push in whole["pushes"]] == ["done"]
    assert whole["reports"][0]["version"] == "1.0.0"
    assert code_of(desk.get("/api/v1/devices/IP-99")) == "console.missing"
    assert desk.get("/devices/IP-99").status_code == 404


@pytest.mark.parametrize("with_ledger", [False, True])
def test_filters_of_devices(mine: Path, tmp_path: Path, with_ledger: bool) -> None:
    if with_ledger:
        ok("ledger", "update", "--home", mine)
    desk = desk_on(mine, tmp_path)
    for query, count in (
        ("q=ip-8", 1), ("q=%25", 0), ("model=insulin-pump", 1), ("model=x", 0), ("site=ward-3", 1), ("site=ward", 0),
        ("version=1.0.0", 1), ("version=1", 0), ("state=behind", 1), ("state=changed", 0), ("state=silent", 0),
        ("state=unconfirmed", 0), ("state=unsupported", 0), ("sort=reported&down=1", 1), ("offset=1", 0),
    ):  # fmt: skip
        assert len(desk.get(f"/api/v1/devices?{query}").json()["devices"]) == count, query
        assert (f'/devices/{SERIAL}"' in desk.get(f"/devices?{query}").text) == bool(count), query
    for wrong in ("state=x", "sort=x", "down=yes", "offset=-1", "offset=1e3", "q=" + "x" * 201):
        assert code_of(desk.get(f"/devices?{wrong}")) == "console.request"
    assert code_of(desk.get("/api/v1/devices?modle=x")) == "console.request"
    desk.clock.now = time.time() + 400 * 86_400
    desk = desk.as_role(Role.VIEWER)
    assert len(desk.get("/api/v1/devices?state=silent").json()["devices"]) == 1


def test_a_device_has_its_history_with_proofs_and_nothing_of_it_is_markup(mine: Path, tmp_path: Path) -> None:
    desk = desk_on(mine, tmp_path)
    text = desk.get(f"/devices/{SERIAL}").text
    assert "release.push" in text
    index = next(at for at, one in enumerate(records(mine, raised=True)) if one["action"] == "incident.new")
    assert f"/evidence/{index}/proof" in text
    shown = desk.get(f"/evidence/{index}").text
    assert "&lt;b&gt;odd&lt;/b&gt;" in shown
    assert "<b>" not in shown
    answer = desk.get(f"/evidence/{index}/proof")
    assert answer.headers["content-disposition"] == f'attachment; filename="record-{index}.tlog-proof"'
    (tmp_path / "proof").write_text(answer.text)
    good = ok("evidence", "verify", tmp_path / "proof", "--key", "station", "--home", mine, "--json").json
    assert (good["index"], good["record"]["action"]) == (index, "incident.new")
    assert desk.get(f"/api/v1/evidence/{index}/proof").text == answer.text
    for path in ("/evidence/999999", "/evidence/999999/proof", "/api/v1/evidence/999999"):
        assert desk.get(path).status_code == 404
    assert code_of(desk.get("/evidence/x")) == "console.request"


def test_the_timeline_and_its_filters(mine: Path, tmp_path: Path) -> None:
    desk = desk_on(mine, tmp_path)
    all_ = records(mine, raised=True)
    found = desk.get("/api/v1/evidence?limit=500").json()
    assert [row["index"] for row in found["records"]] == list(range(len(all_)))[::-1]
    shown = ok("evidence", "show", "--last", 1000, "--home", mine, "--json").json["records"]
    assert found["records"] == shown[::-1]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    for query, wanted in (
        ("refused=1", lambda one: one["code"] is not None),
        (f"device={SERIAL}", lambda one: one["device"] == SERIAL),
        ("action=technician.", lambda one: one["action"].startswith("technician.")),
        ("release=insulin-pump 1.1", lambda one: (one["release"] or "").startswith("insulin-pump 1.1")),
        ("actor=Tess Technician", lambda one: one["actor"] == "Tess Technician"),
        ("until=2020-01-01", lambda one: False),
        (f"since={today}&until={today}", lambda one: True),
    ):
        rows = desk.get(f"/evidence?{query}").text
        for index, one in enumerate(all_):
            assert (f'href="/evidence/{index}"' in rows) == wanted(one), (query, index)
    assert "does not hold" not in desk.get("/evidence").text
    page = desk.get("/api/v1/evidence?limit=2").json()
    assert desk.get(f"/api/v1/evidence?limit=2&before={page['older']}").json()["records"][0]["index"] == len(all_) - 3
    assert code_of(desk.get("/evidence?since=yesterday")) == "console.request"
    log = desk.get("/api/v1/evidence/log").json()
    assert (log["state"], log["records"], log["current"], log["running"]) == ("good", len(all_), True, False)


def damage(home: Path, index: int) -> None:
    """Change one byte inside a record."""
    request = records(home, raised=True)[index]["request"].encode()
    for path in (home / "evidence").iterdir():
        data = path.read_bytes()
        if request in data:
            path.write_bytes(data.replace(request, request[:-1] + (b"0" if request[-1:] != b"0" else b"1"), 1))
            return
    raise AssertionError("no such record")


def test_a_log_that_was_changed_says_so_and_shows_what_is_good(mine: Path, tmp_path: Path) -> None:
    count = len(records(mine, raised=True))
    damage(mine, count - 1)
    desk = desk_on(mine, tmp_path)
    text = desk.get("/evidence").text
    assert text.index("The log does not hold") < text.index('id="records"')
    assert "log.tampered" in text
    assert 'href="/evidence/0"' in text
    assert f'href="/evidence/{count - 2}"' in text
    assert f'href="/evidence/{count - 1}"' not in text
    assert desk.get("/api/v1/evidence/log").json()["state"] == "bad"
    assert desk.get("/api/v1/evidence").json()["records"][0]["index"] < count - 1
    for path in ("/devices", f"/devices/{SERIAL}", "/people", "/incidents"):
        assert desk.get(path).status_code == 200, path
    assert desk.get("/metrics").text.count('devguard_evidence_standing{state="bad"} 1.0') == 1
    answer = desk.get("/api/v1/devices")
    assert (answer.status_code, code_of(answer)) == (409, "log.tampered")
    assert code_of(desk.get("/evidence/0/proof")) == "log.tampered"
    desk.clock.now += 45 * 86_400
    text = desk.as_role(Role.VIEWER).get("/incidents").text
    assert "overdue since 15 days" in text
    assert "14 days left" in text


def test_incidents_with_their_clocks(mine: Path, tmp_path: Path) -> None:
    desk = desk_on(mine, tmp_path)
    said = ok("evidence", "incident", "list", "--all", "--home", mine, "--json").json["incidents"]
    found = desk.get("/api/v1/incidents?all=true").json()["incidents"]
    assert [one["id"] for one in found] == [one["id"] for one in said]
    assert found[0]["clocks"] == said[0]["clocks"]
    text = desk.get("/incidents").text
    assert "29 days left" in text
    one = desk.get(f"/incidents/{said[0]['id']}")
    assert one.status_code == 200
    assert "devguard evidence incident release" in one.text
    for wrong in ("none-1", "-x", "--home", "%2e%2e"):
        assert code_of(desk.get(f"/incidents/{wrong}")) in ("incident.unknown", "console.missing")


def test_people_grants_and_what_an_authority_does(mine: Path, tmp_path: Path) -> None:
    desk = desk_on(mine, tmp_path, Role.AUTHORITY)
    text = desk.get("/people").text
    assert "Tess Technician" in text
    assert "lapsed" in text
    assert "PRIVATE" not in text
    said = ok("grant", "list", "--home", mine, "--json").json
    api = desk.get("/api/v1/grants").json()
    assert [one["cti"] for one in api["issued"]] == [one["cti"] for one in said["issued"]]
    assert 470 < api["issued"][0]["minutes_left"] <= 480
    assert desk.get("/api/v1/technicians").json() == ok("technician", "list", "--home", mine, "--json").json
    done = desk.post("/people/suspend", {"name": "tech", "reason": "lost a key"})
    assert done.status_code == 200
    assert "Tess Technician is suspended here from now on" in done.text
    assert "devguard technician suspend tech" in done.text
    assert "The last grant known here ends" in done.text
    last = [one for one in records(mine) if one["action"] == "technician.suspend"][-1]
    assert (last["code"], last["details"]["reason"]) == (None, "lost a key")
    assert "taken back" in desk.get("/people").text
    assert "no longer suspended" in desk.post("/people/reinstate", {"name": "tech", "reason": "found"}).text
    for form in ({"name": "--help", "reason": "x"}, {"name": "../tech", "reason": "x"}, {"name": "nobody"}):
        assert code_of(desk.post("/people/suspend", form)) == "console.request"


FORM = {"technician": "tech", "authority": "authority", "model": "insulin-pump", "serials": f"{SERIAL}, IP-82",
        "action": "update", "hours": "2", "uses": "", "site": "", "passphrase": PASSPHRASE}  # fmt: skip


def test_a_grant_is_issued_by_the_authoritys_own_passphrase(mine: Path, tmp_path: Path) -> None:
    desk = desk_on(mine, tmp_path, Role.AUTHORITY)
    done = desk.post("/people/grants", FORM)
    assert done.status_code == 200, done.text
    assert PASSPHRASE not in done.text
    link = done.text.partition('href="/people/grants/')[2].partition('"')[0]
    grant = desk.get(f"/people/grants/{link}")
    (tmp_path / "new.grant").write_bytes(grant.content)
    shown = ok("grant", "show", tmp_path / "new.grant", "--json").json
    assert sorted(shown["serials"]) == [SERIAL, "IP-82"]
    counted = desk.post("/people/grants", {**FORM, "uses": "2"})
    assert (counted.status_code, code_of(counted)) == (403, "grant.malformed")
    refused = desk.post("/people/grants", {**FORM, "passphrase": "wrong"})
    assert (refused.status_code, "key.passphrase" in refused.text) == (403, True)
    for name, value in (("authority", "tech"), ("authority", "/etc/passwd"), ("technician", "x"), ("model", "x"),
                        ("action", "decommission"), ("hours", "13"), ("serials", " "), ("uses", "0")):  # fmt: skip
        assert code_of(desk.post("/people/grants", {**FORM, name: value})) == "console.request", name
    viewer = desk.as_role(Role.TECHNICIAN)
    assert code_of(viewer.post("/people/grants", FORM)) == "console.role"
    assert "passphrase" not in viewer.get("/people").text
    assert code_of(desk.get("/people/grants/..%2fstation.key")) == "console.missing"


def test_metrics_have_no_serials_and_no_names(mine: Path, tmp_path: Path) -> None:
    desk = desk_on(mine, tmp_path)
    for _ in range(2):
        text = desk.client.get("/metrics").text
        assert 'devguard_pushes_total{code="ok"} 1.0' in text
        assert 'devguard_devices{model="insulin-pump",support="supported",version="1.0.0"} 1.0' in text
        assert "devguard_incidents_open 1.0" in text
        assert f"devguard_evidence_records {len(records(mine, raised=True))}.0" in text
        assert 'devguard_age_seconds{of="trust"}' in text
        ok("ledger", "update", "--home", mine)
    for word in (SERIAL, "Tess", "Thea", "ward-3"):
        assert word not in text
    assert json.dumps(text).count("devguard_refusals_total") > 1


PLAN = """\
[campaign]
name = "pump-1-1-0"
model = "insulin-pump"
release = "pump.suit"

[[ring]]
name = "bench"
serials = ["IP-81"]

[[ring]]
name = "all"
opens = "confirmed"
confirmed = 2
wait_minutes = 60

[stop]
failures = "3"
incidents = "5"

[window]
zone = "Europe/Berlin"
days = ["mon"]
hours = ["20:00-05:00"]
"""


def test_a_campaign_from_its_start_to_its_stop(world: World, mine: Path, tmp_path: Path) -> None:
    desk = desk_on(mine, tmp_path, Role.AUTHORITY)
    assert "devguard campaign new" in desk.get("/campaigns").text
    assert desk.get("/api/v1/campaigns").json() == {"campaigns": []}
    assert code_of(desk.get("/campaigns/pump-1-1-0")) == "campaign.unknown"
    ok("ledger", "update", "--home", mine)
    (tmp_path / "plan.toml").write_text(PLAN)
    shutil.copy(world.suits["1.1.0"], tmp_path / "pump.suit")
    ok("campaign", "new", tmp_path / "plan.toml", "--home", mine)
    text = desk.get("/campaigns").text
    assert "<svg" in text
    assert "0 of 1 done" in text
    text = desk.get("/campaigns/pump-1-1-0").text
    for words in (
        "the start",
        "the ring before",
        "Stops at failures",
        "Start</button>",
        "Stop for good",
        "Europe/Berlin",
    ):
        assert words in text
    assert "Pause</button>" not in text
    done = desk.post("/campaigns/pump-1-1-0", {"order": "start"})
    assert done.status_code == 200
    assert "devguard campaign start pump-1-1-0" in done.text
    assert "2 confirmed in the ring before, then 60 minutes" in done.text
    found = desk.get("/api/v1/campaigns/pump-1-1-0").json()
    said = ok("campaign", "status", "pump-1-1-0", "--home", mine, "--json").json
    assert {name: found[name] for name in said} == said
    assert found["progress"] == {"due": 1, "claimed": 0, "done": 0, "failed": 0, "refused": 0, "skipped": 0}
    assert 'devguard_campaign_devices{campaign="pump-1-1-0",phase="due"} 1.0' in desk.get("/metrics").text
    for form, code in (
        ({"order": "start"}, "console.request"), ({"order": "skip"}, "console.request"), ({}, "console.request"),
        ({"order": "stop", "reason": "x"}, "console.request"),
    ):  # fmt: skip
        assert code_of(desk.post("/campaigns/pump-1-1-0", form)) == code
    assert "paused" in desk.post("/campaigns/pump-1-1-0", {"order": "pause", "reason": "ward round"}).text
    viewer = desk.as_role(Role.TECHNICIAN)
    assert code_of(viewer.post("/campaigns/pump-1-1-0", {"order": "start"})) == "console.role"
    assert "Stop for good" not in viewer.get("/campaigns/pump-1-1-0").text
    desk.post("/campaigns/pump-1-1-0", {"order": "stop", "reason": "a fault", "sure": "1"})
    assert desk.get("/api/v1/campaigns").json()["campaigns"][0]["state"] == "stopped"
    told = [one["action"] for one in records(mine) if one["action"].startswith("campaign.")]
    assert told == ["campaign.new", "campaign.start", "campaign.pause", "campaign.stop"]
    for wrong in ("--help", "nobody", "%2e%2e%2fx"):
        assert code_of(desk.get(f"/campaigns/{wrong}")) in ("campaign.unknown", "console.missing")


def test_a_ledger_that_is_gone_damaged_or_held_leaves_the_pages_usable(mine: Path, tmp_path: Path) -> None:
    desk = desk_on(mine, tmp_path)
    ok("ledger", "update", "--home", mine)
    assert desk.get("/api/v1/devices").json()["source"] == "ledger"
    file = mine / "ledger" / "ledger.sqlite"
    with sqlite3.connect(file, isolation_level=None) as held:
        held.execute("BEGIN IMMEDIATE")  # somebody is writing: readers read on
        assert desk.get("/api/v1/devices").json()["source"] == "ledger"
        held.execute("ROLLBACK")
    kept = file.read_bytes()
    for path in file.parent.iterdir():
        path.unlink()
    answer = desk.get("/api/v1/devices").json()
    assert (answer["source"], answer["note"], answer["total"]) == ("log", "ledger.missing", 1)
    file.write_bytes(b"no database" * 1000)
    for path in ("/devices", f"/devices/{SERIAL}", "/campaigns", "/people", "/evidence"):
        assert desk.get(path).status_code == 200, path
    assert "ledger.malformed" in desk.get("/devices").text
    assert "ledger.malformed" in desk.get("/campaigns").text
    assert (desk.get("/api/v1/campaigns").status_code, code_of(desk.get("/api/v1/campaigns"))) == (
        409,
        "ledger.malformed",
    )
    assert desk.get("/api/v1/devices").json()["note"] == "ledger.malformed"
    file.write_bytes(kept[:5000])
    assert desk.get("/api/v1/devices").json()["note"] == "ledger.malformed"
    away = desk_on(mine, tmp_path / "away", store="postgresql+psycopg://nobody@127.0.0.1:1/none")
    answer = away.get("/api/v1/devices").json()
    assert (answer["note"], answer["total"]) == ("ledger.unreachable", 1)
    assert away.get("/api/v1/campaigns").status_code == 503
    assert "ledger.unreachable" in away.get("/devices").text


@pytest.mark.parametrize("role", list(Role))
def test_a_home_where_nothing_happened(tmp_path: Path, role: Role) -> None:
    desk = desk_on(tmp_path / "new", tmp_path, role)
    for path in ("/devices", "/evidence", "/incidents", "/people", "/campaigns", "/metrics", "/api/v1/devices",
                 "/api/v1/incidents", "/api/v1/grants", "/api/v1/technicians", "/api/v1/campaigns"):  # fmt: skip
        answer = desk.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert "internal.error" not in answer.text
    assert "There is no log yet" in desk.get("/evidence").text
    assert desk.get("/api/v1/evidence/log").json()["state"] == "none"
    assert (desk.get("/api/v1/evidence").status_code, code_of(desk.get("/api/v1/evidence"))) == (404, "log.missing")
    EvidenceLog.open(tmp_path / "new" / "evidence", STATION)
    assert desk.get("/api/v1/evidence").json()["records"] == []
    assert desk.get("/evidence").status_code == 200
