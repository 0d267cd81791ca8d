"""`devguard campaign new`: a plan and a release that was verified become a draft; nothing is handed out by it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.ledger_store import open_store
from devguard.cli.record import Note, operator, recorded

if TYPE_CHECKING:
    from devguard.campaign.plan import Goal, Plan


@click.command(cls=Command)
@click.argument("file", metavar="[PLAN.toml]", type=click.Path(path_type=Path), required=False)
@click.option("--release", type=click.Path(path_type=Path), help="The release (default: the file the plan names).")
@click.option("--trust", type=click.Path(path_type=Path), help="The trust document (default: the home's).")
@click.option("--name", help="Without a plan: the name.")
@click.option("--site", "sites", multiple=True, help="Without a plan: only devices of this site (repeatable).")
@click.option("--serial", "serials", multiple=True, help="Without a plan: only this device (repeatable).")
@click.option("--running", "versions", multiple=True, help="Without a plan: only devices on this version (repeatable).")
@click.option("--first", multiple=True, metavar="SERIAL", help="Without a plan: in a ring before all (repeatable).")
@click.option("--failures", metavar="LIMIT", help='Without a plan: stop at so many, "3" or "5%".')
@click.option("--refusals", metavar="LIMIT", help='Without a plan: stop at so many, "3" or "5%".')
@click.pass_obj
def new(invocation: Invocation, /, file: Path | None, release: Path | None, trust: Path | None, **wish: Any) -> None:
    """Make a campaign of PLAN.toml over the devices that the ledger knows. It is a draft until it is started.

    A small one needs no plan: --name and --release, and whom it is for.
    """
    from devguard.campaign.store import create, inventory, moment

    if file is not None and any(wish.values()):
        raise click.UsageError("a plan says whom it is for; the other options go without one")
    if file is None and (wish["name"] is None or release is None):
        raise click.UsageError("give a plan, or --name and --release")
    with recorded(invocation, "campaign.new") as note, open_store(invocation, create=True) as store:
        plan, goal = _planned(invocation, note, file, release, trust, wish)
        with store.begin() as conn:
            placed = create(conn, plan, goal, inventory(conn, goal.model), operator(), moment(conn, invocation.now()))
            note.details["devices"] = str(len(placed))
            note.commit()
    invocation.result(_data(plan, goal, placed), f"{plan.name}: a draft, {len(placed)} devices to {goal.version}")


def _planned(
    invocation: Invocation,
    note: Note,
    file: Path | None,
    release: Path | None,
    trust: Path | None,
    wish: Mapping[str, Any],
) -> tuple[Plan, Goal]:
    """The plan, from its file or from options, and the release that it is for, verified."""
    from devguard.campaign.plan_file import parse_plan, plan_from_json
    from devguard.custody.files import read_limited
    from devguard.manifest.fields import MAX_SIZE

    if file is not None:
        plan = parse_plan(read_limited(file, MAX_SIZE))
        note.details["campaign"] = plan.name
        return plan, goal_of(invocation, note, release or file.parent / plan.release, trust)
    note.details["campaign"] = wish["name"]
    goal = goal_of(invocation, note, release or Path(), trust)
    return plan_from_json(_shape(goal, wish)), goal


def _shape(goal: Goal, wish: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked by options, in the shape of a plan's file."""
    narrowed = {key: list(wish[key]) for key in ("sites", "serials", "versions") if wish[key]}
    first = [{"name": "first", "serials": list(wish["first"])}] if wish["first"] else []
    stop = {key: wish[key] for key in ("failures", "refusals") if wish[key] is not None}
    head = {"name": wish["name"], "model": goal.model, "release": Path(goal.file).name}
    return {"campaign": {**head, **narrowed}, "ring": [*first, {"name": "all"}], "stop": stop}


def goal_of(invocation: Invocation, note: Note, path: Path, trust: Path | None) -> Goal:
    """The release in `path` as a goal, after the verdict on it; its refusals are raised as `verify` gives them."""
    from devguard.campaign.plan import Goal
    from devguard.cli.judging import judge_file
    from devguard.trust.document import check_time
    from devguard.verdict.judge import Target

    document, now = invocation.home.trust(trust), invocation.now()
    check_time(document, now)
    with ExitStack() as stack:
        judged = judge_file(path, trust=document, now=now, target=Target(), stack=stack)
        if judged.envelope is not None:
            note.manifest(judged.envelope.manifest_digest)
        release = judged.verdict.require()
    note.release = f"{release.model} {release.version}"
    return Goal(release.model, release.version, release.sequence, release.manifest_digest, str(path.absolute()))


def _data(plan: Plan, goal: Goal, placed: dict[str, int]) -> dict[str, Any]:
    sizes = [sum(at == number for at in placed.values()) for number in range(len(plan.rings))]
    return {
        "campaign": plan.name,
        "state": "draft",
        "release": f"{goal.model} {goal.version}",
        "digest": goal.digest.hex(),
        "devices": len(placed),
        "rings": [{"name": ring.name, "devices": size} for ring, size in zip(plan.rings, sizes, strict=True)],
    }
