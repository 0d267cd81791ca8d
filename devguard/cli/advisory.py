"""`devguard advisory new`: a CSAF 2.0 advisory begun from a release, for people to complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from devguard.cli.context import Command, Invocation, LazyGroup
from devguard.cli.inside import inside_options
from devguard.cli.record import recorded


@click.group(cls=LazyGroup)
def advisory() -> None:
    """Security advisories (CSAF 2.0), begun from a release."""


@advisory.command("new", cls=Command)
@click.argument("file", metavar="FILE.suit", type=click.Path(path_type=Path))
@inside_options
@click.option("--trust", "trust_file", type=click.Path(path_type=Path), help="Whose statements count.")
@click.option("--id", "identifier", required=True, help="The advisory's id, as the vendor numbers them.")
@click.option("--namespace", metavar="URL", help="Who publishes it (default: https:// and the vendor's domain).")
@click.option("--title", help="Default: the release and what is known of it.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The advisory to write.")
@click.pass_obj
def new(
    invocation: Invocation,
    /,
    file: Path,
    trust_file: Path | None,
    identifier: str,
    namespace: str | None,
    title: str | None,
    out: Path,
    **wish: Any,
) -> None:
    """Begin an advisory on FILE: the product, its vulnerabilities and what was stated of each are filled in.

    What a person has to write is marked; the advisory's status is draft. A part that nobody has stated anything of is
    under investigation.
    """
    from importlib.metadata import version

    from devguard.cli.inside import look
    from devguard.cli.release_check import bill_of_release
    from devguard.cli.release_sign import trust_if_any
    from devguard.custody.files import write_atomic
    from devguard.sbom.advisory import TO_WRITE
    from devguard.sbom.advisory import advisory as begin

    if wish["known_exploited"] is None:
        raise click.UsageError("Missing option '--known-exploited'")
    with recorded(invocation, "advisory.new", only_where_kept=True) as note:
        product = _product(file)
        bill, _ = bill_of_release(file, wish["sbom"])
        found = look(bill, wish, trust=trust_if_any(invocation, trust_file), now=invocation.now())
        made = begin(
            product,
            found.findings,
            identifier=identifier,
            namespace=namespace or f"https://{product.vendor}",
            title=title,
            now=invocation.now(),
            version=version("devguard"),
        )
        holes = len(made.get("vulnerabilities", ()))
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        note.manifest(product.manifest_digest)
        note.details |= {"id": identifier, "vulnerabilities": str(holes)}
        note.commit()
        write_atomic(out, text.encode())
    open_places = text.count(TO_WRITE)
    invocation.result(
        {"path": str(out), "id": identifier, "vulnerabilities": holes, "to_write": open_places},
        f"{out}: draft with {holes} vulnerabilities of {product.model} {product.version}\n"
        f"{open_places} places say {TO_WRITE}; its status is draft until a person sets another",
    )


def _product(file: Path) -> Any:
    """The release in an envelope, by its own words: an advisory says what a release is, not whether it is good."""
    from devguard.cli.files import open_input
    from devguard.errors import Refused
    from devguard.manifest.envelope import read_envelope
    from devguard.manifest.release import release_facts
    from devguard.sbom.advisory import Product

    with open_input(file) as stream:
        envelope = read_envelope(stream)
        facts = release_facts(envelope)
    if facts.text is None:
        raise Refused("image.vendor", "the envelope says neither vendor nor model: its text was severed")
    images = {one.id: one.digest.hex() for one in facts.components if len(one.digest) == 32}
    return Product(facts.text.vendor, facts.text.model, facts.text.version, envelope.manifest_digest, images)
