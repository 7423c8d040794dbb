"""The acting policy: draws answers with the actor's adapter and Ĥ, one batch at a time.

Everything here belongs to one thread and emits protocol events; no threads and no pipes in this file. `draw` yields between any two tokens, so
that the engine can learn from a judgement or stop an answer there: the very next token is drawn with what was just judged.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from learners.engine.critique_steering import SOLVED_AT, CritiqueSteering
from learners.engine.streamed_answer import AnsweredSet, StreamedAnswer
from learners.human_reward.critique_bias import BiasWithCritiques
from learners.human_reward.head import RewardHead
from learners.human_reward.kl_budget import KLBudget, VisitedStates, state_stride
from learners.human_reward.logit_bias import LogitBias
from learners.model.answer_limits import AnswerLimits
from learners.model.answer_text import AnswerText
from learners.model.base import Backbone
from learners.model.chat_format import PromptError
from learners.model.lora import load_lora
from learners.model.memory import MAY_MEAN_MEMORY, free_memory, out_of_memory, within_memory
from learners.model.rows import NOT_FINITE, WHY_NOT_FINITE, FixedBias
from learners.model.sampling import Row, Step, decode
from learners.model.static_decoder import StaticDecoder, forget_buffers
from learners.model.traced_step import traced_decoder
from learners.protocol import TOKEN_FLUSH_SECONDS, Acting, Answer, AnswerRequest, Appraised, Ended, Error, Event, Started, Tokens
from learners.rlhf.rollouts import Trace, draw_answers, look_again, states_before
from learners.rlhf.token_rewards import appraise
from learners.versions.snapshot import PolicySnapshot
from storage.records import BASE_VERSION, Sampling, StopReason

SHORTEST_ANSWER = 8
"""Tokens; β is solved on acting answers, or rests that were drawn anew, of at least this length."""
BETA_ANSWERS = 12
BETA_SEED = 2
PROMPT_CACHE_BYTES = 64e6
"""Of keys and values of prompts that were read last."""
REMEMBERED_ANSWERS = 64
"""Drawn answers that can still be resumed from one of their tokens."""


class _Interrupted(Exception):
    """A rehearsal is given up: somebody waits."""


class Generator:
    """Owns the actor tree, the steering and β. `emit` takes protocol events."""

    def __init__(self, backbone: Backbone, actor: nn.Module, head: RewardHead, nats: float, bias: bool, emit: Callable[[Event], None]) -> None:
        from learners.model.caches import PromptCache

        self.backbone, self.actor = backbone, actor
        self.budget = KLBudget(nats)
        self.bias = bias
        self.policy = PolicySnapshot()
        self.steering = LogitBias(head)
        self.words = CritiqueSteering(backbone, emit)
        self._emit = emit
        self._temperature = 1.0  # of the answers that β is solved on
        self.prompts = PromptCache(PROMPT_CACHE_BYTES)  # the bare model and the actor without its adapter compute the same
        self.may_prepare = False  # whether answers may be drawn in other ways when there was time to prepare for it, which rounds otherwise
        self._decoders: dict[nn.Module, StaticDecoder | None] = {}
        self._lent: PolicySnapshot | None = None  # draws in place of the acting version
        self._live: dict[str, StreamedAnswer] = {}
        self._finished: deque[StreamedAnswer] = deque(maxlen=REMEMBERED_ANSWERS)
        self._stops: set[str] = set()
        self.set_drawn: AnsweredSet | None = None  # last
        self.told = False  # whether the answers that were drawn last say what β is to be

    # --- the acting policy -------------------------------------------------------------------------------------------

    @property
    def beta(self) -> float:
        """Strength of the bias; 0 when steering is off."""
        return self.steering.beta if self.bias else 0.0

    def use_head(self, head: RewardHead) -> None:
        """Steer with this Ĥ from the next token on."""
        self._steer(self.policy.steering(head))

    def use_policy(self, policy: PolicySnapshot) -> None:
        """Act with another version from the next answer on; β is solved again on the remembered answers."""
        self._take_adapter(policy)
        self.policy = policy
        self.words.use_policy(policy.critiques)
        self.budget.see_again(self._look_again)
        self._steer(policy.steering(self.steering.head))
        self.tell_acting()

    def _take_adapter(self, policy: PolicySnapshot) -> None:
        load_lora(self.actor, policy.lora)
        self.prompts.forget_adapter()

    @contextmanager
    def lending(self, policy: PolicySnapshot) -> Iterator[None]:
        """While the block runs, this version's adapter draws in place of the acting one."""
        self._lent = policy
        try:
            self._take_adapter(policy)
            yield
        finally:
            self._lent = None
            self._take_adapter(self.policy)

    def _look_again(self, answer: VisitedStates) -> VisitedStates | None:
        """None where memory does not hold it."""
        return within_memory(lambda: look_again(self.backbone, self.actor, answer, self._temperature), lambda: None)

    def tell_acting(self, refused: str = "") -> None:
        """Which version acts, and how strongly Ĥ steers it; instead of the one that is `refused`."""
        self._emit(Acting(version=self.policy.version, beta=self.beta, h_epoch=self.steering.head.epoch, refused=refused))

    def use_budget(self, nats: float | None, bias: bool | None) -> None:
        """Change the nats budget, or switch steering by Ĥ on or off; None leaves it."""
        self.budget.nats = self.budget.nats if nats is None else nats
        self.bias = self.bias if bias is None else bias
        self._steer(self.policy.steering(self.steering.head))
        self.tell_acting()

    def calibrate_beta(self, prompts: Sequence[tuple[int, ...]], sampling: Sampling, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Draw a few acting answers that nobody sees, and solve β on them alone: after a restart there are no others, and after a publication the
        others were drawn by another policy, which went elsewhere. False where it was given up: it was `interrupted`, or another version draws."""
        if not self.bias or self.steering.head.blank or not prompts:
            return True
        if self._lent is not None:
            return False

        def pause() -> None:
            if interrupted():
                raise _Interrupted

        asked = (list(prompts) * BETA_ANSWERS)[:BETA_ANSWERS]
        adapted = self.policy.lora is not None
        how = {"adapter": adapted, "steering": self.steering, "keep_states": True, "pause": pause}
        try:
            drawn = draw_answers(self.backbone, self._tree(adapted), asked, sampling, BETA_SEED, **how)  # type: ignore[arg-type]
        except _Interrupted:
            return False
        found = [trace.visited(sampling.temperature) for trace in drawn if len(trace.ids) >= SHORTEST_ANSWER]
        if found:
            self.budget.start_over(found)
            self._temperature = sampling.temperature
            self._steer(self.policy.steering(self.steering.head))
            self.tell_acting()
        return True

    def _steer(self, steering: LogitBias) -> None:
        self.steering = self.budget.solve(steering, self._temperature) if self.bias else steering

    def appraise(self, answers: Sequence[Answer], of_rewards: RewardHead | None = None) -> Appraised:
        """What Ĥ thinks of each token of these answers, from the same states of the base that it learns from; or its fit to rewards."""
        head, backbone = of_rewards or self.steering.head, self.backbone

        def rewards(prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> list[float]:
            (seen,) = states_before(backbone, backbone.model, prompt_ids, [token_ids])
            return head.token_rewards(seen if of_rewards is None else seen.alone(), torch.tensor(token_ids)).tolist()

        return Appraised(h_epoch=self.steering.head.epoch, appraisals=appraise(backbone, answers, rewards))

    # --- drawing -------------------------------------------------------------------------------------------------------

    @property
    def drawing(self) -> list[str]:
        """Answers that have not ended."""
        return list(self._live)

    def stop(self, uids: Sequence[str]) -> None:
        """End these answers with what they have; one that is not drawn yet ends at its start."""
        self._stops |= set(uids)

    def forget_stops(self) -> None:
        """Nothing is being drawn and nothing waits: what was to be stopped has ended."""
        self._stops.clear()

    def draw(self, candidates: Sequence[AnswerRequest], sampling: Sampling) -> Iterator[None]:
        """Draw answers in one batch; yields after every token. What acting answers spent corrects β before the next ones."""
        self._live = {candidate.uid: begun for candidate in candidates if (begun := self._start_or_refuse(candidate, sampling))}
        sampling = replace(sampling, max_new_tokens=self.backbone.most_tokens(sampling))
        self._temperature = sampling.temperature
        drawn = list(self._live.values())
        yield from self._draw_within_memory(drawn, sampling)
        self.set_drawn = AnsweredSet.of(drawn, self.backbone)
        self.told = any(drawing.tells_of(self._temperature) for drawing in drawn)
        if self.told:
            self._steer(self.steering)

    def _draw_within_memory(self, drawings: Sequence[StreamedAnswer], sampling: Sampling) -> Iterator[None]:
        """In one batch; where memory does not hold it, what is left of the answers in two halves, and so on. Each goes on with the same tokens."""
        try:
            yield from self._draw_batch(drawings, sampling)
            return
        except MAY_MEAN_MEMORY as error:
            if not out_of_memory(error):
                raise
        self.forget_prepared()
        free_memory()
        left = [drawing for drawing in drawings if drawing.candidate.uid in self._live]
        if len(left) == 1:
            uid = left[0].candidate.uid
            self._emit(Error(what="out of memory while drawing this answer", hint="try a lower --max-new-tokens or a smaller model", uid=uid))
            left[0].finish_text()
            self._flush()
            self._end(uid, "stopped")
        else:
            middle = len(left) // 2
            for half in (left[:middle], left[middle:]):
                yield from self._draw_within_memory(half, sampling)

    def _draw_batch(self, drawings: Sequence[StreamedAnswer], sampling: Sampling) -> Iterator[None]:
        rows = [self._row(drawing) for drawing in drawings]
        adapted = any(row.adapter for row in rows)
        flushed = 0.0
        tree = self._tree(adapted)
        self._solve_words()
        steps = decode(
            tree, rows, sampling, self.backbone.eos_ids, self.backbone.pad_id,
            steer=_CurrentBias(self, self.words.acting.seqs), twin=adapted, want_stop=self._to_stop, force=self._close_thoughts,
            prompts=self.prompts, decoder=self._decoder(tree),
        )  # fmt: skip
        for drawn, step in enumerate(steps, start=1):
            self._record(step)
            if drawn in SOLVED_AT and step.wish is not None:
                self._solve_words(drawings)
            for uid in step.ended:
                self._live[uid].finish_text()
            if step.ended or time.monotonic() - flushed >= TOKEN_FLUSH_SECONDS:
                self._flush()
                flushed = time.monotonic()
            for uid, reason in step.ended.items():
                self._end(uid, self._live[uid].limits.ended or reason)
            yield

    def _to_stop(self) -> set[str]:
        """What the operator has stopped, and answers that end by themselves."""
        return self._stops | {uid for uid, drawing in self._live.items() if drawing.limits.ended}

    def _close_thoughts(self) -> dict[str, tuple[int, ...]]:
        """Of those that have become too long, what closes them."""
        closing = self.backbone.renderer.closing
        found = {uid: closing for uid, drawing in self._live.items() if drawing.limits.thinks_too_long}
        for uid in found:
            self._live[uid].close_thought(closing)
        return found

    def _solve_words(self, drawings: Sequence[StreamedAnswer] = ()) -> None:
        traces = [drawing.trace for drawing in drawings if drawing.contexts]
        self.words.solve(self.steering, self.budget.nats, self._temperature, traces)

    def resume(self, uid: str, n_tokens: int) -> tuple[AnswerRequest, Sampling] | None:
        """What to draw to go on with an answer after its first `n_tokens` tokens; None if it is not known any more."""
        drawing = self._before(uid)
        if drawing is None:
            return None
        self._stops.discard(uid)
        kept, old = tuple(drawing.trace.ids[:n_tokens]), drawing.candidate
        return replace(old, prefix_ids=kept), drawing.sampling

    def _before(self, uid: str) -> StreamedAnswer | None:
        """An answer as it was drawn last."""
        return next((drawing for drawing in reversed(self._finished) if drawing.candidate.uid == uid), None)

    def _start_or_refuse(self, candidate: AnswerRequest, sampling: Sampling) -> StreamedAnswer | None:
        """None for a prompt that the model cannot read, which is told; the other answers are drawn."""
        try:
            return self._start(candidate, sampling)
        except PromptError as error:
            self._stops.discard(candidate.uid)
            self._emit(Error(what=str(error), hint="the other prompts are used", uid=candidate.uid))
            return None

    def _start(self, candidate: AnswerRequest, sampling: Sampling) -> StreamedAnswer:
        most = self.backbone.most_tokens(sampling)
        prompt_ids, dropped = self.backbone.fit(candidate.messages, most)
        trace = Trace(tuple(prompt_ids), state_stride(most, self.backbone.vocabulary))
        contexts = self.words.contexts(candidate.messages, most, dropped) if candidate.policy == "acting" and self.bias else ()
        limits = AnswerLimits(AnswerText(self.backbone.renderer, sampling.stop), sampling, trace.ids)
        drawing = StreamedAnswer(candidate, sampling, trace, limits, time.monotonic(), contexts)
        before = self._before(candidate.uid) if candidate.prefix_ids else None
        for token in candidate.prefix_ids:
            trace.keep(token, before.trace if before is not None else None)
            drawing.take(0.0)
        if before is not None and before.trace.forced[1] <= len(trace.ids):
            trace.forced = before.trace.forced
        drawing.sent = len(drawing.texts)
        acting = candidate.policy == "acting"
        version = BASE_VERSION if candidate.policy == "base" else (self._lent or self.policy).version
        epoch, beta = (self.steering.head.epoch, self.beta) if acting else (0, 0.0)
        self._emit(
            Started(
                uid=candidate.uid, prompt_ids=trace.prompt_ids, version=version, h_epoch=epoch, beta=beta, policy=candidate.policy, truncated=dropped
            )
        )
        return drawing

    def _decoder(self, tree: nn.Module) -> StaticDecoder | None:
        """Of a small model on a CPU; elsewhere `decode` knows by itself."""
        if not self.may_prepare:
            return None
        if tree not in self._decoders:
            self._decoders[tree] = traced_decoder(tree, self.backbone.layers)
        return self._decoders[tree]

    @property
    def unprepared(self) -> bool:
        """Whether preparing would make the next answers faster."""
        return any(decoder is not None and decoder.due() for decoder in self._decoders.values())

    def prepare(self) -> None:
        """One thing of that, in a second or so."""
        for decoder in self._decoders.values():
            if decoder is not None and (shape := decoder.due()):
                decoder.prepare(shape)
                return

    def forget_prepared(self) -> None:
        """Let go of buffers and graphs of this thread's trees, and of the prompts that were read: all of it can be made again."""
        forget_buffers(self.backbone.model, self.actor)
        for decoder in self._decoders.values():
            if decoder is not None:
                decoder.forget()
        self.prompts.forget()

    def _tree(self, adapted: bool) -> nn.Module:
        """To draw with: without an adapter the bare model, since a LoRA costs a third of a step even where it changes nothing."""
        return self.actor if adapted else self.backbone.model

    def _row(self, drawing: StreamedAnswer) -> Row:
        candidate = drawing.candidate
        adapted = candidate.policy != "base" and (self._lent or self.policy).lora is not None
        steered = candidate.policy == "acting"
        begun = tuple(drawing.trace.ids)
        return Row(candidate.uid, drawing.trace.prompt_ids, candidate.seed, adapted, steered, begun, candidate.temperature, drawing.contexts)

    def _record(self, step: Step) -> None:
        now = time.monotonic()
        for row, uid in enumerate(step.uids):
            if not math.isfinite(step.logprobs[row] + step.unbiased_logprobs[row] + step.kl[row]):
                self._lose(uid)
                continue
            drawing = self._live[uid]
            drawing.trace.add(step, row)
            drawing.take(now - drawing.started)

    def _lose(self, uid: str) -> None:
        """An answer that cannot go on; what came of it stays."""
        if uid not in self._stops:
            self._emit(Error(what=NOT_FINITE, hint=WHY_NOT_FINITE, uid=uid))
        self._stops.add(uid)

    def _flush(self) -> None:
        pieces = [piece for drawing in self._live.values() if (piece := drawing.unsent())]
        if pieces:
            self._emit(Tokens(pieces=tuple(pieces)))

    def _end(self, uid: str, reason: StopReason) -> None:
        drawing = self._live.pop(uid)
        self._stops.discard(uid)
        trace = drawing.trace
        seconds = time.monotonic() - drawing.started
        thought, forced = self.backbone.renderer.answer_start(trace.ids), trace.forced
        told = {"thought_tokens": thought, "forced_tokens": max(0, min(thought, forced[1]) - forced[0])}
        self._emit(Ended(uid=uid, reason=reason, text="".join(drawing.texts), n_tokens=len(trace.ids), kl=trace.kl, seconds=seconds, **told))
        if drawing.tells_of(self._temperature) and len(trace.ids) - trace.kept >= SHORTEST_ANSWER:
            self.budget.visited(trace.visited(self._temperature))
            if drawing.contexts:
                self.words.visited(trace)
        drawing.trace = trace.without_states()
        self._finished.append(drawing)


class _CurrentBias:
    """The generator's steering as it is at each token: Ĥ may change while an answer is drawn."""

    def __init__(self, generator: Generator, critiques: frozenset[int]) -> None:
        """critiques: those whose contexts are read."""
        self._generator, self._seqs = generator, critiques

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor | None:
        """See LogitBias.bias."""
        return self._generator.steering.bias(hidden, base_logits) if self._generator.bias else None

    def criticised(self, hidden: Tensor, base_logits: Tensor, wish: Tensor, rows: Tensor) -> Tensor | None:
        """See CritiqueBias.bias; nothing of it once a critique that is read was taken back."""
        both = self._both if self._generator.bias else None
        return self.bias(hidden, base_logits) if both is None else both.criticised(hidden, base_logits, wish, rows)

    def fixed(self, before: FixedBias | None, device: torch.device) -> FixedBias:
        """See LogitBias.fixed."""
        generator = self._generator
        if not generator.bias:
            return LogitBias(generator.steering.head).fixed(before, device)
        return (self._both or generator.steering).fixed(before, device)

    @property
    def _both(self) -> BiasWithCritiques | None:
        """With critiques; None once one of those that are read was taken back."""
        words = self._generator.words
        return BiasWithCritiques(self._generator.steering, words.bias) if self._seqs <= words.acting.seqs else None
