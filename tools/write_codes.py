"""Write docs/refusal-codes.md from the table of refusal codes. A test fails when page and table differ."""

from __future__ import annotations

from pathlib import Path

from devguard.errors import CODES, CodeInfo, Exit

PAGE = Path(__file__).resolve().parent.parent / "docs" / "refusal-codes.md"
INTRODUCTION = (
    "Every refusal carries one of these codes: on stderr, in `--json`, in the evidence log and in what a device "
    "answers. Codes are added, never renamed. `devguard explain CODE` prints one, `devguard explain` all of them. "
    "A code of a newer device may be missing here; it is shown and recorded as it came."
)
MEANING = {
    Exit.DONE: "done, or accepted",
    Exit.REFUSED: "refused: integrity, trust, authorisation, tampered log",
    Exit.USAGE: "usage: the command line was not understood",
    Exit.MALFORMED: "malformed input",
    Exit.RETRY: "link, port, disk or device failed; trying again may help",
    Exit.DEVICE: "refused by the device, whatever the code; the tables below are for this side's own refusals",
    Exit.INTERNAL: "a bug in devguard; nothing was accepted",
    Exit.INTERRUPTED: "interrupted; state is safe",
}


def page() -> str:
    """The whole page as text."""
    parts = [
        "# Refusal codes\n\nWritten by `tools/write_codes.py` from `devguard/_codes.py`: change the table there.\n\n",
        f"{INTRODUCTION}\n\n## Exit status\n\n| status | meaning |\n|---|---|\n",
        *(f"| {int(status)} | {MEANING[status]} |\n" for status in Exit),
    ]
    rooms: dict[str, list[CodeInfo]] = {}
    for info in CODES.values():
        rooms.setdefault(info.code.partition(".")[0], []).append(info)
    for room, rows in rooms.items():
        parts.append(f"\n## {room}\n\n| code | exit | cause | remedy |\n|---|---|---|---|\n")
        parts += map(_row, rows)
    return "".join(parts)


def _row(info: CodeInfo) -> str:
    cause, remedy = (text.replace("|", "\\|") for text in (info.cause, info.remedy))
    return f"| `{info.code}` | {int(info.exit)} | {cause} | {remedy} |\n"


def main() -> None:
    """Replace the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
