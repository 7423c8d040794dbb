"""All keys, from keys.py, and what the screen is about."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tamer_tui.keys import sections
from tamer_tui.text import wrap

INTRODUCTION = """Read the answers, then say which are better: type their letters, best first, and enter. Every judgement is on disk when its ✓ shows,
and the very next answer is drawn with it. While you read, the machine learns on: to judge as you do, and to answer so that you would be pleased.
One answer of each set may be the untouched model's, unmarked: the count of how often yours wins is your own measure.
A sentence says more than a letter: ; takes one, such as "use simple words", and the same prompt is answered anew.
Letters name answers, digits score, the other small letters act, capitals change the machine. The mouse works too: a click on an answer looks at
it, one on its letter ranks it, and the keys at the bottom can be clicked. Chat, comparison, charts, record and versions are screens of their own:
j and a letter, or a function key, goes there, and esc comes back."""
KEY_CELLS = 11


class HelpScreen(ModalScreen[None]):
    """Leaves with any of its keys."""

    CSS_PATH = "help.tcss"
    BINDINGS = [Binding("escape,q,question_mark,f1,enter", "dismiss", "close")]

    def __init__(self, own: Sequence[tuple[str, str]] = ()) -> None:
        """`own` are the keys of the screen that was on, if it is not the Arena."""
        super().__init__()
        self._own = own

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="page"):
            yield Text(self._own)

    def on_mount(self) -> None:
        page = self.query_one("#page")
        page.border_title, page.border_subtitle = "tamer", "up and down scroll · esc closes"
        page.focus()


class Text(Static):
    """Wrapped at the width that it has."""

    def __init__(self, own: Sequence[tuple[str, str]]) -> None:
        super().__init__(id="text")
        self._own, self._width = own, 0

    def on_resize(self, event: events.Resize) -> None:
        if self._width != self.content_size.width:
            self._width = self.content_size.width
            self.call_after_refresh(self._write)

    def _write(self) -> None:
        self.update(Content("\n").join(page(max(KEY_CELLS + 10, self._width), self._own)))


def page(width: int, own: Sequence[tuple[str, str]] = ()) -> list[Content]:
    """Its lines, those about the screen that was on first."""
    lines = [Content(line.rstrip()) for line in wrap(" ".join(INTRODUCTION.split()), width)]
    headings = {"On this screen": own} | sections() if own else sections()
    for heading, rows in headings.items():
        lines += [Content(""), Content.styled(heading, "bold")]
        for key, meaning in rows:
            first, *rest = wrap(meaning, width - KEY_CELLS)
            lines.append(Content.assemble((f"{key:<{KEY_CELLS}}", "bold $text-accent"), first.rstrip()))
            lines += [Content(" " * KEY_CELLS + line.rstrip()) for line in rest]
    return lines
