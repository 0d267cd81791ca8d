"""The bench's side of an update or a recovery, from a judged release and a checked grant to the device's signed report.

`UpdateSession` is the only thing in devguard that sends an image, and it can only be built from a `Release` that
`judge()` made with its payload measured and a `CheckedGrant` that `check_grant()` made. Sans-I/O: its methods are
scripts (see `script`) that a driver runs over any link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from devguard.errors import DeviceRefused, LinkError, LocalProtocolError, Refused, RemoteProtocolError
from devguard.grant.check import CheckedGrant
from devguard.grant.claims import Action
from devguard.session.approving import Approver, second_approval
from devguard.session.connect import Bench, Connected, ask_report, connect, expect, need_version
from devguard.session.delta import Encoded, Sent, choose
from devguard.session.report import Report
from devguard.session.script import Flush, Receive, Script, Send
from devguard.session.verbs import (
    ACTIONS_VERSION,
    Accept,
    Close,
    Commit,
    Data,
    Done,
    Durable,
    Offer,
    Reboot,
    Recover,
    Transfer,
    decode_message,
    encode_message,
)
from devguard.verdict.judge import Release

# Whole pages of any flash, in a message that goes into one of the link's longest segments. Less than a sector, so that
# what is lost of a message that came in part is never more than one.
DATA_CHUNK: Final = 15 * 256
JUDGE_SECONDS: Final = 120.0
REBOOT_SECONDS: Final = 10.0
FALL_BACK: Final = ("device.transfer", "device.slot", "device.busy")  # the whole image may still do


class PayloadReader(Protocol):
    """An open, private copy of the payload; the bytes that were judged are the bytes that are sent."""

    def seek(self, offset: int, /) -> int: ...
    def read(self, size: int, /) -> bytes: ...


Progress = Callable[[int, int], None]


@dataclass(slots=True)
class UpdateSession:
    """One push of one release to one device under one grant.

    `offer`: the envelope with payload and text severed. `payload`: positioned anywhere, read from offset 0 of the
    image. `approver` is asked until it returns (approval object, second grant); None means one technician.
    `forms`: other forms of the same image, of which the smallest that the device takes is sent; `sent` says which.
    `accepted`: the device has taken the offer, and spent the grant's use.
    `progress` hears what is durable on the device, `queued` what was handed to the link: (bytes, of so many).
    Raises `LocalProtocolError` when built from anything but proof, `Refused` when the grant does not cover the release.
    """

    release: Release
    grant: CheckedGrant
    bench: Bench
    offer: bytes
    payload: PayloadReader
    approver: Approver | None = None
    progress: Progress | None = None
    forms: tuple[Encoded, ...] = ()
    queued: Progress | None = None
    connected: Connected | None = field(default=None, init=False)
    sent: Sent = field(default=Sent("full", 0), init=False)
    accepted: bool = field(default=False, init=False)
    _total: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.release, Release) or not isinstance(self.grant, CheckedGrant):
            raise LocalProtocolError("session.order", "an update needs a judged release and a checked grant")
        if not self.release.payload_checked:
            raise LocalProtocolError("session.order", "the release's payload was not measured")
        self.grant.covers(self.release)

    def push(self) -> Script[Connected]:
        """Connect, approve, offer, send, commit, reboot. Raises `DeviceRefused` when the device says no.

        Whether the new image runs is for the signed report to say: see `fetch_report` and `after_reboot`.
        """
        session = yield from connect(self.bench)
        self.connected = session
        if self.grant.action is not Action.UPDATE:
            need_version(session, ACTIONS_VERSION)
        if self.approver is not None:
            yield from second_approval(session, self.bench, self.grant, self.release.manifest_digest, self.approver)
        yield from self._deliver()
        # A device that goes down may take its last answer with it; the image is committed, the report tells the rest.
        try:
            yield from self._acknowledged(Reboot(), REBOOT_SECONDS)
            yield Flush()
        except LinkError as error:
            if error.code != "link.timeout":
                raise
        return session

    def _acknowledged(self, message: Commit | Reboot, timeout: float) -> Script[None]:
        yield Send(encode_message(message), sealed=True)
        while True:
            reply = yield Receive(sealed=True, timeout=timeout)
            if _is_durable(reply):
                self._durable(reply)
                continue
            expect(reply, Done, sealed=True)
            return

    def _offer(self) -> Script[Accept]:
        ask = Recover if self.grant.action is Action.RECOVER else Offer
        yield Send(encode_message(ask(self.offer)), sealed=True)
        accept = expect((yield Receive(sealed=True, timeout=JUDGE_SECONDS)), Accept, sealed=True)
        self.accepted = True
        if accept.resume_offset > self.release.size:
            raise RemoteProtocolError("session.order", "the device wants to resume past the end of the image")
        return accept

    def _deliver(self) -> Script[None]:
        """Offer, send, commit. A form that the device refuses costs its bytes; then the image itself is sent."""
        accept = yield from self._offer()
        form = choose(accept, self.release.size, self.forms)
        refused: str | None = None
        wasted = 0
        if form is not None:
            try:
                yield from self._send_encoded(form, accept)
                yield from self._commit()
                return
            except DeviceRefused as error:
                if error.code not in FALL_BACK:
                    raise
                refused, wasted = error.code, self.sent.size
            accept = yield from self._offer()
        missing = self.release.size - accept.resume_offset
        self.sent = Sent("full", missing, refused, wasted)
        yield from self._send(self.payload, accept.resume_offset, self.release.size, accept)
        yield from self._commit()

    def _commit(self) -> Script[None]:
        yield from self._acknowledged(Commit(self.release.manifest_digest), JUDGE_SECONDS)
        self._tell(self._total)

    def _send_encoded(self, form: Encoded, accept: Accept) -> Script[None]:
        size = len(form.data)
        self.sent = Sent(form.encoding.name.lower(), 0)
        yield Send(encode_message(Transfer(int(form.encoding), size, form.digest)), sealed=True)
        start = expect((yield Receive(sealed=True, timeout=JUDGE_SECONDS)), Durable, sealed=True).offset
        if start > size:
            raise RemoteProtocolError("session.order", "the device wants to resume past the end of what is sent")
        self.sent = Sent(form.encoding.name.lower(), size - start)
        yield from self._send(_Bytes(form.data), start, size, accept)

    def _send(self, source: PayloadReader, offset: int, size: int, accept: Accept) -> Script[None]:
        self._total = size
        source.seek(offset)
        self._tell(offset)
        while offset < size:
            chunk = source.read(min(DATA_CHUNK, size - offset))
            if not chunk:
                raise Refused("file.changed", "the image became shorter while it was sent; nothing was committed")
            yield Send(encode_message(Data(offset, chunk)), sealed=True, backlog=2 * max(accept.window, DATA_CHUNK))
            offset += len(chunk)
            if self.queued is not None:
                self.queued(offset, size)
            reply = yield Receive(sealed=True, timeout=0.0, optional=True)
            while reply is not None:
                self._durable(reply)
                reply = yield Receive(sealed=True, timeout=0.0, optional=True)

    def _durable(self, reply: bytes) -> None:
        self._tell(expect(reply, Durable, sealed=True).offset)

    def _tell(self, durable: int) -> None:
        if self.progress is not None:
            self.progress(min(durable, self._total), self._total)


class _Bytes:
    """Bytes in memory as a `PayloadReader`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def seek(self, offset: int, /) -> int:
        self._at = offset
        return offset

    def read(self, size: int, /) -> bytes:
        data = self._data[self._at : self._at + size]
        self._at += len(data)
        return data


def _is_durable(reply: bytes) -> bool:
    return isinstance(decode_message(reply, sealed=True), Durable)


def fetch_report(bench: Bench) -> Script[tuple[Report, bytes]]:
    """A fresh session with the same grant: (the device's report, its signed bytes)."""
    session = yield from connect(bench)
    report, signed = yield from ask_report(session, bench)
    yield Send(encode_message(Close()), sealed=True)
    yield Flush()
    return report, signed


def after_reboot(release: Release, report: Report) -> None:
    """Refuse a report that does not show `release` running and confirmed.

    Raises `DeviceRefused("device.self-test")` when the device went back, `Refused("image.digest")` when something
    else runs, `DeviceRefused("device.unconfirmed")` while the trial is open.
    """
    if report.boot_state == "reverted":
        raise DeviceRefused("device.self-test", "the new image failed its trial; the device runs the old one again")
    if report.manifest_digest != release.manifest_digest or not _runs(release, report):
        raise Refused("image.digest", "the device's signed report shows another image running than the one pushed")
    if not report.confirmed:
        raise DeviceRefused("device.unconfirmed", "the new image runs on trial and is not confirmed yet")
    if report.settings_before is not None and report.settings_before != report.settings_digest:
        raise Refused("device.state", "the therapy settings differ from before the update", "tell the clinician now")


def _runs(release: Release, report: Report) -> bool:
    """Whether the images that run are the release's: the whole, and of several every one."""
    wanted = [(one.id, one.digest, one.size) for one in release.components]
    found = [(one.id, one.digest, one.size) for one in report.components]
    return report.image_digest == release.digest and (len(wanted) == 1 or found == wanted)
