"""`devguard bench link`: one push over a measured line, virtual or real, and how much of the line it used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.line import BAUD

if TYPE_CHECKING:
    from devguard.bench.link_run import Figures, Onlooker, Trial

KIB = 1024


class Finite(click.FloatRange):
    """A number in a range; "nan" is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.FloatRange`."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


class Cut(click.ParamType[tuple[float, float]]):
    """BEGIN:SECONDS as (begin, end)."""

    name = "cut"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """See `click.ParamType`."""
        begin, separator, seconds = str(value).partition(":")
        try:
            begins, lasts = float(begin), float(seconds)
        except ValueError:
            begins, lasts = math.nan, math.nan
        if not (separator and 0 <= begins < math.inf and 0 < lasts < math.inf):
            self.fail(f"{value!r} is not BEGIN:SECONDS, such as 2:10", param, ctx)
        return begins, begins + lasts


@click.command(cls=Command)
@click.option(
    "--model", type=click.Choice(["insulin-pump", "pacemaker-programmer"]), default="insulin-pump", show_default=True
)
@click.option("--size", type=click.IntRange(2), default=256 * KIB, show_default=True, help="Bytes of image.")
@click.option("--baud", type=click.IntRange(300, 4_000_000), default=BAUD, show_default=True, help="Line speed.")
@click.option(
    "--latency-ms", type=Finite(0, 10_000), default=2.0, show_default=True, help="One way, beside the bytes' own time."
)
@click.option(
    "--ftdi-ms",
    type=Finite(0, 1000),
    default=0.0,
    show_default=True,
    help="Timer of a USB adapter that keeps short answers back (0: none).",
)
@click.option("--ber", type=Finite(0, 0.1), default=0.0, show_default=True, help="Chance of a bit to flip.")
@click.option("--drop", type=Finite(0, 0.1), default=0.0, show_default=True, help="Chance of a byte to be lost.")
@click.option("--double", type=Finite(0, 0.1), default=0.0, show_default=True, help="Chance of a byte to come twice.")
@click.option(
    "--noise",
    type=Finite(0, 0.1),
    default=0.0,
    show_default=True,
    help="Chance of a byte to have a burst of noise before it.",
)
@click.option(
    "--cut",
    "cuts",
    type=Cut(),
    multiple=True,
    metavar="BEGIN:SECONDS",
    help="The cable is out so long, from so many seconds after the first byte on. May be given again.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Where errors fall.")
@click.option("--flash-timing", is_flag=True, help="Count the time that the model's flash takes.")
@click.option("--real", is_flag=True, help="In real time, over pseudo-terminals, with the device a process of its own.")
@click.pass_obj
def link(invocation: Invocation, /, **options: Any) -> None:
    """Push an image to an emulated device over a line that is slow, far or bad, and measure.

    The clock is virtual, the rest is real: the device's own judgement, both link engines, encryption. The same seed
    gives the same figures. With --real the clock is real too, and what else this machine does is in the figures: where
    it had no time for the line they are void, and it says so.
    """
    from devguard.cli.progress import progress_bar

    real = options.pop("real")
    trial = _trial(options)
    with progress_bar(invocation, trial.size) as progress:
        figures = _run(real)(trial, progress)
    data = {**as_json(figures), "real": real}
    invocation.result(data, lambda: click.echo(text(data)))


def _run(real: bool) -> Callable[[Trial, Onlooker], Figures]:
    if real:
        from devguard.bench.pty_run import run_real

        return run_real
    from devguard.bench.link_run import run_virtual

    return run_virtual


def _trial(options: dict[str, Any]) -> Trial:
    from devguard.bench.impair import Damage
    from devguard.bench.link_run import Trial
    from devguard.bench.way import Shape
    from devguard.device.models import load_model

    model = load_model(options["model"])
    if options["size"] > model.facts.image_capacity:
        text = f"a {model.name} takes images of at most {model.facts.image_capacity} bytes"
        raise click.BadParameter(text, param_hint="--size")
    damage = Damage(**{kind: options[kind] for kind in ("ber", "drop", "double", "noise")})
    shape = Shape(options["baud"], options["latency_ms"] / 1000, options["ftdi_ms"] / 1000, damage, options["cuts"])
    return Trial(model, options["size"], shape, options["seed"], options["flash_timing"])


def as_json(figures: Figures) -> dict[str, Any]:
    """The figures under the contract's keys; seconds to the microsecond."""
    trial, shape = figures.trial, figures.trial.shape
    return {
        "payload_bytes": trial.size,
        "wire_bytes_forward": figures.wire_forward,
        "wire_bytes_reverse": figures.wire_reverse,
        "seconds": round(figures.data_seconds, 6),
        "ideal_seconds": round(figures.ideal_seconds, 6),
        "line_efficiency": round(figures.line_efficiency, 6),
        "retransmits": figures.retransmits,
        "baud": shape.baud,
        "latency_ms": round(shape.latency * 1000, 6),
        "ber": shape.damage.ber,
        "session_seconds": round(figures.session_seconds, 6),
        "session_efficiency": round(figures.session_efficiency, 6),
        "model": trial.model.name,
        "ftdi_ms": round(shape.return_timer * 1000, 6),
        "drop": shape.damage.drop,
        "double": shape.damage.double,
        "noise": shape.damage.noise,
        "cuts": [[begin, round(end - begin, 6)] for begin, end in shape.cuts],
        "seed": trial.seed,
        "flash_timing": trial.flash_timing,
        "late_seconds": round(figures.late_seconds, 6),
        "paced": figures.paced,
    }


_HARM: Final = {"ber": "bit errors", "drop": "dropped bytes", "double": "doubled bytes", "noise": "noise bursts"}


def text(data: dict[str, Any]) -> str:
    """The same for people."""
    line = [f"{data['baud']} baud", f"{data['latency_ms']:g} ms one way"]
    line += [f"adapter timer {data['ftdi_ms']:g} ms"] if data["ftdi_ms"] else []
    line += [f"{words} {data[kind]:g}" for kind, words in _HARM.items() if data[kind]]
    line += [f"cable out at {begin:g} s for {seconds:g} s" for begin, seconds in data["cuts"]]
    line += ["flash timing"] if data["flash_timing"] else []
    void = f"  VOID: this machine was {data['late_seconds']:.2f} s late in all with the line's bytes; run it again"
    return "\n".join(
        [
            f"{data['payload_bytes']} bytes to an emulated {data['model']}: {', '.join(line)}",
            f"  data     {data['seconds']:8.2f} s, {data['line_efficiency']:.1%} of the line "
            f"(the image alone takes {data['ideal_seconds']:.2f} s)",
            f"  session  {data['session_seconds']:8.2f} s, {data['session_efficiency']:.1%} of the line "
            "(hello to commit)",
            f"  wire     {data['wire_bytes_forward']} bytes there, {data['wire_bytes_reverse']} back, "
            f"{data['retransmits']} segments sent again",
            *([] if data["paced"] else [void]),
        ]
    )
