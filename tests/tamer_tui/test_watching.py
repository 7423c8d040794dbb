"""What a terminal that watches shows, from a script."""

from __future__ import annotations

from collections.abc import Callable

from textual.widgets import Static

from learners import protocol
from learners.protocol import AnswerRequest, Event, Piece
from storage.records import Message
from tamer_tui.screens.watching import WatchApp

READY = protocol.Ready(
    base_hash="b", model="stories", layers=1, parameters=1, vocabulary=1, width=1, device="cpu", quantize="none", memory_bytes=1, base_bytes=1,
    context=1, chat_template=False,
)  # fmt: skip


class Elsewhere:
    """Says what the test says."""

    on_link: Callable[[str, bool], None]

    async def start(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        self.say, self.end = on_event, on_exit

    async def close(self) -> None:
        pass


def asked(prompt: str, *uids: str) -> protocol.Asked:
    return protocol.Asked(requests=tuple(AnswerRequest(uid=uid, seed=0, messages=(Message("user", prompt),)) for uid in uids))


def tokens(uid: str, text: str, start: int = 0) -> protocol.Tokens:
    piece = Piece(uid=uid, start=start, ids=(1,), texts=(text,), logprobs=(0.0,), unbiased_logprobs=(0.0,), times=(0.0,))
    return protocol.Tokens(pieces=(piece,))


def panes(app: WatchApp) -> list[str]:
    return [str(pane.render()) for pane in app.query("#answers Static").results(Static)]


def shown(app: WatchApp, name: str) -> str:
    return str(app.query_one(f"#{name}", Static).render())


async def test_answers_grow_as_they_are_drawn_and_another_set_takes_their_place() -> None:
    engine = Elsewhere()
    app = WatchApp(engine)  # type: ignore[arg-type]
    async with app.run_test(size=(80, 24)) as pilot:
        for event in (READY, asked("Tell [b]me\x1b[2J", "a", "b", "c"), tokens("a", "Once [red]"), tokens("x", "no")):
            engine.say(event)
        await pilot.pause()
        engine.say(tokens("a", " upon", 1))
        engine.say(protocol.Ended(uid="b", reason="eos", text="The end.", n_tokens=3, kl=0.0, seconds=1.0))
        engine.say(protocol.Learned(seq=1, h_epoch=1, milliseconds=1.0, beta=0.1, rankings=2, ratings=0, corrections=0))
        await pilot.pause()
        assert shown(app, "prompt") == "Tell [b]me[2J" and panes(app) == ["Once [red] upon", "The end.", ""]
        assert shown(app, "sentence").startswith("stories · learned from 2 rankings")
        engine.say(asked("More", "d"))
        engine.say(tokens("d", "Yes"))
        await pilot.pause()
        assert shown(app, "prompt") == "More" and panes(app) == ["Yes"]


async def test_it_ends_with_the_engine_and_says_why() -> None:
    engine = Elsewhere()
    app = WatchApp(engine)  # type: ignore[arg-type]
    async with app.run_test() as pilot:
        engine.on_link("nothing came for 8 s", False)
        engine.on_link("", False)
        engine.say(protocol.Error(what="the engine was ended", fatal=True))
        engine.end("the engine stopped")
        await pilot.pause()
    assert app.why == "the engine was ended"
