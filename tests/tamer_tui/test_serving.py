"""`tamer serve`, talked to by OpenAI's own client over a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from learners import protocol
from storage.journal import Journal
from storage.queries import Record
from storage.records import Activation, BaseModel, Correction, Ranking, Rating, Sampling, Sitting, Version
from tamer_tui.cli import main
from tamer_tui.serving.run import Place, listening, prepared
from tamer_tui.session import Session
from tamer_tui.session_store import SessionStore, write_directory
from tamer_tui.views import SessionSettings
from tests.tamer_tui.fake_engine import STORIES, FakeEngine

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")

ASKED: dict[str, Any] = {"model": "acting", "messages": [{"role": "user", "content": "Tell me a story."}]}
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"1", "manifest.json": b"{}"}


class Served(NamedTuple):
    client: Any  # openai.AsyncOpenAI
    session: Session
    engine: FakeEngine
    port: int
    token: str

    async def post(self, path: str, said: object) -> tuple[int, Any]:
        """Status and body, from a client of nobody's making."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {self.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.read()
        writer.close()
        before, _, content = answer.partition(b"\r\n\r\n")
        return int(before.split()[1]), json.loads(content)


@asynccontextmanager
async def served(tmp_path: Path, engine: FakeEngine | None = None, version: bool = False) -> AsyncIterator[Served]:
    engine = engine or FakeEngine()
    database = tmp_path / "me.db"
    session = Session(SessionSettings("toy", sampling=Sampling(0.9, 64), autostart=False, operator="jo"), lambda: engine, database)
    opened = listening(Place(port=0))
    await session.start()
    await session.wait_ready()
    server, token, _ = prepared(session, Place())
    if version:
        store = session.opened
        sha256 = write_directory(FILES, SessionStore.root_of(database)).name
        await store._write(Version("v1", sha256, "base", "sft", True, "better", "published", (), 0))
        await store._write(Activation("base", "rollback"))
    serving = asyncio.create_task(server.serve(sockets=[opened]))
    port = opened.getsockname()[1]
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=token, max_retries=0, timeout=60)
    try:
        yield Served(client, session, engine, port, token)
    finally:
        await client.close()
        server.should_exit = True
        await serving
        await session.close()


async def test_openais_client_is_answered(tmp_path: Path) -> None:
    async with served(tmp_path, version=True) as here:
        assert [model.id async for model in await here.client.models.list()] == ["acting", "base", "v1"]
        found = await here.client.chat.completions.create(**ASKED, n=2, logprobs=True, max_tokens=7, temperature=0.5, seed=3)
        assert [choice.message.content for choice in found.choices] == list(STORIES[:2])
        assert [choice.finish_reason for choice in found.choices] == ["stop", "stop"] and found.usage.completion_tokens == sum(
            len(story.split()) for story in STORIES[:2]
        )
        tokens = found.choices[1].logprobs.content
        assert "".join(token.token for token in tokens) == STORIES[1] and tokens[0].logprob == -1.0
        asked = here.engine.received[-1]
        assert isinstance(asked, protocol.Generate) and asked.sampling == Sampling(0.5, 7)
        first = [request.seed for request in asked.requests]
        await here.client.chat.completions.create(**ASKED, n=2, max_tokens=7, temperature=0.5, seed=3)
        again = here.engine.received[-1]
        assert isinstance(again, protocol.Generate) and [request.seed for request in again.requests] == first and len(set(first)) == 2


async def test_a_stream_says_the_same_and_stop_words_end_it(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        streamed = ["", ""]
        usage = None
        async for chunk in await here.client.chat.completions.create(**ASKED, n=2, stream=True, stream_options={"include_usage": True}):
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
            usage = chunk.usage or usage
        assert streamed == list(STORIES[:2]) and usage.prompt_tokens == 3
        text = "".join([
            chunk.choices[0].delta.content or ""
            async for chunk in await here.client.chat.completions.create(**ASKED, stream=True, stop=["red ball.", "no such words"])
        ])  # fmt: skip
        assert text == "Lily went to the park and saw a big "
        whole = await here.client.chat.completions.create(**ASKED, stop="to")
        assert whole.choices[0].message.content == "Lily went "


async def test_a_thought_is_no_part_of_what_is_said(tmp_path: Path) -> None:
    async with served(tmp_path, FakeEngine(("<think>\nYes or no? Stop.\n</think>\n\nIt is so. Stop. More",))) as here:
        found = await here.client.chat.completions.create(**ASKED, stop="Stop.")
        message = found.choices[0].message
        assert (message.content, message.reasoning_content) == ("It is so. ", "Yes or no? Stop.")
        chunks = [chunk async for chunk in await here.client.chat.completions.create(**ASKED, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "It is so. Stop. More"
        assert (await here.post("/v1/feedback", {"id": found.id, "thumb": "up"}))[0] == 200
        with Record(tmp_path / "me.db") as record:
            (judged,) = record.live()
            assert isinstance(judged.judgement, Rating)
            (kept,) = record.responses(judged.judgement.set_uid)
            assert kept.text == "<think>\nYes or no? Stop.\n</think>\n\nIt is so. "


async def test_a_version_is_drawn_by_its_adapter_and_who_acts_stays(tmp_path: Path) -> None:
    async with served(tmp_path, version=True) as here:
        sha256 = here.session.record.versions()[0].sha256
        for model, policy in (("acting", "acting"), ("v1", "adapter"), ("base", "base"), ("v1", "adapter"), ("acting", "acting")):
            before = len(here.engine.received)
            await here.client.chat.completions.create(**ASKED | {"model": model})
            said = here.engine.received[before:]
            (request,) = [request for command in said if isinstance(command, protocol.Generate) for request in command.requests]
            named = (model, sha256) if model == "v1" else ("", None)
            assert (request.policy, request.version, request.sha256) == (policy, *named)
            assert not any(isinstance(command, protocol.Rollback) for command in said)
        sent = {command.sha256 for command in here.engine.received if isinstance(command, protocol.Blob)}
        assert sent == {sha256}
        with pytest.raises(openai.NotFoundError, match="there is no model 'v9'"):
            await here.client.chat.completions.create(**ASKED | {"model": "v9"})


async def test_feedback_becomes_judgements_that_are_learned_from_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        found = await here.client.chat.completions.create(**ASKED, n=2)
        with Record(tmp_path / "me.db") as record:
            assert record.counts().responses == 0  # nothing is written down before it is judged
        assert await here.post("/v1/feedback", {"id": found.id, "choice": 1, "thumb": "down"}) == (200, {"object": "feedback", "seq": 1})
        assert (await here.post("/v1/feedback", {"id": found.id, "choice": 1, "text": "No."}))[0] == 200
        pair = {"better": {"id": found.id, "choice": 1}, "worse": {"id": found.id, "choice": 0}}
        assert (await here.post("/v1/feedback", pair))[0] == 200
        turned = {"better": pair["worse"], "worse": pair["better"]}
        assert [(await here.post("/v1/feedback", again))[0] for again in (pair, turned)] == [409, 409], "nothing that trying again would mend"
        assert (await here.post("/v1/feedback", {"id": found.id, "choice": 1, "thumb": "up"}))[0] == 200
        with Record(tmp_path / "me.db") as record:
            live = [logged.judgement for logged in record.live()]
            assert [type(judgement) for judgement in live] == [Correction, Ranking, Rating]  # the second thumb took the first one's place
            ranked, rated = live[1], live[2]
            assert isinstance(ranked, Ranking) and isinstance(rated, Rating) and rated.value == 7
            texts = {response.uid: response.text for response in record.responses(ranked.set_uid)}
            assert {texts[uid]: rank for uid, rank in ranked.ranks.items()} == {STORIES[1]: 1, STORIES[0]: 2}
            assert record.logged(4).sitting_uid == here.session.uid
        assert sorted(here.engine.lessons) == [2, 3, 4]


@pytest.mark.parametrize(
    ("path", "said", "status", "line"),
    [
        ("/v1/chat/completions", b"{", 400, "not a request"),
        ("/v1/chat/completions", {"messages": []}, 400, "the last message has to be the user's"),
        ("/v1/chat/completions", ASKED | {"presence_penalty": 0.5}, 400, "presence_penalty is not done here"),
        ("/v1/chat/completions", ASKED | {"n": 99}, 400, "n is 1 to 8"),
        ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, 400, "has the role 'tool'"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            400,
            "content that is no text",
        ),
        ("/v1/chat/completions", b" " * (5 * 2**20), 413, "at most 4 MiB"),
        ("/v1/feedback", {"id": "x", "thumb": "up"}, 404, "is not known any more"),
        ("/v1/feedback", {"id": "x"}, 400, "say one of"),
    ],
    ids=range(9),
)
async def test_what_cannot_be_done_is_told(tmp_path: Path, path: str, said: object, status: int, line: str) -> None:
    async with served(tmp_path) as here:
        found = await here.post(path, said)
        assert found[0] == status and line in found[1]["error"]["message"]


async def test_the_token_guards_everything(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        for wrong in ("", "x", here.token[:-1]):
            assert (await here._replace(token=wrong).post("/v1/feedback", {}))[0] == 401
        with pytest.raises(openai.AuthenticationError):
            await here.client.with_options(api_key="wrong").models.list()


class Endless(FakeEngine):
    """Answers end where they are stopped."""

    def __init__(self) -> None:
        super().__init__(finish=False)
        self.asked, self.stopped = asyncio.Event(), asyncio.Event()

    def send(self, command: protocol.Command) -> None:
        super().send(command)
        if isinstance(command, protocol.Generate):
            self.asked.set()
        elif isinstance(command, protocol.Stop):
            self.stopped.set()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_ends_its_answer(tmp_path: Path, stream: bool) -> None:
    engine = Endless()
    async with served(tmp_path, engine) as here, asyncio.timeout(60):
        body = json.dumps(ASKED | {"stream": stream}).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", here.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {here.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await engine.asked.wait()
        writer.close()
        await engine.stopped.wait()
        assert not engine._open


async def test_two_hundred_requests_at_once_are_drawn_in_a_few_batches(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        asked = [here.client.chat.completions.create(**ASKED, seed=i) for i in range(200)]
        found = await asyncio.gather(*asked)
        assert len({each.id for each in found}) == 200 and {each.choices[0].message.content for each in found} <= set(STORIES)
        batches = [command for command in here.engine.received if isinstance(command, protocol.Generate)]
        assert sum(len(batch.requests) for batch in batches) == 200 and len(batches) < 100


async def test_a_conversation_that_is_too_long_is_refused(tmp_path: Path) -> None:
    class Short(FakeEngine):
        def emit(self, event: protocol.Event) -> None:
            cut = isinstance(event, protocol.Started)
            super().emit(
                protocol.Started(uid=event.uid, prompt_ids=(1,), version="base", h_epoch=0, beta=0.0, policy="acting", truncated=9) if cut else event
            )  # type: ignore[union-attr]

    async with served(tmp_path, Short()) as here:
        with pytest.raises(openai.BadRequestError, match="9 tokens longer than the model can read"):
            await here.client.chat.completions.create(**ASKED, stream=True)


async def test_an_engine_that_died_is_started_again(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        await here.client.chat.completions.create(**ASKED)
        here.engine.die()
        found = await here.client.chat.completions.create(**ASKED)
        assert found.choices[0].message.content == STORIES[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_an_engine_broke_off_is_no_answer(tmp_path: Path, stream: bool) -> None:
    class Dies(FakeEngine):
        def emit(self, event: protocol.Event | protocol.Blob) -> None:
            super().emit(event)
            if isinstance(event, protocol.Tokens):
                asyncio.get_running_loop().call_soon(self.die)

    async with served(tmp_path, Dies()) as here:
        with pytest.raises(openai.APIError, match="engine"):
            found = await here.client.with_options(max_retries=0).chat.completions.create(**ASKED, stream=stream)
            if stream:
                async for _ in found:
                    pass


def test_a_place_that_cannot_be_served_from_is_one_line(tmp_path: Path) -> None:
    def line(*words: object) -> str:
        found = CliRunner().invoke(main, ["serve", *map(str, words)])
        assert found.exit_code == 1 and found.output.count("\n") == 1
        return found.output

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with Journal.open(tmp_path / "me.db") as journal:
            journal.bind(BaseModel("b" * 64, "pocket", "none"), Sitting("s", "b" * 64, "0", "{}"))
        assert "is in use: give another --port" in line(tmp_path / "me.db", "--port", taken.getsockname()[1])
    assert "without TLS the token can be read" in line(tmp_path / "me.db", "--host", "0.0.0.0")
    assert "there is no database" in line(tmp_path / "no.db")
