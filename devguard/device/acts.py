"""What a technician asks a device to do under a grant: one value for every action, and what each is bound to.

An act that installs concerns a release; one that does not concerns the session it is asked in, so that a counted grant
read with once is not read with again. Source: devguard formats, "Grant".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devguard.grant.claims import Action
from devguard.grant.uses import use_of
from devguard.verdict.release import Release

TWO_PERSONS: Final = frozenset({Action.DECOMMISSION})
"""Actions that two different technicians ask for on every model."""


@dataclass(frozen=True, slots=True)
class Act:
    """One thing asked for. `subject`: what a second technician's approval names. `use`: what a use of each grant is
    bound to. `release`: None where nothing is installed."""

    action: Action
    subject: bytes
    use: bytes
    release: Release | None = None

    @classmethod
    def on(cls, action: Action, release: Release) -> Act:
        """Something done with a release."""
        return cls(action, release.manifest_digest, use_of(action, release.manifest_digest), release)

    @classmethod
    def once(cls, action: Action, session_id: bytes) -> Act:
        """Something that installs nothing, done in one session."""
        return cls(action, use_of(action, b""), use_of(action, session_id))

    def persons(self, model: int) -> int:
        """How many different technicians have to ask for it, where the model's updates take `model` of them."""
        release = self.release
        both = self.action in TWO_PERSONS or (release is not None and release.requirements.two_technicians)
        return max(model, 2 if both else 1)
