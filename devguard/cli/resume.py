"""What `push --resume` may go on with: the release whose push from here was not finished, and no other.

It spares a mistake, and proves nothing: a device continues a download for the same manifest digest and size only,
whatever a bench asks for, and judges grant and release anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from devguard.errors import Refused

CUT_OFF: Final = "internal.interrupted"  # and of a process that was killed there is no end at all

if TYPE_CHECKING:
    from devguard.cli.home import Home
    from devguard.evidence.record import Record
    from devguard.manifest.envelope import Envelope


def check_resumed(home: Home, serial: str, envelope: Envelope | None) -> None:
    """`Refused("session.resume")` where the last push begun from here to that device was of another release: what the
    device holds of it would be erased, and that is not what --resume asks for."""
    from devguard.evidence.newest import newest
    from devguard.evidence.record import DigestOf

    ends: dict[str, str | None] = {}

    def settles(record: Record) -> bool:
        """Asked from the newest record backwards: a push that was finished, or one that was begun and cut off."""
        if record.device != serial or DigestOf.MANIFEST not in record.digests:
            return False
        if record.action == "release.push":
            ends[record.request] = record.code
        return record.action == "release.push-begun" and _open_end(ends.get(record.request, CUT_OFF))

    if envelope is None or not home.evidence_folder.is_dir():
        return
    last = newest(home.evidence_folder, settles)[0]
    if last is None or ends.get(last.record.request, CUT_OFF) is None:
        return
    if last.record.digests[DigestOf.MANIFEST] != envelope.manifest_digest:
        raise Refused("session.resume", f"the push to {serial} that was not finished is of {last.record.release}")


def _open_end(code: str | None) -> bool:
    """Whether a push with this end says anything: one that was refused never began to send."""
    return code is None or code == CUT_OFF or code.startswith("link.")
