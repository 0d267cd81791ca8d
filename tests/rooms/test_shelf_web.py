"""One kept connection to a web server that lies, stalls, floods and hangs up. Nothing sleeps.

Invariant: whatever a server does, a read ends, in the bytes of that file or in a coded error; what one answer left
behind is never part of the next; no place is asked but the one that was named.
"""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from tuf.api.exceptions import DownloadLengthMismatchError

from devguard.errors import DevguardError
from devguard.shelf.fetch import ShelfFetcher
from devguard.shelf.limits import LIMITS, Limits
from devguard.shelf.source import source_of
from devguard.shelf.web import WebSource

Talk = Callable[["Line"], None]
PATH = "metadata/timestamp.json"


class Line:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def asked(self) -> str | None:
        """The request line of the next request; None when the client has hung up."""
        try:
            first = self.file.readline()
            while self.file.readline().strip():
                pass
        except OSError:
            return None
        return first.decode().strip() or None

    def say(self, *parts: bytes) -> bool:
        """Send; whether anybody was there to take it."""
        try:
            for part in parts:
                self.sock.sendall(part)
        except OSError:
            return False
        return True


class Server:
    """Connection after connection, each by its own script; the last script serves all further ones."""

    def __init__(self, scripts: Sequence[Talk]) -> None:
        self.scripts = list(scripts)
        self.connections = 0
        self.requests: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/shelf"
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            script = self.scripts[min(self.connections, len(self.scripts) - 1)]
            self.connections += 1
            with sock:
                line = Line(sock)
                script(line)
                line.file.close()

    def answers(self, *bodies: bytes, status: str = "200 OK", headers: bytes = b"") -> Talk:
        """Answers one request after the other on one connection, and waits for the client to hang up."""

        def talk(line: Line) -> None:
            for body in bodies:
                request = line.asked()
                if request is None:
                    return
                self.requests.append(request)
                line.say(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n".encode(), headers, b"\r\n", body)
            if line.asked() is not None:
                line.say(b"HTTP/1.1 500 Nothing left\r\nContent-Length: 0\r\n\r\n")

        return talk


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running: list[Server] = []

    def start(*scripts: Talk) -> Server:
        running.append(Server(scripts))
        return running[-1]

    yield start
    for server in running:
        server.listener.close()


def read(source: WebSource, path: str = PATH) -> bytes | None:
    chunks = source.open(path)
    return None if chunks is None else b"".join(chunks)


def code_of(source: WebSource, path: str = PATH) -> str:
    with pytest.raises(DevguardError) as caught:
        read(source, path)
    return caught.value.code


# one connection for many files


def test_files_come_over_one_connection(serve: Callable[..., Server]) -> None:
    server = serve(lambda line: server.answers(b"one", b"", b"three" * 30_000)(line))
    source = WebSource(server.url)
    assert [read(source, f"metadata/{n}.root.json") for n in (1, 2, 3)] == [b"one", b"", b"three" * 30_000]
    source.close()
    assert server.connections == 1
    assert server.requests == [f"GET /shelf/metadata/{n}.root.json HTTP/1.1" for n in (1, 2, 3)]


def test_what_is_not_there_does_not_cost_the_connection(serve: Callable[..., Server]) -> None:
    def talk(line: Line) -> None:
        line.asked()
        line.say(b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nnot here.")
        server.answers(b"here")(line)

    server = serve(talk)
    source = WebSource(server.url)
    assert (read(source), read(source)) == (None, b"here")
    assert server.connections == 1


def test_a_long_page_about_nothing_is_not_read_to_its_end(serve: Callable[..., Server]) -> None:
    def talk(line: Line) -> None:
        line.asked()
        line.say(b"HTTP/1.1 404 No\r\nContent-Length: 99999999\r\n\r\n", b"x" * 40_000)
        while line.say(b"x" * 4096):
            pass

    server = serve(talk, lambda line: server.answers(b"here")(line))
    source = WebSource(server.url)
    assert (read(source), read(source)) == (None, b"here")
    assert server.connections == 2


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n", b"Keep-Alive: timeout=0\r\n"])
def test_a_server_that_hangs_up_after_each_answer_is_asked_again(header: bytes, serve: Callable[..., Server]) -> None:
    def once(line: Line) -> None:
        line.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + header + b"\r\nok")

    server = serve(once)
    source = WebSource(server.url)
    assert [read(source) for _ in range(3)] == [b"ok"] * 3
    assert server.connections == 3


def test_a_server_that_always_hangs_up_is_asked_twice_and_no_more(serve: Callable[..., Server]) -> None:
    server = serve(lambda line: server.answers(b"ok")(line), lambda line: line.asked() and None)
    source = WebSource(server.url)
    assert read(source) == b"ok"
    assert code_of(source) == "shelf.unreachable"
    assert server.connections <= 3
    assert code_of(source) == "shelf.unreachable"


def test_a_reader_that_stops_leaves_nothing_for_the_next_file(serve: Callable[..., Server]) -> None:
    def flood(line: Line) -> None:
        line.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n", b"old" * 100_000)

    server = serve(flood, lambda line: server.answers(b"new")(line))
    source = WebSource(server.url)
    chunks = source.open(PATH)
    assert chunks is not None
    assert next(chunks)[:3] == b"old"
    chunks.close()  # type: ignore[attr-defined]
    assert read(source) == b"new"


def test_two_files_at_once_do_not_mix(serve: Callable[..., Server]) -> None:
    server = serve(lambda line: server.answers(b"a" * 9)(line), lambda line: server.answers(b"b" * 9, b"c")(line))
    source = WebSource(server.url)
    first, second = source.open(PATH), source.open(PATH)
    assert first is not None
    assert second is not None
    assert b"".join(second) == b"b" * 9
    first.close()  # type: ignore[attr-defined]
    assert read(source) == b"c"


def test_bytes_behind_an_answer_are_no_part_of_the_next(serve: Callable[..., Server]) -> None:
    """A length that lies: what follows it may look like an answer of its own."""
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"

    def talk(line: Line) -> None:
        line.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + forged)
        server.answers(b"true")(line)

    server = serve(talk)
    source = WebSource(server.url)
    assert read(source) == b"ok"
    assert read(source) == b"true"


def test_the_clock_of_an_answer_starts_with_it(serve: Callable[..., Server]) -> None:
    """An hour between two files on one connection is nobody's slowness."""
    now = [0.0]
    server = serve(lambda line: server.answers(b"one", b"two")(line))
    source = WebSource(server.url, clock=lambda: now[0])
    assert read(source) == b"one"
    now[0] = 3600.0
    assert read(source) == b"two"
    assert server.connections == 1


def test_a_kept_connection_may_not_drip_either(serve: Callable[..., Server]) -> None:
    ticks = [0.0]

    def tick() -> float:
        ticks[0] += step[0]
        return ticks[0]

    def drip(line: Line) -> None:
        line.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        line.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n")
        while line.say(b"x"):
            pass

    step = [0.0]
    source = WebSource(serve(drip).url, Limits(silence=5.0), tick)
    assert read(source) == b"ok"
    step[0] = 30.0
    assert code_of(source) == "shelf.slow"


# answers that never end


def flood(head: bytes, again: bytes) -> Talk:
    def talk(line: Line) -> None:
        line.asked()
        line.say(head)
        while line.say(again * 64):
            pass

    return talk


ENDLESS = {
    "continue": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "continue, each with headers": flood(b"", b"HTTP/1.1 100 Continue\r\nA: " + b"b" * 1000 + b"\r\n\r\n"),
    "chunk extensions": flood(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"e" * 9000 + b"\r\nx\r\n"
    ),
    "trailers": flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    "trailers of a page about nothing": flood(
        b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_framing_without_content_ends(name: str, serve: Callable[..., Server]) -> None:
    assert code_of(WebSource(serve(ENDLESS[name]).url)) in ("shelf.endless", "shelf.unreachable")


@pytest.mark.parametrize("line", [b"A: b\r\n", b"A: " + b"b" * 70_000 + b"\r\n"], ids=["many", "long"])
def test_headers_without_end(line: bytes, serve: Callable[..., Server]) -> None:
    assert code_of(WebSource(serve(flood(b"HTTP/1.1 200 OK\r\n", line)).url)) == "shelf.unreachable"


BODIES = {
    "one endless chunk": b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    "a length of 10^31": b"Content-Length: 1" + b"0" * 31 + b"\r\n\r\n",
    "no length": b"\r\n",
}


@pytest.mark.parametrize("head", BODIES.values(), ids=BODIES)
def test_a_body_without_end_is_cut_by_who_reads(head: bytes, serve: Callable[..., Server]) -> None:
    server = serve(flood(b"HTTP/1.1 200 OK\r\n" + head, b"x" * 4096))
    fetcher = ShelfFetcher(WebSource(server.url), LIMITS)
    with pytest.raises(DownloadLengthMismatchError):
        fetcher.download_bytes(f"shelf:///{PATH}", 16_384)


def test_all_metadata_of_a_refresh_is_capped(serve: Callable[..., Server]) -> None:
    server = serve(lambda line: server.answers(b"x" * 600, b"x" * 600)(line))
    fetcher = ShelfFetcher(WebSource(server.url), Limits(metadata_size=1000))
    assert fetcher.download_bytes(f"shelf:///{PATH}", 1000) == b"x" * 600
    with pytest.raises(DevguardError) as caught:
        fetcher.download_bytes(f"shelf:///{PATH}", 1000)
    assert caught.value.code == "shelf.endless"


# lengths and encodings that lie


@pytest.mark.parametrize("length", [b"5", b"1" + b"0" * 30])
def test_an_answer_shorter_than_it_says(length: bytes, serve: Callable[..., Server]) -> None:
    def talk(line: Line) -> None:
        line.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nabc")

    server = serve(talk, lambda line: server.answers(b"whole")(line))
    source = WebSource(server.url)
    assert code_of(source) == "shelf.unreachable"
    assert read(source) == b"whole"


@pytest.mark.parametrize("length", [b"-1", b"abc", b"", b"0x10", b"\xb2"])
def test_a_length_that_is_none(length: bytes, serve: Callable[..., Server]) -> None:
    def talk(line: Line) -> None:
        line.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nabc")

    server = serve(talk)
    source = WebSource(server.url)
    assert (read(source), read(source)) == (b"abc", b"abc")
    assert server.connections == 2


def test_nothing_is_unpacked(serve: Callable[..., Server]) -> None:
    bomb = gzip.compress(b"\0" * (1 << 22))
    seen: list[bytes] = []

    def talk(line: Line) -> None:
        seen.append(line.file.readline())
        while (header := line.file.readline()).strip():
            seen.append(header.lower())
        line.say(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb), bomb)

    assert read(WebSource(serve(talk).url)) == bomb
    assert b"accept-encoding: identity\r\n" in seen


ANSWERS = (
    b"",
    b"garbage\r\n\r\n",
    b"HTTP/1.1 99 no\r\n\r\n",
    b"HTTP/9 200 OK\r\n\r\n",
    b"\0" * 99,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
)


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_that_are_none(answer: bytes, serve: Callable[..., Server]) -> None:
    def talk(line: Line) -> None:
        line.asked()
        line.say(answer)

    assert code_of(WebSource(serve(talk).url)) == "shelf.unreachable"


# where it goes, and where it does not


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_told_and_not_followed(status: str, serve: Callable[..., Server]) -> None:
    other = serve(lambda line: other.answers(b"elsewhere")(line))
    server = serve(
        lambda line: server.answers(b"", status=status, headers=f"Location: {other.url}/{PATH}\r\n".encode())(line)
    )
    with pytest.raises(DevguardError, match="give that with --from if you believe it") as caught:
        read(WebSource(server.url))
    assert caught.value.code == "shelf.unreachable"
    assert other.connections == 0


def test_a_proxy_of_the_environment_is_asked_for_whole_urls(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    headers: list[bytes] = []

    def talk(line: Line) -> None:
        headers.append(line.file.readline())
        while (header := line.file.readline()).strip():
            headers.append(header)
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    proxy = serve(talk)
    monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/shelf").replace("http://", "http://me:secret@"))
    assert read(WebSource("http://shelf.invalid:8080/s")) == b"ok"
    assert headers[0] == f"GET http://shelf.invalid:8080/s/{PATH} HTTP/1.1\r\n".encode()
    assert b"Host: shelf.invalid:8080\r\n" in headers
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in headers
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    assert code_of(WebSource("http://shelf.invalid/s")) == "shelf.unreachable"


def test_https_goes_through_a_proxy_in_a_tunnel(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda line: server.answers(b"", status="403 Not you")(line))
    monkeypatch.setenv("https_proxy", server.url.removesuffix("/shelf"))
    assert code_of(WebSource("https://shelf.invalid/s")) == "shelf.unreachable"
    assert server.requests == ["CONNECT shelf.invalid:443 HTTP/1.0"]


def test_no_certificate_no_shelf(serve: Callable[..., Server]) -> None:
    server = serve(lambda line: line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") and None)
    assert code_of(WebSource(server.url.replace("http:", "https:"))) == "shelf.unreachable"


@pytest.mark.parametrize("text", ["http://me:secret@shelf.example/", "https://me@shelf.example/", "http://[::1/"])
def test_urls_that_are_not_taken(text: str) -> None:
    with pytest.raises(DevguardError) as caught:
        source_of(text)
    assert caught.value.code == "shelf.malformed"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://a b/", "http://127.0.0.1/\r\nX: y"]
)
def test_urls_that_lead_nowhere(place: str, serve: Callable[..., Server]) -> None:
    assert code_of(WebSource(place)) == "shelf.unreachable"
