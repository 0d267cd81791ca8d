"""`devguard key new|show|list|check|export|ceremony`: keys, who holds them and what for; in files or on tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.ceremony import ceremony
from devguard.cli.context import Command, Invocation, passphrase_option, passphrase_reader
from devguard.cli.home import STATION
from devguard.cli.key_check import check
from devguard.cli.record import Note, recorded
from devguard.errors import Malformed, Refused

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.custody.keyfile import KeyInfo
    from devguard.custody.uri import TokenUri

ROLES = (
    "root", "release", "quality", "technician-authority", "device-authority", "station", "witness", "technician",
)  # fmt: skip
ALGORITHMS = ("ESP256", "ESP384", "Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")


@click.group()
def key() -> None:
    """Make, show, list, check and export keys; lead the ceremony of a root."""


key.add_command(ceremony)
key.add_command(check)


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
@click.option("--pkcs11", "token", metavar="URI", help="Make the private key on this token (RFC 7512) instead.")
@click.option("--existing", is_flag=True, help="With --pkcs11: take the key that is on the token already.")
@click.option("--development", is_flag=True, help="Mark as a development key, which production trust refuses.")
@passphrase_option
@click.pass_obj
def new(invocation: Invocation, /, name: str, **wish: Any) -> None:
    """Make a key NAME: an encrypted file, mode 0600, that is never overwritten; or a key on a token and its file.

    A PIN is asked for like a passphrase, never taken from the URI, and tried once.
    """
    from devguard.custody.uri import parse_uri

    if wish["existing"] and wish["token"] is None:
        raise click.UsageError("--existing goes with --pkcs11")
    with recorded(invocation, "key.new", actor=wish["person"], only_where_kept=True) as note:
        uri = None if wish["token"] is None else parse_uri(wish["token"])
        path = _place(invocation, name, wish["out"])
        facts = {one: wish[one] for one in ("person", "role", "development")}
        if uri is None:
            info, where = _in_file(note, path, name, wish, facts), None
        else:
            info, where = _on_token(note, path, name, uri, wish, facts)
    if where is None:
        invocation.result({**as_dict(info), "path": str(path)}, f"{_text(info)}\nwritten to {path}, mode 0600")
        return
    invocation.result(
        {**as_dict(info), "path": str(path), "token": where}, f"{_text(info)}\non {where}\nnamed by {path}, mode 0600"
    )


def _place(invocation: Invocation, name: str, out: Path | None) -> Path:
    """Where the new key's file goes."""
    if out is not None:
        return out
    home = invocation.home
    if Path(name).name != name or name.startswith("."):
        raise Malformed("key.malformed", f"{name!r} is not a plain key name")
    if name == STATION:
        raise Refused("key.exists", "that name is kept for this station's own key, which devguard makes by itself")
    return home.make(home.keys) / f"{name}.key"


def _default_algorithm(role: str) -> str:
    return "Ed25519" if role in ("station", "witness") else "ESP256"


def _in_file(note: Note, path: Path, name: str, wish: dict[str, Any], facts: dict[str, Any]) -> KeyInfo:
    from devguard.cose.algorithms import algorithm_named
    from devguard.custody.keyfile import create_key

    algorithm = algorithm_named(wish["alg"] or _default_algorithm(wish["role"]))
    secret = passphrase_reader(wish["passphrase_fd"], name, confirm=True)()
    info = create_key(path, name=name, algorithm=algorithm, passphrase=secret, **facts)
    _noted(note, info, path)
    return info


def _on_token(
    note: Note, path: Path, name: str, uri: TokenUri, wish: dict[str, Any], facts: dict[str, Any]
) -> tuple[KeyInfo, str]:
    from devguard.cose.algorithms import algorithm_named
    from devguard.custody.keyfile import create_token_key

    wanted = wish["alg"] or (None if wish["existing"] else _default_algorithm(wish["role"]))
    info, where = create_token_key(
        path,
        uri,
        name=name,
        algorithm=None if wanted is None else algorithm_named(wanted),
        pin=passphrase_reader(wish["passphrase_fd"], f"the user of the token, for {name}", pin=True),
        existing=wish["existing"],
        **facts,
    )
    _noted(note, info, path)
    note.details["token"] = str(where)
    return info, str(where)


def _noted(note: Note, info: KeyInfo, path: Path) -> None:
    note.details.update(key=info.key.fingerprint, role=info.role, person=info.person, file=str(path))


@key.command("show", cls=Command)
@click.argument("reference", metavar="FILE|NAME")
@click.pass_obj
def show(invocation: Invocation, reference: str) -> None:
    """Show a key's fingerprint (RFC 9679), person, role and algorithm."""
    from devguard.custody.words import rows, words

    info = invocation.home.key_info(reference)
    text = "\n".join([_text(info), "in words, to read aloud:", *(f"  {row}" for row in rows(info.key.thumbprint))])
    invocation.result({**as_dict(info), "words": " ".join(words(info.key.thumbprint))}, text)


@key.command("list", cls=Command)
@click.option("--pkcs11", "token", metavar="URI", help="The keys of the tokens this URI fits, instead of the home's.")
@click.pass_obj
def list_(invocation: Invocation, token: str | None) -> None:
    """List the keys of this home, or those on tokens. Nothing is logged in to and no PIN is asked for."""
    if token is not None:
        _list_tokens(invocation, token)
        return
    from devguard.custody.keyfile import is_private, read_info

    rows = []
    for path in invocation.home.key_files():
        rows.append({**as_dict(read_info(path)), "private": is_private(path), "path": str(path)})
    lines = [f"{one['name']}: {one['alg']}, {one['role']}, {one['person']}, {one['path']}" for one in rows]
    invocation.result({"keys": rows}, "\n".join(lines) or f"no keys in {invocation.home.keys}")


def _list_tokens(invocation: Invocation, token: str) -> None:
    from devguard.custody.tokenkeys import list_keys
    from devguard.custody.uri import parse_uri

    found = list(list_keys(parse_uri(token)))
    data = [{"token": name, "keys": [{"uri": str(one.uri), **_key(one.key)} for one in keys]} for name, keys in found]
    lines = []
    for name, keys in found:
        lines.append(f"token {name}: {len(keys) or 'no'} keys devguard can use")
        lines += [f"  {one.key.algorithm.label} {one.key.fingerprint}\n    {one.uri}" for one in keys]
    invocation.result({"tokens": data}, "\n".join(lines) or "no token fits; is it plugged in and initialised?")


def _key(found: CoseKey) -> dict[str, str]:
    return {"alg": found.algorithm.label, "fingerprint": found.fingerprint}


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
