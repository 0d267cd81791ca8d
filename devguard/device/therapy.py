"""The therapy a device gives, which an update may never disturb.

Insulin: a basal profile that runs all day and a bolus that may be under way; pacing: a session with an
implant. `idle` says whether an update may start; `settings_digest` says whether one changed anything. The update
conversation holds only `TherapyView`, which has no way in: profile and settings are made at the factory or entered
with the device's own keys, as boluses, sessions and alarms are. Nothing here knows of images, grants or sessions of the
update conversation. Doses are milliunits, never floats. No patient data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

from devguard import wire
from devguard.device import fields
from devguard.device.models import Model, TherapyKind
from devguard.errors import Refused

FORMAT: Final = 2
MINUTES_OF_DAY: Final = 1440
MAX_GAP: Final = 300
"""Seconds between ticks above which the device was off and delivered nothing."""
_WHAT: Final = "therapy"
_START: Final = bytes(32)
_UNIT_SECONDS: Final = 3600
MAX_ALARMS: Final = 16
UNPROVEN: Final = "settings-damaged"
"""The alarm of a device that gives its safe therapy, because what was stored is not proven to be its own."""


class TherapyView(Protocol):
    """What the rest of the device may know of a therapy: it looks, and that is all.

    `idle`: nothing is under way that an update would disturb. `alarms`: names of those that are open. `damage`: what is
    wrong with the settings as they were stored, as flags of the report; then the device gives its safe therapy.
    """

    @property
    def idle(self) -> bool: ...

    @property
    def alarms(self) -> tuple[str, ...]: ...

    @property
    def damage(self) -> tuple[str, ...]: ...

    @property
    def history_digest(self) -> bytes: ...

    def settings_digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a therapy goes by: settings, and the basal profile of a pump. It changes by the device's own keys only."""

    settings: Mapping[str, int]
    basal: tuple[tuple[int, int], ...] = ()

    def encode(self) -> bytes:
        """Deterministic CBOR."""
        return wire.encode([dict(self.settings), [list(segment) for segment in self.basal]])


class KeyedTherapy:
    """What both therapies have in common: alarms, and a history that is a hash chain."""

    state: Any

    @property
    def alarms(self) -> tuple[str, ...]:
        """Names of the alarms that are open."""
        return tuple(self.state.alarms)

    @property
    def damage(self) -> tuple[str, ...]:
        """What is wrong with the settings as they were stored."""
        return tuple(self.state.damage)

    @property
    def history_digest(self) -> bytes:
        """Head of the chain over what was begun, given, stopped, and every alarm."""
        return bytes(self.state.history)

    def open_alarm(self, name: str, now: int) -> None:
        """The device itself: an alarm that stays open until somebody sees to it."""
        if name not in self.state.alarms and len(self.state.alarms) < MAX_ALARMS:
            history = _chain(self.state.history, ["alarm", name, now])
            self.state = replace(self.state, alarms=(*self.state.alarms, name), history=history)

    def note_damage(self, damage: tuple[str, ...]) -> None:
        """What was found wrong with the settings as they were stored."""
        self.state = replace(self.state, damage=damage)

    def close_alarm(self, name: str, now: int) -> None:
        """The device's own key: an alarm has been seen to."""
        if name in self.state.alarms:
            left = tuple(one for one in self.state.alarms if one != name)
            self.state = replace(self.state, alarms=left, history=_chain(self.state.history, ["closed", name, now]))


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
    alarms: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()


class PumpTherapy(KeyedTherapy):
    """Insulin: basal delivery goes on through an update, for it is a motor controller of its own; a bolus does not."""

    state: PumpState

    def __init__(self, state: PumpState) -> None:
        self.state = state

    @property
    def idle(self) -> bool:
        """No bolus is under way."""
        return self.state.bolus is None

    @property
    def plan(self) -> Plan:
        """Settings and basal profile."""
        return Plan(self.state.settings, self.state.basal)

    def settings_digest(self) -> bytes:
        """SHA-256 over profile and settings; the same before and after every update."""
        return hashlib.sha256(wire.encode([list(map(list, self.state.basal)), dict(self.state.settings)])).digest()

    def basal_rate(self, now: int) -> int:
        """Milliunits an hour at `now`, by minute of day UTC."""
        minute = now // 60 % MINUTES_OF_DAY
        return [rate for start, rate in self.state.basal if start <= minute][-1]

    def tick(self, now: int) -> None:
        """Delivers what is due since the last tick; a longer gap than `MAX_GAP` was power off and delivers nothing, and
        ends a bolus that was under way: nobody knows any more whether it is still wanted."""
        last = self.state.last_tick
        was_off = last is not None and not 0 <= now - last <= MAX_GAP
        if was_off and self.state.bolus is not None:
            self._end_bolus("interrupted")
        elapsed = 0 if last is None or was_off else now - last
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

    def with_plan(self, plan: Plan) -> PumpTherapy:
        """The same course of therapy under another plan."""
        return PumpTherapy(replace(self.state, settings=plan.settings, basal=plan.basal))

    def encode(self) -> bytes:
        """Deterministic CBOR of the whole state, save what is wrong with stored settings: that is found anew."""
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
                8: list(state.alarms),
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
    alarms: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()


class PacingTherapy(KeyedTherapy):
    """Pacing: while a session with an implant is open, temporary pacing may depend on the programmer."""

    state: PacingState

    def __init__(self, state: PacingState) -> None:
        self.state = state

    @property
    def idle(self) -> bool:
        """No session with an implant is open."""
        return self.state.session is None

    @property
    def plan(self) -> Plan:
        """The settings."""
        return Plan(self.state.settings)

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

    def with_plan(self, plan: Plan) -> PacingTherapy:
        """The same course of therapy under another plan."""
        return PacingTherapy(replace(self.state, settings=plan.settings))

    def encode(self) -> bytes:
        """Deterministic CBOR of the whole state, save what is wrong with stored settings: that is found anew."""
        session = self.state.session
        return wire.encode(
            {
                0: FORMAT,
                1: str(TherapyKind.PACING),
                2: dict(self.state.settings),
                3: session and list(session),
                4: self.state.history,
                5: list(self.state.alarms),
            }
        )

    def _close(self, how: str, now: int) -> None:
        self.state = replace(self.state, session=None, history=_chain(self.state.history, [how, now]))


Therapy: TypeAlias = PumpTherapy | PacingTherapy


def new_therapy(model: Model) -> Therapy:
    """The therapy of a device fresh from the factory."""
    defaults = model.therapy
    if defaults.kind is TherapyKind.INSULIN:
        return PumpTherapy(PumpState(defaults.basal, defaults.settings))
    return PacingTherapy(PacingState(defaults.settings))


def safe_therapy(course: Therapy, model: Model, damage: tuple[str, ...]) -> Therapy:
    """What a device gives while its stored settings are not proven to be its own: the model's safe plan, nothing that
    was under way, and an alarm that stays open."""
    safe = course.with_plan(Plan(model.therapy.safe_settings, model.therapy.safe_basal))
    now = 0
    if isinstance(safe, PumpTherapy):
        now = safe.state.last_tick or 0
        safe.stop_bolus(now)
    else:
        safe.end_session(now)
    safe.open_alarm(UNPROVEN, now)
    safe.note_damage(damage)
    return safe


def decode_plan(data: bytes, model: Model) -> Plan:
    """The plan in stored bytes, of a device of that model; `Refused("device.state")` for anything else."""
    settings, basal = fields.items(fields.load(data, _WHAT), _WHAT, count=2)
    pump = model.therapy.kind is TherapyKind.INSULIN
    if not pump and basal != []:
        raise fields.damaged(_WHAT)
    return Plan(_settings(settings, model), _profile(basal) if pump else ())


def decode_therapy(data: bytes, model: Model) -> Therapy:
    """The stored therapy of a device of that model; `Refused("device.state")` for anything else."""
    value = fields.load(data, _WHAT)
    pump = model.therapy.kind is TherapyKind.INSULIN
    parts = fields.fields(value, range(9) if pump else range(6), _WHAT)
    if parts[0] != FORMAT or parts[1] != model.therapy.kind:
        raise fields.damaged(_WHAT)
    settings = _settings(parts[2], model)
    if not pump:
        times = None if parts[3] is None else fields.items(parts[3], _WHAT, count=2)
        session = times and (fields.uint(times[0], _WHAT), fields.uint(times[1], _WHAT))
        alarms = _alarms(parts[5])
        return PacingTherapy(PacingState(settings, session or None, fields.blob(parts[4], _WHAT, 32), alarms))
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
            _alarms(parts[8]),
        )
    )


def _alarms(value: object) -> tuple[str, ...]:
    names = tuple(fields.text(name, _WHAT, 64) for name in fields.items(value, _WHAT, limit=MAX_ALARMS))
    if len(set(names)) != len(names):
        raise fields.damaged(_WHAT)
    return names


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
