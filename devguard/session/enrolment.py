"""A device's request for a credential, and the factory's side of giving it one: sans-I/O.

The key is made on the device and only its public half leaves it, in a request signed by that very key over the
factory's challenge: a COSE_Sign1 over [1, model, revision, serial, challenge, COSE_Key]. The credential (a CWT,
`grant.credential`) comes back with the trust document; the device judges both and is enrolled, once. The line is in
clear and in the factory's hands: what matters is shown by fingerprints, and proved afterwards by a handshake.
Compare RFC 2986 and RFC 7030; here the device authority signs what a person has confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer, read_sign1, sign1
from devguard.errors import LinkError, Malformed, Refused
from devguard.session.connect import ANSWER_SECONDS, expect, greet
from devguard.session.factory_verbs import (
    Enrol,
    EnrolCredentials,
    EnrolKeys,
    EnrolTaken,
    EnrolTrust,
)
from devguard.session.script import Receive, Script, Send
from devguard.session.verbs import (
    ACTIONS_VERSION,
    MAX_PLAIN,
    NONCE_SIZE,
    Ending,
    encode_message,
)

TYP: Final = "application/devguard-enrolment+cbor"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Name:
    """Who a device is to be. `site`: None where it is not said."""

    model: str
    revision: str
    serial: str
    site: str | None = None


def sign_request(signer: Signer, name: Name, challenge: bytes) -> bytes:
    """The device's request for a credential for this key."""
    payload = wire.encode([FORMAT, name.model, name.revision, name.serial, challenge, signer.key.to_map()])
    return sign1(signer, payload, typ=TYP).encode()


def read_request(data: bytes, name: Name, challenge: bytes) -> CoseKey:
    """The key in a request, which that key has signed, for this name and challenge.

    Raises `Malformed("wire.malformed")`, `Refused("device.identity")`, `Refused("session.replay")`, the COSE room's.
    """
    message = read_sign1(data)
    items: Any = wire.decode(message.payload or b"", max_depth=3)
    shape = [type(item) for item in items] if isinstance(items, list) else []
    if shape != [int, str, str, str, bytes, dict] or items[0] != FORMAT:
        raise Malformed("wire.malformed", f"not an enrolment request of format {FORMAT}")
    key = CoseKey.from_map(items[5])
    message.verify(key, typ=TYP)
    if tuple(items[1:4]) != (name.model, name.revision, name.serial):
        raise Refused("device.identity", f"asked {name.model} {name.serial} to enrol, {items[1]} {items[3]} answers")
    if items[4] != challenge:
        raise Refused("session.replay", "the request answers another challenge: an old one was played back")
    return key


def enrol(
    name: Name, trust: bytes, issue: Callable[[Sequence[CoseKey]], Sequence[bytes]], random: Callable[[int], bytes]
) -> Script[tuple[CoseKey, ...]]:
    """Enrol the device on the line; its keys. `issue` makes their credentials once they are known.

    Raises `DeviceRefused`: `device.provisioned` for a device that is somebody already, and whatever it finds wrong.
    """
    hello = yield from greet()
    if hello.version < ACTIONS_VERSION:
        raise LinkError("link.protocol", f"the device speaks protocol {hello.version}; no line enrols it")
    challenge = random(NONCE_SIZE)
    question = Enrol(name.model, name.revision, name.serial, name.site or "", challenge)
    yield Send(encode_message(question), sealed=False)
    answer = expect((yield Receive(sealed=False, timeout=ANSWER_SECONDS)), EnrolKeys, sealed=False)
    keys = tuple(read_request(one, name, challenge) for one in answer.requests)
    if len({key.thumbprint for key in keys}) != len(keys):
        raise Refused("device.identity", "the device asks twice for the same key")
    for offset in range(0, len(trust), MAX_PLAIN):
        ending = Ending.DOCUMENT if offset + MAX_PLAIN >= len(trust) else Ending.PIECE
        yield from _told(EnrolTrust(trust[offset : offset + MAX_PLAIN], int(ending)))
    yield from _told(EnrolCredentials(tuple(issue(keys))))
    return keys


def _told(message: EnrolTrust | EnrolCredentials) -> Script[None]:
    yield Send(encode_message(message), sealed=False)
    expect((yield Receive(sealed=False, timeout=ANSWER_SECONDS)), EnrolTaken, sealed=False)
