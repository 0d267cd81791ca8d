"""What the commands of `devguard trust` share: roles from options, keys that are here, a document as text.

A key file says what its key is for, and a production document lists it for that and nothing else: the wrong file named
at a ceremony stops it. What the file says is no proof; the document decides who may sign what.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Invocation
from devguard.cli.times import iso, left
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cose.roles import RoleName
    from devguard.cose.sign import Signer
    from devguard.custody.keyfile import KeyInfo
    from devguard.trust.document import Role, TrustDocument


def split_role(text: str) -> tuple[str, list[str], int]:
    """NAME=KEY,...:K as (name, keys, threshold); the threshold is 1 where it is left out."""
    name, separator, rest = text.partition("=")
    keys, colon, threshold = rest.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,3}", threshold):
        keys, threshold = rest, "1"
    names = [one for one in keys.split(",") if one]
    if not separator or not names:
        raise click.BadParameter(f"{text!r} is not NAME=KEY,...:K", param_hint="--role")
    return name, names, int(threshold)


def role_of(invocation: Invocation, name: str, references: Iterable[str], threshold: int, *, development: bool) -> Role:
    """Role `name` of the named keys; `Refused("key.purpose")` when a key file says that its key is for another role.

    A development document takes any key in any role, also one key in two, as its own rules do.
    """
    from devguard.trust.document import KeyEntry, Role

    infos = [_for_role(invocation.home.key_info(one), one, name, development) for one in references]
    return Role(threshold, tuple(KeyEntry(info.key, info.person, info.development) for info in infos))


def _for_role(info: KeyInfo, reference: str, name: str, development: bool) -> KeyInfo:
    if info.role != name and not development:
        raise Refused(
            "key.purpose",
            f"{reference} is {info.person}'s {info.role} key; it cannot be listed as a {name} key",
            f"make a key with `devguard key new NAME --role {name}`; only --development documents mix roles",
        )
    return info


def roles_of(
    invocation: Invocation, texts: Iterable[str], taken: Iterable[RoleName] = (), *, development: bool
) -> dict[RoleName, Role]:
    """The roles that `--role` options name, each once and none of `taken`."""
    from devguard.cose.roles import TRUST_ROLES, RoleName

    members: dict[RoleName, Role] = {}
    for text in texts:
        name, keys, count = split_role(text)
        if name not in TRUST_ROLES or RoleName(name) in members or RoleName(name) in taken:
            raise click.BadParameter(f"{name!r} is not a role, or is given twice", param_hint="--role")
        members[RoleName(name)] = role_of(invocation, name, keys, count, development=development)
    return members


def names_of(signers: Iterable[Signer], *documents: TrustDocument) -> list[str]:
    """The root persons behind signers, by the documents whose roots they are of."""
    from devguard.trust.rotate import root_keys

    held = root_keys(*documents)
    return sorted({held[signer.key.thumbprint].person for signer in signers})


def comma_separated(texts: Iterable[str]) -> list[str]:
    """KEY,KEY and repeated options alike."""
    return [one for text in texts for one in text.split(",") if one]


def signers_here(invocation: Invocation, references: Iterable[str], fd: int | None) -> list[Signer]:
    """The keys whose private half is here, in a file or on a token."""
    from devguard.custody.keyfile import is_private

    found: list[Signer] = []
    for reference in references:
        if is_private(invocation.home.key_path(reference)):
            found.append(invocation.signer(reference, fd))
    return found


def signers_among(
    invocation: Invocation, wanted: Iterable[bytes], references: Iterable[str], fd: int | None
) -> list[Signer]:
    """The signers of the wanted thumbprints among the home's private keys and the references, each key once."""
    from devguard.custody.keyfile import read_info

    paths = [*(invocation.home.key_path(one) for one in references), *invocation.home.private_keys()]
    left_over, found = set(wanted), []
    for path in paths:
        thumbprint = read_info(path).key.thumbprint
        if thumbprint in left_over:
            here = signers_here(invocation, [str(path)], fd)
            found += here
            left_over -= {thumbprint} if here else set()
    return found


def shown(document: TrustDocument) -> dict[str, Any]:
    """A document as plain data."""
    from devguard.trust.show import as_dict

    return as_dict(document)


def lines_of(document: TrustDocument, now: int) -> str:
    """A document for people."""
    lines = [
        f"version {document.version}{' DEVELOPMENT' if document.development else ''}, "
        f"thumbprint {document.digest.hex()}",
        f"issued {iso(document.issued)}, expires {iso(document.expires)} ({left(document.expires - now)} left)",
    ]
    floors = ", ".join(f"{model} {floor}" for model, floor in document.floors.items())
    if document.grant_epoch or floors:
        lines.append(f"grant epoch {document.grant_epoch}, floors {floors or 'none'}")
    for name, role in document.roles.items():
        people = ", ".join(
            f"{entry.person} ({entry.key.algorithm.label}{', REVOKED' * document.is_revoked(entry.thumbprint)})"
            for entry in role.keys
        )
        lines.append(f"  {name:21} {role.threshold} of {people}")
    return "\n".join(lines)
