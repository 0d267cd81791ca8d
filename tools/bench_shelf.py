"""The shelf's figures: a thousand releases of one product line, then one more.

`rows()` is what `tools/bench.py` calls. Both readers read the same web server, a child of this process, each over one
connection that it keeps; the peer is python-tuf's own client with its own fetcher, refreshing and then looking up the
new release. Ours also makes what it learnt durable, which the peer does not. The ratio is the median of the rounds'
ratios, for the two halves of a round see the same machine. Keys and shelf are made for the run and deleted after it.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROUNDS = 31
RELEASES = 1000
MODEL = "insulin-pump"
PARTS = "received", "time"
WIRE, RATIO = 30 * 1024, 1.3
Row = tuple[str, str, str, str, str, bool | None]


def rows() -> list[Row]:
    """Bytes over the wire after one new release, and the time of a refresh against python-tuf's own client."""
    what = f"shelf refresh, 1 new of {RELEASES + 1}"
    aims = f"under {WIRE >> 10} KiB", f"under {RATIO:.2f} of tuf"
    if importlib.util.find_spec("tuf") is None:
        return [(f"{what}, {part}", "", "tuf is missing", "", aim, None) for part, aim in zip(PARTS, aims, strict=True)]
    with tempfile.TemporaryDirectory(prefix="devguard-bench-") as name, _no_proxy():
        received, times = _measured(Path(name))
    mine, peer = (statistics.median(one) for one in zip(*times, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in times)
    shown = f"{mine * 1e3:.1f} ms", f"tuf {peer * 1e3:.1f} ms", f"{ratio:.2f}"
    return [
        (f"{what}, {PARTS[0]}", f"{received / 1024:.1f} KiB", "", "", aims[0], received < WIRE),
        (f"{what}, {PARTS[1]}", *shown, aims[1], ratio < RATIO),
    ]


def _measured(folder: Path) -> tuple[int, list[tuple[float, float]]]:
    """Bytes received, and seconds of (ours, python-tuf's) in each of the alternating rounds but the first."""
    print(f"making a shelf of {RELEASES} releases...", file=sys.stderr)
    _make(folder / "shelf")
    with _served(folder / "shelf") as url:
        _refresh_ours(folder / "before", url, folder)
        _refresh_theirs(folder / "peer", url, folder, "1.0.0")
        _publish(folder / "shelf", f"1.0.{RELEASES}", RELEASES + 1)
        times = []
        for index in range(ROUNDS + 1):
            ours, theirs = folder / f"ours-{index}", folder / f"theirs-{index}"
            shutil.copytree(folder / "before", ours, symlinks=True)
            shutil.copytree(folder / "peer", theirs, symlinks=True)
            start = time.perf_counter()
            received = _refresh_ours(ours, url, folder)
            middle = time.perf_counter()
            _refresh_theirs(theirs, url, folder, f"1.0.{RELEASES}")
            times.append((middle - start, time.perf_counter() - middle))
    return received, times[1:]


@contextlib.contextmanager
def _no_proxy() -> Iterator[None]:
    """Both readers ask this machine itself, whatever proxy it has."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
    try:
        yield
    finally:
        os.environ.update(taken)


def _keyring() -> Any:
    from devguard.cose.algorithms import Algorithm
    from devguard.custody.memory import MemorySigner

    return [MemorySigner.from_seed(Algorithm.ESP256, bytes([number]) * 40) for number in range(1, 4)]


def _repository(folder: Path) -> Any:
    from devguard.shelf.repository import Repository

    signers = {one.key.fingerprint: one for one in _keyring()}
    return Repository(folder, signers.get, int(time.time()))


def _make(folder: Path) -> None:
    from devguard.shelf.roots import Members, create

    root, targets, online = (one.key for one in _keyring())
    repository = _repository(folder)
    create(repository, Members([root], 1, [targets], 1, online), None)
    for number in range(RELEASES):
        repository.put_release(MODEL, f"1.0.{number}", number + 1, io.BytesIO(b"%d" % number))
    repository.publish()


def _publish(folder: Path, version: str, sequence: int) -> None:
    repository = _repository(folder)
    repository.put_release(MODEL, version, sequence, io.BytesIO(version.encode()))
    repository.publish()


def _refresh_ours(state: Path, url: str, folder: Path) -> int:
    from devguard.shelf.client import Shelf
    from devguard.shelf.web import WebSource

    shelf = Shelf(state)
    if not (state / "root.json").exists():
        shelf.store.pin((folder / "shelf/metadata/1.root.json").read_bytes())
    with contextlib.closing(WebSource(url)) as source:
        return shelf.refresh(source, int(time.time())).received


def _refresh_theirs(state: Path, url: str, folder: Path, version: str) -> None:
    from tuf.ngclient import Updater

    state.mkdir(exist_ok=True)
    pinned = (folder / "shelf/metadata/1.root.json").read_bytes()
    client = Updater(str(state), f"{url}/metadata/", bootstrap=pinned)
    client.refresh()
    if client.get_targetinfo(f"{MODEL}/{version}.suit") is None:
        raise SystemExit(f"python-tuf did not find {version}")


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """A web server in a child of its own, so that it takes no time from either reader."""
    child = subprocess.Popen([sys.executable, __file__, "--serve", str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        if child.stdout is None or not (port := child.stdout.readline().strip()):
            raise SystemExit("the web server did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else kept connections wait 40 ms for each file
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        """Nothing."""


def main() -> int:
    """Serve for `rows`, or print the rows."""
    if sys.argv[1:2] == ["--serve"]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=sys.argv[2]))
        print(server.server_port, flush=True)
        server.serve_forever()
    for row in rows():
        print(*row, sep="  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
