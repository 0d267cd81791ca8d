"""What a row of the attack catalogue is, and how one comes out."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from devguard.bench.attacks.scene import Scene


class Attacker(enum.StrEnum):
    """Who attacks; what each wants and can is in docs/threat-model.md."""

    OUTSIDER = "outsider at the port"
    MAN_IN_THE_MIDDLE = "man in the middle on the serial line"
    MALICIOUS_REPOSITORY = "malicious repository"
    INSIDER = "insider technician"
    THIEF_OF_DEVICE = "thief of device"
    STOLEN_VENDOR_KEY = "stolen vendor online key"
    STOLEN_TECHNICIAN_KEY = "stolen technician key"
    LAZY_VENDOR = "lazy vendor"


class Status(enum.StrEnum):
    """How a row came out."""

    HELD = "held"
    BROKEN = "broken"
    NOT_APPLICABLE = "not-applicable"


class OutOfReach(Exception):
    """A row asks for what is not in the bench's hand with this device: it is not played any further."""


class Row(ABC):
    """One attack. `play` makes it, in as many ways as the row has, and asks the scene's oracles what came of each.

    `regulation`: items of the regulation page that the row gives evidence for. `absent`: a part that devguard does not
    have, so that there is nothing to attack; the reason stands in docs/threat-model.md. `needs`: a package that the
    attacked part is built on, and devguard's extra with it: where it is not installed there is nothing to attack.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    precedent: ClassVar[str]
    attacker: ClassVar[Attacker]
    regulation: ClassVar[tuple[str, ...]] = ()
    absent: ClassVar[str | None] = None
    needs: ClassVar[tuple[str, str] | None] = None

    @abstractmethod
    def play(self, scene: Scene) -> None:
        """Attack. What does not hold is told to the scene, or raised."""


@dataclass(frozen=True, slots=True)
class Result:
    """A row on one model. `refused`: every attempt was turned away; `code`: of the first; `recorded`: the log has what
    it had, and each refusal once. `why`: what was shown, or what broke."""

    id: str
    title: str
    model: str
    status: Status
    why: str
    refused: bool
    code: str | None
    state_unchanged: bool
    recorded: bool
    seconds: float
    attempts: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The row of the command-line contract, and what was tried."""
        return {
            "id": self.id,
            "title": self.title,
            "model": self.model,
            "status": str(self.status),
            "why": self.why,
            "refused": self.refused,
            "code": self.code,
            "state_unchanged": self.state_unchanged,
            "recorded": self.recorded,
            "seconds": round(self.seconds, 3),
            "attempts": list(self.attempts),
        }
