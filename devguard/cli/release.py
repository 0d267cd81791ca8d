"""`devguard release new|build`: from a description a person reviewed to an envelope that people can sign."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.inside import beside
from devguard.cli.publish import publish
from devguard.cli.release_check import check, state
from devguard.cli.release_sign import sign
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.image.flat import FlatImage
    from devguard.image.measure import Measured
    from devguard.manifest.description import ComponentDescription, ReleaseDescription

DESCRIPTION_LIMIT = 256 * 1024
MANIFESTS = Path("firmware_manifests")


@click.group()
def release() -> None:
    """Describe, build and sign a release."""


@release.command("new", cls=Command)
@click.argument("model")
@click.argument("version")
@click.pass_obj
def new(invocation: Invocation, model: str, version: str) -> None:
    """Scaffold firmware_manifests/MODEL/VERSION.toml for a person to complete."""
    from devguard.custody.files import write_new
    from devguard.device.models import load_model
    from devguard.manifest.description import parse_description, scaffold

    known = load_model(model)
    text = scaffold(model, version, known.facts.vendor, known.default_revision, known.facts.components).encode()
    parse_description(text)
    path = MANIFESTS / model / f"{version}.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("file.unreadable", f"cannot create {path.parent}: {error.strerror}") from error
    write_new(path, text, exists="file.exists")
    several = len(known.facts.components) > 1
    images = f"the images of {' and '.join(known.facts.components)}" if several else "the image"
    invocation.result(
        {"path": str(path), "model": model, "version": version, "components": list(known.facts.components)},
        f"written to {path}\nnext: put {images} beside it, complete the file, "
        f"then devguard release build {path} -o FILE.suit",
    )


def _image(
    folder: Path, component: ComponentDescription, description: ReleaseDescription, stack: ExitStack
) -> FlatImage:
    """The flat image of one component, open at position 0, and what a person should know of how it was read."""
    from devguard.cli.files import inside, open_input
    from devguard.device.models import load_model
    from devguard.image.flat import flatten

    file = stack.enter_context(open_input(inside(folder, component.path)))
    facts = load_model(description.model).facts
    return flatten(file, fmt=component.format, flash=facts.flash, ignore=component.ignore_ranges)


def _sbom(folder: Path, description: ReleaseDescription, stack: ExitStack) -> Measured | None:
    """What was measured of the bill of materials that the description names."""
    from devguard.cli.files import inside, open_input
    from devguard.image.measure import measure

    if description.sbom is None:
        return None
    return measure(stack.enter_context(open_input(inside(folder, description.sbom))))


def _copy_bill(folder: Path, named: str, out: Path, measured: Measured | None) -> Path:
    """The bill of materials beside the envelope, for those who are asked what is inside."""
    from devguard.cli.files import inside
    from devguard.custody.files import read_limited, write_atomic
    from devguard.sbom.bom import MAX_BILL

    path, data = beside(out), read_limited(inside(folder, named), MAX_BILL)
    if measured is None or hashlib.sha256(data).digest() != measured.digest:
        raise Refused("file.changed", f"{named} changed while the release was built")
    write_atomic(path, data)
    return path


@release.command("build", cls=Command)
@click.argument("description", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The envelope to write.")
@click.option("--detached", is_flag=True, help="Leave the image out of the envelope; it travels beside it.")
@click.pass_obj
def build(invocation: Invocation, description: Path, out: Path, detached: bool) -> None:
    """Build an unsigned envelope FILE.suit from a DESCRIPTION.toml."""
    from devguard.custody.files import read_limited, write_streamed
    from devguard.device.models import load_model
    from devguard.image.measure import measure_image
    from devguard.manifest.build import build_envelope
    from devguard.manifest.description import parse_description
    from devguard.manifest.envelope import write_envelope

    described = parse_description(read_limited(description, DESCRIPTION_LIMIT))
    facts = load_model(described.model).facts
    with ExitStack() as stack:
        readers: dict[str, BinaryIO] = {}
        measured: dict[str, Measured] = {}
        notes: list[str] = []
        for component in described.components:
            image = _image(description.parent, component, described, stack)
            readers[f"#{component.id}"] = image.reader
            measured[component.id] = measure_image(image.reader)
            image.reader.seek(0)
            notes += [f"{component.id}: {note}" for note in image.notes]
        sbom = _sbom(description.parent, described, stack)
        envelope = build_envelope(described, facts, measured, detached=detached, sbom=sbom)
        write_streamed(out, lambda file: write_envelope(envelope, {} if detached else readers, file))
        bill = None if described.sbom is None else _copy_bill(description.parent, described.sbom, out, sbom)
    result = {
        "path": str(out),
        "model": described.model,
        "version": described.version,
        "sequence": described.sequence,
        "manifest_digest": envelope.manifest_digest.hex(),
        "signing": dict(described.thresholds),
        "notes": notes,
        "sbom": None if bill is None else str(bill),
        "components": {name: {"digest": one.digest.hex(), "size": one.size} for name, one in measured.items()},
    }
    lines = [f"{described.model} {described.version} (sequence {described.sequence}) built: {out}, not signed yet"]
    lines += [f"  {name}: {one.size} bytes, sha256 {one.digest.hex()}" for name, one in measured.items()]
    if len(measured) > 1:
        total = sum(one.size for one in measured.values())
        lines.append(f"  {total} bytes in all, one after the other; they change together or not at all")
    lines += [] if bill is None else [f"  bill of materials, signed by its digest: {bill}"]
    lines += [f"  note, {note}" for note in notes]
    asked = ", ".join(f"{count} {role}" for role, count in described.thresholds.items())
    lines += [f"  asks for signatures: {asked}; the trust document decides"] if asked else []
    lines += [f"  manifest digest {envelope.manifest_digest.hex()}", f"next: devguard release sign {out} --key KEY"]
    invocation.result(result, "\n".join(lines))


for _command in (sign, publish, check, state):
    release.add_command(_command)
