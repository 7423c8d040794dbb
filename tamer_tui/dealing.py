"""Which prompt comes next, and who answers it in which slot. The blind comparison is drawn here, before anything is shown."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from storage.records import Policy, Prompt, Response, SampleSet, new_uid
from storage.repeats import REPEAT
from tamer_tui.views import ACTING, BASE, CandidateView, SetView, Side

GATE_SHARE = 0.1
"""Of all prompts, by hash: kept for the gate, never shown."""
FEWEST_GATE_PROMPTS = 8
"""With fewer, none are kept back."""
PAIR_EVERY = 5
"""With K = 2, every which set has a base slot."""
REPEAT_SHARE = 0.05
"""Of all sets: judged long ago, and judged once more."""
ADAPTER_EVERY = 3
"""Once a version acts, every which counted set compares the adapter alone with the base."""


@dataclass(frozen=True)
class Split:
    """Prompts by what they are for; a prompt's hash decides, whatever file it stands in."""

    train: tuple[Prompt, ...]
    gate: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]

    @staticmethod
    def of(prompts: Sequence[Prompt], held_out: float) -> Split:
        held = tuple(p for p in prompts if p.fraction < held_out)
        gate = tuple(p for p in prompts if held_out <= p.fraction < held_out + GATE_SHARE)
        gate = gate if len(gate) >= FEWEST_GATE_PROMPTS else ()
        left = {p.uid for p in (*held, *gate)}
        return Split(tuple(p for p in prompts if p.uid not in left), gate, held)


class Dealer:
    """Deals prompts and slots. Everything random comes from one seed, the number of sets so far, and the prompt."""

    def __init__(self, prompts: Sequence[Prompt], k: int, seed: int, judged: set[str], dealt: int, temperatures: Sequence[float] = ()) -> None:
        """`judged` are uids of prompts that come last; `dealt` is how many sets the database has; `temperatures` are dealt to answers of a set."""
        self.k = k
        self._temperatures = ([*temperatures] * k)[: max(k, len(temperatures))]
        self._seed_of_repeats, self._repeated = seed, -1
        self._random = random.Random(f"{seed}/{dealt}")
        self._ring = sorted(prompts, key=lambda prompt: prompt.uid in judged)  # stable: the file's order within each
        self._next = 0
        self._dealt = dealt
        self._counted = 0

    def peek(self) -> Prompt | None:
        """The prompt that comes next."""
        return self._ring[self._next % len(self._ring)] if self._ring else None

    def next_prompt(self) -> Prompt | None:
        """Take it; after the last, around again."""
        prompt = self.peek()
        self._next += 1
        return prompt

    def deal(self, prompt: Prompt, sitting_uid: str, steered: bool, adapted: bool) -> tuple[SampleSet, SetView]:
        """A set to be judged. `steered`: the acting policy is not the base any more; `adapted`: a version acts."""
        self._dealt += 1
        policies: list[Policy] = ["acting"] * self.k
        base = acting = None
        if steered and (self.k >= 3 or (self.k == 2 and self._dealt % PAIR_EVERY == 0)):
            base, acting = self._random.sample(range(self.k), 2)
            policies[base] = "base"
            self._counted += 1
            if adapted and self._counted % ADAPTER_EVERY == 0:
                policies[acting] = "adapter"
        record, view = self._assemble(prompt, sitting_uid, policies, "judge", base, acting)
        self._spread(view, base, acting)
        return record, view

    def _spread(self, view: SetView, base: int | None, acting: int | None) -> None:
        """Each answer at another temperature, no slot always at the same; the two that are compared at one."""
        if self._temperatures:
            for candidate, temperature in zip(view.candidates, self._random.sample(self._temperatures, self.k), strict=True):
                candidate.temperature = temperature
            if base is not None and acting is not None:
                view.candidates[base].temperature = view.candidates[acting].temperature

    def comparison(self, prompt: Prompt, sitting_uid: str, sides: tuple[Side, Side] = (ACTING, BASE)) -> tuple[SampleSet, SetView]:
        """Two side by side, same seed; never counted."""
        seed = self._seed()
        record, view = self._assemble(prompt, sitting_uid, [side.policy for side in sides], "compare", None, None)
        for candidate, side in zip(view.candidates, sides, strict=True):
            candidate.seed = seed
            _draw_by(candidate, side)
        return record, view

    def single(self, prompt: Prompt, sitting_uid: str) -> tuple[SampleSet, SetView]:
        """One answer of the acting policy, to be tapped while it appears."""
        self._dealt += 1
        record, view = self._assemble(prompt, sitting_uid, ["acting"], "tap", None, None)
        view.candidates[0].paced = True
        return record, view

    def turn(self, prompt: Prompt, sitting_uid: str) -> tuple[SampleSet, SetView]:
        """The next turn of a conversation, by the acting policy."""
        self._dealt += 1
        return self._assemble(prompt, sitting_uid, ["acting"], "chat", None, None)

    def duel(self, prompt: Prompt, sitting_uid: str, sides: tuple[Side, Side] = (ACTING, BASE)) -> tuple[SampleSet, SetView]:
        """Two against each other, in slots that nobody knows; counted by pair, apart from the sets that are judged."""
        self._dealt += 1
        second = self._random.randrange(2)  # its slot
        dealt = sides if second else sides[::-1]
        slots = (second, 1 - second) if sides == (ACTING, BASE) else (None, None)
        record, view = self._assemble(prompt, sitting_uid, [side.policy for side in dealt], "duel", *slots)
        for candidate, side in zip(view.candidates, dealt, strict=True):
            _draw_by(candidate, side)
        return record, view

    @property
    def repeat_due(self) -> bool:
        """Whether the next set should be one that was judged long ago: never two in a row, since none counts as dealt."""
        return self._repeated != self._dealt and self._coin.random() < REPEAT_SHARE

    @property
    def repeat_place(self) -> float:
        """In [0, 1): where among the old ones."""
        coin = self._coin
        coin.random()
        return coin.random()

    @property
    def _coin(self) -> random.Random:
        """Of its own, so that what is dealt otherwise does not depend on whether there is anything to repeat."""
        return random.Random(f"{self._seed_of_repeats}/{self._dealt}/repeat")

    def repeat(self, prompt: Prompt, answers: Sequence[Response], sitting_uid: str) -> tuple[SampleSet, list[Response]]:
        """The same answers under new uids, in other places."""
        self._repeated, uid = self._dealt, new_uid()
        order = self._coin.sample(range(len(answers)), len(answers))
        moved = [replace(answers[i], uid=f"{uid}{slot}", set_uid=uid, slot=slot) for slot, i in enumerate(order)]
        return SampleSet(uid, sitting_uid, prompt, len(moved), REPEAT), moved

    def _assemble(
        self, prompt: Prompt, sitting_uid: str, policies: Sequence[Policy], purpose: str, base: int | None, acting: int | None
    ) -> tuple[SampleSet, SetView]:
        uid = new_uid()
        candidates = [CandidateView(f"{uid}{slot}", slot, policy, self._seed(), set_uid=uid) for slot, policy in enumerate(policies)]
        base_uid = candidates[base].uid if base is not None else None
        acting_uid = candidates[acting].uid if acting is not None else None
        record = SampleSet(uid, sitting_uid, prompt, len(policies), purpose, base_uid, acting_uid)
        return record, SetView(uid, prompt, candidates, purpose)

    def seeds(self, n: int) -> list[int]:
        """Of answers that a set chooses from."""
        return [self._seed() for _ in range(n)]

    def _seed(self) -> int:
        return self._random.getrandbits(31)


def _draw_by(candidate: CandidateView, side: Side) -> None:
    if side.sha256 is not None:
        candidate.version, candidate.sha256 = side.name, side.sha256
