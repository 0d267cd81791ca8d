"""The shelf's client behind the command line that the public TUF conformance suite drives: init, refresh, download.

It runs the tuf client with the shelf's limits and the shelf's way to the network, but without the profile of a
devguard shelf (names, product lines), for the suite's repositories have none, and writes metadata where the suite
looks for it. Exit status 0 when everything succeeded, else 1.

To run it: take the suite's repository (theupdateframework/tuf-conformance on GitHub; on no package index), give it
a virtual environment of its own with what its pyproject.toml names, and the program `faketime`. Then in its folder:
pytest tuf_conformance --entrypoint FILE, where FILE is an executable that runs this file with devguard's Python and
hands on its arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from devguard.custody.files import read_limited, write_atomic
from devguard.errors import DevguardError
from devguard.shelf.fetch import updater_config
from devguard.shelf.limits import LIMITS
from devguard.shelf.web import WebSource

PINNED = ".pinned"  # a folder of its own: the suite takes every file beside root.json for a role


class UrlFetcher(FetcherInterface):
    """The shelf's web source for whole URLs, one connection for all of them."""

    def __init__(self) -> None:
        self._source = WebSource("")

    def _fetch(self, url: str) -> Iterator[bytes]:
        chunks = self._source.open_url(url)
        if chunks is None:
            raise DownloadHTTPError(f"{url} is not there", 404)
        yield from chunks


def updater(arguments: argparse.Namespace) -> Updater:
    """The tuf client over the suite's folders."""
    folder: Path = arguments.metadata_dir
    pinned = read_limited(folder / PINNED / "root.json", LIMITS.root_size)
    target_dir = None if arguments.target_dir is None else str(arguments.target_dir)
    return Updater(
        str(folder),
        arguments.metadata_url,
        target_dir=target_dir,
        target_base_url=arguments.target_base_url,
        fetcher=UrlFetcher(),
        config=updater_config(LIMITS),
        bootstrap=pinned,
    )


def init(arguments: argparse.Namespace) -> None:
    """Keep the trusted root; no request."""
    (arguments.metadata_dir / PINNED).mkdir(parents=True, exist_ok=True)
    data = read_limited(arguments.root, LIMITS.root_size)
    for folder in (arguments.metadata_dir / PINNED, arguments.metadata_dir):
        write_atomic(folder / "root.json", data)


def download(arguments: argparse.Namespace) -> None:
    """Refresh, then take one target, unless it is here already."""
    client = updater(arguments)
    info = client.get_targetinfo(arguments.target_name)
    if info is None:
        raise RepositoryError(f"{arguments.target_name} is not listed")
    if client.find_cached_target(info) is None:
        client.download_target(info)


def main() -> int:
    """0 or 1, as the suite asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name")
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    arguments = parser.parse_args()
    run = {"init": init, "refresh": lambda given: updater(given).refresh(), "download": download}[arguments.command]
    try:
        run(arguments)
    except (RepositoryError, DownloadError, DevguardError, OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
