"""Until when a release, its model and its parts are supported: shown, on record, and asked about before a push.

A rule of support, not of security: it refuses nothing that is signed and granted but asks that somebody answers by
name for what the vendor no longer repairs, and skips no other check. A text that was severed says nothing of support.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from devguard.cli.times import iso
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cli.record import Note
    from devguard.manifest.envelope import Envelope
    from devguard.sbom.bom import Bill

ACCEPTED: Final = "accepted-unsupported"
MAX_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Support:
    """`release`, `model`: epoch seconds at which support ends, None where nobody said."""

    name: str
    release: int | None
    model: int | None

    def ended(self, now: int) -> list[str]:
        """What is past its end of support at `now`, for people."""
        named = ((f"release {self.name}", self.release), ("its model", self.model))
        return [f"support of {what} ended on {iso(end)[:10]}" for what, end in named if end is not None and now >= end]

    def lines(self, now: int) -> list[str]:
        """What to show: what has ended, else until when it is supported."""
        dates = (("release", self.release), ("model", self.model))
        known = [f"{what} supported until {iso(end)[:10]}" for what, end in dates if end is not None]
        return self.ended(now) or ([", ".join(known)] if known else [])

    def as_dict(self, now: int) -> dict[str, Any]:
        """For JSON."""
        release, model = (None if end is None else iso(end) for end in (self.release, self.model))
        return {"release": release, "model": model, "ended": bool(self.ended(now))}

    def note(self, note: Note, sequence: int) -> None:
        """Into the record, from which `fleet age` reads it."""
        from devguard.evidence.fleet import SEQUENCE, SUPPORTED

        note.details[SEQUENCE] = str(sequence)
        if self.release is not None:
            note.details[SUPPORTED] = str(self.release)

    def require(self, note: Note, now: int, accepted_by: str | None) -> None:
        """Return when it is supported, or somebody answers for it; `Refused("release.unsupported")` else."""
        ended = self.ended(now)
        if ended and accepted_by is None:
            raise Refused("release.unsupported", "; ".join(ended))
        if ended and accepted_by is not None:
            note.details[ACCEPTED] = f"{accepted_by}: {'; '.join(ended)}"


def support_of(envelope: Envelope) -> Support:
    """As the signed text of a release says, which has to be whole; believed only once the release is accepted."""
    from devguard.device.supported import model_support
    from devguard.manifest.release import signed_manifest
    from devguard.manifest.text import decode_text

    manifest = signed_manifest(envelope)
    if not isinstance(manifest.text, bytes):
        return Support("", None, None)
    text = decode_text(manifest.text, manifest.common.components)
    return Support(f"{text.model} {text.version}", text.supported_until, model_support(text.model))


def note_parts(note: Note, bill: Bill) -> None:
    """The part of a release whose support ends first, into the record."""
    from devguard.evidence.fleet import PARTS

    dated = [(part.end_of_support, part.label) for part in bill.parts if part.end_of_support is not None]
    if dated:
        end, label = min(dated)
        note.details[PARTS] = f"{end} {label}"
