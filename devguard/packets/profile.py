"""The PACEMAKER parameter profile: programmable ranges with units, pinned to one published revision.

The ranges are those of the PACEMAKER System Specification released for academic use in January 2007 (Boston
Scientific), appendix A. A later course revision gives amplitude, width and sensitivity other units and ranges; the two
must never be mixed, so every answer names the profile. Values are integers in the unit given, so that no rounding
decides. This says whether a value could be programmed at all, never whether it is right for a patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROFILE: Final = "pacemaker-2007"
Steps = tuple[tuple[int, int, int], ...]
"""(first, last, step) of each part of a range, both ends included."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One programmable parameter. `unit`: of all its numbers; `off`: whether it can be switched off; `tolerance`: what
    the device may deviate by, in the words of the specification."""

    name: str
    unit: str
    steps: Steps
    nominal: int | None
    tolerance: str
    off: bool = False

    def holds(self, value: int) -> bool:
        """Whether this value can be programmed."""
        return any(low <= value <= high and (value - low) % step == 0 for low, high, step in self.steps)


_RATES: Final = ((30, 50, 5), (50, 90, 1), (90, 175, 5))
_AMPLITUDE: Final = ((500, 3200, 100), (3500, 7000, 500))
_WIDTH: Final = ((50, 50, 1), (100, 1900, 100))
_PERIOD: Final = ((150, 500, 10),)
_ROWS: Final = (
    Parameter("lower_rate_limit", "ppm", _RATES, 60, "8 ms"),
    Parameter("upper_rate_limit", "ppm", ((50, 175, 5),), 120, "8 ms"),
    Parameter("maximum_sensor_rate", "ppm", ((50, 175, 5),), 120, "4 ms"),
    Parameter("fixed_av_delay", "ms", ((70, 300, 10),), 150, "8 ms"),
    Parameter("sensed_av_delay_offset", "ms", ((-100, -10, 10),), None, "1 ms", off=True),
    Parameter("atrial_amplitude", "mV", _AMPLITUDE, 3500, "12 %", off=True),
    Parameter("ventricular_amplitude", "mV", _AMPLITUDE, 3500, "12 %", off=True),
    Parameter("atrial_pulse_width", "us", _WIDTH, 400, "200 us"),
    Parameter("ventricular_pulse_width", "us", _WIDTH, 400, "200 us"),
    Parameter("atrial_sensitivity", "uV", ((250, 750, 250), (1000, 10_000, 500)), 750, "20 %"),
    Parameter("ventricular_sensitivity", "uV", ((250, 750, 250), (1000, 10_000, 500)), 2500, "20 %"),
    Parameter("ventricular_refractory_period", "ms", _PERIOD, 320, "8 ms"),
    Parameter("atrial_refractory_period", "ms", _PERIOD, 250, "8 ms"),
    Parameter("post_ventricular_atrial_refractory_period", "ms", _PERIOD, 250, "8 ms"),
    Parameter("pvarp_extension", "ms", ((50, 400, 50),), None, "8 ms", off=True),
    Parameter("hysteresis_rate_limit", "ppm", _RATES, None, "8 ms", off=True),
    Parameter("rate_smoothing", "percent", ((3, 21, 3), (25, 25, 1)), None, "1 %", off=True),
    Parameter("atr_duration", "cardiac cycles", ((10, 10, 1), (20, 80, 20), (100, 2000, 100)), 20, "1 cycle"),
    Parameter("atr_fallback_time", "min", ((1, 5, 1),), 1, "1 cycle"),
    Parameter("ventricular_blanking", "ms", ((30, 60, 10),), 40, "-"),
    Parameter("activity_threshold", "level of seven", ((1, 7, 1),), 4, "-"),
    Parameter("reaction_time", "s", ((10, 50, 10),), 30, "3 s"),
    Parameter("response_factor", "factor", ((1, 16, 1),), 8, "-"),
    Parameter("recovery_time", "min", ((2, 16, 1),), 5, "30 s"),
)
PARAMETERS: Final = {parameter.name: parameter for parameter in _ROWS}


def outside(values: dict[str, int]) -> list[str]:
    """The named values that this profile cannot program, as `name value unit`; names it does not know are an error."""
    wrong = []
    for name, value in values.items():
        parameter = PARAMETERS[name]
        if not (parameter.holds(value) or (parameter.off and value == 0)):
            wrong.append(f"{name} {value} {parameter.unit}")
    return wrong
