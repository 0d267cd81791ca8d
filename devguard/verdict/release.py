"""The proof that a release was judged and accepted.

A `Release` is made by `judge` alone. Whoever holds one need not ask again what it is; whoever needs one cannot
make it: neither the constructor, nor `dataclasses.replace`, nor `copy`, nor `pickle` gives a second one. This
guards against mistakes in our own code; it is no wall against code that runs in the same process.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Final, NoReturn

from devguard.errors import LocalProtocolError
from devguard.manifest.release import ComponentFacts

PROOF: Final = object()


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the manifest asks of the moment of installation: battery in mWh, therapy, technicians, epoch seconds."""

    minimum_battery_mwh: int | None
    therapy_idle: bool
    two_technicians: bool
    use_before: int | None


@dataclass(frozen=True, slots=True)
class Release:
    """An accepted release.

    `vendor`, `model` and `version` are "" where neither the manifest's text nor the target names them. `size` and
    `digest` are those of what is sent: the only component's image, or the images of all `components` back to back in
    that order. The manifest signs no digest of several: `digest` is then SHA-256 as it was measured, None where the
    images had not been seen. `manifest_digest` names the release everywhere else.
    `payload_checked` is False when the image had not been seen yet: whoever receives it must still measure it.
    """

    vendor: str
    model: str
    version: str
    sequence: int
    security_version: int
    digest: bytes | None
    size: int
    manifest_digest: bytes
    requirements: Requirements
    payload_checked: bool
    components: tuple[ComponentFacts, ...]
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not PROOF or type(self) is not Release:
            raise LocalProtocolError("session.order", "only judge() makes a Release")

    def __init_subclass__(cls, **_: object) -> None:
        raise LocalProtocolError("session.order", "a Release has no kinds")

    def __getstate__(self) -> NoReturn:
        raise LocalProtocolError("session.order", "a Release is not copied or stored; judge the envelope again")

    def __setstate__(self, state: object) -> NoReturn:
        raise LocalProtocolError("session.order", "a Release is not copied or stored; judge the envelope again")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise LocalProtocolError("session.order", "a Release is not copied or stored; judge the envelope again")
