"""`devguard device recover`: the release confirmed last put back, after its image was damaged, under a grant for that.

The steps are those of a push. What differs: the grant names `recover`, and the device takes no release but the one it
confirmed last, and only where something is damaged.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.inside import inside_options
from devguard.cli.push import Pusher, Wish, progress_option, run_push
from devguard.cli.visit import check_errand, visit_options
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cli.judging import Judged
    from devguard.cli.support import Support
    from devguard.manifest.envelope import Envelope
    from devguard.session.report import Report
    from devguard.trust.document import TrustDocument
    from devguard.verdict.judge import Release, Target


@click.command(cls=Command)
@click.argument("file", metavar="FILE.suit", type=click.Path(path_type=Path))
@click.option(
    "--resume", is_flag=True, help="Wait for a device that is still in the lost session, then go on where it stopped."
)
@progress_option
@inside_options
@visit_options
@click.pass_obj
def recover(invocation: Invocation, /, **options: Any) -> None:
    """Put FILE.suit, the release this device confirmed last, back on it after its image was damaged.

    The grant has to allow `recover`; one for an update does not open this, nor this one an update.
    """
    wish = Wish(**options, dry_run=False, delta="never", delta_from=None, protocol="devguard", image=0)
    check_errand(wish)
    run_push(invocation, wish, Recovery, "release.recover")


class Recovery(Pusher):
    """One run of `device recover`."""

    action = "recover"

    def _for_device(self, trust: TrustDocument, judged: Judged, report: Report) -> tuple[Release, Envelope]:
        release, envelope = super()._for_device(trust, judged, report)
        if release.sequence != report.sequence:
            raise Refused(
                "version.rollback",
                f"the device confirmed release {report.sequence} last; {release.version} is release {release.sequence}",
                "give the release it had; a newer one is an update: `devguard push`",
            )
        return release, envelope

    def check_device(self, report: Report) -> None:
        """A damaged device is not as it was: what differs goes on record, and is no reason to leave it damaged."""
        from devguard.cli.device_change import describe, unexplained

        before, found = unexplained(self.note, report)
        if found:
            describe(self.note, before, found)

    def check_support(self, support: Support) -> None:
        """Putting back what the device had changes nothing about its support."""

    def target(self, report: Report) -> Target:
        """The device, with nothing said of what is installed: which release it has to be the device says."""
        asked = super().target(report)
        return replace(asked, installed_sequence=None, installed_digest=None, installed_version=None)
