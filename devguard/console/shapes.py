"""What the HTTP API takes and answers, as types: FastAPI checks both by them and describes them in OpenAPI.

Names and meanings are those of the command line's `--json`. Times are RFC 3339 in UTC, but for a record's, which is
epoch seconds there and here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

MOST = 500
FAR = 100_000_000


def _written_out(value: object) -> object:
    if isinstance(value, str) and "T" not in value.upper():
        raise ValueError("a date and time with its zone, such as 2027-01-31T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]
Text = Annotated[str, Field(max_length=200)]


class Asked(BaseModel):
    """Parameters of a query; one that is not named is refused, for a filter with a slip in it would filter nothing."""

    model_config = ConfigDict(extra="forbid")


class DevicesAsked(Asked):
    """Which devices."""

    q: Text = Field("", description="Part of a serial number.")
    model: Text = ""
    site: Text = Field("", description="A site that the grant of the last push named.")
    version: Text = ""
    state: Literal["", "behind", "changed", "silent", "unconfirmed", "unsupported"] = Field(
        "", description="`silent`: no signed report for 180 days."
    )
    sort: Literal["serial", "model", "version", "site", "reported"] = "serial"
    down: bool = False
    offset: int = Field(0, ge=0, le=FAR)
    limit: int = Field(50, ge=1, le=MOST)


class RecordsAsked(Asked):
    """Which records; see `console.timeline.Wish`."""

    device: Text = ""
    release: Text = Field("", description="How `MODEL VERSION` begins.")
    actor: Text = ""
    action: Text = Field("", description="How the action begins, such as `release.` or `release.push`.")
    code: Text = ""
    refused: bool = False
    since: Moment | None = None
    until: Moment | None = None
    before: int | None = Field(None, ge=0, le=FAR * FAR, description="`older` of the page before.")
    limit: int = Field(50, ge=1, le=MOST)


class IncidentsAsked(Asked):
    """Which incidents."""

    all: bool = Field(False, description="Those that an officer released too.")


class Nothing(Asked):
    """No parameter."""


class Component(BaseModel):
    """A part of what a device runs."""

    id: str
    version: str | None
    digest: str
    size: int


class Behind(BaseModel):
    """How many releases that are known here are newer, and for how many days one has been."""

    versions: int
    days: int | None


class Support(BaseModel):
    """Until when what is supported; null where nobody said."""

    release: str | None
    model: str | None
    parts: str | None
    first_part: str | None


class Device(BaseModel):
    """A device as of its last signed report; see `devguard fleet age --json`."""

    serial: str
    model: str | None
    version: str | None
    sequence: int | None
    boot_state: str | None
    confirmed: bool | None
    components: list[Component]
    flags: list[str]
    reported: str | None
    record: int
    sites: list[str]
    newest: str | None
    behind: Behind | None
    support: Support
    red: list[str] = Field(description="Why it wants looking after.")
    seen: str | None = None
    station: str | None = None
    changed: str | None = Field(None, description="What no record explains, until an authority acknowledges it.")
    life: str | None = Field(None, description="`enrolled` or `decommissioned`.")
    security_version: int | None = None
    trust_version: int | None = None
    image_digest: str | None = None


class Devices(BaseModel):
    """A page of devices."""

    devices: list[Device]
    total: int
    offset: int
    limit: int
    source: Literal["ledger", "log"]
    note: str | None = Field(None, description="Why it is not the ledger's: a code.")


class DeviceWhole(Device):
    """One device, with its last reports and pushes as the ledger has them."""

    source: Literal["ledger", "log"]
    reports: list[dict[str, Any]] = []
    pushes: list[dict[str, Any]] = []


class Statement(BaseModel):
    """Something that others signed, which the record carries whole."""

    bytes: int
    sha256: str


class Record(BaseModel):
    """A record of the evidence log; see `devguard evidence show --json`."""

    index: int
    time: int
    actor: str
    action: str
    request: str
    device: str | None
    release: str | None
    code: str | None
    digests: dict[str, str]
    details: dict[str, str]
    statements: dict[str, Statement]


class FaultNote(BaseModel):
    """A refusal inside an answer: what could be read is beside it."""

    code: str
    message: str
    hint: str


class Records(BaseModel):
    """A page of records, newest first; `older` is `before` of the next page."""

    records: list[Record]
    older: int | None
    searched: int
    error: FaultNote | None = Field(None, description="Why not all that lies there could be read.")


class LogStanding(BaseModel):
    """Whether the log holds, as `devguard evidence verify` said at `time`."""

    state: Literal["good", "bad", "none", "unknown"]
    time: str | None
    current: bool = Field(description="Of the log as it lies there now.")
    running: bool = Field(description="It is being verified.")
    records: int | None = Field(description="How many hold; of a bad log, how many stand before the first bad one.")
    root: str | None
    origin: str | None
    error: FaultNote | None


class Clock(BaseModel):
    """A duty, and until when."""

    days: int
    duty: str
    due: str
    state: str


class Released(BaseModel):
    """Who looked into it."""

    record: int
    officer: str
    time: str


class Incident(BaseModel):
    """See `devguard evidence incident list --json`."""

    id: str
    kind: str
    subject: str
    record: int
    time: str
    device: str | None
    records: list[int]
    open: bool
    decision: str
    released: Released | None
    clocks: list[Clock]
    blocks: bool | None = None


class Incidents(BaseModel):
    """The incidents, oldest first."""

    incidents: list[Incident]


class IncidentWhole(Incident):
    """See `devguard evidence incident show --json`."""

    timeline: list[Record]
    overdue: bool


class Grants(BaseModel):
    """See `devguard grant list --json`."""

    grants: list[dict[str, Any]]
    issued: list[dict[str, Any]]


class Technicians(BaseModel):
    """See `devguard technician list --json`."""

    technicians: list[dict[str, Any]]
    suspended: list[dict[str, Any]]
    revoked: dict[str, str]
    epoch: int


class Progress(BaseModel):
    """How many devices are in which phase."""

    due: int
    claimed: int
    done: int
    failed: int
    refused: int
    skipped: int


class Campaign(BaseModel):
    """A line of `devguard campaign status --json`, with the progress."""

    campaign: str
    state: str
    release: str
    devices: int
    progress: Progress


class Campaigns(BaseModel):
    """The campaigns, the newest first; at most 100."""

    campaigns: list[Campaign]


class Ring(Progress):
    """One step of a campaign."""

    name: str
    opened: str | None
    devices: int


class CampaignWindow(BaseModel):
    """The hours in which devices are handed out."""

    hours: str
    open: bool


class CampaignWhole(Campaign):
    """See `devguard campaign status NAME --json`."""

    digest: str
    reason: str | None
    changed: str
    changed_by: str
    rings: list[Ring]
    incidents: int
    window: CampaignWindow | None
    next_open: str | None
    plan: dict[str, Any]


class Verdict(BaseModel):
    """See `devguard verify --json`: refused is an answer too, with `accepted` false and a code."""

    model_config = ConfigDict(extra="allow")
    file: str
    accepted: bool
    code: str | None
    checks: list[dict[str, Any]]


def epoch(moment: datetime | None) -> int | None:
    """Epoch seconds."""
    return None if moment is None else int(moment.timestamp())
