"""Where a shelf's bytes come from: folders and web servers that lie, stall, drip and redirect. Nothing sleeps."""

from __future__ import annotations

import http.server
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devguard.errors import DevguardError
from devguard.shelf.limits import Limits
from devguard.shelf.source import FolderSource, source_of
from devguard.shelf.web import WebSource

Handler = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], str]]:
    """A web server with one behaviour; its URL."""
    running: list[http.server.ThreadingHTTPServer] = []

    def start(handler: Handler) -> str:
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                handler(self)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}/shelf"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def answer(status: int, body: bytes = b"", **headers: str) -> Handler:
    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return handle


def read(source: WebSource | FolderSource, path: str = "metadata/timestamp.json") -> bytes | None:
    chunks = source.open(path)
    return None if chunks is None else b"".join(chunks)


def code_of(source: WebSource | FolderSource) -> str:
    with pytest.raises(DevguardError) as caught:
        read(source)
    return caught.value.code


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def test_a_web_server_gives_what_it_has(serve: Callable[[Handler], str]) -> None:
    seen = []

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        seen.append(request.path)
        answer(200, b"x" * 200_000)(request)

    assert read(WebSource(serve(handle)), "metadata/1.insulin-pump~a.json") == b"x" * 200_000
    assert seen == ["/shelf/metadata/1.insulin-pump~a.json"]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_there_is_none(status: int, serve: Callable[[Handler], str]) -> None:
    assert read(WebSource(serve(answer(status)))) is None


@pytest.mark.parametrize("status", [400, 401, 500, 503])
def test_other_answers_are_no_answer(status: int, serve: Callable[[Handler], str]) -> None:
    assert code_of(WebSource(serve(answer(status)))) == "shelf.unreachable"


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x"])
def test_a_redirect_leads_to_no_file(place: str, serve: Callable[[Handler], str]) -> None:
    assert code_of(WebSource(serve(answer(302, Location=place)))) == "shelf.unreachable"


def test_redirects_in_a_circle_end(serve: Callable[[Handler], str]) -> None:
    assert code_of(WebSource(serve(answer(302, Location="/shelf/metadata/timestamp.json")))) == "shelf.unreachable"


def test_nobody_listens() -> None:
    assert code_of(WebSource("http://127.0.0.1:1/shelf")) == "shelf.unreachable"


def test_a_connection_cut_in_the_middle(serve: Callable[[Handler], str]) -> None:
    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc")

    assert code_of(WebSource(serve(handle))) == "shelf.unreachable"


@pytest.mark.parametrize("body", [False, True], ids=["headers", "body"])
def test_slow_retrieval_ends_in_headers_and_in_the_body(body: bool, serve: Callable[[Handler], str]) -> None:
    """The clock runs half a minute between two looks at it; the bytes come as they do."""

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        if body:
            request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(64):
            try:
                request.wfile.write(b"a" if body else b"X-Drip: 1\r\n")
                request.wfile.flush()
            except OSError:
                return

    ticks = itertools.count(0, 30)
    source = WebSource(serve(handle), Limits(silence=2.0), clock=lambda: float(next(ticks)))
    assert code_of(source) == "shelf.slow"


def test_silence_ends(serve: Callable[[Handler], str]) -> None:
    held = threading.Event()
    url = serve(lambda _: held.wait(10) and None)
    assert code_of(WebSource(url, Limits(silence=0.05))) == "shelf.slow"
    held.set()


def test_a_folder_gives_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "1.root.json").write_bytes(b"r")
    os.mkfifo(tmp_path / "metadata" / "timestamp.json")
    source = FolderSource(tmp_path)
    assert read(source, "metadata/1.root.json") == b"r"
    assert read(source) is None
    assert read(source, "metadata/2.root.json") is None


@pytest.mark.parametrize(
    ("text", "code"),
    [("ftp://x/y", "shelf.malformed"), ("http://", "shelf.malformed"), ("/nowhere/at/all", "file.missing")],
)
def test_places_that_are_none(text: str, code: str) -> None:
    with pytest.raises(DevguardError) as caught:
        source_of(text)
    assert caught.value.code == code


def test_places(tmp_path: Path) -> None:
    assert source_of(str(tmp_path)).label == str(tmp_path)
    assert source_of(tmp_path.as_uri()).label == str(tmp_path)
    assert source_of("https://shelf.example/a").label == "https://shelf.example/a/"
