"""The steps of a judgement that are about signatures: are there any, whose, valid, hybrid, enough persons.

A block whose key counts for nothing (unknown, of another role, revoked, out of its time) is listed and cannot
spoil what enough others have signed; where they are not enough, that key is the reason named. A block that names
a listed key and is not its signature always refuses. Source: devguard formats, "Trust document".
"""

from __future__ import annotations

from collections.abc import Sequence

from devguard.errors import Refused
from devguard.trust.model import TrustDocument
from devguard.trust.quorum import ReleaseQuorum, count_release
from devguard.verdict.blocks import Block
from devguard.verdict.steps import Steps


def judge_signatures(steps: Steps, blocks: Sequence[Block], trust: TrustDocument, now: int, *, kept: bool) -> None:
    """Takes the steps "signed" to "threshold" over judged blocks."""
    good = [(block.thumbprint, block.algorithm) for block in blocks if block.counts]
    quorum = count_release(trust, good, now, kept=kept)
    steps.step("signed", lambda: _signed(blocks))
    steps.step("keys", lambda: _keys(blocks, quorum))
    steps.step("algorithms", lambda: _algorithms(blocks))
    steps.step("signatures", lambda: _signatures(blocks))
    steps.step("hybrid", lambda: _hybrid(quorum))
    steps.step("threshold", lambda: _threshold(quorum))


def _signed(blocks: Sequence[Block]) -> str:
    if not blocks:
        raise Refused("signature.missing", "the envelope carries no signature block")
    for block in blocks:
        if block.form is not None:
            raise block.form
    return f"{len(blocks)} signature block(s)"


def _keys(blocks: Sequence[Block], quorum: ReleaseQuorum) -> str:
    for block in blocks:
        if block.fault is not None and block.fault.code.startswith("key."):
            raise block.fault
    standing = [block.standing for block in blocks if block.standing is not None]
    if standing and not quorum:
        raise standing[0]
    ignored = f"; {len(standing)} block(s) by keys that do not count" if standing else ""
    return f"{len(blocks) - len(standing)} block(s) by keys of the trust document{ignored}"


def _algorithms(blocks: Sequence[Block]) -> str:
    for block in blocks:
        if block.fault is not None and block.fault.code == "signature.algorithm":
            raise block.fault
    return "every algorithm is one its key may use"


def _signatures(blocks: Sequence[Block]) -> str:
    for block in blocks:
        if block.fault is not None:
            raise block.fault
    valid = sum(block.counts for block in blocks)
    if not valid:
        raise Refused("signature.missing", "there is no valid signature by a key that counts")
    return f"{valid} valid signature(s) over the manifest's digest"


def _hybrid(quorum: ReleaseQuorum) -> str:
    kinds = (("classical", quorum.classical), ("post-quantum", quorum.post_quantum))
    lacking = [kind for kind, there in kinds if not there]
    if lacking:
        raise Refused("signature.hybrid", f"no {' and no '.join(lacking)} signature by a release or quality key")
    return "a classical and a post-quantum signature"


def _threshold(quorum: ReleaseQuorum) -> str:
    if not quorum.seated:
        raise Refused("signature.threshold", quorum.explanation)
    return ", ".join(f"{role}: {person}" for role, person in quorum.assigned)
