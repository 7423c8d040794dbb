"""Lines of a row or two: a heading, what to do now, and the keys that work now."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.events import Click
from textual.widgets import Static

from tamer_tui.keys import action_of, painted
from tamer_tui.text import one_line, plain, wrap

LONGEST_END = 8_000
"""Characters of a prompt that are looked at to find the rows that show."""


class Line(Static):
    """Text on one row that never lays the screen out again."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: tuple[str, str | Content] = ("", "")

    def show(self, text: str, lead: str | Content = "") -> None:
        """Plain text, after words of our own that stand out or have a look of their own."""
        if (text, lead) == self._shown:
            return
        self._shown = (text, lead)
        opening = Content.styled(lead, "bold $text-accent") if isinstance(lead, str) else lead
        self.update(opening + one_line(text), layout=False)


class KeyLine(Static):
    """Keys that work now, the most needed first, as many as fit. They can be clicked."""

    DEFAULT_CSS = """
    KeyLine { height: 1; width: 1fr; padding: 0 1; color: $foreground 80%; text-wrap: nowrap; background: $panel; pointer: pointer; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._keys: tuple[tuple[str, str, str], ...] = ()
        self._places: list[tuple[int, range, str]] = []  # row, columns and action of each key that is painted

    def show(self, identities: Sequence[str], spans: Sequence[tuple[str, str]] = ()) -> None:
        """Bindings by id; `spans` stand for many keys of one kind, before the rest: ('a-d', 'rank')."""
        keys = (*((key, name, "") for key, name in spans), *((*painted(identity), action_of(identity)) for identity in identities))
        if keys != self._keys:
            self._keys = keys
            self.repaint()

    def repaint(self) -> None:
        """Again, at the size that there is."""
        width, rows = self.size.width, max(1, self.size.height)
        lines: list[list[Content]] = [[]]
        self._places, column = [], 0
        for key, name, action in self._keys:
            cells = cell_len(f"{key} {name}")
            if column + cells > width:
                if len(lines) == rows:
                    break
                lines.append([])
                column = 0
            lines[-1].append(Content.assemble((key, "bold $text-accent"), f" {name}"))
            self._places.append((len(lines) - 1, range(column, column + cells), action))
            column += cells + 2
        self.update(Content("\n").join(Content("  ").join(line) for line in lines), layout=False)

    def on_resize(self) -> None:
        self.repaint()

    async def on_click(self, event: Click) -> None:
        """As if the key had been pressed."""
        at = event.get_content_offset(self)
        for row, columns, action in self._places:
            if at is not None and action and at.y == row and at.x in columns:
                await self.screen.run_action(action)


class PromptBox(Static):
    """The prompt, as far as a few rows go. Of a longer one its end, where the answers begin."""

    DEFAULT_CSS = """
    PromptBox { height: auto; max-height: 5; padding: 0 1; border: round $foreground 30%; border-title-color: $foreground 70%; }
    """

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._text = self._shown = ""
        self._cut = False  # the text is longer than what is kept of it

    def show(self, title: str, text: str) -> None:
        """Untrusted text, never markup."""
        if self.border_title != title:
            self.border_title = title
        end = text[-LONGEST_END:]
        self._text = plain(end).rstrip()
        self._cut = len(end) < len(text)
        self._fit()

    def on_resize(self) -> None:
        """Another width, or other rows."""
        self._fit()

    def _fit(self) -> None:
        most = self.styles.max_height
        rows, width = (int(most.value) - 2 if most is not None else 3), self.size.width or 76
        lines = wrap(self._text, width)
        if len(lines) > rows or self._cut:
            lines = wrap(self._text, max(1, width - 2))[-rows:]
            lines[0] = "… " + lines[0].lstrip()
        shown = "\n".join(line.rstrip() for line in lines)
        if shown != self._shown:
            self._shown = shown
            self.update(Content(shown))
