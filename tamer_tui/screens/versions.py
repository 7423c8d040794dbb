"""Every version with its reason, as a tree: to roll back to, and to be set beside another one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import var
from textual.screen import Screen
from textual.widgets import Static

from storage.queries import Record
from storage.records import BASE_VERSION, Prompt, Run
from storage.rows import MarkedVersion
from storage.sample_pairs import SamplePair
from tamer_tui.keys import VERSIONS_KEYS, painted_all
from tamer_tui.lineage import drawn
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.differences import DifferencesScreen, Pair
from tamer_tui.screens.editor import EditorScreen, WrittenText
from tamer_tui.screens.observing import observe
from tamer_tui.session import Change, Session
from tamer_tui.text import one_line
from tamer_tui.widgets.details import DOING
from tamer_tui.widgets.foot import Foot
from tamer_tui.widgets.rows import Rows

HINT = "enter rolls back to a version · c compares one with the untouched model, or with the one that m marked"
COLUMNS = ("", "version", "from", "learned by", "verdict", "moved", "won", "when", "reason")
LEARNED_BY = {"sft": "imitation", "distill": "taking in", "ppo": "practice"}


class VersionsScreen(Screen[None]):
    """Keeps its place; what is new is there when it is looked at again."""

    CSS_PATH = "versions.tcss"
    BINDINGS = list(VERSIONS_KEYS)

    chosen: var[str | None] = var(None)
    marked: var[str] = var("", init=False)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._versions: list[MarkedVersion] = []
        self._runs: dict[str, Run] = {}

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Rows(dict.fromkeys(COLUMNS), id="table")
            yield Static(Content(HINT), id="hint")
        setting = painted_all("versions.mark", "versions.compare", "versions.sample", "versions.prompt", "versions.differences")
        yield Foot([("enter", "roll back"), *setting, ("up down", "look")])

    def on_mount(self) -> None:
        self.query_one("#box").border_title = "versions"
        observe(self.session, self, self._changed)
        self._read()

    def on_screen_resume(self) -> None:
        self.chosen = None
        self._read()

    def _changed(self, change: Change) -> None:
        if self.is_current and change in (Change.VERSION, Change.COMMITTED):
            self._read()
        if self.is_current and change is Change.TOKENS and (asked := self.session.duels.asked) is not None:
            one, other = asked.candidates
            self.say(f"asking {one.side} and {other.side}: {len(one.pieces) + len(other.pieces)} tokens so far")

    def say(self, line: str) -> None:
        """One line, at the bottom."""
        self.query_one(Foot).say(line)

    def _read(self) -> None:
        """What there is now; the cursor stays on its row."""
        self._versions = self.session.machine.versions()
        self._read_runs()
        acting = self.session.status.acting[0]
        rows = drawn(self._versions)
        named = ((version.id if version else BASE_VERSION, branch, version) for branch, version in rows)
        self.query_one(Rows).fill((name, _row(branch, version, _signs(name, acting, self.marked))) for name, branch, version in named)
        self.query_one(Rows).focus()

    @work(exclusive=True)
    async def _read_runs(self) -> None:
        """What each learned from: long lists, read beside the loop."""
        if (path := self.session.database) is not None:
            self._runs = {run.uid: run for run in await asyncio.to_thread(_runs, path)}
            if self.chosen is None:
                self._look()

    @on(Rows.Looked)
    def _look(self) -> None:
        """The reason in full, on a narrow screen its column is cut off; and what it learned from."""
        if self.chosen is not None and self.chosen == self.query_one(Rows).chosen:  # it is asked whether to go back to it
            return
        self.chosen = None
        version = next((v for v in self._versions if v.id == self.query_one(Rows).chosen), None)
        self._tell(f"{version.id}: {one_line(version.reason)}\n{self._learned_from(version)}" if version is not None else HINT)

    @on(Rows.RowSelected)
    def _ask(self) -> None:
        chosen = self.query_one(Rows).chosen
        version = next((v for v in self._versions if v.id == chosen), None)
        if version is not None and not version.published:
            self._tell(f"{chosen} was refused and not kept")
            return
        self.chosen = chosen
        self._tell(f"roll back to {chosen}? y does it, and learning is held until you resume it with p · esc leaves")

    async def action_confirm(self) -> None:
        if (version := self.chosen) is None:
            return
        said = f"rolled back to {version}: learning is held, p resumes it"
        app = self.app
        self.chosen = None
        await app.run_action("app.back")
        await app.attempt(lambda: self.session.machine.rollback(version), said)  # type: ignore[attr-defined]

    # --- beside another one ------------------------------------------------------------------------------------------------

    def action_mark(self) -> None:
        chosen = self.query_one(Rows).chosen
        self.marked = "" if chosen == self.marked else chosen

    def watch_marked(self) -> None:
        self._read()
        self.say(f"{self.marked} is marked: c compares another one with it, blind; s and n ask both" if self.marked else "")

    def _pair(self) -> tuple[str, str]:
        """The version at the cursor, and what it is set beside."""
        return self.query_one(Rows).chosen, self.marked or BASE_VERSION

    async def action_compare(self) -> None:
        async def compare() -> None:
            await self.session.duels.between(*self._pair())
            await self.app.run_action("app.mode('compare')")

        await attempt(self.say, compare)

    @work(exclusive=True, group="differences")
    async def action_differences(self) -> None:
        """Answers of the version at the cursor that are in the record, beside another's to the same prompts."""
        path, version = self.session.database, self.query_one(Rows).chosen
        if path is None or not version:
            return
        found = await asyncio.to_thread(_pairs, path, version, self.marked)
        if found:
            self.app.push_screen(DifferencesScreen([Pair(pair.versions, pair.texts, pair.prompt) for pair in found]))
        else:
            self.say(f"no prompt was answered by {version} and by {self.marked or 'another version'} yet: s asks both")

    def action_sample(self) -> None:
        self._sample(None)

    def action_sample_prompt(self) -> None:
        async def written(result: WrittenText | None) -> None:
            if result is not None and result.saved and result.text.strip():
                self._sample(Prompt.of(result.text, self.session.settings.system, "typed"))

        one, other = self._pair()
        self.app.push_screen(EditorScreen(f"a prompt for {one} and {other}", ""), written)

    @work(exclusive=True, group="sample")
    async def _sample(self, prompt: Prompt | None) -> None:
        """An answer of each, word by word."""
        pair = self._pair()

        async def sample() -> None:
            view = await self.session.duels.sample(*pair, prompt)
            texts = view.candidates[0].so_far, view.candidates[1].so_far
            if self.is_current:
                self.app.push_screen(DifferencesScreen([Pair(pair, texts, view.prompt.text)]))

        self.say(f"asking {pair[0]} and {pair[1]} …")
        if await attempt(self.say, sample):
            self.say("both answers are in the record")

    def _learned_from(self, version: MarkedVersion) -> str:
        runs = [self._runs[uid] for uid in version.runs if uid in self._runs]
        judgements = {seq for run in runs for seq in run.seqs}
        steps = ", ".join(f"{DOING.get(run.stage, run.stage)} ({run.steps} steps)" for run in runs)
        stale = " · stale: some of it was undone since" if version.stale else ""
        watched = f"\n{version.canary.in_words()}" if version.canary is not None else ""
        return f"learned from {len(judgements)} judgement{'s' if len(judgements) != 1 else ''}{': ' + steps if steps else ''}{stale}{watched}"

    def _tell(self, line: str) -> None:
        self.query_one("#hint", Static).update(Content(line))


def _pairs(path: Path, version: str, other: str) -> list[SamplePair]:
    with Record(path) as record:
        return record.sample_pairs(version, other)


def _runs(path: Path) -> list[Run]:
    with Record(path) as record:
        return record.runs()


def _signs(name: str, acting: str, marked: str) -> str:
    return "▸" * (name == acting) + "◆" * (name == marked)


def _row(branch: str, version: MarkedVersion | None, signs: str) -> tuple[str, ...]:
    if version is None:
        return (signs, BASE_VERSION, "", "", "", "", "", "", "the model as it was loaded")
    verdict = ("published" if version.published else "refused") + (" · stale" if version.stale else "")
    kl = f"{version.kl:.1f}" if version.kl is not None else ""
    won = f"{version.win_rate:.0%}" if version.win_rate is not None else ""
    when = version.utc[5:16].replace("T", " ")
    return (
        signs,
        branch + version.id,
        version.parent,
        LEARNED_BY.get(version.stage, version.stage),
        verdict,
        kl,
        won,
        when,
        version.reason,
    )
