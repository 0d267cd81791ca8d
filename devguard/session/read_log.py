"""The bench's side of the verb `log`: a device's own log in pieces, held against its signed report. Sans-I/O.

The log is signed by the device's key over this bench's challenge, and so is the report, whose log head has to be the
one that the log's hash chain leads to. Between the two the log may have grown by an event of somebody else's; then it
is read once more. Source: devguard formats, "Evidence".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devguard.errors import LocalProtocolError, Refused, RemoteProtocolError
from devguard.evidence.device_log import DeviceLog, read_device_log
from devguard.grant.check import CheckedGrant
from devguard.grant.claims import Action
from devguard.grant.uses import use_of
from devguard.session.approving import Approver, second_approval
from devguard.session.connect import ANSWER_SECONDS, Bench, Connected, ask_report, connect, expect, need_version
from devguard.session.report import Report
from devguard.session.script import Flush, Receive, Script, Send
from devguard.session.verbs import (
    ACTIONS_VERSION,
    MAX_PIECE,
    NONCE_SIZE,
    Close,
    LogPiece,
    LogRequest,
    encode_message,
)

TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class ReadLog:
    """A device's log and report of one session, each with the bytes the device signed; their heads are the same."""

    log: DeviceLog
    signed_log: bytes
    report: Report
    signed_report: bytes


def read_log(bench: Bench, grant: CheckedGrant, approver: Approver | None = None) -> Script[ReadLog]:
    """Connect under a grant for `read-log` and read the device's log.

    Raises `DeviceRefused` when the device says no, `Refused("device.log")` when log and report do not agree,
    `Refused("session.replay")` or `("device.identity")` for a log of another question or device.
    """
    if grant.action is not Action.READ_LOG:
        raise LocalProtocolError("session.order", "reading a log needs a grant that was checked for it")
    session = yield from connect(bench)
    need_version(session, ACTIONS_VERSION)
    if approver is not None:
        yield from second_approval(session, bench, grant, use_of(Action.READ_LOG, b""), approver)
    for _ in range(TRIES):
        signed = yield from _pieces(bench.random(NONCE_SIZE), session)
        report, signed_report = yield from ask_report(session, bench)
        if report.log_head == signed[0].head:
            yield Send(encode_message(Close()), sealed=True)
            yield Flush()
            return ReadLog(*signed, report, signed_report)
    raise Refused("device.log", "the log that the device signed does not lead to the head that its report signs")


def _pieces(challenge: bytes, session: Connected) -> Script[tuple[DeviceLog, bytes]]:
    """The signed log: what it says, and its bytes."""
    data, total = b"", 1
    while len(data) < total:
        yield Send(encode_message(LogRequest(challenge, len(data))), sealed=True)
        piece = expect((yield Receive(sealed=True, timeout=ANSWER_SECONDS)), LogPiece, sealed=True)
        if (data and piece.total != total) or len(piece.piece) != min(MAX_PIECE, piece.total - len(data)):
            raise RemoteProtocolError("session.order", "the device sent other bytes of its log than were asked for")
        total = piece.total
        data += piece.piece
    log = read_device_log(data, session.identity.key)
    if log.challenge != challenge:
        raise Refused("session.replay", "the log answers another challenge: an old one was played back")
    if (log.serial, log.model) != (session.identity.serial, session.identity.model):
        raise Refused("device.identity", f"the log is by {log.model} {log.serial}, the session by another device")
    return log, data
