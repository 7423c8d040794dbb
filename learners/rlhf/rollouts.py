"""Answers drawn for the machine's own use: to calibrate Ĥ's features, to distil, to judge a candidate version.

A `Trace` follows one answer through the decode loop; the generator uses the same for what the operator sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from learners.human_reward.critique_bias import BiasWithCritiques, CriticisedStates
from learners.human_reward.features import Seen
from learners.human_reward.kl_budget import VisitedStates, pooled_nats, state_stride
from learners.human_reward.logit_bias import LogitBias
from learners.model import shards, shared_prompts
from learners.model.base import Backbone
from learners.model.batches import pad_answers
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
        """A token that nobody drew: it was certain, and costs nothing."""
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
    pause: Callable[[], None] = lambda: None,
    contexts: Sequence[tuple[Context, ...]] = (),
) -> list[Trace]:
    """One answer for each prompt (repeat a prompt for several), with the tree's adapter or as the base; `pause` is called between tokens.
    Where several ranks train, each draws its share, and all of them get all.

    contexts: of each prompt, or none at all.
    """
    stride = state_stride(sampling.max_new_tokens, backbone.vocabulary) if keep_states else 0
    ahead = 1 if keep_states else AHEAD
    traces: list[Trace] = []
    most = max(map(len, contexts), default=0)
    longest = max((len(ids) for ids in (*prompts, *(context.prompt_ids for some in contexts for context in some))), default=0)
    size = backbone.memory_budget.rows_to_draw(longest, sampling.max_new_tokens, LARGEST_BATCH, twin=adapter)
    size = max(1, size * (1 + adapter) // (1 + adapter + most))
    own = ranks.share(len(prompts))
    with shards.whole():
        for start in range(own.start, own.stop, size):
            batch = prompts[start : min(start + size, own.stop)]
            beside = contexts[start : start + len(batch)] or [()] * len(batch)
            rows = [Row(str(i), p, seed + start + i, adapter, steering is not None, contexts=beside[i]) for i, p in enumerate(batch)]
            drawn = {row.uid: Trace(row.prompt_ids, stride) for row in rows}
            for step in decode(tree, rows, sampling, backbone.eos_ids, backbone.pad_id, steer=steering, twin=adapter, ahead=ahead):
                for row, uid in enumerate(step.uids):
                    drawn[uid].add(step, row)
                for uid, reason in step.ended.items():
                    drawn[uid].stop = reason
                pause()
            traces += drawn.values()
    if ranks.world() == 1:
        return traces
    return [trace.on(backbone.device) for trace in ranks.gathered([trace.on(torch.device("cpu")) for trace in traces])]


def spoken(backbone: Backbone, traces: Sequence[Trace]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Prompts and answers of these, as learners take them."""
    pairs = [backbone.spoken(trace.prompt_ids, trace.ids) for trace in traces]
    return [prompt for prompt, _ in pairs], [answer for _, answer in pairs]


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
    _, mask = pad_answers(answers)
    with torch.no_grad():
        hidden = shared_prompts.states_before(tree, [prompt_ids] * len(answers), answers)[mask.to(backbone.device)]
        seen = look(LMHead(tree), hidden)
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
