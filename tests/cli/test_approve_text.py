"""The second technician in another room, without a file: the request and the answer as text, typed or scanned."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import make_image
from cli_support import PROGRAMMER, PUMP, Emulator, World, devguard, emulator, finish, ok, records, start, until
from devguard.cli.approvers import TypedLines, WaitingApprover
from devguard.cli.context import Invocation
from devguard.errors import DevguardError, Refused
from devguard.grant.claims import read_grant
from devguard.session.approval import ApprovalRequest, Asking, pack_answer, read_answer, sign_approval
from devguard.session.armor import Kind, armor, in_groups

SEGNO = pytest.mark.skipif(importlib.util.find_spec("segno") is None, reason="the extra qr is not installed")


@pytest.fixture
def asked(world: World, home: Path, tmp_path: Path) -> ApprovalRequest:
    """What Tess asks Tom, who has a grant of his own."""
    world.grant(tmp_path / "tom.grant", "PP-1", model=PROGRAMMER, name="second")
    now = Invocation().now()
    asking = Asking("Tess Technician", world.signer("tech").key.thumbprint)
    return ApprovalRequest(b"s" * 32, "PP-1", b"m" * 32, "update", b"f" * 32, now + 500, asking)


def approve(request: object, *more: object, key: str = "second", grant: str = "tom.grant") -> object:
    return devguard("approve", request, "--key", key, "--grant", grant, *more)


def with_second(asked: ApprovalRequest, grant: Path) -> ApprovalRequest:
    assert asked.asking is not None
    digest = hashlib.sha256(read_grant(grant.read_bytes()).untagged).digest()
    return dataclasses.replace(asked, asking=dataclasses.replace(asked.asking, second_grant=digest))


# the approver's side


def test_a_request_is_approved_from_its_text(world: World, home: Path, asked: ApprovalRequest, tmp_path: Path) -> None:
    text = armor(Kind.REQUEST, asked.encode())
    told = ok("approve", text, "--key", "second", "--grant", "tom.grant", "--json")
    assert "Tess Technician asks you to approve: update of PP-1" in told.err
    assert told.json["path"] is None
    (tmp_path / "r.txt").write_text(in_groups(text).lower() + "\n")
    again = ok("approve", "r.txt", "--key", "second", "--grant", "tom.grant", "-o", "a", "--json").json
    assert read_answer((tmp_path / "a").read_bytes())[1] == read_grant((tmp_path / "tom.grant").read_bytes()).untagged
    assert again["answer"].startswith("DEVGUARD-ANSWER:")
    row = records(home)[-1]
    assert (row["action"], row["actor"], row["device"]) == ("release.approve", "Tom Technician", "PP-1")
    piped = start("approve", "-", "--key", "second", "--grant", "tom.grant", "--json", stdin=subprocess.PIPE)
    assert piped.stdin is not None
    piped.stdin.write(text)
    piped.stdin.close()
    piped.stdin = None
    assert finish(piped).json["code"].startswith("DEVGUARD-CODE:")


def test_what_is_typed_is_short_where_the_bench_has_the_grant(asked: ApprovalRequest, tmp_path: Path) -> None:
    long = ok("approve", armor(Kind.REQUEST, asked.encode()), "--key", "second", "--grant", "tom.grant").out
    assert "DEVGUARD-ANSWER:" in long
    known = armor(Kind.REQUEST, with_second(asked, tmp_path / "tom.grant").encode())
    short = ok("approve", known, "--key", "second", "--grant", "tom.grant").out
    assert "DEVGUARD-CODE:\n" in short
    assert "DEVGUARD-ANSWER:" not in short


def test_nobody_approves_their_own_push(world: World, home: Path, asked: ApprovalRequest, tmp_path: Path) -> None:
    world.grant(tmp_path / "tess.grant", "PP-1", model=PROGRAMMER)
    text = armor(Kind.REQUEST, asked.encode())
    assert approve(text, key="tech", grant="tess.grant").code == "grant.quorum"
    ok("key", "new", "card", "--person", "TESS  technician", "--role", "technician")
    ok("grant", "issue", "--authority", "authority", "--technician", "card", "--model", PROGRAMMER, "--serial", "PP-1",
       "-o", "card.grant")  # fmt: skip
    assert approve(text, key="card", grant="card.grant").code == "grant.quorum"  # by person, not by key
    assert records(home)[-1]["code"] == "grant.quorum"


def test_what_the_device_would_refuse_is_refused_before_a_passphrase_is_asked_for(
    world: World, home: Path, asked: ApprovalRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEVGUARD_PASSPHRASE")
    text = armor(Kind.REQUEST, asked.encode())
    world.grant(tmp_path / "other.grant", "PP-2", model=PROGRAMMER, name="second")
    world.grant(tmp_path / "reader.grant", "PP-1", model=PROGRAMMER, name="second", actions=frozenset(["read-log"]))
    for grant, code in (
        ("other.grant", "grant.scope"),
        ("reader.grant", "grant.action"),
        ("tom.grant", "key.passphrase"),
    ):
        assert approve(text, grant=grant).code == code
    assert approve(text, "--release", world.suits["1.1.0"]).code == "grant.quorum"
    ok("technician", "suspend", "second")
    assert approve(text).code == "grant.revoked"
    late = armor(Kind.REQUEST, dataclasses.replace(asked, expires=1).encode())
    assert approve(late).code == "grant.quorum"


def test_texts_that_are_no_request(asked: ApprovalRequest, tmp_path: Path) -> None:
    text = armor(Kind.REQUEST, asked.encode())
    for bad in (text[:-1], text + "A", text.replace(text[40], "Z" if text[40] != "Z" else "Y", 1), "DEVGUARD-REQUEST:"):
        result = approve(bad, "-o", tmp_path / "a")
        assert result.code in ("grant.malformed", "wire.malformed"), bad[:30]
        assert result.status == 3
    assert approve(armor(Kind.CODE, bytes(64))).code == "grant.quorum"
    assert not (tmp_path / "a").exists()


# the bench's side


def approver(*lines: str | None, grant: Path | None = None, **fields: object) -> WaitingApprover:
    waiting = iter([*lines, None, None, None])
    found = None if grant is None else read_grant(grant.read_bytes())
    made = WaitingApprover(Invocation(), lambda _grant: None, found, **fields)  # type: ignore[arg-type]
    made.lines = lambda: next(waiting, None)
    return made


def answer_to(world: World, asked: ApprovalRequest, grant: Path) -> tuple[bytes, bytes]:
    second = read_grant(grant.read_bytes())
    return sign_approval(asked, world.signer("second"), hashlib.sha256(second.untagged).digest()), second.untagged


def test_a_code_is_typed_in_lines_and_a_slip_is_asked_again(
    world: World, asked: ApprovalRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grant = tmp_path / "tom.grant"
    approval, second = answer_to(world, asked, grant)
    code = in_groups(armor(Kind.CODE, approval[-64:])).splitlines()
    slip = [code[0], code[1][:-1] + ("A" if code[1][-1] != "A" else "B"), *code[2:], ""]
    waiting = approver(*slip, None, *code[1:], grant=grant)
    assert waiting(asked) is None
    assert "DEVGUARD-REQUEST:" in capsys.readouterr().err
    assert waiting(asked) is None
    assert "type or scan it again" in capsys.readouterr().err
    found = None
    for _ in range(8):
        found = found or waiting(asked)
    assert found is not None
    assert found[1] == second
    assert len(found[0]) == len(approval)


def test_a_whole_answer_is_taken_as_text_or_as_a_file(world: World, asked: ApprovalRequest, tmp_path: Path) -> None:
    answer = answer_to(world, asked, tmp_path / "tom.grant")
    packed = pack_answer(*answer)
    text = armor(Kind.ANSWER, packed)
    typed = approver(text)
    assert typed(asked) is None
    assert typed(asked) == answer
    for content in (packed, text.encode(), in_groups(text).encode()):
        place = tmp_path / "answer"
        waiting = approver(place=place)
        assert waiting(asked) is None
        assert (tmp_path / "answer.request").read_bytes() == asked.encode()
        assert waiting(asked) is None
        place.write_bytes(content)
        assert waiting(asked) == answer


@pytest.mark.parametrize("kind", ["code without grant", "another push", "a request", "another key"])
def test_a_text_that_answers_something_else_is_asked_again(
    world: World, asked: ApprovalRequest, tmp_path: Path, kind: str
) -> None:
    grant = tmp_path / "tom.grant"
    approval, _ = answer_to(world, dataclasses.replace(asked, serial="PP-2"), grant)
    own = sign_approval(asked, world.signer("tech"), bytes(32))
    text = {
        "code without grant": armor(Kind.CODE, answer_to(world, asked, grant)[0][-64:]),
        "another push": armor(Kind.CODE, approval[-64:]),
        "a request": armor(Kind.REQUEST, asked.encode()),
        "another key": armor(Kind.CODE, own[-64:]),
    }[kind]
    waiting = approver(text, "", grant=None if kind == "code without grant" else grant)
    assert waiting(asked) is None
    assert waiting(asked) is None


def test_what_stands_against_the_second_technician_is_asked_here_too(
    world: World, asked: ApprovalRequest, tmp_path: Path
) -> None:
    def refuse(_grant: object) -> None:
        raise Refused("grant.revoked", "suspended")

    waiting = approver(armor(Kind.ANSWER, pack_answer(*answer_to(world, asked, tmp_path / "tom.grant"))))
    waiting.check = refuse
    assert waiting(asked) is None
    with pytest.raises(Refused, match=r"grant\.revoked"):
        waiting(asked)


def test_lines_come_as_they_are_typed_and_an_end_is_an_end() -> None:
    reading, writing = os.pipe()
    lines = TypedLines(reading)
    try:
        assert lines() is None
        os.write(writing, b"half a li")
        assert lines() is None
        os.write(writing, b"ne\nand two\n\xff\n")
        assert [lines(), lines(), lines(), lines()] == ["half a line", "and two", "\ufffd", None]
        os.write(writing, b"x" * 20_000)
        assert len(lines() or "") > 8000  # no line is longer than memory
        os.write(writing, b"\n")
        os.close(writing)
        while (line := lines()) is not None and line:
            pass
    except DevguardError as error:
        assert error.code == "grant.quorum"  # noqa: PT017 (standard input ended)
    finally:
        os.close(reading)


# drawn


@SEGNO
def test_the_code_on_the_terminal_is_the_text(asked: ApprovalRequest) -> None:
    import segno

    from devguard.cli.qr import drawn

    text = armor(Kind.REQUEST, asked.encode())
    shown = drawn(text).splitlines()
    code = segno.make_qr(text, error="m", boost_error=False)
    assert code.mode == "alphanumeric"
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=2)]
    pairs = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
    for number, line in enumerate(shown):
        upper = rows[2 * number]
        lower = rows[2 * number + 1] if 2 * number + 1 < len(rows) else [True] * len(upper)
        assert line == "".join(pairs[one] for one in zip(upper, lower, strict=True))
    assert max(map(len, shown)) <= 80
    assert "█" in ok("approve", text, "--key", "second", "--grant", "tom.grant", "--qr").out
    assert drawn("A" * 8000) == ""


def test_without_the_package_it_is_said_before_anything_is_done(
    world: World, asked: ApprovalRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    text = armor(Kind.REQUEST, asked.encode())
    assert approve(text, "--qr").code == "qr.package"
    refused = devguard("push", world.suits["1.1.0"], "--qr", "--approval", "-", "--json")
    assert (refused.status, refused.code) == (1, "qr.package")
    assert set(refused.json) >= {"accepted", "code", "device", "report", "link"}


# all of it, over a line


@pytest.fixture(scope="module")
def programmer(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulator(world, tmp_path_factory.mktemp("programmer"), "PP-1", model=PROGRAMMER) as device:
        yield device


def test_a_push_takes_the_code_that_is_typed(world: World, home: Path, programmer: Emulator, tmp_path: Path) -> None:
    suit = world.suit(
        tmp_path / "x.suit", model=PROGRAMMER, image=make_image(30_000, "pp"), sequence=1, version="1.0.0"
    )
    mine = world.grant(tmp_path / "mine.grant", "PP-1", model=PROGRAMMER)
    toms = world.grant(tmp_path / "tom.grant", "PP-1", model=PROGRAMMER, name="second")
    said = tmp_path / "said"
    with said.open("wb") as errors:
        way = ("--port", programmer.port, "--key", "tech", "--grant", mine, "--second-grant", toms, "--approval", "-")
        process = start("push", suit, *way, "--json", stdin=subprocess.PIPE, stderr=errors)
    until(lambda: b"type or scan the answer" in said.read_bytes(), "the request")
    text = next(line for line in said.read_text().splitlines() if line.startswith("DEVGUARD-REQUEST:"))
    code = ok("approve", text, "--key", "second", "--grant", toms, "--json").json["code"]
    assert process.stdin is not None
    process.stdin.write("rubbish\n\n" + in_groups(code) + "\n")
    process.stdin.flush()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out + said.read_text()
    assert '"version_after": "1.0.0"' in out
    digests = records(home)[-1]["digests"]
    assert digests["second-grant"] == hashlib.sha256(read_grant(toms.read_bytes()).untagged).hexdigest()
    assert PUMP not in out
