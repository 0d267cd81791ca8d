"""`devguard shelf refresh|list|get|carry`: a bench's side of a shelf. The vendor's side is in `shelf_make`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.record import recorded
from devguard.cli.shelf_make import init, publish, renew, rotate, sign
from devguard.cli.times import iso, left
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.shelf.client import Shelf
    from devguard.shelf.freshness import Freshness
    from devguard.shelf.source import Source


@click.group()
def shelf() -> None:
    """A shelf of releases: a TUF repository, made, followed, carried."""


for _command in (init, sign, rotate, renew, publish):
    shelf.add_command(_command)


def opened(invocation: Invocation) -> Shelf:
    """This home's shelf; `Refused("shelf.package")` without the tuf package."""
    from devguard.shelf.package import need_tuf

    need_tuf()
    from devguard.shelf.client import Shelf

    return Shelf(invocation.home.make(invocation.home.path / "shelf"))


@contextmanager
def place(shelf_: Shelf, given: str | None) -> Iterator[Source]:
    """Where to look: the place given, or where the shelf was last found. Let go of at the end."""
    from devguard.shelf.source import source_of

    text = given or shelf_.store.source()
    if text is None:
        raise Refused(
            "shelf.missing", "no place to look for the shelf is known here", "say it once with --from URL|DIR"
        )
    found = source_of(text)
    try:
        yield found
    finally:
        found.close()


def _age(fresh: Freshness, now: int) -> str:
    signed = "at a time it does not say" if fresh.issued is None else f"{left(max(0, now - fresh.issued))} ago"
    return f"signed {signed}, good until {iso(fresh.expires)} ({left(fresh.expires - now)} left)"


@shelf.command("refresh", cls=Command)
@click.option("--from", "source", metavar="URL|DIR", help="Where the shelf is (default: where it was last found).")
@click.option("--root", type=click.Path(path_type=Path), help="The root to pin, at first use.")
@click.pass_obj
def refresh(invocation: Invocation, source: str | None, root: Path | None) -> None:
    """Take what is new on the shelf: metadata and trust documents, verified from the pinned root."""
    from devguard.cli.shelf_trust import Following

    one = opened(invocation)
    now = invocation.now()
    pinned = None if root is None else _root(root)
    with recorded(invocation, "shelf.refresh") as note, place(one, source) as found:
        note.details["from"] = found.label[:200]
        following = Following(invocation, note, first=True)
        done = one.refresh(found, now, following, root=pinned)
    fresh = done.freshness
    lines = [f"shelf version {fresh.version}, root version {fresh.root_version}: {_age(fresh, now)}"]
    lines += [f"{done.received} bytes received from {found.label}", *following.lines()]
    invocation.result(
        {
            **fresh.as_dict(now),
            "from": found.label,
            "received": done.received,
            "trust_version": done.trust_version or None,
            **following.as_dict(),
        },
        "\n".join(lines),
    )


def _root(path: Path) -> bytes:
    from devguard.custody.files import read_limited
    from devguard.shelf.limits import LIMITS

    return read_limited(path, LIMITS.root_size)


@shelf.command("list", cls=Command)
@click.option("--model", help="Only this product line.")
@click.pass_obj
def list_(invocation: Invocation, model: str | None) -> None:
    """List the releases of the last refresh, everything verified again without a network."""
    now = invocation.now()
    fresh, rows = opened(invocation).listing(now)
    rows = [row for row in rows if model in (None, row.model)]
    data = [{"model": r.model, "version": r.version, "sequence": r.sequence, "size": r.size} for r in rows]
    lines = [f"{r.model:24} {r.version:16} sequence {r.sequence}, {r.size} bytes" for r in rows]
    text = "\n".join([f"{_age(fresh, now)}", *(lines or ["no releases"])])
    invocation.result({"releases": data, **fresh.as_dict(now)}, text)


@shelf.command("get", cls=Command)
@click.argument("model")
@click.argument("version")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The envelope to write.")
@click.option("--from", "source", metavar="URL|DIR", help="Where the shelf is (default: where it was last found).")
@click.option(
    "--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document (default: the home's)."
)
@click.pass_obj
def get(
    invocation: Invocation, model: str, version: str, out: Path, source: str | None, trust_file: Path | None
) -> None:
    """Get one release from the shelf, verify it, and write it only if it is good."""
    from devguard.cli.shelf_trust import Following

    one = opened(invocation)
    with recorded(invocation, "shelf.get") as note, place(one, source) as found:
        note.release = f"{model} {version}"
        note.details["from"] = found.label[:200]
        following = Following(invocation, note)
        with one.release(found, model, version, invocation.now(), following) as file:
            trust = invocation.home.trust(trust_file)
            release = _judged(file, out, model, version, trust, invocation.now())
            note.manifest(release.manifest_digest)
            note.details["sequence"] = str(release.sequence)
            note.commit()
            from devguard.custody.files import write_streamed

            file.seek(0)
            write_streamed(out, lambda written: shutil.copyfileobj(file, written, 1 << 20))
    invocation.result(
        {
            "path": str(out),
            "model": model,
            "version": version,
            "sequence": release.sequence,
            "manifest_digest": release.manifest_digest.hex(),
        },
        "\n".join(
            [f"{model} {version} (sequence {release.sequence}) accepted and written to {out}", *following.lines()]
        ),
    )


def _judged(file: IO[bytes], out: Path, model: str, version: str, trust: Any, now: int) -> Any:
    """The release in `file`, accepted, and the one that was asked for; a shelf's word alone is not enough."""
    from contextlib import ExitStack

    from devguard.cli.judging import judge_file, target_of

    with ExitStack() as stack:
        opened_: Any = file
        judged = judge_file(out, trust=trust, now=now, target=target_of(model, None, None), stack=stack, opened=opened_)
        release = judged.verdict.require()
    if (release.model, release.version) != (model, version):
        raise Refused("shelf.mix", f"under {model} {version} the shelf has {release.model} {release.version}")
    return release


@shelf.command("carry", cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--from", "source", metavar="URL|DIR", help="Where the shelf is (default: where it was last found).")
@click.option("--model", "models", multiple=True, help="Only this product line (several times).")
@click.option("--latest", is_flag=True, help="Only the newest release of each product line.")
@click.pass_obj
def carry(invocation: Invocation, folder: Path, source: str | None, models: tuple[str, ...], latest: bool) -> None:
    """Write a self-contained shelf to DIR, for a USB stick; `shelf refresh --from DIR` reads it."""
    one = opened(invocation)
    from devguard.cli.shelf_trust import Following
    from devguard.shelf.carry import carry as write

    now = invocation.now()
    with recorded(invocation, "shelf.carry") as note, place(one, source) as found:
        following = Following(invocation, note)
        done = write(one, found, folder, now, models=models, latest=latest, accept=following)
        note.details["to"] = str(folder)[:200]
        note.details["shelf"] = f"version {done.freshness.version}"
        note.commit()
    invocation.result(
        {
            "path": str(folder),
            "releases": [{"model": model, "version": version} for model, version in done.releases],
            "size": done.size,
            **done.freshness.as_dict(now),
        },
        "\n".join(
            [
                f"{len(done.releases)} releases, {done.size} bytes written to {folder}",
                _age(done.freshness, now),
                *following.lines(),
            ]
        ),
    )
