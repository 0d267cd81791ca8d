"""Who is asked for the second technician's approval while a push waits: a key in this room, a file, or a text.

An approver is called again and again, for the device hears a keep-alive in between, until it has the approval and the
second grant. A file holds the answer as `approve` writes it; a text is typed or scanned, and a slip is asked again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devguard.cli.approve import REQUEST_LIMIT
from devguard.errors import Malformed, Refused

if TYPE_CHECKING:
    from devguard.cli.context import Invocation
    from devguard.cose.sign import Signer
    from devguard.grant.claims import Grant
    from devguard.session.approval import ApprovalRequest

Answer = tuple[bytes, bytes]
Check = Callable[["Grant"], None]
TYPED: Final = "-"
_LINE_LIMIT: Final = 8 * 1024


@dataclass(slots=True)
class KeyApprover:
    """The second technician in this room, with key and grant at hand. `check`: what stands against the grant here."""

    signer: Signer
    grant: Grant
    check: Check

    def __call__(self, request: ApprovalRequest) -> Answer | None:
        """The approval, at once."""
        from devguard.session.approval import sign_approval

        if self.grant.holder.thumbprint != self.signer.key.thumbprint:
            raise Refused("grant.holder", "the second grant names another key")
        self.check(self.grant)
        digest = hashlib.sha256(self.grant.untagged).digest()
        return sign_approval(request, self.signer, digest), self.grant.untagged


@dataclass(slots=True)
class WaitingApprover:
    """The second technician elsewhere. `grant`: theirs, where the bench has it, so that a short code is enough;
    `place`: the file of the answer, None where it is typed, as `lines` (None: nothing yet) tell; `qr`: the request is
    drawn."""

    invocation: Invocation
    check: Check
    grant: Grant | None = None
    place: Path | None = None
    qr: bool = False
    lines: Callable[[], str | None] = field(default_factory=lambda: TypedLines(0))
    _asked: ApprovalRequest | None = field(default=None, init=False)
    _typed: str = field(default="", init=False)

    def __call__(self, request: ApprovalRequest) -> Answer | None:
        """The answer when it is there."""
        if self._asked is None:
            self._asked = self._ask(request)
            return None
        answer = self._from_file() if self.place is not None else self._from_text()
        if answer is not None:
            from devguard.grant.claims import read_grant

            self.check(read_grant(answer[1]))
        return answer

    def _ask(self, request: ApprovalRequest) -> ApprovalRequest:
        """Say what is asked, in every form that was wished for."""
        from devguard.session.armor import Kind, armor

        if self.grant is not None and request.asking is not None:
            digest = hashlib.sha256(self.grant.untagged).digest()
            request = replace(request, asking=replace(request.asking, second_grant=digest))
        text = armor(Kind.REQUEST, request.encode())
        note = self.invocation.note
        if self.place is not None:
            from devguard.cli.files import remove
            from devguard.custody.files import write_atomic

            remove(self.place)
            beside = self.place.with_name(self.place.name + ".request")
            write_atomic(beside, request.encode())
            note(f"waiting for a second technician: devguard approve {beside} --key K --grant G -o {self.place}")
        if self.place is None or self.qr:
            note(f"the request as text, for `devguard approve`:\n{text}")
        if self.qr:
            from devguard.cli.qr import drawn

            note(drawn(text))
        if self.place is None:
            note("type or scan the answer here, then an empty line:")
        return request

    def _from_file(self) -> Answer | None:
        from devguard.custody.files import read_limited
        from devguard.session.approval import read_answer
        from devguard.session.armor import dearmor, is_armor

        if self.place is None or not self.place.is_file():
            return None
        data = read_limited(self.place, 4 * REQUEST_LIMIT)
        return self._taken(*dearmor(data.decode("ascii", "replace"))) if is_armor(data) else read_answer(data)

    def _from_text(self) -> Answer | None:
        """Lines until they are an answer. Nothing that is typed ends the push; what does not fit is asked again."""
        from devguard.session.armor import Kind, dearmor

        while (line := self.lines()) is not None:
            self._typed += line.strip()
            if not self._typed:
                continue
            try:
                return self._taken(*dearmor(self._typed, bare=Kind.CODE))
            except (Malformed, Refused) as error:
                if line.strip() and len(self._typed) < _LINE_LIMIT:
                    continue  # more lines may follow
                self._typed = ""
                self.invocation.note(f"{error.code}: {error.message}; type or scan it again, then an empty line")
        return None

    def _taken(self, kind: str, data: bytes) -> Answer:
        """The answer in a text that fits its checksum."""
        from devguard.session.approval import approval_of, read_answer
        from devguard.session.armor import Kind

        if kind == Kind.ANSWER:
            return read_answer(data)
        if kind != Kind.CODE or self.grant is None or self._asked is None:
            what = "a code is enough only with --second-grant" if kind == Kind.CODE else "that is the request itself"
            raise Refused("grant.quorum", f"no answer: {what}")
        digest = hashlib.sha256(self.grant.untagged).digest()
        return approval_of(data, self._asked, self.grant.holder, digest), self.grant.untagged


@dataclass(slots=True)
class TypedLines:
    """The lines of a descriptor as they come, without waiting for any."""

    descriptor: int
    _waiting: bytes = field(default=b"", init=False)

    def __call__(self) -> str | None:
        """The next whole line, None when there is none yet; `grant.quorum` when the input has ended."""
        import select

        while b"\n" not in self._waiting:
            if len(self._waiting) > _LINE_LIMIT or not select.select([self.descriptor], [], [], 0)[0]:
                break
            data = os.read(self.descriptor, 4096)
            if not data and not self._waiting:
                raise Refused("grant.quorum", "standard input ended before an approval came")
            self._waiting += data or b"\n"
        line, end, rest = self._waiting.partition(b"\n")
        if not end and len(line) <= _LINE_LIMIT:
            return None
        self._waiting = rest
        return line.decode("ascii", "replace")
