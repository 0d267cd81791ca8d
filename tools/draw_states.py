"""Draw the conversation's table of states into docs/conversation.md (between the mermaid fences)."""

from __future__ import annotations

import re
from pathlib import Path

from devguard.session.table import diagram

PAGE = Path(__file__).resolve().parent.parent / "docs" / "conversation.md"


def main() -> None:
    """Replace the diagram in the page by the one the table draws."""
    text = PAGE.read_text(encoding="utf-8")
    drawn = re.sub(r"(?s)```mermaid\n.*?```", "```mermaid\n" + diagram() + "```", text, count=1)
    PAGE.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
