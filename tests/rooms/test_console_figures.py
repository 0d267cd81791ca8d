"""What is read from a log: the timeline in bounds, the tally that counts once, the log's standing; charts, metrics.

Invariants: filters give what they say; a record is counted once however often it is looked; nothing that a record says
becomes markup or a label without an end.
"""

from __future__ import annotations

import asyncio
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console_support import Desk
from devguard.console.charts import bars, columns, parted
from devguard.console.metrics import Scene, bounded, text
from devguard.console.reads import fingerprint
from devguard.console.standing import Standing
from devguard.console.tally import OTHER, Tallier, Tally, week_of
from devguard.console.timeline import Wish, one, read
from devguard.errors import DevguardError
from devguard.evidence.log import EvidenceLog
from devguard.evidence.record import DigestOf, Record
from evidence_support import STATION, contents, fill, record

T = TypeVar("T")


def log_of(folder: Path, *records: Record) -> EvidenceLog:
    log = EvidenceLog.open(folder, STATION)
    for one_ in records:
        log.append(one_)
    return log


def alone(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own: a browser of other tests may hold this one's loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


# the timeline


def test_pages_meet_without_a_gap_and_searches_end(tmp_path: Path) -> None:
    log_of(tmp_path, *(record(number, device=f"D{number % 3}") for number in range(20)))
    seen, before = [], None
    while True:
        page = read(tmp_path, Wish(device="D1", limit=2, search=5, before=before))
        assert page.searched <= 5
        seen += [index for index, _ in page.rows]
        if page.older is None:
            break
        assert before is None or page.older < before
        before = page.older
    assert seen == [19, 16, 13, 10, 7, 4, 1]
    assert one(tmp_path, 7).request == "r-7"  # type: ignore[union-attr]
    assert one(tmp_path, 20) is None
    assert read(tmp_path, Wish(since=1005, until=1007)).rows == tuple((i, one(tmp_path, i)) for i in (7, 6, 5))


def test_of_a_damaged_log_only_what_is_before_the_damage(tmp_path: Path) -> None:
    log_of(tmp_path / "log", *map(record, range(6)))
    state = contents(tmp_path / "log")
    name = max(state)
    for at in range(0, len(state[name]), 97):
        data = bytearray(state[name])
        data[at] ^= 0x55
        fill(tmp_path / "log", {**state, name: bytes(data)})
        for good in (0, 3):
            page = read(tmp_path / "log", Wish(), good)
            assert {index for index, _ in page.rows} <= set(range(good)), at
        open_page = read(tmp_path / "log", Wish())  # nobody has said yet that it is damaged
        assert open_page.error is None or open_page.error.code.startswith("log.")
    fill(tmp_path / "log", {**state, name: state[name][: len(state[name]) - 40]})
    assert [index for index, _ in read(tmp_path / "log", Wish(), 4).rows] == [3, 2, 1, 0]


# the tally


def test_a_record_is_counted_once_and_a_log_that_was_replaced_anew(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    tallier = Tallier(folder)
    assert tallier.now().error is not None  # no log yet
    log = log_of(folder, record(0, action="release.push"), record(1, action="release.push", code="grant.scope"))
    for _ in range(3):
        tally = tallier.now()
        assert (tally.records, dict(tally.pushes)) == (2, {"ok": 1, "grant.scope": 1})
        assert dict(tally.refusals) == {"grant.scope": 1}
    log.append(record(2, action="release.push", code="no.such-code-of-ours"))
    log.append(record(3, action="release.push", details={"dry-run": "yes"}))
    tally = tallier.now()
    assert (tally.records, dict(tally.refusals)) == (4, {"grant.scope": 1, OTHER: 1})
    assert tally.pushes["ok"] == 1
    for path in folder.iterdir():
        path.unlink()
    log_of(folder, *(record(number + 10) for number in range(6)))
    tally = tallier.now()
    assert (tally.records, tally.error, dict(tally.pushes)) == (6, None, {})


def test_who_comes_while_it_is_counted_gets_the_figures_of_before(tmp_path: Path) -> None:
    log = log_of(tmp_path, record(0))
    tallier = Tallier(tmp_path)
    shown = tallier.now()
    log.append(record(1, code="grant.scope"))
    with tallier._lock:
        meanwhile = tallier.now()
    assert (meanwhile.records, meanwhile.counting, meanwhile.refusals) == (1, True, {})
    assert (tallier.now().records, tallier.now().counting) == (2, False)
    assert (shown.records, shown.refusals) == (1, {})  # what was handed out stays as it was
    assert "devguard_evidence_records" not in text(Scene(Tally(counting=True), Standing("none"), 0.0)).decode()


def test_uses_of_a_grant_are_devices_and_releases(tmp_path: Path) -> None:
    grant, release = {DigestOf.GRANT: b"g" * 32}, {DigestOf.MANIFEST: b"m" * 32}
    issued = {"cti": "ab" * 16, "expires": "2027-01-01T00:00:00Z", "epoch": "0", "technician": "Tess"}
    begun = [record(n, action="release.push-begun", device=f"D{n % 2}", digests={**grant, **release}) for n in range(4)]
    log_of(tmp_path, record(9, action="grant.issue", details=issued, digests=grant), *[
        record(10 + n, action=b.action, device=b.device, digests=b.digests) for n, b in enumerate(begun)
    ])  # fmt: skip
    tally = Tallier(tmp_path).now()
    assert (tally.used("ab" * 16), tally.used("cd" * 16)) == (2, 0)


@given(st.integers(0, 253_402_300_799))
def test_weeks_begin_on_mondays(time: int) -> None:
    monday = week_of(time)
    assert monday <= time < monday + 7 * 86_400
    assert (monday // 86_400 + 3) % 7 == 0


# standing


def test_a_verification_is_shared_and_its_answer_kept_until_the_log_changes(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    desk.answers({"ok": True, "records": 3})
    watch = desk.console.facts.watch
    watch.patience = watch.again = 30.0
    assert watch.look().state == "unknown"

    async def twice() -> list[Standing]:
        return list(await asyncio.gather(watch.now(), watch.now()))

    first, second = alone(twice())
    assert (first.state, first.records, second) == ("good", 3, first)
    assert len(desk.calls) == 1
    assert alone(watch.now()).current
    assert len(desk.calls) == 1
    watch.folder.mkdir()
    (watch.folder / "x").write_bytes(b"1")
    assert not watch.look().current
    desk.answers({"error": {"code": "log.tampered", "message": "record 7: changed", "hint": "h"}}, 1)
    found = alone(watch.now())
    assert (found.state, found.records, found.error.code if found.error else "") == ("bad", 7, "log.tampered")
    for code, state in (("log.missing", "none"), ("trust.rollback", "unknown")):
        desk.answers({"error": {"code": code, "message": "record 7", "hint": "h"}}, 1)
        desk.clock.now += 1000
        assert alone(watch.now()).state == state
    desk.answers(None, 3)
    desk.clock.now += 1000
    assert alone(watch.now()).state == "unknown"


def test_an_answer_is_kept_while_its_files_stay_as_they_are(tmp_path: Path) -> None:
    desk, file = Desk.make(tmp_path), tmp_path / "watched"
    reads = desk.console.facts.reads
    desk.answers({"n": 1})
    ask = lambda: alone(reads.data(("status",), [file, tmp_path / "none"], "n"))  # noqa: E731
    assert ask() == {"n": 1}
    desk.answers({"n": 2})
    assert ask() == {"n": 1}
    file.write_text("changed")
    assert ask() == {"n": 2}
    desk.answers({"n": 3})
    desk.clock.now += 60
    assert ask() == {"n": 3}
    os.utime(file, ns=(1, 1))
    assert fingerprint([file])[0][2] == 1
    assert ask() == {"n": 3}
    assert len(desk.calls) == 4
    with pytest.raises(DevguardError, match="lacks"):
        alone(reads.data(("status",), [file], "m"))
    for number in range(100):
        alone(reads.answer((str(number),), []))
    assert len(reads._kept) == 64


# drawings and metrics

anything = st.text(max_size=60)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(anything, st.integers(0, 10**9), st.sampled_from(["", "good", '"x"'])), max_size=30), anything
)
def test_charts_are_well_formed_whatever_is_in_them(rows: list[tuple[str, int, str]], title: str) -> None:
    drawn = [bars(title, title, rows), parted(title, title, rows)]
    drawn.append(
        columns(title, title, [(label, count, 0) for label, count, _ in rows], ("a", "b", "c"), ("good", "bad"))
    )
    for chart in drawn:
        svg = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", chart.svg)
        root = ET.fromstring(svg)
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "title", "desc", "rect", "text", "line"}
        assert "style" not in {name for element in root.iter() for name in element.attrib}
        assert root[0].tag.endswith("title")
        assert root.attrib["role"] == "img"
        assert len(chart.rows) == len(rows)
        for element in root.iter():
            assert float(element.attrib.get("width", 0)) >= 0


def test_labels_have_bounds() -> None:
    many = {("m", f"1.{number}", "supported"): number + 1 for number in range(300)}
    kept = bounded(many, 100)
    assert len(kept) == 101
    assert kept[-1] == ((OTHER, OTHER, OTHER), sum(range(1, 201)))
    assert sum(count for _, count in kept) == sum(many.values())
    shown = text(Scene(Tally(), Standing("none"), 0.0, devices=[(('m"\n', "\\", "x"), 1)])).decode()
    assert '{model="m\\"\\n",support="x",version="\\\\"} 1.0' in shown
    assert "devguard_incidents_open" not in shown
