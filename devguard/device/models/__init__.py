"""The device models devguard knows: one data file each, which also feeds the command line's choices.

A `Model` is facts for judging a release (`ModelFacts`) plus what the emulated device is made of. Sizes in bytes.
"""

from __future__ import annotations

import enum
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from types import MappingProxyType
from typing import Any

from devguard.device.header import MAX_PARTS, PART_ID
from devguard.device.layout import MAX_TRIALS, Layout
from devguard.device.supported import first_second
from devguard.errors import Malformed, Refused
from devguard.manifest.model import Clock, ModelFacts


class TherapyKind(enum.StrEnum):
    """What a model treats."""

    INSULIN = "insulin"
    PACING = "pacing"


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What the device can receive: bytes in flight, and bytes in one segment."""

    receive_window: int
    segment_max: int


class Uploads(enum.StrEnum):
    """Whether a model's SMP server takes an image from anybody who asks. AUTHORISED: from nobody over SMP, which knows
    no technician; such a model is updated by devguard's own conversation."""

    AUTHORISED = "authorised"
    ANYBODY = "anybody"


@dataclass(frozen=True, slots=True)
class SmpFacts:
    """The SMP server of the model: bytes of its longest message with length and checksum, messages it can hold, and
    whose uploads it takes. `only`: the model speaks nothing else."""

    buffer_size: int = 512
    buffer_count: int = 4
    uploads: Uploads = Uploads.AUTHORISED
    only: bool = False


@dataclass(frozen=True, slots=True)
class FlashTiming:
    """Typical times of the modelled part; informative, the emulator may use them."""

    erase_ms: int
    program_us: int


@dataclass(frozen=True, slots=True)
class TherapyDefaults:
    """Settings of a device fresh from the factory. `basal`: (start minute of day, milliunits per hour). `safe_*`: what
    it goes by while the settings it stored are not proven to be its own."""

    kind: TherapyKind
    basal: tuple[tuple[int, int], ...]
    settings: Mapping[str, int]
    safe_basal: tuple[tuple[int, int], ...]
    safe_settings: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Model:
    """One device model. `end_of_support`: epoch seconds, None where its data file does not say."""

    facts: ModelFacts
    layout: Layout
    link: LinkLimits
    timing: FlashTiming
    battery_percent: int
    minimum_battery_percent: int
    erase_budget_per_hour: int
    trial_boots: int
    self_test: tuple[str, ...]
    self_test_ms: int
    therapy: TherapyDefaults
    smp: SmpFacts = SmpFacts()
    end_of_support: int | None = None

    @property
    def name(self) -> str:
        """The model's name, as on the command line."""
        return self.facts.name

    @property
    def default_revision(self) -> str:
        """The hardware revision the emulator has unless told otherwise."""
        return self.facts.revisions[0]


def all_names() -> tuple[str, ...]:
    """Every model that has a data file, sorted by name."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


@functools.cache
def model_names() -> tuple[str, ...]:
    """Every model that speaks devguard's own protocol, sorted by name."""
    return tuple(name for name in all_names() if not load_model(name).smp.only)


@functools.cache
def load_model(name: str) -> Model:
    """The model of that name; `Refused("image.class")` for one devguard does not know."""
    if name not in all_names():
        raise Refused("image.class", f"unknown model {name!r}", f"known models: {', '.join(all_names())}")
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse_model(name, text)


def parse_model(name: str, text: str) -> Model:
    """The model in a data file's text; `Malformed("description.malformed")` naming what is wrong with it."""
    try:
        data = tomllib.loads(text)
        return _model(name, data)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise Malformed("description.malformed", f"model file {name}: {error}") from error


def _model(name: str, data: dict[str, Any]) -> Model:
    flash, limits, battery = data["flash"], data["limits"], data["battery"]
    layout = Layout(
        flash["slot_size"],
        flash["sector_size"],
        flash["page_size"],
        flash["write_size"],
        flash["envelope_size"],
        flash["erase_cycles"],
    )
    if flash["erase_cycles"] < 1:
        raise ValueError("erase_cycles must be at least 1")
    facts = ModelFacts(
        name=name,
        vendor=data["vendor"],
        revisions=tuple(data["revisions"]),
        flash_base=flash["base"],
        image_capacity=layout.image_capacity,
        battery_capacity_mwh=battery["capacity_mwh"],
        clock=Clock(data["clock"]),
        technicians=data["technicians"],
        components=tuple(data["components"]),
        fixed=tuple(data.get("fixed", ())),
    )
    named = (*facts.components, *facts.fixed)
    if not 1 <= len(facts.components) <= MAX_PARTS or len(set(named)) != len(named):
        raise ValueError(f"components must be 1 to {MAX_PARTS} different ones")
    if not all(PART_ID.fullmatch(one) for one in named):
        raise ValueError("a component id has at most 32 lower case letters, digits, dots, dashes and underscores")
    if not 1 <= limits["trial_boots"] <= MAX_TRIALS:
        raise ValueError(f"trial_boots must be 1 to {MAX_TRIALS}")
    return Model(
        facts=facts,
        layout=layout,
        link=LinkLimits(**data["link"]),
        timing=FlashTiming(flash["erase_ms"], flash["program_us"]),
        battery_percent=battery["percent"],
        minimum_battery_percent=battery["minimum_percent"],
        erase_budget_per_hour=limits["erase_budget_per_hour"],
        trial_boots=limits["trial_boots"],
        self_test=tuple(data["self_test"]["steps"]),
        self_test_ms=data["self_test"]["milliseconds"],
        therapy=_therapy(data["therapy"]),
        smp=_smp(data.get("smp", {})),
        end_of_support=first_second(data.get("end_of_support")),
    )


def _smp(data: dict[str, Any]) -> SmpFacts:
    facts = SmpFacts(**data)
    if not 64 <= facts.buffer_size <= 65_535 or not 1 <= facts.buffer_count <= 64:
        raise ValueError("smp: a buffer has 64 to 65535 bytes, and there are 1 to 64")
    return replace(facts, uploads=Uploads(facts.uploads))


def _therapy(data: dict[str, Any]) -> TherapyDefaults:
    settings, safe = dict(data["settings"]), dict(data["safe"])
    safe_basal = _basal(safe.pop("basal", ()))
    if not set(safe) <= set(settings):
        raise ValueError("therapy.safe names a setting the model does not have")
    return TherapyDefaults(
        TherapyKind(data["kind"]),
        _basal(data.get("basal", ())),
        MappingProxyType(settings),
        safe_basal,
        MappingProxyType({**settings, **safe}),
    )


def _basal(segments: Any) -> tuple[tuple[int, int], ...]:
    return tuple((int(start), int(rate)) for start, rate in segments)
