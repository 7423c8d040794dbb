"""`tamer attach --watch`: the answers that another terminal has drawn, as they grow, and how learning stands. Nothing is asked for or written."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from learners import protocol
from learners.protocol import Event
from tamer_tui.learning_status import LearningStatus
from tamer_tui.remote_engine import RemoteEngine
from tamer_tui.text import content, one_line, plain
from tamer_tui.views import CandidateView
from tamer_tui.widgets.foot import Foot

MOST_ANSWERS = 9


class WatchApp(App[None]):
    """Ends when the engine does, and says why."""

    TITLE = "tamer: watching"
    CSS = """
    #prompt { padding: 0 1; max-height: 6; text-style: bold; }
    #answers Static { border: round $foreground 30%; padding: 0 1; }
    #learning { dock: bottom; height: auto; max-height: 6; padding: 0 1; margin-bottom: 1; color: $foreground 80%; }
    """
    BINDINGS = [Binding("q,escape,ctrl+q", "quit", "leave")]

    def __init__(self, engine: RemoteEngine) -> None:
        super().__init__()
        self._engine = engine
        self._status = LearningStatus(bias=True, nats=0.0)
        self._views: list[CandidateView] = []
        self._model = ""
        self.why = ""  # it ended

    def compose(self) -> ComposeResult:
        yield Static("Looking for the engine …", id="prompt")
        yield VerticalScroll(id="answers")
        with Vertical(id="learning"):
            yield Static(id="sentence")
        yield Foot((("q", "leave"),))

    async def on_mount(self) -> None:
        self._engine.on_link = self._link_changed
        try:
            await self._engine.start(self._take, self._end)
        except OSError as error:
            self._end(str(error))

    async def on_unmount(self) -> None:
        await self._engine.close()

    def _end(self, why: str) -> None:
        self.why = self.why or why
        self.exit()

    def _link_changed(self, why: str, new: bool) -> None:
        self.query_one(Foot).say(f"the link is down ({one_line(why)}); it comes back by itself" if why else "the link is back")
        if new:
            self._views = []

    # --- what the engine says ------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case protocol.Ready(model=model):
                self._model = model
                if not self._views:
                    self._say_prompt(f"{model}: nothing has been asked for yet")
            case protocol.Asked(requests=requests):
                self._views = [CandidateView(each.uid, i, each.policy, each.seed) for i, each in enumerate(requests[:MOST_ANSWERS])]
                self._say_prompt(requests[0].messages[-1].content if requests else "")
                self._lay_out()
            case protocol.Started() | protocol.Ended() | protocol.Tokens():
                self._grow(event)
            case protocol.Learned() | protocol.Metrics() | protocol.Acting() | protocol.Idle():
                self._status.take(event)
            case protocol.Error(what=what, fatal=fatal):
                self.query_one(Foot).say(one_line(what))
                if fatal:
                    self.why = what
        stages = [f"{each.stage} {each.step}/{each.of}" for each in self._status.learning.values() if each.active]
        self.query_one("#sentence", Static).update(content(one_line(" · ".join([self._model, self._status.sentence, *stages]))))

    def _grow(self, event: protocol.Started | protocol.Ended | protocol.Tokens) -> None:
        by_uid = {view.uid: view for view in self._views}
        if isinstance(event, protocol.Tokens):
            grown = [(by_uid[piece.uid], piece) for piece in event.pieces if piece.uid in by_uid]
            for view, piece in grown:
                view.grow(piece)
            views = [view for view, _ in grown]
        else:
            views = [by_uid[event.uid]] if event.uid in by_uid else []
            for view in views:
                view.begin(event) if isinstance(event, protocol.Started) else view.end(event)
        panes = list(self.query("#answers Static").results(Static))
        for view in views:
            if view.slot < len(panes):
                panes[view.slot].update(content(plain(view.so_far)))

    def _say_prompt(self, text: str) -> None:
        self.query_one("#prompt", Static).update(content(plain(text)))

    def _lay_out(self) -> None:
        answers = self.query_one("#answers")
        panes = list(answers.query(Static).results(Static))
        for pane in panes[len(self._views) :]:
            pane.remove()
        for view, pane in zip(self._views, panes, strict=False):
            pane.update(content(plain(view.so_far)))
        answers.mount(*(Static(content(plain(view.so_far))) for view in self._views[len(panes) :]))
