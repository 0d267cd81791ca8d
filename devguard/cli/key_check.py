"""`devguard key check`: whether a key can still sign, asked before it is needed.

For reading back a copy, and for the quarterly look at keys that are used once a year. The key is opened and signs
random bytes, which verify under the public key in its file. Nothing is written but the evidence record.
"""

from __future__ import annotations

import os

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import recorded


@click.command("check", cls=Command)
@click.argument("reference", metavar="FILE|NAME")
@passphrase_option
@click.pass_obj
def check(invocation: Invocation, reference: str, passphrase_fd: int | None) -> None:
    """Open a key, in a file or on a token, and let it sign: proof that file, passphrase or PIN, and key are good."""
    with recorded(invocation, "key.check", only_where_kept=True) as note:
        signer = invocation.signer(reference, passphrase_fd)
        info = signer.info
        note.details.update(key=info.key.fingerprint, role=info.role, person=info.person)
        message = os.urandom(32)
        info.key.verify(info.algorithm, message, signer.sign(message))
    facts = {"ok": True, "name": info.name, "person": info.person, "role": info.role, "alg": info.algorithm.label}
    text = f"{info.name} signs: {info.algorithm.label} key of {info.person}, role {info.role}"
    invocation.result({**facts, "fingerprint": info.key.fingerprint}, f"{text}\nfingerprint {info.key.fingerprint}")
