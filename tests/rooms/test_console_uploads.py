"""Uploads: bounded in size, time and disk; names are text; nothing stays, whatever happens. And the page Verify.

Invariant: every upload ends in an answer with a code or in its one command, and `console/uploads` is empty afterwards.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console_support import Desk, Raw, ask_raw, code_of
from devguard.console import uploads
from devguard.console.app import make_console
from devguard.console.settings import MIB, Limits
from devguard.console.table import Role
from devguard.console.uploads import shown_name
from devguard.verdict.steps import STEPS

GIB = 1 << 30
LIMITS = Limits(upload=4 * MIB, reserve=1000, silence=0.1)


class Disk(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk.make(tmp_path, limits=LIMITS).as_role(Role.VIEWER)
    desk.answers(verdict())
    yield desk
    assert left(desk) == []


def left(desk: Desk) -> list[Path]:
    return list((desk.console.settings.folder / "uploads").rglob("*"))


def verdict(code: str | None = None, detail: str = "as signed") -> dict[str, Any]:
    """What `devguard verify --json` says; with a code the last check fails, and one is not judged."""
    checks = [{"name": name, "ok": True, "detail": "fine", "standard": "RFC 0", "code": None} for name in STEPS]
    if code is not None:
        checks[-2].update(ok=False, detail="not judged: there is nothing to look at")
        checks[-1].update(ok=False, detail=detail, code=code)
    return {
        "file": "x",
        "accepted": code is None,
        "code": code,
        "checks": checks,
        "release": {"vendor": "v", "model": "pump", "version": "1.1.0", "sequence": 2, "digest": "ab", "size": 9},
        "signatures": [
            {"role": "release", "person": "Remy", "key": "cd" * 32, "alg": "ESP256", "ok": True, "code": None},
            {"role": None, "person": None, "key": "", "alg": "x", "ok": False, "code": "key.unknown"},
        ],
        "notes": ["model supported until 2036"],
        "support": None,
    }  # fmt: skip


def send(desk: Desk, content: bytes = b"firmware", name: str = "pump.suit", **fields: str) -> Any:
    return desk.client.post("/verify", data={"csrf": desk.csrf, **fields}, files={"file": (name, content)})


# the page


def test_a_good_verdict(desk: Desk) -> None:
    answer = send(desk, model="insulin-pump", serial="--home=/etc", installed=" 1.0.0 ")
    assert answer.status_code == 200
    for text in ("This release is good", "pump.suit", "20 of 20 checks passed", "Remy", "model supported until 2036"):
        assert text in answer.text
    args = desk.calls[0]["args"]
    assert args[:4] == ["verify", "--model=insulin-pump", "--serial=--home=/etc", "--installed=1.0.0"]
    assert args[4].startswith(str(desk.console.settings.folder / "uploads"))
    assert args[5:] == ["--json", "--home", str(desk.console.settings.home.path)]
    assert "devguard verify --model=insulin-pump --serial=--home=/etc --installed=1.0.0 pump.suit" in answer.text
    assert "To the bench" not in answer.text  # a viewer has nothing to do there


def test_a_refusal_says_what_is_safe_and_what_is_next(desk: Desk) -> None:
    desk.answers(verdict("image.digest", "signed is <b>ab</b>"), 1)
    text = send(desk).text
    assert code_of(send(desk)) == "image.digest"
    assert "Do not install this file" in text
    assert "No device was touched" in text
    assert "get the file again from the vendor" in text
    assert "signed is &lt;b&gt;ab&lt;/b&gt;" in text
    assert "18 of 20 checks passed" in text
    assert "so do not believe it" in text
    assert "not judged, because an earlier check failed" in text


def test_every_check_has_a_name_that_people_read(desk: Desk) -> None:
    for language in ("en", "de"):
        t = desk.get("/verify", headers={"accept-language": language})
        assert t.status_code == 200
    from devguard.console.i18n import catalogue

    for name in STEPS:
        for language in ("en", "de"):
            assert {f"verify.check.{name}", f"verify.why.{name}"} <= set(catalogue(language))


def test_a_command_that_could_not_judge(desk: Desk) -> None:
    desk.answers({"error": {"code": "log.full", "message": "no room", "hint": "free some"}}, 4)
    answer = send(desk)
    assert (answer.status_code, code_of(answer)) == (503, "log.full")
    for data, status in ((None, 130), ({}, 0), ({"checks": 5}, 0)):
        desk.answers(data, status)
        assert code_of(send(desk)) in ("console.command", "console.request")


def test_a_bare_image_with_its_envelope(desk: Desk) -> None:
    files = {"file": ("image.bin", b"1"), "envelope": ("of.suit", b"2")}
    desk.client.post("/verify", data={"csrf": desk.csrf}, files=files)
    args = desk.calls[0]["args"]
    assert [args[1].startswith("--envelope=/"), args[2].startswith("/")] == [True, True]
    assert args[1].removeprefix("--envelope=") != args[2]


def test_fields_are_bounded(desk: Desk) -> None:
    assert code_of(send(desk, model="x" * 200)) == "console.request"
    assert code_of(send(desk, model="a\x00b")) == "console.request"
    assert code_of(send(desk, model="x" * 9000)) == "console.upload"
    assert desk.calls == []


# names


@given(st.binary(max_size=300))
def test_names_are_text(raw: bytes) -> None:
    name = shown_name(raw)
    assert name.isprintable()
    assert len(name) <= 120
    assert bool(name) == bool(raw)
    assert "/" not in name


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\boot.ini", "/etc/shadow", "a\u202etius.exe", "-rf", ".", "x" * 4000]
)
def test_a_name_is_never_a_path(desk: Desk, name: str) -> None:
    answer = send(desk, name=name)
    assert answer.status_code == 200
    path = Path(desk.calls[0]["args"][1])
    assert path.is_relative_to(desk.console.settings.folder / "uploads")
    assert path.name == "0.upload"
    assert "\u202e" not in answer.text


# limits


def test_too_large_by_its_own_word_and_in_fact(desk: Desk) -> None:
    assert code_of(send(desk, bytes(LIMITS.upload + 1))) == "console.upload-size"
    assert code_of(post_raw(desk, body(desk, [bytes(MIB)] * 5))) == "console.upload-size"
    headers = {"content-length": str(10 * GIB)}
    assert code_of(post_raw(desk, body(desk, [b"x"]), headers)) == "console.upload-size"
    assert code_of(post_raw(desk, body(desk, [b"x"]), {"content-length": "-5"})) == "console.upload-size"
    assert desk.calls == []


def test_ten_gibibytes_on_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk.make(tmp_path, limits=Limits(upload=20 * GIB)).as_role(Role.VIEWER)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(GIB, 0, GIB))
    answer = post_raw(desk, body(desk, [b"x"]), {"content-length": str(10 * GIB)})
    assert (answer.status_code, code_of(answer)) == (507, "console.disk")
    free = iter([100 * MIB, 80 * MIB, 70 * MIB, 1 * MIB, 1 * MIB])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(GIB, 0, next(free)))
    assert code_of(post_raw(desk, body(desk, [bytes(MIB)] * 60))) == "console.disk"  # its length was never said
    assert (left(desk), desk.calls) == ([], [])


def test_a_disk_that_fills_up_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    class Full:
        def __init__(self, path: Path) -> None:
            self.file = real(path, "xb")
            self.name = str(path)

        def write(self, _data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            self.file.close()

    monkeypatch.setattr(Path, "open", lambda path, mode="r": Full(path) if mode == "xb" else real(path, mode))
    assert code_of(send(desk)) == "console.disk"


def test_an_upload_that_stops_and_one_that_crawls(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_DRAIN_SECONDS", 0.1)

    async def silent() -> AsyncIterator[bytes]:
        yield head(desk)
        await asyncio.sleep(30)

    assert code_of(post_raw(desk, silent())) == "console.upload-slow"

    async def crawling() -> AsyncIterator[bytes]:
        yield head(desk)
        while True:
            desk.clock.now += 5
            yield b"x"

    assert code_of(post_raw(desk, crawling())) == "console.upload-slow"
    assert desk.calls == []


def test_a_browser_that_goes_away(desk: Desk) -> None:
    async def gone() -> AsyncIterator[bytes]:
        yield head(desk)
        raise ConnectionError

    post_raw(desk, gone(), hears=False)
    assert desk.calls == []


def test_what_a_crash_left_goes_at_the_next_start(desk: Desk) -> None:
    folder = desk.console.settings.folder / "uploads" / "u-dead"
    folder.mkdir(parents=True)
    (folder / "0.upload").write_bytes(b"x")
    make_console(desk.console.settings)


# forms


def test_the_token_comes_before_the_file(desk: Desk) -> None:
    files = {"csrf": (None, desk.csrf), "file": ("a", b"x")}
    assert desk.client.post("/verify", files=files).status_code == 200
    behind = {"file": ("a", b"x"), "csrf": (None, desk.csrf)}
    assert code_of(desk.client.post("/verify", files=behind)) == "console.csrf"
    assert code_of(desk.client.post("/verify", files={"csrf": (None, "guess"), "file": ("a", b"x")})) == "console.csrf"
    assert code_of(desk.client.post("/verify", files={"other": (None, "x")})) == "console.csrf"
    assert desk.client.post("/verify", files=behind, headers={"x-csrf-token": desk.csrf}).status_code == 200
    assert len(desk.calls) == 2


def test_forms_that_are_none(desk: Desk) -> None:
    one = part(b'name="file"; filename="a"', b"x")
    many = b"".join(part(f'name="f{number}"'.encode(), b"x") for number in range(50))
    for wrong in (
        head(desk),
        token(desk) + b"--B--\r\n",
        token(desk) + one + one + b"--B--\r\n",
        token(desk) + many + b"--B--\r\n",
        token(desk) + b"--B\r\nX: " + b"y" * 10_000,
        token(desk) + b"--B\r\nContent-Disposition: attachment\r\n\r\nx\r\n--B--\r\n",
        b"garbage" * 100,
        b"",
    ):
        assert code_of(post_raw(desk, once(wrong))) in ("console.upload", "console.csrf")
    for kind in ("multipart/form-data", "multipart/mixed; boundary=B", "application/octet-stream", ""):
        assert code_of(post_raw(desk, once(head(desk)), {"content-type": kind})) == "console.upload"
    assert desk.calls == []


@given(st.binary(max_size=400))
def test_any_bytes_are_an_answer(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    desk = _fuzzed(tmp_path_factory)
    answer = post_raw(desk, once(token(desk) + b"--B" + data))
    assert answer.status_code in (200, 400, 403, 503)


_DESKS: list[Desk] = []


def _fuzzed(factory: pytest.TempPathFactory) -> Desk:
    if not _DESKS:
        _DESKS.append(Desk.make(factory.mktemp("desk"), limits=LIMITS).as_role(Role.VIEWER))
        _DESKS[0].console.settings = _DESKS[0].console.settings  # the stub answers with {}: no verdict
    return _DESKS[0]


# bytes on the wire


def part(disposition: bytes, content: bytes) -> bytes:
    return b"--B\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + content + b"\r\n"


def token(desk: Desk) -> bytes:
    return part(b'name="csrf"', desk.csrf.encode())


def head(desk: Desk) -> bytes:
    """A form up to the first bytes of its file."""
    return token(desk) + b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nbegin'


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def body(desk: Desk, chunks: list[bytes]) -> AsyncIterator[bytes]:
    yield head(desk)
    for chunk in chunks:
        yield chunk
    yield b"\r\n--B--\r\n"


def post_raw(
    desk: Desk, chunks: AsyncIterator[bytes], headers: dict[str, str] | None = None, *, hears: bool = True
) -> Raw | None:
    """POST /verify chunk by chunk, as a server hands it on. A ConnectionError in `chunks` is a browser that is gone."""
    kind = {"content-type": "multipart/form-data; boundary=B"}
    answer = ask_raw(desk, "POST", "/verify", {**kind, **(headers or {})}, chunks)
    return answer if hears else None
