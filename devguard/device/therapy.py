"""The therapy a device gives, which an update may never disturb.

Insulin: a basal profile that runs all day and a bolus that may be under way; pacing: a session with an
implant. `idle` says whether an update may start; `settings_digest` says whether one changed anything. The update
conversation holds only the `Therapy` protocol, which has no way in: profile and settings are made at the factory,
and boluses and sessions belong to the device's own keys. Doses are milliunits, never floats. No patient data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Protocol

from devguard import wire
from devguard.device import fields
from devguard.device.models import Model, TherapyKind
from devguard.errors import Refused

FORMAT: Final = 1
MINUTES_OF_DAY: Final = 1440
MAX_GAP: Final = 300
"""Seconds between ticks above which the device was off and delivered nothing."""
_WHAT: Final = "therapy"
_START: Final = bytes(32)
_UNIT_SECONDS: Final = 3600


class Therapy(Protocol):
    """What the rest of the device may know of a therapy: look, and let time pass."""

    @property
    def idle(self) -> bool: ...

    @property
    def history_digest(self) -> bytes: ...

    def settings_digest(self) -> bytes: ...

    def tick(self, now: int) -> None: ...

    def encode(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Bolus:
    """A bolus under way: milliunits wanted and given, milliunits per minute, time it began."""

    amount: int
    delivered: int
    speed: int
    began: int


@dataclass(frozen=True, slots=True)
class PumpState:
    """All a pump keeps. `basal_fraction` is delivered insulin below a milliunit, in milliunit-seconds per hour."""

    basal: tuple[tuple[int, int], ...]
    settings: Mapping[str, int]
    bolus: Bolus | None = None
    basal_delivered: int = 0
    basal_fraction: int = 0
    bolus_delivered: int = 0
    last_tick: int | None = None
    history: bytes = field(default=_START)


class PumpTherapy:
    """Insulin: basal delivery goes on through an update, for it is a motor controller of its own; a bolus does not."""

    def __init__(self, state: PumpState) -> None:
        self.state = state

    @property
    def idle(self) -> bool:
        """No bolus is under way."""
        return self.state.bolus is None

    @property
    def history_digest(self) -> bytes:
        """Head of the chain over every bolus begun, given and stopped."""
        return self.state.history

    def settings_digest(self) -> bytes:
        """SHA-256 over profile and settings; the same before and after every update."""
        return hashlib.sha256(wire.encode([list(map(list, self.state.basal)), dict(self.state.settings)])).digest()

    def basal_rate(self, now: int) -> int:
        """Milliunits an hour at `now`, by minute of day UTC."""
        minute = now // 60 % MINUTES_OF_DAY
        return [rate for start, rate in self.state.basal if start <= minute][-1]

    def tick(self, now: int) -> None:
        """Delivers what is due since the last tick; a longer gap than `MAX_GAP` was power off and delivers nothing."""
        last = self.state.last_tick
        elapsed = now - last if last is not None and 0 <= now - last <= MAX_GAP else 0
        due = self.state.basal_fraction + elapsed * self.basal_rate(now)
        self.state = replace(
            self.state,
            basal_delivered=self.state.basal_delivered + due // _UNIT_SECONDS,
            basal_fraction=due % _UNIT_SECONDS,
            last_tick=now,
        )
        bolus = self.state.bolus
        if bolus is not None:
            given = min(bolus.amount, bolus.delivered + elapsed * bolus.speed // 60)
            self.state = replace(self.state, bolus=replace(bolus, delivered=given))
            if given == bolus.amount:
                self._end_bolus("given")

    def start_bolus(self, milliunits: int, now: int) -> None:
        """The pump's own key: begins a bolus.

        `Refused`: device.therapy-active while one runs, device.state outside the limits.
        """
        if self.state.bolus is not None:
            raise Refused("device.therapy-active", "a bolus is under way")
        if not 0 < milliunits <= self.state.settings["maximum_bolus_milliunits"]:
            raise Refused("device.state", f"a bolus of {milliunits} milliunits is outside the pump's limits")
        self.tick(now)
        bolus = Bolus(milliunits, 0, self.state.settings["bolus_speed_milliunits_per_minute"], now)
        self.state = replace(self.state, bolus=bolus, history=_chain(self.state.history, ["bolus", milliunits, now]))

    def stop_bolus(self, now: int) -> None:
        """The pump's own key: stops the bolus under way, if any."""
        self.tick(now)
        if self.state.bolus is not None:
            self._end_bolus("stopped")

    def encode(self) -> bytes:
        """Deterministic CBOR of the whole state."""
        state, bolus = self.state, self.state.bolus
        return wire.encode(
            {
                0: FORMAT,
                1: str(TherapyKind.INSULIN),
                2: dict(state.settings),
                3: [list(segment) for segment in state.basal],
                4: bolus and [bolus.amount, bolus.delivered, bolus.speed, bolus.began],
                5: [state.basal_delivered, state.basal_fraction, state.bolus_delivered],
                6: state.last_tick,
                7: state.history,
            }
        )

    def _end_bolus(self, how: str) -> None:
        bolus = self.state.bolus
        if bolus is not None:
            history = _chain(self.state.history, [how, bolus.delivered, self.state.last_tick or 0])
            total = self.state.bolus_delivered + bolus.delivered
            self.state = replace(self.state, bolus=None, bolus_delivered=total, history=history)


@dataclass(frozen=True, slots=True)
class PacingState:
    """All a programmer keeps of its therapy side. `session`: (began, last touched) while it talks to an implant."""

    settings: Mapping[str, int]
    session: tuple[int, int] | None = None
    history: bytes = field(default=_START)


class PacingTherapy:
    """Pacing: while a session with an implant is open, temporary pacing may depend on the programmer."""

    def __init__(self, state: PacingState) -> None:
        self.state = state

    @property
    def idle(self) -> bool:
        """No session with an implant is open."""
        return self.state.session is None

    @property
    def history_digest(self) -> bytes:
        """Head of the chain over every session opened and closed."""
        return self.state.history

    def settings_digest(self) -> bytes:
        """SHA-256 over the settings; the same before and after every update."""
        return hashlib.sha256(wire.encode(dict(self.state.settings))).digest()

    def tick(self, now: int) -> None:
        """Closes a session that nobody touched for the time-out of the settings."""
        session = self.state.session
        if session is not None and now - session[1] >= self.state.settings["session_timeout_seconds"]:
            self._close("timeout", now)

    def start_session(self, now: int) -> None:
        """The programmer's own key: opens a session with an implant, or touches the one that is open."""
        began = self.state.session[0] if self.state.session else now
        opened = self.state.history if self.state.session else _chain(self.state.history, ["session", now])
        self.state = replace(self.state, session=(began, now), history=opened)

    def end_session(self, now: int) -> None:
        """The programmer's own key: closes the session, if any."""
        if self.state.session is not None:
            self._close("closed", now)

    def encode(self) -> bytes:
        """Deterministic CBOR of the whole state."""
        session = self.state.session
        return wire.encode(
            {
                0: FORMAT,
                1: str(TherapyKind.PACING),
                2: dict(self.state.settings),
                3: session and list(session),
                4: self.state.history,
            }
        )

    def _close(self, how: str, now: int) -> None:
        self.state = replace(self.state, session=None, history=_chain(self.state.history, [how, now]))


def new_therapy(model: Model) -> PumpTherapy | PacingTherapy:
    """The therapy of a device fresh from the factory."""
    defaults = model.therapy
    if defaults.kind is TherapyKind.INSULIN:
        return PumpTherapy(PumpState(defaults.basal, defaults.settings))
    return PacingTherapy(PacingState(defaults.settings))


def decode_therapy(data: bytes, model: Model) -> PumpTherapy | PacingTherapy:
    """The stored therapy of a device of that model; `Refused("device.state")` for anything else."""
    value = fields.load(data, _WHAT)
    pump = model.therapy.kind is TherapyKind.INSULIN
    parts = fields.fields(value, range(8) if pump else range(5), _WHAT)
    if parts[0] != FORMAT or parts[1] != model.therapy.kind:
        raise fields.damaged(_WHAT)
    settings = _settings(parts[2], model)
    if not pump:
        times = None if parts[3] is None else fields.items(parts[3], _WHAT, count=2)
        session = times and (fields.uint(times[0], _WHAT), fields.uint(times[1], _WHAT))
        return PacingTherapy(PacingState(settings, session or None, fields.blob(parts[4], _WHAT, 32)))
    bolus = None if parts[4] is None else [fields.uint(n, _WHAT) for n in fields.items(parts[4], _WHAT, count=4)]
    basal, fraction, given = (fields.uint(number, _WHAT) for number in fields.items(parts[5], _WHAT, count=3))
    return PumpTherapy(
        PumpState(
            _profile(parts[3]),
            settings,
            Bolus(*bolus) if bolus else None,
            basal,
            fraction,
            given,
            fields.optional_uint(parts[6], _WHAT),
            fields.blob(parts[7], _WHAT, 32),
        )
    )


def _settings(value: object, model: Model) -> Mapping[str, int]:
    """Exactly the settings a device of this model has; a lost or foreign one means damage."""
    if not isinstance(value, dict) or set(value) != set(model.therapy.settings):
        raise fields.damaged(_WHAT)
    return MappingProxyType({name: fields.uint(number, _WHAT) for name, number in value.items()})


def _profile(value: object) -> tuple[tuple[int, int], ...]:
    """Segments that begin at midnight and grow, so that every minute of the day has one rate."""
    profile = []
    for segment in fields.items(value, _WHAT, limit=MINUTES_OF_DAY):
        start, rate = fields.items(segment, _WHAT, count=2)
        profile.append((fields.uint(start, _WHAT, MINUTES_OF_DAY - 1), fields.uint(rate, _WHAT)))
    starts = [start for start, _ in profile]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)):
        raise fields.damaged(_WHAT)
    return tuple(profile)


def _chain(head: bytes, record: list[object]) -> bytes:
    return hashlib.sha256(head + wire.encode(record)).digest()
