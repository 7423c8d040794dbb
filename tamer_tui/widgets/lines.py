"""Lines of one row: a heading, what to do now, and the keys that work now."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.widgets import Static

from tamer_tui.keys import painted
from tamer_tui.text import one_line, plain, wrap


class Line(Static):
    """Text on one row that never lays the screen out again."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }"

    def show(self, text: str, style: str = "") -> None:
        """Plain text, in one style."""
        line = one_line(text)
        self.update(Content.styled(line, style) if style else Content(line), layout=False)


class KeyLine(Static):
    """Keys that work now, the most needed first, as many as fit."""

    DEFAULT_CSS = "KeyLine { height: 1; width: 1fr; padding: 0 1; color: $foreground 80%; text-wrap: nowrap; background: $panel; }"

    def __init__(self) -> None:
        super().__init__()
        self._keys: tuple[tuple[str, str], ...] = ()

    def show(self, identities: Sequence[str], letters: str = "") -> None:
        """Bindings by id; `letters` stands for the answers' letters, before the rest."""
        keys = tuple(painted(identity) for identity in identities)
        self._keys = ((letters, "rank"), *keys) if letters else keys
        self.repaint()

    def repaint(self) -> None:
        """Again, at the width that there is."""
        room, parts = self.size.width - 2, []
        for key, name in self._keys:
            room -= cell_len(f"{key} {name}") + 2
            if room < -2:
                break
            parts += [Content.styled(key, "bold $accent"), Content(f" {name}  ")]
        self.update(Content.assemble(*parts), layout=False)

    def on_resize(self) -> None:
        self.repaint()


class PromptBox(Static):
    """The prompt, as far as a few rows go. Of a longer one its end, where the answers begin."""

    DEFAULT_CSS = """
    PromptBox { height: auto; max-height: 5; padding: 0 1; border: round $foreground 30%; border-title-color: $foreground 70%; }
    """

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._text = self._shown = ""

    def show(self, title: str, text: str) -> None:
        """Untrusted text, never markup."""
        self.border_title = title
        self._text = plain(text).rstrip()
        self._fit()

    def on_resize(self) -> None:
        """Another width, or other rows."""
        self._fit()

    def _fit(self) -> None:
        most = self.styles.max_height
        rows, width = (int(most.value) - 2 if most is not None else 3), self.size.width or 76
        lines = wrap(self._text, width)
        if len(lines) > rows:
            lines = wrap(self._text, max(1, width - 2))[-rows:]
            lines[0] = "… " + lines[0].lstrip()
        shown = "\n".join(line.rstrip() for line in lines)
        if shown != self._shown:
            self._shown = shown
            self.update(Content(shown))
