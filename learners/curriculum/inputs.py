"""What the learner is told from outside: one frozen value, replaced whole, so that a reader sees an old one or a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from learners.feedback.critiques import Conversation
from learners.feedback.snapshot import Feedback
from learners.human_reward.head import RewardHead
from learners.human_reward.prequential import PrequentialScores
from learners.model.batches import TokenIds
from learners.versions.snapshot import BASE, VersionState


@dataclass(frozen=True)
class LearnerInputs:
    """Read once at the beginning of a step. `head` is the fit of `feedback`: they are told together."""

    head: RewardHead
    feedback: Feedback = field(default_factory=lambda: Feedback((), {}))
    head_scores: PrequentialScores = field(default_factory=PrequentialScores)  # of Ĥ
    live: VersionState = BASE  # what acts
    live_beta: float = 0.0
    nats: float = 6.0  # KL budget of the acting policy against the base, per 64 tokens
    bias: bool = True  # whether Ĥ is added to the logits
    train_prompts: Sequence[TokenIds] = ()
    gate_prompts: Sequence[TokenIds] = ()
    conversations: Mapping[TokenIds, Conversation] = field(default_factory=dict)  # that the prompts to train on came from
    replayed: bool = False  # whether the log has been read: before, nothing but the reward model is trained …
    sampled: int = 0  # … and that from when a sample of a long log has been read: judgements that the whole log has
    rewards: RewardHead | None = None  # of the same judgements, fitted to rewards; None where words were tapped or no whole answer was judged

    @property
    def partial(self) -> bool:
        """Whether no more than a part of the log is known."""
        return self.sampled > 0 and not self.replayed


CurrentInputs = Callable[[], LearnerInputs]
"""The inputs as they are now."""
