"""An engine from a script: speaks the protocol without a model, deterministic, in the caller's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context

from learners import protocol
from learners.protocol import Command, Event, Piece
from learners.versions.blobs import digest, split
from storage.records import BASE_VERSION, Run, Sampling, new_uid

STORIES = (
    "Lily went to the park and saw a big red ball. She was so happy that she laughed and ran to play with her friend Tom.",
    'The dog was sad. It had no home. Then a kind girl came and said, "You can live with me!" The dog wagged its tail.',
    "One day it rained and rained. The bird hid under a leaf [/b] and waited. It was cold and it was long.",
    "He took the toy and did not share. His mom was not pleased. The end.",
    "The little frog jumped over the log, and over the stone, and over the pond, and never once looked back at all.",
)


class FakeEngine:
    """Answers every command at once, or when the loop gets to it. `texts` are what it says, by slot."""

    remote = False

    def __init__(
        self,
        texts: Sequence[str] = STORIES,
        *,
        base_hash: str = "f" * 64,
        chat_template: bool = False,
        token_seconds: float = 0.0,
        publish_after: int | None = None,
        finish: bool = True,
        ready: bool = True,
        sampling: Sampling | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """`publish_after` judgements it publishes a version; `finish` False leaves answers open until `stop`; `ready` False never loads."""
        self.texts, self.base_hash, self.chat_template = texts, base_hash, chat_template
        self.token_seconds, self.publish_after, self.finish, self.loads = token_seconds, publish_after, finish, ready
        self.received: list[Command] = []
        self.sampling, self.notes = sampling, notes  # of the model's own; what is remarked once it is there
        self.lessons: dict[int, protocol.Lesson] = {}
        self.version, self.epoch, self.running = BASE_VERSION, 0, False
        self.silent = False  # grants are not answered
        self._begun = False  # answers may be drawn
        self._open: dict[str, asyncio.Task[None] | None] = {}
        self._said: dict[str, int] = {}
        self._texts: dict[str, str] = {}

    async def start(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        self._emit_now, self._on_exit, self.running = on_event, on_exit, True

    async def close(self) -> None:
        self.running = False

    def die(self, why: str = "the engine stopped (signal 9)") -> None:
        """As after kill -9."""
        self.running = False
        self._on_exit(why)

    def emit(self, event: Event) -> None:
        """Say something, when the loop gets to it. As from a real engine, it comes from outside of any app."""
        asyncio.get_running_loop().call_soon(lambda: self._emit_now(event) if self.running else None, context=Context())

    def send(self, command: Command) -> None:
        protocol.encode_command(command)  # as any engine: raises where no line is as long
        self.received.append(command)
        match command:
            case protocol.Load():
                self._load(command)
            case protocol.Replay(lessons=lessons, last=last, sample=sample):
                self.lessons |= {lesson.seq: lesson for lesson in lessons}
                if last and self.lessons:
                    self._learn(0)
                self._begun |= last
                if self._begun and not (last and not sample):  # of a long log, which goes on
                    self.emit(protocol.Read())
            case protocol.AddJudgement(lesson=lesson):
                self.lessons[lesson.seq] = lesson
                self._learn(lesson.seq)
                if len(self.lessons) == self.publish_after:
                    self.publish()
            case protocol.Retract(seq=seq):
                self.lessons.pop(seq, None)
                self._learn(seq)
            case protocol.Generate(requests=candidates):
                for slot, candidate in enumerate(candidates):
                    self._draw(candidate, self.texts[slot % len(self.texts)])
            case protocol.ResumeFrom(uid=uid, n_tokens=n_tokens):
                self._redraw(uid, n_tokens)
            case protocol.Stop(uids=uids):
                for uid in uids or tuple(self._open):
                    self._end(uid, "stopped")
            case protocol.PublishAck(sha256=_, version=version):
                self.version = version
                self.emit(protocol.Acting(version=version, beta=0.1, h_epoch=self.epoch))
            case protocol.Rollback(version=version):
                self.version = version
                self.emit(protocol.Acting(version=version, beta=0.1, h_epoch=self.epoch))
            case protocol.Appraise(answers=answers, by=by):
                found = tuple(_appraisal(answer) for answer in answers)
                self.emit(protocol.Appraised(h_epoch=self.epoch, appraisals=found if by == "human_reward" or self.lessons else (), by=by))
            case protocol.Set():
                asked = command.train_seconds is not None or command.train_steps is not None or command.flush
                if asked and not self.silent:
                    self.emit(protocol.Idle(trained_seconds=command.train_seconds or 0.0, reason="the grant is used up"))

    def publish(self, reason: str = "better on 12 prompts (71% won)", published: bool = True) -> None:
        """Train a little, pass the gate, publish (or be refused)."""
        run = Run(new_uid(), "distill", tuple(sorted(self.lessons)), 0, 60, 6.0, "{}")
        for step in (20, 40, 60):
            self.emit(protocol.Metrics(stage="distill", step=step, of=60, seconds_left=(60 - step) * 0.1, loss=1.0 / step, kl=5.8))
        self.emit(protocol.Metrics(stage="reward", step=10, of=10, seconds_left=0.0, loss=0.4, accuracy=0.83))
        self.emit(protocol.Trained(run=run))
        files = {"adapter_config.json": b"{}", "adapter_model.safetensors": self.version.encode(), "manifest.json": new_uid().encode()}
        if published:
            for blob in split(files):
                self.emit(blob)
        sha256 = digest(files) if published else ""
        code = "published" if published else "worse"
        self.emit(
            protocol.Gated(
                sha256=sha256,
                parent=self.version,
                stage="distill",
                published=published,
                reason=reason,
                reason_code=code,
                runs=(run.uid,),
                seed=0,
                kl=5.8,
                win_rate=0.71,
                h_epoch=self.epoch,
            )
        )

    def _load(self, load: protocol.Load) -> None:
        self.emit(protocol.Loading(what="libraries"))
        self.emit(protocol.Loading(what="weights", done=5e5, total=1e6, seconds_left=2.0))
        if self.loads:
            self.emit(
                protocol.Ready(
                    base_hash=self.base_hash,
                    model=load.model,
                    layers=5,
                    parameters=260032,
                    vocabulary=512,
                    width=64,
                    device="cpu",
                    quantize="none",
                    memory_bytes=2_500_000,
                    base_bytes=1_040_000,
                    context=512,
                    chat_template=self.chat_template,
                    version=load.version,
                    sampling=self.sampling,
                    from_model=load.unset if self.sampling is not None else (),
                )
            )
        for note in self.notes if self.loads else ():
            self.emit(protocol.Notice(what=note))

    def _learn(self, seq: int) -> None:
        self.epoch += 1
        kinds = [type(lesson.judgement).__name__ for lesson in self.lessons.values()]
        counts = {f"{kind.lower()}s": kinds.count(kind) for kind in ("Ranking", "Rating", "Correction", "Critique")}
        self.emit(protocol.Learned(seq=seq, h_epoch=self.epoch, milliseconds=12.0, beta=0.1, **counts, log_loss=0.5, accuracy=0.8))

    def _draw(self, candidate: protocol.AnswerRequest, text: str) -> None:
        uid = candidate.uid
        steered = candidate.policy == "acting" and bool(self.lessons)
        version = BASE_VERSION if candidate.policy == "base" else candidate.version or self.version
        self.emit(
            protocol.Started(
                uid=uid,
                prompt_ids=(1, 2, 3),
                version=version,
                h_epoch=self.epoch if steered else 0,
                beta=0.1 if steered else 0.0,
                policy=candidate.policy,
            )
        )
        self._said[uid] = 0
        self._texts[uid] = text
        self._open[uid] = asyncio.get_running_loop().create_task(self._speak(uid, text))

    def _redraw(self, uid: str, n_tokens: int) -> None:
        """The rest in capitals."""
        if task := self._open.pop(uid, None):
            task.cancel()
        words = self._texts[uid].split(" ")
        self._texts[uid] = text = " ".join([*words[:n_tokens], *(word.upper() for word in words[n_tokens:])])
        self.emit(protocol.Started(uid=uid, prompt_ids=(1, 2, 3), version=self.version, h_epoch=self.epoch, beta=0.1, policy="acting"))
        self._open[uid] = asyncio.get_running_loop().create_task(self._speak(uid, text, n_tokens))

    async def _speak(self, uid: str, text: str, start: int = 0) -> None:
        words = [word if i == 0 else " " + word for i, word in enumerate(text.split(" "))]
        for i, word in list(enumerate(words))[start:]:
            self.emit(
                protocol.Tokens(
                    pieces=(Piece(uid=uid, start=i, ids=(i,), texts=(word,), logprobs=(-1.0,), unbiased_logprobs=(-1.1,), times=(i * 0.01,)),)
                )
            )
            self._said[uid] += len(word)
            if self.token_seconds:
                await asyncio.sleep(self.token_seconds)
        if self.finish:
            self._end(uid, "eos", text)

    def _end(self, uid: str, reason: str, text: str | None = None) -> None:
        task = self._open.pop(uid, None)
        if task is None:
            return
        if text is None:
            task.cancel()
            slot = int(uid[-1]) if uid[-1].isdigit() else 0
            text = self.texts[slot % len(self.texts)][: self._said[uid]]
        self.emit(protocol.Ended(uid=uid, reason=reason, text=text, n_tokens=len(text.split()), kl=2.0, seconds=0.5))  # type: ignore[arg-type]


def _appraisal(answer: protocol.Answer) -> protocol.Appraisal:
    """Likes words with an `h` in them, and dislikes very short ones."""
    words = tuple(word if i == 0 else " " + word for i, word in enumerate(answer.text.split(" ")))
    return protocol.Appraisal(
        uid=answer.uid, texts=words, rewards=tuple(1.0 if "h" in word else -1.0 if len(word.strip()) < 4 else 0.0 for word in words)
    )
