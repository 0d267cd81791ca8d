"""Credentials in a handshake: what we prove with, and how the peer's is found (RFC 9528 sections 3.5.2, 3.5.3).

`ID_CRED_x` travels, `CRED_x` enters the transcripts. The product carries credentials by value as `kcwt`:
ID_CRED_x = {13: CWT} and CRED_x is that same untagged CWT. Whether a CWT is trusted (a technician's grant, a
device's credential) is the business of the callback the caller gives; nothing here says yes to anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer
from devguard.errors import LocalProtocolError, Malformed, Refused, RemoteProtocolError
from devguard.session.ephemeral import CODE
from devguard.session.suites import suite_of

KCWT: Final = 13  # COSE header parameter (RFC 9528 section 3.5.3.1)
_CWT_TAGS: Final = (b"\xd8\x3d", b"\xd2", b"\xd8\x62")  # CWT (61), COSE_Sign1 (18), COSE_Sign (98)


class UnknownCredential(Refused):
    """The peer named, by reference, a credential we do not have: EDHOC error 3 (section 6.4)."""

    def __init__(self, message: str) -> None:
        super().__init__(CODE, message)


def untagged_cwt(cwt: bytes) -> bytes:
    """`cwt` without its CWT and COSE tags; nothing else is looked at or changed."""
    for tag in _CWT_TAGS:
        cwt = cwt.removeprefix(tag)
    return cwt


@dataclass(frozen=True, slots=True)
class OwnCredential:
    """Our side: the COSE header map, CRED_x as one CBOR item, and the signer of the key inside it."""

    id_cred: Mapping[Any, Any]
    cred: bytes
    sign: Signer

    @classmethod
    def kcwt(cls, cwt: bytes, sign: Signer) -> OwnCredential:
        """From a CWT, tagged or not. `LocalProtocolError` when it is not a COSE array in deterministic CBOR."""
        cred = untagged_cwt(cwt)
        try:
            value = wire.decode(cred)
        except Malformed as error:
            raise LocalProtocolError("session.order", f"our credential is no CWT: {error.message}") from error
        if not _is_cwt(value) or wire.encode(value) != cred:
            raise LocalProtocolError("session.order", "our credential is not an untagged COSE_Sign1 or COSE_Sign")
        return cls({KCWT: value}, cred, sign)


@dataclass(frozen=True, slots=True)
class PeerCredential:
    """The peer's CRED_x as one CBOR item, and the public key its signature must verify with."""

    cred: bytes
    key: CoseKey


class Resolver(Protocol):
    """Finds the peer's credential. `id_cred` is the header map, a lone kid already expanded to {4: kid}.

    Raises `UnknownCredential` for a reference it cannot follow, any other `DevguardError` for a credential it
    refuses; the handshake then fails and the error passes through unchanged.
    """

    def resolve(self, id_cred: Mapping[Any, Any]) -> PeerCredential: ...


class KcwtResolver:
    """The product's resolver: accepts {13: CWT} by value and nothing else.

    `check` gets the untagged CWT, judges it, and returns the key of its `cnf` claim; its errors pass through.
    """

    def __init__(self, check: Callable[[bytes], CoseKey]) -> None:
        self._check = check

    def resolve(self, id_cred: Mapping[Any, Any]) -> PeerCredential:
        if set(id_cred) != {KCWT} or any(type(label) is not int for label in id_cred):
            raise Refused(CODE, "the credential is not a CWT by value (kcwt), which is all this profile takes")
        value = id_cred[KCWT]
        if not _is_cwt(value):
            raise RemoteProtocolError(CODE, "the kcwt is not an untagged COSE_Sign1 or COSE_Sign array")
        cred = wire.encode(value)
        return PeerCredential(cred, self._check(cred))


def _is_cwt(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and isinstance(value[0], bytes)
        and isinstance(value[1], Mapping)
        and isinstance(value[2], bytes)
        and isinstance(value[3], (bytes, list))
    )


def by_suite(suites: Iterable[int], *credentials: OwnCredential) -> dict[int, OwnCredential]:
    """For each suite the first credential whose key signs in it; a suite no key fits is left out."""
    found: dict[int, OwnCredential] = {}
    for value in suites:
        own = next((own for own in credentials if suite_of(value).fits(own.sign.key)), None)
        if own is not None:
            found[value] = own
    return found
