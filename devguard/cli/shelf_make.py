"""`devguard shelf init|sign|rotate|renew|publish`: a vendor's side of a shelf."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import recorded
from devguard.cli.shelf_keys import Keys, online_key, usable
from devguard.cli.times import Duration
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.shelf.repository import Repository
    from devguard.shelf.roots import Members

FOLDER = click.Path(path_type=Path, file_okay=False)
key_option = click.option("--key", "keys", multiple=True, metavar="KEY", help="A key to sign with (several times).")


def repository(invocation: Invocation, folder: Path, keys: Keys) -> Repository:
    """The shelf in `folder`; `Refused("shelf.package")` without the tuf package."""
    from devguard.shelf.package import need_tuf

    need_tuf()
    from devguard.shelf.repository import Repository

    return Repository(folder, keys, invocation.now())


def _public(invocation: Invocation, texts: tuple[str, ...], *, root: bool = False) -> list[tuple[str, CoseKey]]:
    names = [one for text in texts for one in text.split(",") if one]
    return [(name, usable(invocation.home.key_info(name), name, root=root).key) for name in names]


def _members(
    invocation: Invocation, roots: tuple[str, ...], threshold: int, targets: tuple[str, ...], online: str | None
) -> tuple[Members, list[str]]:
    """Who signs what; targets fall to the root's people where nobody is named."""
    from devguard.shelf.roots import Members

    root = _public(invocation, roots, root=True)
    own = _public(invocation, targets)
    info = online_key(invocation) if online is None else usable(invocation.home.key_info(online), online)
    top, count = ([key for _, key in own], 1) if own else ([key for _, key in root], threshold)
    names = [name for name, _ in (*root, *own)] + ([online] if online is not None else [])
    return Members([key for _, key in root], threshold, top, count, info.key), names


def _root_result(invocation: Invocation, folder: Path, version: int, missing: str) -> None:
    if missing:
        path = folder / "pending.root.json"
        text = f"root version {version} waits in {path}; still missing: {missing}\nnext: devguard shelf sign {folder}"
    else:
        path = folder / "metadata" / f"{version}.root.json"
        text = f"root version {version} is complete: {path}"
    invocation.result(
        {"path": str(folder), "root": str(path), "root_version": version, "complete": not missing, "missing": missing},
        text,
    )


@click.command("init", cls=Command)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--root", "roots", multiple=True, required=True, metavar="KEY", help="A root key (several times).")
@click.option("--threshold", type=click.IntRange(1, 64), required=True, help="How many root keys must sign.")
@click.option("--targets", multiple=True, metavar="KEY", help="Who signs trust documents and product lines.")
@click.option("--online", metavar="KEY", help="Signs snapshot and timestamp (default: a key made for this home).")
@click.option("--trust", "trust_file", type=click.Path(path_type=Path), help="Trust document (default: the home's).")
@passphrase_option
@click.pass_obj
def init(
    invocation: Invocation,
    folder: Path,
    roots: tuple[str, ...],
    threshold: int,
    targets: tuple[str, ...],
    online: str | None,
    trust_file: Path | None,
    passphrase_fd: int | None,
) -> None:
    """Make a shelf in DIR, signed by the keys that are here. Benches pin DIR/metadata/1.root.json."""
    from devguard.shelf.package import need_tuf

    need_tuf()
    from devguard.shelf.roots import create

    with recorded(invocation, "shelf.init") as note:
        members, names = _members(invocation, roots, threshold, targets, online)
        made = repository(invocation, folder, Keys(invocation, names, passphrase_fd))
        document = None
        if trust_file is not None or invocation.home.trust_file.is_file():
            document = _trust(trust_file or invocation.home.trust_file)
        note.details["shelf"] = str(folder)[:200]
        note.commit()
        missing = create(made, members, document)
    _root_result(invocation, folder, 1, missing)


def _trust(path: Path) -> tuple[int, bytes]:
    from devguard.cli.home import TRUST_LIMIT
    from devguard.custody.files import read_limited
    from devguard.trust.document import read_trust

    data = read_limited(path, TRUST_LIMIT)
    return read_trust(data).version, data


@click.command("sign", cls=Command)
@click.argument("folder", metavar="DIR", type=FOLDER)
@key_option
@passphrase_option
@click.pass_obj
def sign(invocation: Invocation, folder: Path, keys: tuple[str, ...], passphrase_fd: int | None) -> None:
    """Add the root signatures of keys that are here to the root that waits in DIR."""
    made = repository(invocation, folder, Keys(invocation, keys, passphrase_fd))
    from devguard.shelf.roots import complete

    with recorded(invocation, "shelf.sign") as note:
        note.details["shelf"] = str(folder)[:200]
        note.commit()
        missing, version = complete(made)
        if not missing:
            made.renew(0)
    _root_result(invocation, folder, version, missing)


@click.command("rotate", cls=Command)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--root", "roots", multiple=True, metavar="KEY", help="The new root keys.")
@click.option("--threshold", type=click.IntRange(1, 64), help="How many of them must sign.")
@click.option("--targets", multiple=True, metavar="KEY", help="The new targets keys (default: the root's).")
@click.option("--online", metavar="KEY", help="The new online key.")
@click.option("--line", metavar="MODEL=KEY,...", help="Give a product line other keys instead.")
@key_option
@passphrase_option
@click.pass_obj
def rotate(
    invocation: Invocation,
    folder: Path,
    roots: tuple[str, ...],
    threshold: int | None,
    targets: tuple[str, ...],
    online: str | None,
    line: str | None,
    keys: tuple[str, ...],
    passphrase_fd: int | None,
) -> None:
    """Make the next root, signed by the old root's people and the new one's; or change a product line's keys."""
    if line is not None:
        _rekey(invocation, folder, line, keys, passphrase_fd)
        return
    if not roots or threshold is None:
        raise click.UsageError("the next root needs --root and --threshold")
    from devguard.shelf.package import need_tuf

    need_tuf()
    from devguard.shelf.roots import rotate as next_root

    with recorded(invocation, "shelf.rotate") as note:
        members, names = _members(invocation, roots, threshold, targets, online)
        made = repository(invocation, folder, Keys(invocation, [*names, *keys], passphrase_fd))
        note.details["shelf"] = str(folder)[:200]
        note.commit()
        missing, version = next_root(made, members)
        if not missing:
            made.renew(0)
    _root_result(invocation, folder, version, missing)


def _rekey(invocation: Invocation, folder: Path, line: str, keys: tuple[str, ...], fd: int | None) -> None:
    model, separator, rest = line.partition("=")
    if not separator:
        raise click.BadParameter(f"{line!r} is not MODEL=KEY", param_hint="--line")
    named = Keys(invocation, [one for one in rest.split(",") if one], fd).named()
    made = repository(invocation, folder, Keys(invocation, [*rest.split(","), *keys], fd))
    from devguard.shelf.repository import line_keys

    with recorded(invocation, "shelf.rotate") as note:
        made.rekey(model, line_keys(named))
        note.details["shelf"] = f"{folder}"[:200]
        note.commit()
        made.publish()
    text = f"{model}: every file of the product line is signed by {len(named)} new keys"
    invocation.result({"path": str(folder), "model": model, "keys": list(named)}, text)


@click.command("renew", cls=Command)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--within", type=Duration(), default="7d", show_default=True, help="What expires within this span.")
@key_option
@passphrase_option
@click.pass_obj
def renew(invocation: Invocation, folder: Path, within: int, keys: tuple[str, ...], passphrase_fd: int | None) -> None:
    """Sign again what expires soon, or is no longer signed as the root asks. For a daily timer."""
    with recorded(invocation, "shelf.renew") as note:
        done = repository(invocation, folder, Keys(invocation, keys, passphrase_fd)).renew(within)
        note.details["roles"] = ", ".join(done)[:200]
        note.commit()
    invocation.result({"path": str(folder), "renewed": done}, f"renewed: {', '.join(done) or 'nothing is due'}")


@click.command("publish", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--shelf", "folder", metavar="DIR", type=FOLDER, required=True, help="The shelf.")
@key_option
@click.option(
    "--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document (default: the home's)."
)
@passphrase_option
@click.pass_obj
def publish(
    invocation: Invocation,
    file: Path,
    folder: Path,
    keys: tuple[str, ...],
    trust_file: Path | None,
    passphrase_fd: int | None,
) -> None:
    """Put FILE on a shelf: a release that the trust document accepts, or the next trust document.

    The first release of a model makes its product line, signed by --key, or by the targets keys without one.
    """
    from devguard.cli.files import open_input
    from devguard.image.kind import HEAD_SIZE, Kind, recognise

    with open_input(file) as stream:
        kind = recognise(stream.read(HEAD_SIZE))
    ring = Keys(invocation, keys, passphrase_fd)
    with recorded(invocation, "shelf.publish") as note, ExitStack() as stack:
        made = repository(invocation, folder, ring)
        note.details["shelf"] = str(folder)[:200]
        if kind is Kind.TRUST:
            version, data = _trust(file)
            made.put_trust(version, data)
            result: dict[str, Any] = {"trust_version": version}
            text = f"version {version} of the trust document is on the shelf {folder}"
        else:
            result = _put_release(invocation, made, ring, file, trust_file, stack)
            note.release = f"{result['model']} {result['version']}"
            note.manifest(bytes.fromhex(result["manifest_digest"]))
            text = f"{note.release} is on the shelf {folder}"
        note.commit()
        made.publish()
    invocation.result({"path": str(folder), **result}, text)


def _put_release(
    invocation: Invocation, made: Repository, ring: Keys, file: Path, trust_file: Path | None, stack: ExitStack
) -> dict[str, Any]:
    """Judge first: a shelf is no place for what no bench will take."""
    from devguard.cli.files import private_copy
    from devguard.cli.judging import judge_file, target_of
    from devguard.shelf.repository import line_keys

    copy = stack.enter_context(private_copy(file))
    judged = judge_file(
        file,
        trust=invocation.home.trust(trust_file),
        now=invocation.now(),
        target=target_of(None, None, None),
        stack=stack,
        opened=copy,
    )
    release = judged.verdict.require()
    if not release.model or not release.version:
        raise Refused("shelf.name", "the envelope's text does not say model and version")
    named = ring.named() if not made.has(release.model) else {}
    info = made.put_release(release.model, release.version, release.sequence, copy, line_keys(named))
    return {
        "target": info.path,
        "model": release.model,
        "version": release.version,
        "sequence": release.sequence,
        "size": info.length,
        "manifest_digest": release.manifest_digest.hex(),
    }
