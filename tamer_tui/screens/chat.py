"""Chat: one conversation with the model as it answers now. Any turn can be praised, blamed, rewritten, criticised, or branched from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.reactive import var
from textual.screen import Screen
from textual.widgets import Input

from tamer_tui.keys import CHAT_KEYS, painted_all
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.choice import FLAGS, ChoiceScreen
from tamer_tui.screens.critique import CritiqueScreen, Draft, about
from tamer_tui.screens.editor import EditorScreen, WrittenText
from tamer_tui.screens.observing import observe
from tamer_tui.screens.take_out import TakeOut
from tamer_tui.session import CandidateView, Change, Session, SessionError, SetView
from tamer_tui.session.chat import GOOD
from tamer_tui.text import editable, one_line, plain
from tamer_tui.widgets.conversation import ConversationView, Spoken
from tamer_tui.widgets.foot import Foot
from tamer_tui.widgets.lines import Line
from tamer_tui.widgets.rail import answering

COMMANDS = {
    "/good": "praise", "/bad": "blame", "/rewrite": "rewrite", "/critique": "critique", "/branch": "branch", "/copy": "copy", "/code": "copy_code",
    "/flag": "flag", "/note": "comment", "/export": "export", "/markdown": "markdown", "/stop": "stop", "/undo": "undo", "/new": "begin_anew",
}  # fmt: skip
"""What is typed -> the action that it is."""


class ChatScreen(Screen[None]):
    """The conversation as growing text with marks beside its turns, over a line to write in."""

    CSS_PATH = "chat.tcss"
    AUTO_FOCUS = ""  # after an editor the keys are where they were
    BINDINGS = list(CHAT_KEYS)

    turn: var[int] = var(0, init=False)  # that keys are about

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._earlier: list[Spoken] = []  # turns but the last
        self._drafts: dict[str, Draft] = {}  # critiques that were left, by the set of the turn

    def compose(self) -> ComposeResult:
        yield Line(id="heading")
        yield ConversationView()
        yield Input(placeholder="your message; /good /bad /rewrite /critique /branch /undo /copy /new", id="message")
        judging = painted_all("chat.praise", "chat.blame", "chat.rewrite", "chat.critique", "chat.branch")
        yield Foot([*painted_all("chat.up chat.down"), ("enter", "send"), ("esc", "keys:"), *judging])

    def on_mount(self) -> None:
        self._take_out = TakeOut(self.app, self.attempt, lambda answer: "this turn")
        observe(self.session, self, self._changed)
        self._paint_all()
        self.query_one(Input).focus()

    def say(self, line: str) -> None:
        """One line, at the bottom."""
        self.query_one(Foot).say(line)

    # --- what the session says -------------------------------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        match change:
            case Change.CHAT:
                self._paint_all()
            case Change.TOKENS | Change.ENDED if self._growing:
                self._grow()
            case Change.COMMITTED:
                self._mark()
            case Change.NOTICE if self.is_current:
                self.say(self.session.notice)
        self._show_heading()

    def _paint_all(self) -> None:
        """After a turn came or went."""
        turns = self.session.chat.turns
        self.turn = max(0, len(turns) - 1)
        self._earlier = [_spoken(turn) for turn in turns[:-1]]
        self._grow()
        self._mark()
        self._show_heading()

    @property
    def _growing(self) -> bool:
        """Whether more of the last answer may have come than is shown."""
        return bool(self.session.chat.turns) and not self.query_one(ConversationView).complete

    def _grow(self) -> None:
        """More of the last answer."""
        self.query_one(ConversationView).show([*self._earlier, *map(_spoken, self.session.chat.turns[-1:])])

    def _mark(self) -> None:
        """Beside each turn: whether keys are about it, and its thumb."""
        marks = {}
        for i, turn in enumerate(self.session.chat.turns):
            value = turn.candidates[0].ratings.get("overall")
            marks[i] = "▸" * (i == self.turn) + ("" if value is None else "▲" if value >= GOOD else "▼")
        self.query_one(ConversationView).mark(marks)

    def watch_turn(self) -> None:
        self._mark()

    def _show_heading(self) -> None:
        status, turns = self.session.status, len(self.session.chat.turns)
        learning = " · learning is paused" if status.paused else ""
        told = f"· answering: {answering(self.session)}{learning} · {turns} turn{'s' if turns != 1 else ''}"
        self.query_one("#heading", Line).show(f"{told}{_cut(self.session.chat.turns[-1]) if turns else ''}", "chat ")

    # --- what the operator does --------------------------------------------------------------------------------------------

    async def attempt(self, work: Callable[[], Awaitable[object]], done: str = "") -> bool:
        """Do it; say why not, if not."""
        return await attempt(self.say, work, done)

    @on(Input.Submitted)
    async def _sent(self, event: Input.Submitted) -> None:
        text = event.value
        if text.strip() in COMMANDS:
            _take(event.input, text)
            await self.run_action(COMMANDS[text.strip()])
        elif text.startswith("/") and text.split()[0].isascii() and " " not in text.strip():
            self.say(f"there is no {one_line(text)}: {' '.join(COMMANDS)}")
        elif await self.attempt(lambda: self.session.chat.say(text)):
            _take(event.input, text)
            self.say("")

    def _chosen(self) -> SetView:
        turns = self.session.chat.turns
        if not turns:
            raise SessionError("there are no turns yet", "type a message")
        return turns[min(self.turn, len(turns) - 1)]

    def action_turn(self, step: int) -> None:
        self.turn = max(0, min(len(self.session.chat.turns) - 1, self.turn + step))
        if self.session.chat.turns:
            self.query_one(ConversationView).look_at(self.turn)

    def action_markdown(self) -> None:
        view = self.query_one(ConversationView)
        view.markdown = not view.markdown
        self.say("finished answers are rendered as Markdown" if view.markdown else "answers as they were written")

    def action_fold(self) -> None:
        view = self.query_one(ConversationView)
        view.folded = not view.folded
        self.say("thoughts are one line each" if view.folded else "thoughts are shown whole")

    def action_scroll(self, lines: int) -> None:
        self.query_one(ConversationView).scroll_relative(y=lines, animate=False)

    def action_write(self) -> None:
        self.query_one(Input).focus()

    async def action_leave(self) -> None:
        """From the line to the keys, and then to the Arena."""
        if self.query_one(Input).has_focus:
            self.set_focus(None)
        else:
            self.action_write()  # who comes back writes on
            await self.app.run_action("app.back")

    async def action_praise(self) -> None:
        await self.attempt(lambda: self.session.chat.thumb(self._chosen(), True), "✓ ▲ on disk")

    async def action_blame(self) -> None:
        await self.attempt(lambda: self.session.chat.thumb(self._chosen(), False), "✓ ▼ on disk")

    async def action_rewrite(self) -> None:
        if not await self.attempt(self._end_chosen):
            return
        turn = self._chosen()
        rewriting = EditorScreen("rewrite this turn", editable(turn.candidates[0].said), turn.prompt.text)
        self._edit(rewriting, partial(self.session.chat.rewrite, turn), "✓ on disk; the conversation goes on from it")

    def _edit(self, editor: EditorScreen, keep: Callable[[str], Awaitable[object]], done: str) -> None:
        """What is saved in it is kept."""

        async def written(result: WrittenText | None) -> None:
            if result is not None and result.saved:
                await self.attempt(partial(keep, result.text), done)

        self.app.push_screen(editor, written)

    async def action_critique(self) -> None:
        if not await self.attempt(self._end_chosen):
            return
        turn = self._chosen()
        screen = CritiqueScreen(about("a", "this turn"), self._drafts.pop(turn.uid, Draft()))

        async def said(result: WrittenText | None) -> None:
            if result is None:
                return
            done = "✓ on disk: answered anew; /undo takes it back"
            if not result.saved or not await self.attempt(lambda: self.session.chat.criticise(turn, result.text, screen.about.scope), done):
                self._drafts[turn.uid] = Draft(result.text, screen.chosen)

        self.app.push_screen(screen, said)

    async def _end_chosen(self) -> None:
        await self.session.sets.end([self._chosen().candidates[0].uid])

    async def action_branch(self) -> None:
        await self.attempt(lambda: self.session.chat.branch(self._chosen()), "on from this turn; the rest is in the record")
        self.query_one(Input).focus()

    async def action_begin_anew(self) -> None:
        await self.attempt(self.session.chat.begin_anew, "a new conversation; the old one is in the record")

    async def action_stop(self) -> None:
        await self.attempt(self.session.chat.stop)

    async def action_undo(self) -> None:
        await self.attempt(self.session.judging.undo)

    async def action_copy(self) -> None:
        await self._take_out.copy(self._answer(), self.query_one(ConversationView).folded)

    async def action_copy_code(self) -> None:
        await self._take_out.copy_code(self._answer())

    async def action_export(self) -> None:
        last = self.session.chat.turns[-1] if self.session.chat.turns else None
        await self._take_out.export(last, last.candidates[0] if last is not None else None)

    def _answer(self) -> CandidateView | None:
        return self._chosen().candidates[0] if self.session.chat.turns else None

    async def action_flag(self) -> None:
        if not await self.attempt(self._end_chosen):
            return
        turn = self._chosen()

        async def chosen(label: str | None) -> None:
            if label is not None:
                flag = partial(self.session.judging.flag_of, turn.uid, turn.candidates[0].uid, label)
                await self.attempt(flag, f"✓ this turn flagged: {label}")

        self.app.push_screen(ChoiceScreen("this turn is a case of", FLAGS), chosen)

    async def action_comment(self) -> None:
        if not await self.attempt(self._end_chosen):
            return
        turn = self._chosen()
        note = EditorScreen("a note on this turn; nothing is learned from it", "")
        self._edit(note, partial(self.session.judging.comment, turn.uid, turn.candidates[0].uid), "✓ on disk")


def _take(line: Input, text: str) -> None:
    """What was sent is no longer in the line; what was typed behind it meanwhile is."""
    line.value = line.value.removeprefix(text)


def _spoken(turn: SetView) -> Spoken:
    return Spoken(turn.prompt.text.strip(), _said(turn), turn.candidates[0].ended is not None)


def _cut(turn: SetView) -> str:
    """What of this turn is missing."""
    answer = turn.candidates[0]
    forgotten = f" · the model no longer reads the oldest {answer.cut:,} tokens" if answer.cut else ""
    return forgotten + (" · cut at the limit" if answer.ended == "length" else "")


def _said(turn: SetView) -> str:
    answer = turn.candidates[0]
    return answer.refused or plain("".join(answer.pieces)).lstrip()
