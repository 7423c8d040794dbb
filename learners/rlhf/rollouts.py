"""Answers drawn for the machine's own use: to calibrate Ĥ's features, to distil, to practise by PPO, to judge a candidate version.

A `Trace` follows one answer through the decode loop; the generator uses the same for what the operator sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from msgspec.structs import replace as replaced
from torch import Tensor, nn

from learners.human_reward.critique_bias import BiasWithCritiques, CriticisedStates
from learners.human_reward.features import Seen
from learners.human_reward.kl_budget import VisitedStates, pooled_nats, state_stride
from learners.human_reward.logit_bias import LogitBias
from learners.model import shards, shared_prompts
from learners.model.answer_limits import AnswerLimits
from learners.model.answer_text import AnswerText
from learners.model.base import Backbone
from learners.model.batches import AnswerTokens
from learners.model.forward import LMHead, states
from learners.model.memory import within_memory
from learners.model.sampling import Context, Row, Step, decode
from learners.rlhf import ranks
from learners.rlhf.distributions import chunks, expected
from storage.records import Sampling, StopReason

LARGEST_BATCH = 48
"""Answers drawn in one batch; fewer where memory is short."""
AHEAD = 8
"""Tokens that a GPU may draw before the host looks at them, where nobody waits for them and only tokens count."""


@dataclass
class Trace:
    """One answer as the decode loop goes: tokens, log-probabilities, and what its states looked like, every `stride` tokens."""

    prompt_ids: tuple[int, ...]
    stride: int = 0  # 0 keeps no states
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    unbiased: list[float] = field(default_factory=list)
    kls: list[float] = field(default_factory=list)  # nats against the base
    stop: StopReason | None = None
    kept: int = 0  # tokens that were fixed when it began
    forced: tuple[int, int] = (0, 0)  # tokens [start, stop) that closed its thought: nobody drew them
    _positions: list[int] = field(default_factory=list)
    _hidden: list[Tensor] = field(default_factory=list)
    _base: list[Tensor] = field(default_factory=list)
    _policy: list[Tensor] = field(default_factory=list)  # empty where the base drew it
    _wish: list[Tensor] = field(default_factory=list)  # empty without critiques

    def add(self, step: Step, row: int) -> None:
        """Take row `row` of a decode step."""
        if self.stride and (len(self.ids) - self.kept) % self.stride == 0:
            self._positions.append(len(self.prompt_ids) + len(self.ids) - 1)
            self._hidden.append(step.hidden[row])
            self._base.append(step.base_logits[row])
            if step.policy_logits is not step.base_logits:
                self._policy.append(step.policy_logits[row])
            if step.wish is not None:
                self._wish.append(step.wish[row])
        self.ids.append(step.ids[row])
        self.logprobs.append(step.logprobs[row])
        self.unbiased.append(step.unbiased_logprobs[row])
        self.kls.append(step.kl[row])

    def force(self, token: int) -> None:
        """A token that closes its thought: it was certain, and costs nothing."""
        at = len(self.ids)
        self.forced = self.forced[0] if self.forced[1] == at > 0 else at, at + 1
        for column in (self.logprobs, self.unbiased, self.kls):
            column.append(0.0)
        self.ids.append(token)

    def keep(self, token: int, drawn: Trace | None = None) -> None:
        """A token that is fixed, with what it cost when it was `drawn`; free where that is not known."""
        i, self.kept = len(self.ids), self.kept + 1
        known = drawn is not None and i < len(drawn.ids) and drawn.ids[i] == token
        self.ids.append(token)
        self.logprobs.append(drawn.logprobs[i] if drawn and known else 0.0)
        self.unbiased.append(drawn.unbiased[i] if drawn and known else 0.0)
        self.kls.append(drawn.kls[i] if drawn and known else 0.0)

    @property
    def kl(self) -> float:
        """Of the whole answer, summed over tokens."""
        return math.fsum(self.kls)

    @property
    def nats(self) -> float:
        """Per 64 tokens."""
        return pooled_nats([self.kl], [len(self.ids)])

    def on(self, device: torch.device) -> Trace:
        """The same answer with its states there, in tensors that belong to nothing larger."""
        columns = {name: [state.detach().to(device, copy=True) for state in getattr(self, name)] for name in ("_hidden", "_base", "_policy", "_wish")}
        return replace(self, **columns)  # type: ignore[arg-type]

    def without_states(self) -> Trace:
        """The answer alone: states with their logits are a megabyte each where the vocabulary is large."""
        return replace(self, stride=0, _positions=[], _hidden=[], _base=[], _policy=[], _wish=[])

    def criticised(self) -> CriticisedStates | None:
        """The same states with what critiques ask for there; None without any."""
        if not self._wish:
            return None
        policy = torch.stack(self._policy) if self._policy else None
        return CriticisedStates(torch.stack(self._hidden), torch.stack(self._base), torch.stack(self._wish), policy)

    def visited(self, temperature: float) -> VisitedStates:
        """The states in which its tokens were drawn, for solving β."""
        base = torch.stack(self._base).div(temperature).log_softmax(-1)
        policy = torch.stack(self._policy).div(temperature).log_softmax(-1) if self._policy else base
        seen = Seen.of(torch.stack(self._hidden), torch.stack(self._base))
        spent = math.fsum(self.kls[self.kept :]) / max(1, len(self.ids) - self.kept)
        return VisitedStates(seen, base, policy, (*self.prompt_ids, *self.ids), tuple(self._positions), spent)


def draw_answers(
    backbone: Backbone,
    tree: nn.Module,
    prompts: Sequence[tuple[int, ...]],
    sampling: Sampling,
    seed: int,
    *,
    adapter: bool,
    steering: LogitBias | BiasWithCritiques | None = None,
    keep_states: bool = False,
    exact_kl: bool = True,
    pause: Callable[[], None] = lambda: None,
    contexts: Sequence[tuple[Context, ...]] = (),
    begin: Callable[[tuple[int, ...], int], Trace] = Trace,
) -> list[Trace]:
    """One answer for each prompt (repeat a prompt for several), by plain sampling, with the tree's adapter or as the base. A thought that becomes too
    long is closed, and its answer drawn. Where several ranks train, each draws its share, and all of them get all.

    exact_kl: with a row of the base beside each that has the adapter; without it `kls` are 0. pause: called between tokens. contexts: of each prompt,
    or none at all. begin: makes a trace of a prompt and a stride.
    """
    most = backbone.most_tokens(sampling)
    stride = state_stride(most, backbone.vocabulary) if keep_states else 0
    twin = adapter and exact_kl
    own = ranks.share(len(prompts))
    traces = [begin(prompt, stride) for prompt in prompts[own.start : own.stop]]
    rows = [Row(str(i), prompts[i], seed + i, adapter, steering is not None, contexts=contexts[i] if contexts else ()) for i in own]
    beside = max((len(row.contexts) for row in rows), default=0)
    longest = max((len(ids) for row in rows for ids in (row.prompt_ids, *(context.prompt_ids for context in row.contexts))), default=0)
    size = backbone.memory_budget.rows_to_draw(longest, most, LARGEST_BATCH, twin)
    size = max(1, size * (1 + twin) // (1 + twin + beside))
    with shards.whole():
        for start in range(0, len(rows), size):
            together = rows[start : start + size]
            batch = _Batch(backbone, dict(zip((row.uid for row in together), traces[start:], strict=False)), sampling)
            for step in decode(
                tree, together, replaced(sampling, max_new_tokens=most), backbone.eos_ids, backbone.pad_id,
                steer=steering, twin=twin, want_stop=batch.to_stop, force=batch.to_close, ahead=1 if keep_states else AHEAD,
            ):  # fmt: skip
                batch.add(step)
                pause()
    if ranks.world() == 1:
        return traces
    return [trace.on(backbone.device) for trace in ranks.gathered([trace.on(torch.device("cpu")) for trace in traces])]


class _Batch:
    """Answers that are drawn together. Only where thoughts have a length of their own is a text looked at while it comes."""

    def __init__(self, backbone: Backbone, traces: Mapping[str, Trace], sampling: Sampling) -> None:
        self._traces, self._closing, self._limits = traces, backbone.renderer.closing, dict[str, AnswerLimits]()
        if self._closing and sampling.max_thinking_tokens is not None:
            self._limits = {uid: AnswerLimits(AnswerText(backbone.renderer), sampling, trace.ids) for uid, trace in traces.items()}

    def add(self, step: Step) -> None:
        for row, uid in enumerate(step.uids):
            self._traces[uid].add(step, row)
            if uid in self._limits:
                self._limits[uid].take()
        for uid, reason in step.ended.items():
            limits = self._limits.pop(uid, None)
            self._traces[uid].stop = limits.ended or reason if limits is not None else reason

    def to_stop(self) -> list[str]:
        return [uid for uid, limits in self._limits.items() if limits.ended]

    def to_close(self) -> dict[str, tuple[int, ...]]:
        found = {uid: self._closing for uid, limits in self._limits.items() if limits.thinks_too_long}
        for uid in found:
            for token in self._closing:
                self._traces[uid].force(token)
                self._limits[uid].take()
        return found


def spoken(backbone: Backbone, traces: Sequence[Trace]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Prompts and answers of these, as learners take them."""
    pairs = [backbone.spoken(trace.prompt_ids, trace.ids) for trace in traces]
    return [prompt for prompt, _ in pairs], [answer for _, answer in pairs]


@dataclass(frozen=True)
class Rollouts:
    """Answers that a policy drew, by plain sampling, as learners take them: one entry for each."""

    prompts: tuple[tuple[int, ...], ...]  # what was thought before an answer stands in its prompt
    answers: tuple[tuple[int, ...], ...]  # the end-of-sequence token included
    stops: tuple[StopReason, ...]
    logprobs: tuple[tuple[float, ...], ...]  # as sampled: for the record, not for the ratio
    forced: tuple[tuple[int, int], ...] = ()  # tokens [start, stop) of each that nobody drew; empty where there are none at all

    @staticmethod
    def of(backbone: Backbone, traces: Sequence[Trace]) -> Rollouts:
        """Thoughts without an answer are left out."""
        prompts, answers = spoken(backbone, traces)
        found = [(t, prompt, answer, len(t.ids) - len(answer)) for t, prompt, answer in zip(traces, prompts, answers, strict=True) if answer]
        forced = tuple((max(0, t.forced[0] - thought), max(0, t.forced[1] - thought)) for t, _, _, thought in found)
        return Rollouts(
            tuple(prompt for _, prompt, _, _ in found), tuple(answer for _, _, answer, _ in found), tuple(t.stop or "stopped" for t, *_ in found),
            tuple(tuple(t.logprobs[thought:]) for t, _, _, thought in found), forced if any(stop > start for start, stop in forced) else (),
        )  # fmt: skip


def states_before(backbone: Backbone, tree: nn.Module, prompt_ids: Sequence[int], answers: Sequence[Sequence[int]]) -> list[Seen]:
    """The canonical prefill: of each answer to one prompt the T states in which its tokens were chosen, on the CPU, in the order given.

    One forward, the prompt computed once, or one for each answer where memory does not hold them. Rounding depends on the set and its order: for
    the same bits give distinct answers, sorted.
    """
    if not answers:
        return []
    return within_memory(
        lambda: _states_before(backbone, tree, prompt_ids, answers),
        lambda: [_states_before(backbone, tree, prompt_ids, [answer])[0] for answer in answers],
    )


def _states_before(backbone: Backbone, tree: nn.Module, prompt_ids: Sequence[int], answers: Sequence[Sequence[int]]) -> list[Seen]:
    with torch.no_grad():
        hidden = shared_prompts.states_before(tree, [prompt_ids] * len(answers), answers)
        seen = look(LMHead(tree), AnswerTokens.of(answers, backbone.device).take(hidden))
    lengths = [len(answer) for answer in answers]
    return [Seen(*each) for each in zip(*(field.cpu().split(lengths) for field in seen), strict=True)]


def look(head: LMHead, hidden: Tensor) -> Seen:
    """What Ĥ sees of base states (N, d); logits exist for a chunk of them at a time."""
    parts = [Seen.of(hidden[rows], head(hidden[rows])) for rows in chunks(len(hidden), head.positions)]
    return Seen(hidden, *(torch.cat(field) for field in list(zip(*parts, strict=True))[1:]))


def look_again(backbone: Backbone, tree: nn.Module, answer: VisitedStates, temperature: float) -> VisitedStates:
    """The same states, seen with the tree's adapter as it is now."""
    head, hidden = LMHead(tree), _visited_states(backbone, tree, answer)
    with torch.no_grad():
        logprobs = [(head(hidden[rows]) / temperature).log_softmax(-1) for rows in chunks(len(hidden), head.positions)]
    return replace(answer, policy_logprobs=torch.cat(logprobs))


@torch.no_grad()
def nats_on(backbone: Backbone, tree: nn.Module, answers: Sequence[VisitedStates], temperature: float) -> float:
    """KL of the tree's policy against the base, exact in each of these states, per 64 tokens."""
    head = LMHead(tree)
    kl: list[float] = []
    for answer in ranks.own(answers):
        hidden = _visited_states(backbone, tree, answer)
        parts = [_divergence(head(hidden[rows]), answer.base_logprobs[rows], temperature) for rows in chunks(len(hidden), head.positions)]
        kl.append(float(torch.cat(parts).sum()))
    return pooled_nats(ranks.gathered(kl), [len(answer.positions) for answer in answers])


def _divergence(logits: Tensor, base_logprobs: Tensor, temperature: float) -> Tensor:
    logprobs = (logits / temperature).log_softmax(-1)
    return expected(logprobs, logprobs - base_logprobs)


@torch.no_grad()
def _visited_states(backbone: Backbone, tree: nn.Module, answer: VisitedStates) -> Tensor:
    """(n, d) of the tree, where the answer's n states are."""
    hidden = states(tree, torch.tensor([answer.sequence[:-1]], device=backbone.device))[0]
    return hidden[list(answer.positions)]
