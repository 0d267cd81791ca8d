"""Pushes: one on a port, begun with what was offered, seen by all, stopped as Ctrl-C does, shown however they end.

Invariant: a run's process depends on nobody, and whoever looks later finds out how it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from console_support import Desk, ask_raw, code_of
from devguard.console.app import make_console
from devguard.console.journal import End, Journal, Run, alive, end_of, hold, read_run
from devguard.console.runs import Phase, same_port
from devguard.console.settings import Limits
from devguard.console.table import Role
from devguard.errors import DevguardError
from devguard.session.approval import ApprovalRequest, Asking

PORT, SERIAL, SECRET = "/dev/pts/cable", "IP-41", "correct horse"
LINE = '{"bytes": 400, "durable": 200, "total": 1000, "rate": 100, "eta": 6.0, "retransmits": 3, "silent": 0.1}\n'
DONE = {
    "accepted": True,
    "code": None,
    "device": {
        "model": "insulin-pump",
        "serial": SERIAL,
        "version_before": "1.0.0",
        "version_after": "1.1.0",
        "confirmed": True,
    },
    "report": {},
    "link": {"payload_bytes": 1000, "wire_bytes": 1100, "retransmits": 3, "seconds": 9.5},
}


def refused(code: str) -> dict[str, Any]:
    return {"accepted": False, "code": code, "error": {"code": code, "message": "because <of> it", "hint": "do this"}}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk.make(tmp_path, ports=(PORT, "socket://127.0.0.1:9"), limits=Limits(keep_runs=3))
    desk = desk.as_role(Role.TECHNICIAN)
    desk.answers(DONE)
    yield desk
    (tmp_path / "go").touch()
    until(lambda: not desk.console.runs.live())


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def begin(desk: Desk, **more: str) -> Any:
    """The form of a push, sent; `without`: a field that is left out."""
    without = more.pop("without", "")
    fields = {"csrf": desk.csrf, "port": PORT, "serial": SERIAL, "passphrase": SECRET, **more}
    files = {} if "release" in more else {"file": ("pump.suit", b"firmware")}
    given = {name: value for name, value in fields.items() if name != without}
    return desk.client.post("/bench/push", data=given, files=files or {"file": ("", b"")})


def begun(desk: Desk, **more: str) -> Run:
    answer = begin(desk, **more)
    assert answer.status_code == 303, answer.text
    return desk.console.runs.journal.get(answer.headers["location"].rpartition("/")[2])


def goes_on(desk: Desk, **more: Any) -> Run:
    """A push that waits for the file `go`, or for an interrupt."""
    desk.answers(DONE, until=str(desk.folder / "go"), **more)
    run = begun(desk)
    until(lambda: bool(desk.calls))
    return run


def finished(desk: Desk, run: Run) -> Run:
    until(lambda: desk.console.runs.journal.get(run.id).ended is not None)
    return desk.console.runs.journal.get(run.id)


def shown(desk: Desk, run: Run, language: str = "en") -> str:
    answer = desk.get(f"/bench/runs/{run.id}", headers={"accept-language": language})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_the_command_and_what_stays_of_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", "of whoever started the console")
    run = finished(desk, begun(desk, reason="-x", work_order="W-7"))
    call = desk.calls[0]
    assert call["args"][:6] == [
        "push", f"--serial={SERIAL}", f"--port={PORT}", "--reason=-x", "--work-order=W-7", "--progress=json"
    ]  # fmt: skip
    assert call["secret"] == f"{SECRET}\n"
    assert SECRET not in json.dumps(call["args"])
    assert run.ended is not None
    assert run.ended.how is End.DONE
    everything = b"".join(path.read_bytes() for path in run.folder.iterdir())
    assert SECRET.encode() not in everything
    assert run.shown == f"devguard push --serial={SERIAL} --port={PORT} --reason=-x --work-order=W-7 pump.suit"
    assert run.shown in shown(desk, run)
    assert "1.0.0 → <strong>1.1.0</strong>" in shown(desk, run)
    assert not run.suit.exists()
    assert oct(run.folder.stat().st_mode & 0o777) == "0o700"
    assert not list((desk.console.settings.folder / "uploads").iterdir())


def test_no_secret_of_the_console_reaches_a_command(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from devguard.console.commands import environment

    for name in ("PIN", "PASSPHRASE", "PUSH_PASSPHRASE_FD", "PUSH_SECOND_PASSPHRASE_FD", "STORE"):
        monkeypatch.setenv(f"DEVGUARD_{name}", "1234")
    monkeypatch.delenv("DEVGUARD_HOME", raising=False)
    assert [name for name in environment() if name.startswith("DEVGUARD_")] == ["DEVGUARD_STORE"]
    for wrong in ("a\nb", "a\rb", "x" * 4001):
        assert code_of(begin(desk, passphrase=wrong)) == "key.passphrase"
    assert desk.calls == []
    assert not desk.console.runs.journal.all()


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("port", "/dev/ttyS99", "console.request"),
        ("port", "spy:///dev/ttyS0?file=/tmp/x", "console.request"),
        ("serial", "  ", "console.request"),
        ("serial", "x" * 200, "console.request"),
        ("key", "../../root", "console.request"),
        ("grant", "../x", "console.request"),
        ("release", "kept:../../secret", "console.request"),
        ("release", "shelf:pump 9.9.9", "console.request"),
        ("release", "/etc/passwd", "console.upload"),
        ("release", "", "console.upload"),
    ],
)
def test_only_what_was_offered_is_taken(desk: Desk, field: str, value: str, code: str) -> None:
    assert code_of(begin(desk, **{field: value})) == code
    assert desk.calls == []
    assert desk.console.runs.journal.all() == []


def test_what_is_missing(desk: Desk) -> None:
    assert code_of(begin(desk, without="port")) == "console.request"
    assert code_of(begin(desk, without="serial")) == "console.request"


def test_one_push_on_a_port(desk: Desk) -> None:
    run = goes_on(desk)
    answer = begin(desk)
    assert (answer.status_code, code_of(answer)) == (409, "console.busy")
    assert "a push goes on" in desk.get("/bench").text
    assert desk.client.post("/bench/push", data={"csrf": desk.csrf, "port": "socket://127.0.0.1:9", "serial": "X"},
                            files={"file": ("b", b"x")}).status_code == 303  # fmt: skip
    (desk.folder / "go").touch()
    assert finished(desk, run).ended is not None
    assert begin(desk).status_code == 303


def test_two_who_ask_at_the_same_moment(desk: Desk) -> None:
    desk.answers(DONE, until=str(desk.folder / "go"))
    other = desk.as_role(Role.TECHNICIAN, "Tom Technician")
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda one=one: statuses.append(begin(one).status_code)) for one in (desk, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [303, 409]
    assert len(desk.console.runs.live()) == 1


def test_links_to_one_port_are_one_port(tmp_path: Path) -> None:
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyUSB0")
    assert same_port(str(tmp_path / "by-id"), str(tmp_path / "ttyUSB0"))
    assert not same_port("socket://a:1", "socket://a:2")
    assert same_port("socket://a:1", "socket://a:1")


def test_progress_is_the_newest_whole_line(desk: Desk) -> None:
    junk = '{"bytes": 1}\nnot json\n{"by'
    run = goes_on(desk, err="devguard says\n" + LINE + junk)
    until(lambda: desk.console.runs.state(run).progress is not None)
    state = desk.console.runs.state(run)
    assert (state.phase, state.percent) == (Phase.SENDING, 40)
    page = shown(desk, run)
    for text in ("400 B of 1.0 kB", "40 percent", "100 B a second", "6 s", "Stop the push"):
        assert text in page
    seen = shown(desk.as_role(Role.TECHNICIAN, "Other"), run)
    assert "40 percent" in seen


@pytest.mark.parametrize(
    ("err", "phase"),
    [
        ("", Phase.CONNECTING),
        (LINE.replace('"total": 1000', '"total": 0'), Phase.INSTALLING),
        (LINE.replace('"durable": 200', '"durable": 1000'), Phase.INSTALLING),
        (LINE.replace('"eta": 6.0', '"eta": null').replace("0.1}", "9.0}"), Phase.SENDING),
    ],
)
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_phase_is_shown(desk: Desk, err: str, phase: Phase, language: str) -> None:
    run = goes_on(desk, err=err)
    until(lambda: desk.console.runs.state(run).phase is phase)
    assert "noscript" in shown(desk, run, language)


ENDS = [
    (DONE, 0, End.DONE),
    (refused("image.digest"), 1, End.REFUSED),
    (refused("envelope.malformed"), 3, End.REFUSED),
    (refused("device.therapy-active"), 5, End.DEVICE),
    (refused("link.port"), 4, End.LOST),
    (refused("internal.error"), 70, End.REFUSED),
    (None, 130, End.STOPPED),
    (None, 2, End.SILENT),
    ({}, 0, End.SILENT),
    ({"accepted": True}, 1, End.SILENT),
    (refused("link.port") | {"accepted": True}, 4, End.LOST),
]


@pytest.mark.parametrize(("data", "status", "how"), ENDS)
def test_every_end_is_shown(desk: Desk, data: dict[str, Any] | None, status: int, how: End) -> None:
    desk.answers(data, status)
    run = finished(desk, begun(desk))
    assert run.ended is not None
    assert run.ended.how is how
    page, german = shown(desk, run), shown(desk, run, "de")
    assert f'data-ended="{how}"' in page
    assert f'data-ended="{how}"' in german
    if run.ended.code is not None and how is not End.STOPPED:
        assert run.ended.code in page
        assert "because &lt;of&gt; it" in page
    assert ("Go on with this push" in page) == how.resumable
    assert ("Try it again" in page) == run.ended.repeatable
    assert run.suit.exists() == (how.resumable or run.ended.repeatable)
    assert desk.get("/bench").status_code == 200


def test_a_process_that_was_killed(desk: Desk) -> None:
    run = goes_on(desk, err=LINE)
    assert run.pid is not None
    os.kill(run.pid, 9)
    ended = finished(desk, run).ended
    assert ended is not None
    assert ended.how is End.SILENT


def test_the_stop_button(desk: Desk) -> None:
    run = goes_on(desk, err=LINE)
    until(lambda: desk.console.runs.state(run).progress is not None)
    stopper = desk.as_role(Role.TECHNICIAN, "Otto Other")
    assert stopper.post(f"/bench/runs/{run.id}/stop").status_code == 303
    ended = finished(desk, run)
    assert ended.ended is not None
    assert (ended.ended.how, ended.stopped_by) == (End.STOPPED, "Otto Other")
    assert "Stopped by Otto Other" in shown(desk, run)
    assert code_of(stopper.post(f"/bench/runs/{run.id}/stop")) == "console.run"


def test_a_run_that_does_not_stop_says_so_and_is_not_asked_twice_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = goes_on(desk)
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _pid, sign: sent.append(sign))
    for _ in range(3):
        desk.post(f"/bench/runs/{run.id}/stop")
    assert sent == [2]
    assert desk.console.runs.state(desk.console.runs.journal.get(run.id)).phase is Phase.STOPPING
    assert "disabled" in shown(desk, run).partition("Stop the push")[0][-300:]
    desk.clock.now += 31
    desk.post(f"/bench/runs/{run.id}/stop")
    assert sent == [2, 2]


def test_a_console_that_is_started_again_knows_the_run(desk: Desk) -> None:
    run = goes_on(desk, err=LINE)
    assert run.pid is not None
    assert (
        os.getsid(run.pid) == run.pid != os.getsid(0)
    )  # no Ctrl-C and no hang-up of the console's terminal reaches it
    later = make_console(desk.console.settings)
    assert [one.id for one in later.runs.live()] == [run.id]
    assert later.runs.busy(PORT) is not None
    assert later.runs.stop(later.runs.journal.get(run.id), "Bea").stopped is not None
    until(lambda: not alive(run.folder))
    ended = make_console(desk.console.settings).runs.journal.get(run.id).ended
    assert ended is not None
    assert (ended.how, ended.code) == (End.STOPPED, "internal.interrupted")


def test_resume_takes_the_same_release_along(desk: Desk) -> None:
    desk.answers(refused("link.timeout"), 4)
    old = finished(desk, begun(desk, reason="r"))
    desk.answers(DONE)
    answer = desk.post(f"/bench/runs/{old.id}/follow", {"passphrase": SECRET})
    new = finished(desk, desk.console.runs.journal.get(answer.headers["location"].rpartition("/")[2]))
    assert "--resume" in desk.calls[1]["args"]
    assert desk.calls[1]["args"][:4] == [*desk.calls[0]["args"][:4]]
    assert (new.resumes, new.ended and new.ended.how) == (old.id, End.DONE)
    assert "earlier push" in shown(desk, new)
    assert not old.suit.exists()
    assert code_of(desk.post(f"/bench/runs/{old.id}/follow", {"passphrase": SECRET})) == "console.run"
    assert code_of(desk.post(f"/bench/runs/{new.id}/follow", {"passphrase": SECRET})) == "console.run"


def test_a_wrong_passphrase_is_typed_again(desk: Desk) -> None:
    desk.answers(refused("key.passphrase"), 1)
    old = finished(desk, begun(desk))
    desk.answers(DONE)
    answer = desk.post(f"/bench/runs/{old.id}/follow", {"passphrase": "another"})
    new = finished(desk, desk.console.runs.journal.get(answer.headers["location"].rpartition("/")[2]))
    assert "--resume" not in desk.calls[1]["args"]
    assert desk.calls[1]["secret"] == "another\n"
    assert (new.resumes, new.ended and new.ended.how) == (old.id, End.DONE)
    desk.answers(refused("image.digest"), 1)
    bad = finished(desk, begun(desk))
    assert code_of(desk.post(f"/bench/runs/{bad.id}/follow", {"passphrase": SECRET})) == "console.run"


def waiting(desk: Desk, expires: int = 1_900_000_000) -> Run:
    """A push that asks for a second technician."""
    request = ApprovalRequest(
        bytes(32), SERIAL, b"m" * 32, "update", bytes(32), expires, Asking("Tess Technician", bytes(32))
    )
    run = goes_on(desk)
    run.request.write_bytes(request.encode())
    return run


def test_a_second_person_is_asked(desk: Desk) -> None:
    run = waiting(desk)
    assert desk.console.runs.state(run).phase is Phase.APPROVAL
    assert "It cannot be you" in shown(desk, run)
    assert "Approve with my key" not in shown(desk, run)
    tom = desk.as_role(Role.TECHNICIAN, "Tom Technician")
    for language in ("en", "de"):
        assert SERIAL in shown(tom, run, language)
    assert "Compare the serial number" in shown(tom, run)
    run.request.write_bytes(b"torn")
    assert shown(tom, run)


def test_nobody_approves_their_own_push(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from devguard.console import stock

    run = waiting(desk)
    monkeypatch.setattr(stock, "technician_keys", lambda _: [stock.KeyChoice("second", "Tom")])
    monkeypatch.setattr(
        stock, "grants", lambda *_: [stock.GrantChoice("tom", "Tom", ("m",), ("update",), 2_000_000_000)]
    )
    form = {"key": "second", "grant": "tom", "passphrase": SECRET}
    for person in ("Tess Technician", "tess  TECHNICIAN"):
        answer = desk.as_role(Role.ADMIN, person).post(f"/bench/runs/{run.id}/approve", form)
        assert code_of(answer) == "grant.quorum"
    tom = desk.as_role(Role.TECHNICIAN, "Tom Technician")
    assert code_of(tom.post(f"/bench/runs/{run.id}/approve", {**form, "key": "../root"})) == "console.request"
    assert code_of(tom.post(f"/bench/runs/{run.id}/approve", {**form, "grant": ""})) == "console.request"
    assert len(desk.calls) == 1
    desk.answers({"error": {"code": "key.passphrase", "message": "no", "hint": "type it again"}}, 1)
    assert code_of(tom.post(f"/bench/runs/{run.id}/approve", form)) == "key.passphrase"
    desk.answers({"path": "x"})
    assert tom.post(f"/bench/runs/{run.id}/approve", form).status_code == 303
    call = desk.calls[-1]
    home = desk.console.settings.home
    assert call["args"][:6] == [
        "approve", f"--key={home.keys / 'second.key'}", f"--grant={home.grants / 'tom.grant'}", f"--release={run.suit}",
        f"--out={run.approval}", str(run.request),
    ]  # fmt: skip
    assert call["secret"] == f"{SECRET}\n"
    assert desk.console.runs.journal.get(run.id).approved_by == "Tom Technician"


def test_nothing_is_approved_that_does_not_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(desk, begun(desk))
    with pytest.raises(DevguardError) as caught:
        import asyncio

        asyncio.run(desk.console.runs.approve(run, "Tom", "k", "g", "p"))
    assert caught.value.code == "console.run"


def events(desk: Desk, run: Run, then: Callable[[], object]) -> list[tuple[str, dict[str, Any]]]:
    """What a watcher is told until the stream ends: (event, data). `then` is done when it watches."""

    def watched() -> None:
        until(lambda: desk.console.streams > 0)
        time.sleep(0.2)
        then()

    thread = threading.Thread(target=watched)
    thread.start()
    answer = ask_raw(desk, "GET", f"/bench/runs/{run.id}/events", seconds=60)
    thread.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    blocks = [block.split("\r\n") for block in answer.text.strip().split("\r\n\r\n")]
    return [(one[0].removeprefix("event: "), json.loads(one[1].removeprefix("data: "))) for one in blocks]


def test_watchers_are_told_what_changes_until_the_end(desk: Desk) -> None:
    run = goes_on(desk, err=LINE)
    until(lambda: desk.console.runs.state(run).progress is not None)
    told = events(desk, run, then=(desk.folder / "go").touch)
    assert [name for name, _ in told] == ["state", "state"]
    first, last = told[0][1], told[1][1]
    assert (first["phase"], first["percent"], last["phase"]) == ("sending", 40, "ended")
    assert 'value="40"' in first["html"]
    assert first["say"] == "sending 40 percent"
    assert desk.console.streams == 0


def test_watching_keeps_nobody_signed_in(desk: Desk) -> None:
    run = goes_on(desk, err=LINE)
    limits = desk.console.settings.limits

    def later() -> None:
        desk.clock.now += limits.idle

    told = events(desk, run, then=later)
    assert told[-1][0] == "signed-out"
    assert code_of(desk.get("/bench")) == "console.login"
    assert alive(run.folder)  # the push goes on


def test_watchers_are_bounded(desk: Desk) -> None:
    run = goes_on(desk)
    desk.console.streams = desk.console.settings.limits.streams
    assert code_of(desk.get(f"/bench/runs/{run.id}/events")) == "console.busy"


def test_ports_are_asked_but_for_those_in_use(desk: Desk) -> None:
    goes_on(desk)
    rows = [{"port": "socket://127.0.0.1:9", "description": "", "answers": True, "boot_state": "confirmed"}]
    desk.answers({"ports": rows})
    assert desk.post("/bench/ports").status_code == 303
    args = desk.calls[-1]["args"]
    assert args[:2] == ["device", "list"]
    assert f"--port={PORT}" not in args
    assert "--port=socket://127.0.0.1:9" in args
    page = desk.get("/bench").text
    assert "a device answers (confirmed)" in page
    assert SERIAL not in page.replace(f"pump.suit, {SERIAL}", "")
    with desk.console.asking():
        assert code_of(desk.post("/bench/ports")) == "console.busy"
        assert code_of(begin(desk, port="socket://127.0.0.1:9")) == "console.busy"


def test_a_release_of_the_shelf(desk: Desk) -> None:
    state = desk.console.settings.home.shelf_state
    assert "from the shelf" not in desk.get("/bench").text
    state.parent.mkdir(parents=True)
    state.touch()
    assert "A shelf is followed from here" in desk.get("/bench").text
    desk.answers({"ports": [], "releases": [{"model": "insulin-pump", "version": "1.3.0"}]})
    desk.post("/bench/ports")
    assert "insulin-pump 1.3.0, from the shelf" in desk.get("/bench").text
    desk.answers({"error": {"code": "shelf.freeze", "message": "old", "hint": "refresh"}}, 1)
    assert code_of(begin(desk, release="shelf:insulin-pump 1.3.0")) == "shelf.freeze"
    assert not desk.console.runs.journal.all()
    desk.answers(DONE, write={"--out=": "firmware of the shelf"})
    run = finished(desk, begun(desk, release="shelf:insulin-pump 1.3.0"))
    get, push = desk.calls[-2]["args"], desk.calls[-1]["args"]
    assert get[:4] == ["shelf", "get", "insulin-pump", "1.3.0"]
    assert push[0] == "push"
    assert run.name == "insulin-pump-1.3.0.suit"


def test_a_push_that_cannot_be_written_down_does_not_go_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.answers(DONE, until=str(desk.folder / "never"))
    save = Run.save

    def full(run: Run) -> None:
        if run.pid is not None:
            until(lambda: bool(desk.calls))
            raise DevguardError("file.unreadable", "no space left")
        save(run)

    monkeypatch.setattr(Run, "save", full)
    assert code_of(begin(desk)) == "file.unreadable"
    assert list(desk.console.runs.journal.folder.iterdir()) == []


# the journal


@pytest.mark.parametrize("wrong", ["x", "0" * 15, "0" * 16, "G" * 16, "%2e%2e"])
def test_runs_that_are_none(desk: Desk, wrong: str) -> None:
    assert desk.get(f"/bench/runs/{wrong}").status_code == 404
    assert desk.get(f"/bench/runs/{wrong}/events").status_code == 404


def test_damaged_records_hide_nothing_else(desk: Desk) -> None:
    run = finished(desk, begun(desk))
    folder = desk.console.runs.journal.folder
    for number, text in enumerate(("", "[]", "{}", '{"format": 1}', '{"format": 1, "id": 5, "x": 1}', "[" * 60_000)):
        bad = folder / f"{number:016x}"
        bad.mkdir()
        (bad / "run.json").write_text(text)
    (folder / "stray").touch()
    assert [one.id for one in desk.console.runs.journal.all()] == [run.id]
    assert desk.get("/bench").status_code == 200


def test_old_runs_go_and_releases_before_them(desk: Desk) -> None:
    runs = []
    for _ in range(5):
        desk.clock.now += 1
        desk.answers(refused("link.port"), 4)
        runs.append(finished(desk, begun(desk)))
    kept = [one.id for one in desk.console.runs.journal.all()]
    assert kept == [one.id for one in reversed(runs[2:])]
    crashed = desk.console.runs.journal.folder / ("f" * 16)
    crashed.mkdir()
    (crashed / "release.suit").touch()
    desk.clock.now += desk.console.settings.limits.keep_release + 1
    make_console(desk.console.settings)
    assert not crashed.exists()
    assert not runs[-1].suit.exists()
    assert read_run(runs[-1].folder).ended is not None


def test_the_lock_says_who_lives(tmp_path: Path) -> None:
    assert not alive(tmp_path)
    descriptor = hold(tmp_path)
    assert alive(tmp_path)
    os.close(descriptor)
    assert not alive(tmp_path)
    other = os.open(tmp_path / "alive", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_SH)  # somebody else who asks at this moment
    assert not alive(tmp_path)
    os.close(other)


def test_nothing_but_a_yes_is_done(tmp_path: Path) -> None:
    for text in (b"", b"nonsense", b"[]", b'{"accepted": 1}', b'{"accepted": "true"}', b"[" * 90_000):
        (tmp_path / "out").write_bytes(text)
        assert end_of(tmp_path, 0).how is End.SILENT
    (tmp_path / "out").write_text(json.dumps(DONE))
    assert end_of(tmp_path, None).how is End.DONE
    assert end_of(tmp_path, 70).how is End.SILENT
    assert Journal(tmp_path / "none", 3).all() == []
