"""`devguard key new|show|export`: keys, who holds them and what for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, passphrase_option, passphrase_reader
from devguard.errors import Malformed

if TYPE_CHECKING:
    from devguard.custody.keyfile import KeyInfo

ROLES = (
    "root", "release", "quality", "technician-authority", "device-authority", "station", "witness", "technician",
)  # fmt: skip
ALGORITHMS = ("ESP256", "ESP384", "Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")


@click.group()
def key() -> None:
    """Make, show and export keys."""


def as_dict(info: KeyInfo) -> dict[str, Any]:
    """A key's public facts, for JSON."""
    return {
        "name": info.name,
        "person": info.person,
        "role": info.role,
        "alg": info.algorithm.label,
        "fingerprint": info.key.fingerprint,
        "development": info.development,
    }


def _text(info: KeyInfo) -> str:
    lines = [
        f"{info.name}: {info.algorithm.label} key of {info.person}, role {info.role}",
        f"fingerprint {info.key.fingerprint}",
    ]
    if info.development:
        lines.append("DEVELOPMENT key: production trust documents refuse it")
    return "\n".join(lines)


@key.command("new", cls=Command)
@click.argument("name")
@click.option("--person", required=True, help="Who holds the key.")
@click.option("--role", required=True, type=click.Choice(ROLES), help="What the key is for.")
@click.option("--alg", type=click.Choice(ALGORITHMS), help="Default: ESP256 (Ed25519 for stations and witnesses).")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where to write the private key (default: the home's keys)."
)
@click.option("--development", is_flag=True, help="Mark as a development key, which production trust refuses.")
@passphrase_option
@click.pass_obj
def new(
    invocation: Invocation,
    name: str,
    person: str,
    role: str,
    alg: str | None,
    out: Path | None,
    development: bool,
    passphrase_fd: int | None,
) -> None:
    """Make a key NAME: an encrypted file, mode 0600, that is never overwritten."""
    from devguard.cose.algorithms import algorithm_named
    from devguard.custody.keyfile import create_key

    home = invocation.home
    path = out if out is not None else home.make(home.keys) / f"{name}.key"
    if out is None and (Path(name).name != name or name.startswith(".")):
        raise Malformed("key.malformed", f"{name!r} is not a plain key name")
    algorithm = algorithm_named(alg or ("Ed25519" if role in ("station", "witness") else "ESP256"))
    secret = passphrase_reader(passphrase_fd, name, confirm=True)()
    info = create_key(
        path, name=name, person=person, role=role, algorithm=algorithm, development=development, passphrase=secret
    )
    invocation.result({**as_dict(info), "path": str(path)}, f"{_text(info)}\nwritten to {path}, mode 0600")


@key.command("show", cls=Command)
@click.argument("reference", metavar="FILE|NAME")
@click.pass_obj
def show(invocation: Invocation, reference: str) -> None:
    """Show a key's fingerprint (RFC 9679), person, role and algorithm."""
    info = invocation.home.key_info(reference)
    invocation.result(as_dict(info), _text(info))


@key.command("export", cls=Command)
@click.argument("reference", metavar="FILE|NAME")
@click.option(
    "--public",
    is_flag=True,
    required=True,
    expose_value=False,
    help="Export the public half; there is no other export.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write to a file instead of stdout.")
@click.pass_obj
def export(invocation: Invocation, reference: str, out: Path | None) -> None:
    """Export the public half of a key, for an authority or a trust document. Never private bytes."""
    from devguard.custody.files import write_atomic
    from devguard.custody.keyfile import export_public

    info = invocation.home.key_info(reference)
    text = export_public(info)
    if out is not None:
        write_atomic(out, text)
        invocation.result({**as_dict(info), "path": str(out)}, f"{_text(info)}\npublic half written to {out}")
    else:
        invocation.result({**as_dict(info), "public": text.decode()}, text.decode().rstrip("\n"))
