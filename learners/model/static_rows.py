"""A batch of answers drawn by captured steps (static_decoder.py). The first token of each answer, and with it the prompt, is drawn by EagerRows; rows
that have ended go on unseen until few are left."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from learners.model.eager_rows import EagerRows
from learners.model.forward import vocabulary_of
from learners.model.rows import Drawn, SteeringBias
from learners.model.static_decoder import Buffers, Outputs, Shape, StaticDecoder, power_of_two
from learners.model.truncation import candidates
from storage.records import Sampling

FEWER_FROM = 16
"""Rows from which on answers that have ended are left behind, when three quarters have."""


class StaticRows:
    """The live answers of one batch; see EagerRows, whose place it takes after the first token."""

    def __init__(self, decoder: StaticDecoder, eager: EagerRows, sampling: Sampling, steer: SteeringBias | None, ahead: int = 1) -> None:
        """steer: None where no row is steered. ahead: how many tokens are drawn before the host looks at them; more than one leaves out states and
        logits, and what steers holds for all of them, so it is for when nobody waits."""
        self._decoder, self._eager, self._sampling = decoder, eager, sampling
        self._steer, self._ahead = steer, ahead
        self._buffers: Buffers | None = None
        self._settled = False
        self._slots = torch.empty(0)  # (K,) of each live answer its row in the buffers
        self._column = 0  # the buffers' own, known without asking the device
        self._end = 0  # columns of the longest answer that there can be
        self._waiting: deque[Tensor] = deque()  # columns that were drawn and not given yet, on the host
        self.uids, self.lengths = eager.uids, eager.lengths

    def draw(self) -> Drawn:
        """A token for each live answer."""
        if self._buffers is None:
            return self._eager.draw()
        shown: tuple[Tensor, ...] = (torch.empty(0, 0),) * 3
        if not self._waiting:
            columns, outputs = self._run()
            if self._ahead == 1:
                shown = self._shown(outputs)
            self._waiting.extend(columns.cpu())  # the only wait for the device, once all is launched
        ids, acted, plain, kl = self._waiting.popleft()[:, self._on_host].tolist()
        return Drawn([int(i) for i in ids], acted, plain, kl, *shown)

    def _shown(self, outputs: Outputs) -> Outputs:
        """The same of the live answers."""
        assert self._buffers is not None
        state, base, policy, *wish = outputs
        base = base[self._slots]
        return (state[self._slots], base, policy[self._slots] if self._buffers.shape.twin else base, *(each[self._slots] for each in wish))

    def append(self, tokens: Sequence[int]) -> None:
        """The drawn tokens are in the buffers already."""
        self.lengths = [n + 1 for n in self.lengths]
        if self._buffers is None:
            self._eager.append(tokens)

    def drop(self, ended: Collection[str]) -> None:
        """Answers that have ended are not given any more; after the first token the others move into buffers."""
        if self._buffers is not None:
            kept = [i for i, uid in enumerate(self.uids) if uid not in ended]
            if len(kept) < len(self.uids):
                self.uids, self.lengths = tuple(self.uids[i] for i in kept), [self.lengths[i] for i in kept]
                self._use(self._slots[kept])
            return
        self._eager.drop(ended)
        self.uids, self.lengths = self._eager.uids, self._eager.lengths
        if self.uids and self._eager.begun and not self._settled:
            self._settle()

    def _use(self, slots: Tensor) -> None:
        self._slots, self._on_host = slots, slots.cpu()

    def _settle(self) -> None:
        """From the eager cache into buffers, once."""
        self._settled = True
        state = self._eager.state()
        if state is None or not self._decoder.may_hold(state.columns + self._sampling.max_new_tokens):
            return
        if self._steer is not None:
            self._decoder.steer(self._steer)
        self._column, self._end = state.columns, state.columns + self._sampling.max_new_tokens - min(self.lengths)
        most, some = self._sampling.max_new_tokens, candidates(self._sampling, vocabulary_of(self._decoder.tree))
        shape = Shape(
            power_of_two(len(self.uids)), state.twin, self._length(), power_of_two(most), self._steer is not None, state.mixed, some,
            contexts=state.strengths.shape[1],
        )  # fmt: skip
        if not self._decoder.ready(shape, state.keys_values, self._sampling.max_new_tokens):
            return
        self._buffers = self._decoder.buffers(shape, state.keys_values)
        self._buffers.take(state)
        self._use(torch.arange(len(self.uids), device=self._buffers.ids.device))
        self._eager.forget()

    def _length(self) -> int:
        """Of buffers with room for the next tokens; for all of them where others would have to be prepared."""
        more = self._sampling.max_new_tokens if self._decoder.prepared else self._ahead_now
        return self._decoder.length(self._column + more, self._end)

    @property
    def _ahead_now(self) -> int:
        """As many as may come."""
        return max(1, min(self._ahead, self._end - self._column))

    def _run(self) -> tuple[Tensor, Outputs]:
        """Launch so many tokens as are drawn ahead: (tokens, 4, rows) of what is drawn, and of the last one what it is drawn from."""
        if self._steer is not None:
            self._decoder.steer(self._steer)
        buffers = self._with_room()
        found: list[Tensor] = []
        for _ in range(self._ahead_now):
            outputs = buffers.run(self._decoder.capture)
            self._decoder.usable &= buffers.captured
            found.append(buffers.columns.clone())
            self._column += 1
        return torch.stack(found), outputs

    def _with_room(self) -> Buffers:
        """Longer buffers when these are full, fewer rows when most answers have ended, others when what steers has outgrown its tensors."""
        old = self._buffers
        assert old is not None
        few = old.shape.rows >= FEWER_FROM and len(self.uids) <= old.shape.rows // 4
        if self._column + self._ahead_now <= old.shape.length and not few and old.bias is self._decoder.bias_of(old.shape):
            return old
        shape = replace(old.shape, rows=power_of_two(len(self.uids)) if few else old.shape.rows, length=self._length())
        self._buffers = self._decoder.buffers(shape, old.cache)
        self._buffers.take(old.given(self._slots, self._column))
        self._use(torch.arange(len(self.uids), device=self._slots.device))
        return self._buffers
