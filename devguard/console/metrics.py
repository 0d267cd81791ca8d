"""What a console knows, for Prometheus: counts by code, version and state, ages; never a serial number or a name.

Every label comes from a set with a bound: codes of devguard's table, models and versions of which the most frequent are
kept, states. The figures are of the home's own log and ledger; nothing is asked of a device. Source: OpenMetrics 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from devguard.console.standing import Standing
from devguard.console.tally import OTHER, Tally

TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
STANDINGS: Final = ("good", "bad", "none", "unknown")


@dataclass(frozen=True, slots=True)
class Scene:
    """What is told. devices: (model, version, state of support) and how many; campaigns: (name, phase) and how many;
    ages: seconds by what is that old; incidents: open ones, None where nobody can say."""

    tally: Tally
    standing: Standing
    now: float
    incidents: int | None = None
    devices: Iterable[tuple[tuple[str, str, str], int]] = ()
    campaigns: Iterable[tuple[tuple[str, str], int]] = ()
    ages: dict[str, float] = field(default_factory=dict)


class _Scene(Collector):
    """One scene as metrics."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def collect(self) -> Iterator[Metric]:
        """Every family; of a log that was not counted yet none, for a counter does not begin twice."""
        if not self._scene.tally.counting or self._scene.tally.records:
            yield from _counted(self._scene.tally)
        yield from _log(self._scene)
        yield from _fleet(self._scene)


def text(scene: Scene) -> bytes:
    """The metrics of a scene, in a registry of their own."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scene(scene))
    return generate_latest(registry)


def _counted(tally: Tally) -> Iterator[Metric]:
    pushes = CounterMetricFamily("devguard_pushes", "Pushes that ended, by result.", labels=["code"])
    for code, count in sorted(tally.pushes.items()):
        pushes.add_metric([code], count)
    yield pushes
    refusals = CounterMetricFamily("devguard_refusals", "Refusals on record, by code.", labels=["code"])
    for code, count in sorted(tally.refusals.items()):
        refusals.add_metric([code], count)
    yield refusals
    yield GaugeMetricFamily("devguard_evidence_records", "Records in the evidence log.", value=tally.records)
    if tally.latest is not None:
        yield GaugeMetricFamily(
            "devguard_evidence_newest_timestamp_seconds", "Time of the newest record.", value=tally.latest
        )


def _log(scene: Scene) -> Iterator[Metric]:
    standing = scene.standing
    state = GaugeMetricFamily("devguard_evidence_standing", "Whether the log holds: 1 at one state.", labels=["state"])
    for one in STANDINGS:
        state.add_metric([one], float(one == standing.state))
    yield state
    if standing.time is not None:
        yield GaugeMetricFamily(
            "devguard_evidence_last_verified_timestamp_seconds", "When the log was last verified.", value=standing.time
        )


def _fleet(scene: Scene) -> Iterator[Metric]:
    if scene.incidents is not None:
        yield GaugeMetricFamily("devguard_incidents_open", "Incidents that wait for an officer.", value=scene.incidents)
    devices = GaugeMetricFamily(
        "devguard_devices", "Devices by what their last signed report says.", labels=["model", "version", "support"]
    )
    for labels, count in scene.devices:
        devices.add_metric(labels, count)
    yield devices
    campaigns = GaugeMetricFamily("devguard_campaign_devices", "Devices of a campaign.", labels=["campaign", "phase"])
    for names, count in scene.campaigns:
        campaigns.add_metric(names, count)
    yield campaigns
    ages = GaugeMetricFamily("devguard_age_seconds", "How old what this station goes by is.", labels=["of"])
    for of, seconds in sorted(scene.ages.items()):
        ages.add_metric([of], max(0.0, seconds))
    yield ages


def bounded(counted: dict[tuple[str, str, str], int], most: int) -> list[tuple[tuple[str, str, str], int]]:
    """The most frequent sets of labels; the others together as `other`."""
    ordered = sorted(counted.items(), key=lambda one: (-one[1], one[0]))
    rest = sum(count for _, count in ordered[most:])
    return ordered[:most] + ([((OTHER, OTHER, OTHER), rest)] if rest else [])
