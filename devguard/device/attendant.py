"""The device's own judgement in one conversation: technician, second technician, release, moment.

Implements `session.device_side.DevicePort` from the same pure rooms the bench uses (manifest, trust, verdict,
grant), with the device's trust document, counters and clock floor. Nothing the bench says of itself is believed, and
nothing one conversation learned is seen by another: a grant counts only after its holder has proved the key in *this*
handshake. All checks of an offer come before the first sector is erased. Source: devguard formats, "Grant", "Session".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer
from devguard.device.acts import Act
from devguard.device.header import SlotHeader, parts_of
from devguard.device.recover import judge_lost
from devguard.errors import DevguardError, Malformed, Refused
from devguard.grant.chain import read_chain
from devguard.grant.check import CheckedGrant, DeviceView, check_grant, check_pair
from devguard.grant.claims import Action, read_grant
from devguard.grant.scope import allows
from devguard.grant.uses import Spent, advanced_epoch, advanced_floor, spend_use, use_id
from devguard.image.measure import SHA_256
from devguard.manifest.envelope import parse_offer
from devguard.manifest.model import Clock
from devguard.session.approval import ApprovalRequest, check_approval
from devguard.session.credentials import OwnCredential
from devguard.session.verbs import MAX_PIECE, NONCE_SIZE, Accept, Encoding, Ending, HelloReply, LogPiece
from devguard.trust.chain import Walk
from devguard.trust.model import MAX_DOCUMENT
from devguard.verdict.judge import Release

if TYPE_CHECKING:
    from devguard.device.node import DeviceNode

SECONDARY: Final = 1
TRUST_TOO_OLD: Final = ("key.unknown", "trust.expired")
MAX_OFFERS: Final = 8  # a bench needs two: the second where its patch came to nothing
ACCEPTED: Final = {Action.UPDATE: "accepted", Action.RECOVER: "recover-accepted"}


class Attendant:
    """One conversation's `DevicePort`. Dropped with the conversation."""

    def __init__(self, node: DeviceNode) -> None:
        self._node = node
        self._shown: CheckedGrant | None = None  # in message_3, its holder not proved yet
        self._first: CheckedGrant | None = None
        self._second: tuple[bytes, CheckedGrant] | None = None
        self._accepted: tuple[Release, bytes, tuple[CheckedGrant, ...]] | None = None
        self._cwt = b""
        self._offered = b""  # the manifest digest of what is being judged
        self._offers = 0
        self._session_id = b""
        self._limit: DevguardError | None = None
        self._document = bytearray()  # of a chain of trust documents: what has come of the next
        self._walk: Walk | None = None
        self._epoch: int | None = None  # what a root on the way has set the grant epoch back to
        self._log = b""

    def hello(self) -> HelloReply:
        """See `DeviceNode.hello`."""
        return self._node.hello()

    def credentials(self) -> Mapping[int, OwnCredential]:
        """The device's credential for each EDHOC suite."""
        return self._node.identity.credentials

    def handshake_begins(self) -> None:
        """See `DeviceNode.handshake_begins`."""
        self._node.handshake_begins()

    def handshake_failed(self) -> None:
        """See `DeviceNode.handshake_failed`."""
        self._node.handshake_failed()

    def refused(self, error: DevguardError) -> None:
        """See `DeviceNode.refused`."""
        offered, self._offered = self._offered, b""
        self._node.refused(error, proved=self._first is not None, offered=offered)

    def report(self, challenge: bytes, version: int) -> bytes:
        """The signed report of what runs now."""
        return self._node.report(challenge, version, self._signer())

    def _signer(self) -> Signer | None:
        """The key this conversation has proved: the bench knows no other of the device's."""
        return None if self._first is None else self._node.signer_beside(self._first.holder)

    def judge_technician(self, cwt: bytes) -> CoseKey:
        """Check the grant; its holder's key must then sign message_3.

        Where nothing but the age of this device's trust document stands against it, its holder may bring a newer one.
        """
        self._cwt = cwt
        try:
            self._shown = self._check(cwt)
        except Refused as error:
            if error.code not in TRUST_TOO_OLD:
                raise
            self._limit = error
            return read_grant(cwt).holder
        return self._shown.holder

    def limit(self) -> DevguardError | None:
        """What stands against the grant while this conversation may hand over trust documents only."""
        return self._limit

    def authorised(self, session_id: bytes) -> None:
        """The technician has proved the key: what the authority signed may move clock floor and epoch.

        The device's own log names the session and the grant, so that a bench's log can be held against it.
        """
        self._session_id = session_id
        if self._limit is not None:
            # Anybody can write a grant by an authority nobody knows: it moves nothing, and it counts as a failure.
            self._node.handshake_failed()
            return
        first = self._first = self._shown
        if first is None:
            raise Refused("session.order", "no grant was shown")
        counters = self._node.store.load().with_failed_handshakes(0)
        if first.moves:
            counters = counters.with_clock_floor(advanced_floor(counters.clock_floor, first.grant.issued))
            counters = counters.with_grant_epoch(advanced_epoch(counters.grant_epoch, first.grant.scope.epoch))
        subject = session_id + hashlib.sha256(first.grant.untagged).digest()
        self._node.store.save(counters.event(self._node.now(), "session", None, subject))

    def trust_chain(self, piece: bytes, ending: int) -> None:
        """Take a piece of a chain of trust documents; at its end keep the newest, when root rules say so.

        The grant is then judged again under it, and what was approved or accepted under the old one is void.
        """
        if len(self._document) + len(piece) > MAX_DOCUMENT:
            self._document.clear()
            self._walk = None
            raise Malformed("trust.malformed", f"a trust document has at most {MAX_DOCUMENT} bytes")
        self._document += piece
        if ending == Ending.PIECE:
            return
        if self._walk is None:
            self._epoch = None
        data, walk, self._walk = bytes(self._document), self._walk or Walk.start(self._node.trust), None
        self._document.clear()
        if walk.held.digest != self._node.trust.digest:
            raise Refused("session.order", "the trust document changed while a chain was on its way; send it again")
        before, walk = walk.newest, walk.step(data)
        if walk.newest.grant_epoch < before.grant_epoch:
            self._epoch = walk.newest.grant_epoch
        if ending == Ending.DOCUMENT:
            self._walk = walk
            return
        now, clock = self._time()
        walk.finish(now, clock=clock)
        if walk.data is not None:
            self._node.adopt(walk.data, walk.newest, self._epoch)
        self._judge_again()

    def _time(self) -> tuple[int, bool]:
        """The time to judge a document by, and whether it is one: a floor that lags calls nothing future. Without
        a clock, whom the technician's authority let in tells it; a session that is limited has no such word."""
        if self._node.model.facts.clock is Clock.RTC or self._first is None:
            return self._node.now(), self._node.model.facts.clock is Clock.RTC
        return max(self._node.now(), self._first.chain[-1].issued), True

    def _judge_again(self) -> None:
        self._first, self._second, self._accepted = None, None, None
        try:
            self._shown = self._check(self._cwt)
        except DevguardError as error:
            self._limit = error
            return
        self._limit = None
        self.authorised(self._session_id)

    def allow(self, action: Action) -> None:
        """Whether the grant shown in message_3 names that action."""
        self._granted(action)

    def _granted(self, action: Action | None = None) -> CheckedGrant:
        if self._first is None:
            raise Refused("session.order", "no technician has been authorised")
        self._check_document(self._first)
        return self._first if action is None else self._first.under(action)

    def _check_document(self, *used: CheckedGrant) -> None:
        """What was checked under a trust document that another conversation has replaced since counts for nothing."""
        if any(checked.trust_digest != self._node.trust.digest for checked in used):
            raise Refused("session.order", "the trust document changed after this was checked; begin anew")

    def _check(self, cwt: bytes) -> CheckedGrant:
        grant = read_grant(cwt)
        counters = self._node.store.load()
        nonces = {counters.nonce} if counters.nonce is not None else set()
        if grant.scope.device_nonce is not None and use_id(read_chain(grant)) in counters.spent:
            nonces.add(grant.scope.device_nonce)  # its nonce is used up; what it began it may finish
        view = DeviceView(
            model=self._node.model.name,
            serial=self._node.identity.serial,
            site=self._node.identity.site,
            clock=self._node.model.facts.clock,
            epoch=counters.grant_epoch,
            nonces=frozenset(nonces),
            spent=counters.spent,
        )
        named = next((action for action in Action if allows(grant.scope.actions, action)), Action.UPDATE)
        return check_grant(grant, trust=self._node.trust, now=self._node.now(), device=view, action=named, holder=None)

    def approve(self, approval: bytes, grant: bytes) -> None:
        """A second technician's grant is checked here; the approval itself when what it names is known."""
        first, second = self._granted(), self._check(grant)
        common = [action for action in Action if action in first.actions & second.actions]
        if not common:
            raise Refused("grant.quorum", "the two grants have no action in common")
        check_pair(first.under(common[0]), second.under(common[0]))
        self._second = (approval, second)

    def _check_approval(self, approval: bytes, first: CheckedGrant, second: CheckedGrant, act: Act) -> None:
        expected = ApprovalRequest(
            self._session_id,
            self._node.identity.serial,
            act.subject,
            act.action.value,
            hashlib.sha256(first.grant.untagged).digest(),
            0,
        )
        timed = self._node.model.facts.clock is Clock.RTC and not self._approved_before(act, second)
        now = self._node.now() if timed else None
        digest = hashlib.sha256(second.grant.untagged).digest()
        check_approval(approval, expected=expected, holder=second.holder, second_grant_digest=digest, now=now)

    def _approved_before(self, act: Act, second: CheckedGrant) -> bool:
        """Whether this conversation has accepted the very act, approved by the very person, in its ten minutes: then it
        may be asked for again, as a bench does whose patch came to nothing, and that may take longer than ten minutes.
        """
        if self._accepted is None or self._accepted[0].manifest_digest != act.subject:
            return False
        return any(
            one.action is act.action and one.grant.untagged == second.grant.untagged for one in self._accepted[2]
        )

    def offer(self, envelope: bytes) -> Accept:
        """Judge the release and everything around it; only then erase, spend the grant's use and accept."""
        return self._accept(Action.UPDATE, envelope, self._node.judge_offer)

    def recover(self, envelope: bytes) -> Accept:
        """As an offer, of the release that was confirmed last, where it is damaged."""
        return self._accept(Action.RECOVER, envelope, lambda offered: judge_lost(self._node, offered))

    def _accept(self, action: Action, envelope: bytes, judge: Callable[[bytes], Release]) -> Accept:
        first = self._granted(action)
        first.still_valid(self._node.now())
        self._offers += 1
        if self._offers > MAX_OFFERS:
            raise Refused("device.busy", f"{MAX_OFFERS} offers in one conversation; begin another, the device may wait")
        self._offered = parse_offer(envelope).manifest_digest
        release = judge(envelope)
        act = Act.on(action, release)
        used = self._used(first, act)
        self._node.check_ready(release)
        self._spent(used, act)  # whether the uses can be remembered at all is asked before the slot is erased
        offset = self._node.loader.prepare(release.manifest_digest, release.size, self._node.steady())
        self._spend(used, act, ACCEPTED[action])
        self._accepted, self._offered = (release, envelope, used), b""
        self._node.offer_taken()
        link, running = self._node.model.link, self._node.loader.result.header
        source = running.digest if running is not None else bytes(32)
        taken = (Encoding.DELTA, Encoding.COMPRESSED) if running is not None else (Encoding.COMPRESSED,)
        return Accept(SECONDARY, link.receive_window, link.segment_max, offset, source, tuple(map(int, taken)))

    def log(self, challenge: bytes, offset: int) -> LogPiece:
        """The device's own log, signed when its first byte is asked for; that it was read is its last event."""
        if offset == 0:
            first = self._granted(Action.READ_LOG)
            first.still_valid(self._node.now())
            act = Act.once(Action.READ_LOG, self._session_id)
            self._spend(self._used(first, act), act, "log-read")
            self._log = self._node.signed_log(challenge, self._signer())
        if offset >= len(self._log):
            raise Refused("session.order", f"byte {offset} of a log of {len(self._log)}; it begins at 0")
        return LogPiece(len(self._log), self._log[offset : offset + MAX_PIECE])

    def decommission(self, challenge: bytes) -> bytes:
        """Erase the device, on the word of two persons, and never while somebody depends on its therapy."""
        first = self._granted(Action.DECOMMISSION)
        first.still_valid(self._node.now())
        act = Act.once(Action.DECOMMISSION, self._session_id)
        used = self._used(first, act)
        if not self._node.therapy.idle:
            raise Refused("device.therapy-active", "therapy is being delivered")
        self._spend(used, act, "decommissioned")
        return self._node.decommission(challenge)

    def _used(self, first: CheckedGrant, act: Act) -> tuple[CheckedGrant, ...]:
        """The grants something is done under, each good for it. One that is not needed is neither asked nor used up."""
        self._check_good(first, act)
        if act.persons(self._node.model.facts.technicians) < 2:
            return (first,)
        if self._second is None:
            raise Refused("grant.quorum", "two different technicians must approve; one has")
        approval, second = self._second[0], self._second[1].under(act.action)
        second.still_valid(self._node.now())
        self._check_good(second, act)
        check_pair(first, second)
        self._check_approval(approval, first, second, act)
        return first, second

    def _check_good(self, checked: CheckedGrant, act: Act) -> None:
        """Whether the grant covers the release, and its nonce, where it has one, is not used up by anything else."""
        if act.release is not None:
            checked.covers(act.release)
        spent = self._node.store.load().spent.get(use_id(checked.chain))
        if checked.grant.scope.device_nonce is not None and spent and spent.manifest_digest != act.use:
            raise Refused("grant.replay", "the grant's nonce was used up by something else")

    def _spent(self, used: tuple[CheckedGrant, ...], act: Act) -> Mapping[bytes, Spent]:
        """The spent uses with one more of each grant; `grant.replay` when they cannot be spent or remembered."""
        counters = self._node.store.load()
        spent: Mapping[bytes, Spent] = counters.spent
        for checked in used:
            spent = spend_use(checked.chain, spent, act.use, counters.clock_floor)
        return spent

    def _spend(self, used: tuple[CheckedGrant, ...], act: Act, event: str) -> None:
        counters = replace(self._node.store.load(), spent=self._spent(used, act))
        # Only an authority's word uses the nonce up: a delegation may name any, and is remembered by its own entry.
        if counters.nonce is not None and counters.nonce in [checked.chain[-1].scope.device_nonce for checked in used]:
            counters = counters.with_nonce(self._node.around.random(NONCE_SIZE))
        if act.release is not None:
            settings, history = self._node.therapy.settings_digest(), self._node.therapy.history_digest
            counters = replace(counters, settings_before=settings, history_before=history)
        subject = self._session_id if act.release is None else act.subject
        self._node.store.save(counters.event(self._node.now(), event, None, subject))

    def transfer(self, encoding: int, size: int, digest: bytes) -> int:
        """Make room for an encoded image; it changes neither what was accepted nor by what it is judged."""
        return self._node.loader.stage(encoding, size, digest)

    def data(self, offset: int, payload: bytes) -> int:
        """Program the payload; the offset that would survive a power cut now."""
        self._node.loader.write(offset, payload)
        return self._node.loader.durable_offset()

    def commit(self, manifest_digest: bytes) -> None:
        """Hash the slot against the judged release and mark it for its trial."""
        if self._accepted is None:
            raise Refused("session.order", "nothing was accepted")
        release, envelope, used = self._accepted
        if manifest_digest != release.manifest_digest:
            raise Refused("session.order", "commit names another release than the one accepted")
        self._check_document(*used)
        for checked in used:
            checked.still_valid(self._node.now())
        self._node.check_ready(release)
        self._node.loader.unpack()
        parts = parts_of(release.components)
        # No manifest signs the digest of several images back to back; `finish` compares each image with its own.
        here = self._node.model.layout.secondary
        digest = release.digest or self._node.loader.slots.image_digest(here, release.size, SHA_256)
        header = SlotHeader.of(
            size=release.size,
            digest_algorithm=SHA_256 if parts else release.components[0].digest_algorithm,
            digest=digest,
            manifest_digest=release.manifest_digest,
            sequence=release.sequence,
            security_version=release.security_version,
            version=release.version,
            envelope=envelope,
            parts=parts,
        )
        self._node.loader.finish(header, envelope)
        self._node.loader.mark_pending(self._node.now())

    def reboot(self) -> None:
        """Hours may lie between commit and reboot: a therapy that has begun since is not cut off by it."""
        if self._accepted is None:
            raise Refused("session.order", "nothing was accepted")
        self._check_document(*self._accepted[2])
        self._node.check_ready(self._accepted[0])
