"""One answer in its frame: the letter that names it, how far it is, and what it was given."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.markup import escape
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Click
from textual.message import Message

from tamer_tui.markdown import has_markdown, has_thoughts
from tamer_tui.text import plain
from tamer_tui.views import CandidateView
from tamer_tui.widgets.finished_view import FinishedView
from tamer_tui.widgets.stream_view import StreamView

INSTANT = float("inf")
ENDS = {"eos": "done", "length": "cut at the limit", "stopped": "stopped"}


class CandidatePane(Vertical):
    """Shows the tokens of a CandidateView at reading pace."""

    DEFAULT_CSS = """
    CandidatePane { border: round $foreground 30%; border-title-color: $foreground; border-subtitle-color: $foreground 70%; height: 1fr; width: 1fr; }
    CandidatePane.focused { border: round $accent; border-title-color: $text-accent; border-title-style: bold; }
    CandidatePane.ranked { border-title-style: bold reverse; }
    """

    class Chosen(Message):
        """The pane was clicked; `letter` when it was on the letter."""

        def __init__(self, slot: int, letter: bool) -> None:
            super().__init__()
            self.slot, self.letter = slot, letter

    def __init__(self, view: CandidateView) -> None:
        super().__init__()
        self.view = view
        self._shown = 0  # tokens
        self._due = 0.0  # tokens that the pace allows by now
        self._stream, self._finished = StreamView(), FinishedView()
        self._finished.display = False
        self._state = ("", "")
        self.markdown = True  # once it is complete
        self.folded = True  # thoughts are one line, once it is complete

    def compose(self) -> ComposeResult:
        self._stream.marked = self.view.paced
        yield self._stream
        yield self._finished

    def open(self, view: CandidateView) -> None:
        """Another answer takes the place."""
        self.view, self._shown, self._due = view, 0, 0.0
        self._stream.clear()
        self._stream.marked = view.paced
        self.choose_reading()

    def on_click(self, event: Click) -> None:
        on_title = event.screen_y == self.region.y and event.screen_x <= self.region.x + 3 + cell_len(self._state[0])
        self.post_message(self.Chosen(self.view.slot, on_title))

    @property
    def tokens_shown(self) -> int:
        return self._shown

    def mark(self, taps: Sequence[tuple[int, float]]) -> None:
        """Taps in the gutter: how many tokens were on the screen, and praise above 0 or blame."""
        ends = [len(plain("".join(self.view.pieces[:n]).lstrip())) for n, _ in taps]
        self._stream.mark([(end, "▲" if value > 0 else "▼") for end, (_, value) in zip(ends, taps, strict=True)])

    @property
    def begun(self) -> bool:
        """Whether anything is shown."""
        return self._shown > 0

    @property
    def complete(self) -> bool:
        """Whether everything that was drawn is shown, and nothing more will come."""
        return self.view.ended is not None and self._shown >= len(self.view.pieces)

    @property
    def overflows(self) -> bool:
        """Whether a part of what is shown must be scrolled to."""
        return self.reading.size.height > 0 and self.reading.max_scroll_y > 0

    @property
    def stream(self) -> StreamView:
        return self._stream

    @property
    def reading(self) -> StreamView | FinishedView:
        """What is on the screen of the two."""
        return self._finished if self._finished.display else self._stream

    def choose_reading(self) -> None:
        """Markdown and folded thoughts when all of it is there, but for one whose single words are marked or tinted."""
        text = self._stream.text
        rich, folded = self.markdown and has_markdown(text), self.folded and has_thoughts(text)
        finished = self.complete and (rich or folded) and not self._stream.tinted and not self._stream.marked
        if finished:
            self._finished.show(text, rich, folded)
        self._finished.display, self._stream.display = finished, not finished

    def reveal(self, tokens: float) -> None:
        """Show this many tokens more (infinity: all that there are). The first shows as soon as it is there."""
        pieces = self.view.pieces
        if tokens == INSTANT:
            target = len(pieces)
        else:
            self._due = max(self._due + tokens, 1.0) if pieces else 0.0
            target = min(len(pieces), int(self._due))
            self._due = min(self._due, len(pieces) + 1.0)  # waiting for the engine earns nothing
        if target > self._shown:
            text = "".join(pieces[self._shown : target])
            self._stream.write(text if self._stream.text else text.lstrip())
            self._shown, self._due = target, max(self._due, target)
        if self.complete and self.reading is self._stream:
            self.choose_reading()

    def show_state(self, rank: str, policy: str, focused: bool, frozen: bool) -> None:
        """Frame, letter, place in the ranking, who wrote it (once that may be known), and scores."""
        self.set_class(focused, "focused")
        self.set_class(bool(rank), "ranked")
        title = " · ".join(part for part in (("▸ " if focused else "") + self.view.letter, rank, policy) if part)
        state = (title, f"{self._progress(frozen)}{self._scores()}")
        if state != self._state:
            self._state = state
            self.border_title, self.border_subtitle = escape(state[0]), escape(state[1])

    def _progress(self, frozen: bool) -> str:
        if self.view.refused:
            return "the model cannot read this prompt"
        if self.complete:
            cut = f" · prompt cut by {self.view.cut:,} tokens" if self.view.cut else ""
            return ENDS[self.view.ended or "eos"] + cut
        waiting = len(self.view.pieces) - self._shown
        return f"frozen · {waiting} more" if frozen else "…"

    def _scores(self) -> str:
        return "".join(f" · ✓ {criterion} {value}" for criterion, value in self.view.ratings.items())
