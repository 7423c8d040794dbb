"""All keys, from keys.py, and what the screen is about."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tamer_tui.keys import ARENA

INTRODUCTION = """Read the answers, then say which are better: type their letters, best first, and enter. Every judgement is on disk when its ✓ shows,
and the very next answer is drawn with it. While you read, the machine learns on: a reward model from your rankings, an adapter that absorbs what
was learned, PPO. One answer of each set may be the untouched base model's, unmarked: the count of how often yours wins is your own measure.
"""


class HelpScreen(ModalScreen[None]):
    """Leaves with any of its keys."""

    CSS_PATH = "help.tcss"
    BINDINGS = [Binding("escape,q,question_mark,f1,enter", "dismiss", "close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="page"):
            yield Static(Content(" ".join(INTRODUCTION.split())))
            yield Static(Content("\n").join([Content(""), *_rows()]))

    def on_mount(self) -> None:
        page = self.query_one("#page")
        page.border_title, page.border_subtitle = "tamer", "esc closes"
        page.focus()


def _rows() -> list[Content]:
    rows = [
        Content.assemble(("a-i       ", "bold $accent"), "Rank: type the letters of answers, best first (with two answers: choose one)"),
        Content.assemble(("1-7       ", "bold $accent"), "Score the focused answer on the current criterion; 0 clears"),
    ]
    for binding in ARENA:
        identity = binding.id or ""
        if identity.startswith(("rank.", "score.")) and identity.split(".")[1] in "abcdefghi1234567":
            continue
        key = binding.key_display or binding.key.split(",")[0]
        rows.append(Content.assemble((f"{key:<10}"[:10], "bold $accent"), binding.tooltip))
    return rows
