"""`devguard`: the commands and the one map from exception to exit status.

The only place that catches everything: whatever is not ours becomes exit 70 and says how to report it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from devguard.cli.context import Invocation, LazyGroup, printed
from devguard.errors import DevguardError, Exit

_CLI = "devguard.cli"
TABLE: dict[str, tuple[str, str, str]] = {
    "demo": (f"{_CLI}.demo", "demo", "The whole story on an emulated device, then six attacks that fail."),
    "status": (f"{_CLI}.status", "status", "Grants, trust, ports: what can be done from here now."),
    "doctor": (f"{_CLI}.doctor", "doctor", "Clock, system, disk, key files, ports, versions: what is wrong here."),
    "explain": (f"{_CLI}.explain", "explain", "What a refusal code means and what to do."),
    "key": (f"{_CLI}.key", "key", "Make, show, list and export keys; the root's ceremony."),
    "trust": (f"{_CLI}.trust", "trust", "The trust document: who may sign what."),
    "release": (f"{_CLI}.release", "release", "Describe, build and sign a release."),
    "verify": (f"{_CLI}.verify", "verify", "Is this release good, and why."),
    "inspect": (f"{_CLI}.inspect", "inspect", "What a file is, field by field, and what is wrong with it."),
    "shelf": (f"{_CLI}.shelf", "shelf", "A repository of releases: made, followed, carried on a stick."),
    "grant": (f"{_CLI}.grant", "grant", "Who may push what, where, until when."),
    "technician": (f"{_CLI}.technician", "technician", "Who may be granted anything: training, suspensions."),
    "device": (f"{_CLI}.device", "device", "Find devices and ask them who they are."),
    "push": (f"{_CLI}.push", "push", "Push a release to a device."),
    "approve": (f"{_CLI}.approve", "approve", "Approve a push as the second technician."),
    "packets": (f"{_CLI}.packets", "packets", "Read device packets: pumps, meters, sensors, programmers."),
    "emulate": (f"{_CLI}.emulate", "emulate", "Serve an emulated device."),
    "advisory": (f"{_CLI}.advisory", "advisory", "Security advisories on a release, begun for people to complete."),
    "fleet": (f"{_CLI}.fleet", "fleet", "What runs on which device, how far behind, supported until when."),
    "ledger": (f"{_CLI}.ledger", "ledger", "What runs where, who may do what: one store, for one bench or forty."),
    "mds2": (f"{_CLI}.mds2", "mds2", "What a hospital asks of a device's security, answered from this configuration."),
    "serve": (f"{_CLI}.serve", "serve", "The bench as a web page: verify, push, see; and who may sign in."),
    "evidence": (f"{_CLI}.evidence", "evidence", "Show and verify the evidence log."),
    "campaign": (f"{_CLI}.campaign", "campaign", "One release to many devices, in rings and hours, with a stop rule."),
    "bench": (f"{_CLI}.bench", "bench", "Measure the link and the flash on emulated devices."),
}


@click.group(
    cls=LazyGroup,
    table=TABLE,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": "DEVGUARD",
    },
)
@click.version_option(package_name="devguard", message="devguard %(version)s")
@click.option(
    "--home",
    "home_dir",
    envvar="DEVGUARD_HOME",
    type=click.Path(path_type=Path),
    help="Where keys, trust and evidence live.",
)
@click.pass_context
def devguard(ctx: click.Context, home_dir: Path | None) -> None:
    """Signed firmware for pacemaker programmers and insulin pumps, pushed only by technicians the device accepts."""
    ctx.ensure_object(Invocation).home_path = home_dir
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: run, map whatever happens to the contract's exit status, exit."""
    invocation = Invocation(asks=sys.stdin is not None and sys.stdin.isatty())
    status = run(list(sys.argv[1:] if args is None else args), invocation)
    sys.exit(max(int(status), _flushed()))


def _flushed() -> int:
    """0 when all that was printed is out, or nobody reads it; `RETRY` when a full disk took it: no result was given."""
    if sys.stdout is None:  # started with standard output closed
        return Exit.DONE
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE if isinstance(error, BrokenPipeError) else Exit.RETRY
    return Exit.DONE


def run(args: list[str], invocation: Invocation) -> int:
    """One command in this process; its exit status."""
    try:
        outcome = devguard.main(args=args, prog_name="devguard", standalone_mode=False, obj=invocation)
        return outcome if isinstance(outcome, int) else Exit.DONE
    except DevguardError as error:
        invocation.error(error)
        return error.exit_status
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            click.echo(error.format_message(), err=True)
            return Exit.USAGE
        click.echo(printed(f"error: {error.format_message()}"), err=True)
        hint = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "devguard"
        click.echo(f"hint: {hint} --help", err=True)
        return Exit.USAGE
    except (KeyboardInterrupt, click.exceptions.Abort):
        _take_interrupt()
        click.echo("\nerror: interrupted; state is safe, nothing is half-written", err=True)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return Exit.RETRY  # cut off before the end: nothing may read this as done
    except Exception as error:  # noqa: BLE001 (the one place: a bug must not look like an answer)
        return _bug(error, invocation)


def _take_interrupt() -> None:
    """Tell the interpreter that the interrupt was caught.

    One that comes while a string is executed (a dataclass being made by an import) is remembered as not caught, and
    `python -m` then ends by the signal instead of with our status. The next string executed clears that memory.
    """
    exec("pass")  # noqa: S102


def _bug(error: Exception, invocation: Invocation) -> int:
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    report = DevguardError(
        "internal.error",
        f"{type(error).__name__}: {error} (at {Path(where.filename).name}:{where.lineno})",
        "this is a bug in devguard; nothing was accepted. report it with this line as SECURITY.md says",
    )
    invocation.error(report)
    return Exit.INTERNAL


if __name__ == "__main__":
    main()
