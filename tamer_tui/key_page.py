"""docs/keys.md, from the keys as they are: python -m tamer_tui.key_page > docs/keys.md"""

from __future__ import annotations

from tamer_tui.keys import ALL, LETTERS, SCREEN_SECTIONS, SECTIONS, key_name

HEAD = """# Keys

Made by `python -m tamer_tui.key_page`. An id is what `[keymap]` in `config.toml` names.
"""


def page() -> str:
    """A table for each heading of the help."""
    parts = [HEAD]
    headings = SECTIONS | SCREEN_SECTIONS
    for heading in dict.fromkeys(headings.values()):
        rows = [binding for binding in ALL if headings[(binding.id or "").split(".")[0]] == heading]
        lines = [f"| `{key_name(binding)}` | `{binding.id}` | {binding.tooltip} |" for binding in rows if binding.id not in _ALIKE]
        parts.append("\n".join([f"## {heading}", "", "| key | id | what it does |", "|---|---|---|", *lines, ""]))
    return "\n".join(parts)


_ALIKE = {f"rank.{letter}" for letter in LETTERS[1:]} | {f"score.{n}" for n in range(2, 8)}
"""One row stands for all letters, and one for all scores."""

if __name__ == "__main__":
    print(page(), end="")
