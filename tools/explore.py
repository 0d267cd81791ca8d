"""Every state that a device can be brought into, in a small model of it: handshake, grant, quorum, offer, boot.

    python tools/explore.py                       explores all of it, prints how much there was and what held
    python tools/explore.py --without NAME[,NAME] the same without these guards: an invariant has to fall, and how

The model is an abstraction. Keys cannot be forged, a digest names one thing, a session's id is fresh. What may be said
when is not modelled again: it is the table that the device itself goes by, `devguard.session.table`. The attacker is
the host of the first technician, with that technician's key, everything that was ever recorded, the flash of the device
and its power plug. It is explored for a model that asks for one technician and for one that asks for two; the second is
honest and approves NEXT, and nothing else, in any session. Releases: OLD (before), RUNS (installed), NEXT and OTHER
(signed, newer), EVIL (signed by nobody). A self-test may fail for any of them.

What has to hold in every state stands in `INVARIANTS`, one function each. What the device checks stands in `Guard`;
the real checks are tested one by one elsewhere. Here it is shown that together they suffice, that each in `ALONE` is
needed, and that one in `TWICE` may fail: that decision is made twice, in different ways.
"""

from __future__ import annotations

import argparse
import enum
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from devguard.session.table import TABLE, State
from devguard.session.verbs import Verb

SESSIONS: Final = 3  # the third can play what the first two left behind
BOOTS: Final = 3


class Release(enum.IntEnum):
    """What there is to install, in the order of its sequence numbers."""

    EVIL = 1
    OLD = 2
    RUNS = 3
    NEXT = 4
    OTHER = 5


SIGNED: Final = frozenset(Release) - {Release.EVIL}
SECURITY: Final = {Release.EVIL: 3, Release.OLD: 1, Release.RUNS: 2, Release.NEXT: 2, Release.OTHER: 3}
"""Security versions: the image before may run again where its own is not lower. EVIL says of itself what it likes."""


class Person(enum.Enum):
    """FIRST: the technician whose host the attacker is. SECOND: honest. STRANGER: no grant, no known key."""

    FIRST = 1
    SECOND = 2
    STRANGER = 3


class Guard(enum.Enum):
    """One check of the device."""

    HOLDER = "message_3 proves the key that the grant names"
    SCOPE = "the grant is for this device"
    FRESH = "an approval names this session"
    TWO = "the approval is by another person than the session's"
    SAME_RELEASE = "the approval names the offered release"
    SIGNED = "the offer carries the signatures that the trust document asks for"
    NEWER = "the offer is newer than what runs"
    USE = "a grant's use is spent on one release"
    COMMITTED = "the slot's digest is the offered one, at commit"
    PENDING = "the slot is the judged one, at boot"
    COUNTER = "an image below the security counter does not run"
    SEALED = "what runs has the digest that was sealed"
    TRIAL = "an image is sealed after its self-test"
    FALLBACK = "where the sealed image is damaged, the one before runs"


@dataclass(frozen=True)
class Approval:
    """What the second technician signed, or the first with a key of their own."""

    session: int
    by: Person
    release: Release


@dataclass(frozen=True)
class Device:
    """The device, and with `recorded` what the attacker has. Fields in capitals in the comments are ghosts: only the
    invariants look at them."""

    state: State = State.CLOSED
    session: int = 0
    holder: Person | None = None
    proved: bool = True  # GHOST: the holder's key was really proved, for a grant on this device
    approved: Approval | None = None
    accepted: Release | None = None
    spent: Release | None = None
    uses: int = 0  # GHOST: releases the one grant was spent on
    slot: Release | None = None
    pending: Release | None = None
    sealed: Release = Release.RUNS
    previous: Release | None = None
    primary: Release | None = Release.RUNS  # what the first slot really holds; None: damaged
    running: Release | None = Release.RUNS
    counter: int = SECURITY[Release.RUNS]
    highest: int = SECURITY[Release.RUNS]  # GHOST: of all that was ever confirmed
    tested: bool = True  # GHOST: what was sealed last had passed its self-test
    quorum: bool = True  # GHOST: what was accepted last had two persons, in that session, for that release
    boots: int = 0
    neither: bool = False  # GHOST: the last boot ran nothing although something was whole
    recorded: frozenset[Approval] = frozenset()
    technicians: int = 2


Step = tuple[str, Device]
Without = frozenset[Guard]


def steps(now: Device, without: Without) -> Iterator[Step]:
    """Everything that can happen next."""
    yield from _connect(now, without)
    yield from _say(now, without)
    yield from _flash(now)
    if now.boots < BOOTS:
        yield from _boot("the power goes", now, without)


def _allowed(now: Device, verb: Verb) -> State | None:
    return TABLE.get((now.state, verb))


def _connect(now: Device, without: Without) -> Iterator[Step]:
    """A handshake with anybody's key, under the first technician's grant for this device or for another one."""
    if now.session >= SESSIONS:
        return
    for who in Person:
        for here in (True, False):
            holds = who is Person.FIRST or Guard.HOLDER in without
            covers = here or Guard.SCOPE in without
            if holds and covers:
                yield (
                    f"{who.name} opens a session{'' if here else ' with a grant for another device'}",
                    replace(
                        now,
                        state=State.AUTHORISED,
                        session=now.session + 1,
                        holder=Person.FIRST if holds and who is not Person.SECOND else who,
                        proved=who is Person.FIRST and here,
                        approved=None,
                        accepted=None,
                    ),
                )


def _say(now: Device, without: Without) -> Iterator[Step]:
    if _allowed(now, Verb.APPROVE) and now.technicians > 1:
        yield from _approve(now, without)
    if (after := _allowed(now, Verb.OFFER)) is not None:
        yield from _offer(now, after, without)
    if _allowed(now, Verb.DATA):
        for release in Release:
            yield f"data: the bytes of {release.name}", replace(now, slot=release)
    whole = now.slot is now.accepted or Guard.COMMITTED in without
    if (after := _allowed(now, Verb.COMMIT)) is not None and now.accepted is not None and whole:
        yield "commit", replace(now, state=after, pending=now.accepted)
    if _allowed(now, Verb.REBOOT) and now.boots < BOOTS:
        yield from _boot("reboot", now, without)
    if _allowed(now, Verb.CLOSE):
        yield "close", replace(now, state=State.CLOSED, approved=None, accepted=None)


def _approve(now: Device, without: Without) -> Iterator[Step]:
    """An approval from the second technician, one of the first's own, or one that was recorded."""
    honest = Approval(now.session, Person.SECOND, Release.NEXT)
    own = [Approval(now.session, Person.FIRST, release) for release in Release]
    for one in {honest, *own, *now.recorded}:
        fresh = one.session == now.session or Guard.FRESH in without
        another = one.by is not now.holder or Guard.TWO in without
        if fresh and another:
            what = f"approve: {one.by.name} for {one.release.name} in session {one.session}"
            kept = now.recorded | {one} if one.by is Person.SECOND else now.recorded
            yield what, replace(now, approved=one, recorded=kept)


def _offer(now: Device, after: State, without: Without) -> Iterator[Step]:
    for release in Release:
        given, alone = now.approved, now.technicians < 2
        quorum = alone or (given is not None and (given.release is release or Guard.SAME_RELEASE in without))
        signed = release in SIGNED or Guard.SIGNED in without
        newer = release > now.sealed or release is Release.EVIL or Guard.NEWER in without
        use = now.spent in (None, release) or Guard.USE in without
        if not (quorum and signed and newer and use):
            continue
        both = alone or given == Approval(now.session, Person.SECOND, release)
        again = now.spent is release
        yield (
            f"offer {release.name}",
            replace(
                now,
                state=after,
                accepted=release,
                spent=release,
                uses=now.uses if again else now.uses + 1,
                quorum=both and now.proved,
                slot=now.slot if again else None,  # the slot is erased; the image before goes with it
                previous=now.previous if again else None,
            ),
        )


def _flash(now: Device) -> Iterator[Step]:
    """The attacker at the flash: any image into any slot. Counters and seals lie elsewhere."""
    for release in Release:
        if now.slot is not release:
            yield f"flash: {release.name} into the second slot", replace(now, slot=release)
    if now.primary is now.sealed:
        yield "flash: EVIL into the first slot", replace(now, primary=Release.EVIL)


def _boot(name: str, before: Device, without: Without) -> Iterator[Step]:
    """What the bootloader makes of it, with a self-test that passes and with one that fails."""
    now = replace(before, state=State.CLOSED, approved=None, accepted=None, boots=before.boots + 1)
    judged, found = now.pending, now.slot
    good = found is not None and (found is judged or Guard.PENDING in without)
    if judged is None or not good or (SECURITY[found or judged] < now.counter and Guard.COUNTER not in without):
        settled = replace(now, pending=None)
        yield name, _up(settled, without)
        return
    image = found or judged
    raised = max(now.counter, SECURITY[image])
    sealed = replace(now, pending=None, previous=now.sealed, slot=now.primary, sealed=image, primary=image)
    for passed in (True, False):
        if passed or Guard.TRIAL in without:
            highest = max(now.highest, SECURITY[image])
            after = replace(sealed, counter=raised, highest=highest, tested=passed)
        else:
            after = replace(now, pending=None, slot=None)
        told = f"{name}, the self-test of {image.name} {'passes' if passed else 'fails'}"
        yield told, _up(after, without)


def _up(now: Device, without: Without) -> Device:
    running = _runs(now, without)
    kept = now.previous is not None and SECURITY[now.previous] >= now.counter and now.slot is now.previous
    return replace(now, running=running, neither=running is None and (kept or now.primary is now.sealed))


def _runs(now: Device, without: Without) -> Release | None:
    """Which image runs: the sealed one if it proves to be it, else the one before, else none."""
    if now.primary is now.sealed or Guard.SEALED in without:
        return now.primary
    known = (now.sealed, now.previous) if Guard.FALLBACK not in without else ()
    for wanted in known:
        low = wanted is not None and SECURITY[wanted] < now.counter and Guard.COUNTER not in without
        if wanted is not None and now.slot is wanted and not low:
            return wanted
    return None


# What has to hold. Each gives True where it does.


def only_judged_code_runs(now: Device) -> bool:
    """No install without a release: what runs is signed."""
    return now.running is None or now.running in SIGNED


def no_way_back(now: Device) -> bool:
    """No counter regress, and nothing runs below the security version of what was ever confirmed."""
    return now.counter >= now.highest and (now.running is None or SECURITY[now.running] >= now.highest)


def persons_in_this_session(now: Device) -> bool:
    """No install without a grant and a fresh session: who has to be there was there, in this one, for this release."""
    return now.accepted is None or now.quorum


def one_use(now: Device) -> bool:
    """A grant's use is spent once."""
    return now.uses <= 1


def confirmed_after_its_test(now: Device) -> bool:
    """What was sealed had passed its self-test."""
    return now.tested


def never_neither(now: Device) -> bool:
    """Old or new, never neither, while the attacker has left whole what may run."""
    return not now.neither


INVARIANTS: Final[tuple[Callable[[Device], bool], ...]] = (
    only_judged_code_runs,
    no_way_back,
    persons_in_this_session,
    one_use,
    confirmed_after_its_test,
    never_neither,
)
TWICE: Final = {Guard.NEWER: Guard.COUNTER, Guard.COMMITTED: Guard.PENDING}
"""A guard -> the second look behind it, made at another time from other data: the first may fail alone."""
ALONE: Final = frozenset(Guard) - TWICE.keys()


@dataclass(frozen=True)
class Found:
    """What an exploration came to. `broken`: the invariant that fell, None where all held; `way`: how that came."""

    states: int
    steps: int
    broken: str | None
    way: tuple[str, ...]


def explore(without: Without = frozenset()) -> Found:
    """Every state in order of its distance from the first, until one breaks an invariant or there are no more."""
    came: dict[Device, tuple[str, Device] | None] = {Device(technicians=count): None for count in (1, 2)}
    waiting = deque(came)
    taken = 0
    while waiting:
        now = waiting.popleft()
        for name, after in steps(now, without):
            taken += 1
            if after in came:
                continue
            came[after] = (name, now)
            fallen = next((one.__name__ for one in INVARIANTS if not one(after)), None)
            if fallen is not None:
                return Found(len(came), taken, fallen, _way(came, after))
            waiting.append(after)
    return Found(len(came), taken, None, ())


def _way(came: dict[Device, tuple[str, Device] | None], end: Device) -> tuple[str, ...]:
    names: list[str] = []
    at = came[end]
    while at is not None:
        names.append(at[0])
        at = came[at[1]]
    return tuple(reversed(names))


def main() -> int:
    """Print what was found; 1 when an invariant fell, or did not fall without a guard."""
    parser = argparse.ArgumentParser(description="explore the model of the device")
    names = ", ".join(one.name for one in Guard)
    parser.add_argument("--without", metavar="NAME[,NAME]", help=f"leave guards out: {names}")
    given = parser.parse_args().without
    found = explore(frozenset() if given is None else frozenset(Guard[name] for name in given.split(",")))
    print(f"{found.states} states, {found.steps} steps")
    if found.broken is None:
        print("every invariant held: " + ", ".join(one.__name__.replace("_", " ") for one in INVARIANTS))
        return 0 if given is None else 1
    print(f"{found.broken.replace('_', ' ')} does not hold; the way there:")
    for number, name in enumerate(found.way, 1):
        print(f"  {number}. {name}")
    return 1 if given is None else 0


if __name__ == "__main__":
    sys.exit(main())
