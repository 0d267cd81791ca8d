"""The shelf's figures: a thousand releases of one product line, then one more.

`rows()` is what `tools/bench.py` calls: (what, ours, theirs, outcome, aim, met). Both readers read the same web server
in this process's child; the peer is python-tuf's own client with its own fetcher, refreshing and then looking up the
new release. Keys and shelf are made for the run and deleted after it.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
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

ROUNDS = 7
RELEASES = 1000
MODEL = "insulin-pump"
Row = tuple[str, str, str, str, str, bool | None]


def rows() -> list[Row]:
    """Bytes over the wire after one new release, and the time of a refresh against python-tuf's own client."""
    with tempfile.TemporaryDirectory(prefix="devguard-bench-") as name:
        folder = Path(name)
        print(f"making a shelf of {RELEASES} releases...", file=sys.stderr)
        _make(folder / "shelf")
        with _served(folder / "shelf") as url:
            _refresh_ours(folder / "before", url, folder)
            _refresh_theirs(folder / "peer", url, folder, "1.0.0")
            _publish(folder / "shelf", f"1.0.{RELEASES}", RELEASES + 1)
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            received = 0
            for index in range(ROUNDS + 1):
                ours, theirs = folder / f"ours-{index}", folder / f"theirs-{index}"
                shutil.copytree(folder / "before", ours, symlinks=True)
                shutil.copytree(folder / "peer", theirs, symlinks=True)
                start = time.perf_counter()
                received = _refresh_ours(ours, url, folder)
                middle = time.perf_counter()
                _refresh_theirs(theirs, url, folder, f"1.0.{RELEASES}")
                end = time.perf_counter()
                if index:
                    times["ours"].append(middle - start)
                    times["theirs"].append(end - middle)
    mine, peer = statistics.median(times["ours"]), statistics.median(times["theirs"])
    what = f"shelf refresh, 1 new of {RELEASES + 1}"
    return [
        (f"{what}, received", f"{received / 1024:.1f} KiB", "", "", "under 30 KiB", received < 30 * 1024),
        (f"{what}, time", f"{mine * 1e3:.1f} ms", f"tuf {peer * 1e3:.1f} ms", f"{mine / peer:.2f}", "under 1.30",
         mine / peer < 1.3),
    ]  # fmt: skip


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
    from devguard.shelf.source import WebSource

    shelf = Shelf(state)
    if not (state / "root.json").exists():
        shelf.store.pin((folder / "shelf/metadata/1.root.json").read_bytes())
    return shelf.refresh(WebSource(url), int(time.time())).received


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
    disable_nagle_algorithm = True  # else kept connections, which only the peer uses, wait 40 ms for each file
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        """Nothing."""


def main() -> int:
    """Serve for `rows`, or print the rows."""
    if sys.argv[1:2] == ["--serve"]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=sys.argv[2]))
        print(server.server_port, flush=True)
        server.serve_forever()
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    for row in rows():
        print(*row, sep="  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
