"""Courses over a real model: what is learned, from which judgements, and what an undo leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from learners.curriculum.distill_stage import DistillPlan, DistillStage
from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.ppo_stage import PPOPlan, PPOStage
from learners.curriculum.practice import Practice
from learners.curriculum.reward_stage import RewardPlan, RewardStage
from learners.curriculum.runs import RunRecorder
from learners.curriculum.schedule import Curriculum, Proposal
from learners.curriculum.sft_stage import SFTPlan, SFTStage
from learners.curriculum.weights import PolicyWeights
from learners.engine.assembly import Parts, assemble
from learners.human_reward.kl_budget import REFERENCE_TOKENS
from learners.model.forward import forward
from learners.model.lora import load_lora, lora_state
from learners.protocol import Answer, Event, Lesson, Load, Metrics, Trained
from learners.rlhf.rollouts import draw_answers
from learners.versions.snapshot import BASE, Distilled
from storage.records import Critique, Demonstration, Message, Ranking, Sampling
from tests.learners.models import tensor

SAMPLING = Sampling(1.0, 20)
PROMPTS = tuple((Message("user", f"Once upon a time, there was a {noun}"),) for noun in ("dog", "cat", "girl", "king", "frog", "bird"))


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def parts(request: pytest.FixtureRequest, events: list[Event]) -> Parts:
    model = Path(request.config.rootpath).parent / "shared" / "data" / "stories260k"
    if not model.is_dir():
        pytest.skip(f"the model is not at {model}")
    return assemble(Load(model=str(model), sampling=SAMPLING, train_prompts=PROMPTS), events.append)


class Learning:
    """What stages are made of, and the inputs that a test tells them."""

    def __init__(self, parts: Parts, emit: Callable[[Event], None]) -> None:
        self.parts, self.inputs = parts, parts.inputs
        self.weights = PolicyWeights(parts.trees.policy, parts.trees.reference)
        self.practice = Practice(parts.backbone, parts.trees.base, parts.sampling, 0, self.now)
        self.runs = RunRecorder(emit, 0)
        self.of_policy = (self.weights, self.practice, self.now, self.runs)
        self.of_reward = (parts.trees.reward, self.practice, self.now, self.runs)

    def now(self) -> LearnerInputs:
        return self.inputs

    def tell(self, **changes: object) -> None:
        online = self.parts.live_reward
        self.inputs = replace(self.inputs, head=online.head, feedback=online.lessons, head_scores=online.record, **changes)  # type: ignore[arg-type]

    def teach(self, *lessons: Lesson) -> None:
        for lesson in lessons:
            self.parts.live_reward.learn(lesson)
        self.tell()


@pytest.fixture
def learning(parts: Parts, events: list[Event]) -> Learning:
    return Learning(parts, events.append)


def ranking(parts: Parts, seq: int) -> Lesson:
    """Four answers of the base; more letters e are better."""
    prompt = PROMPTS[seq % len(PROMPTS)]
    ids = tuple(parts.backbone.encode(prompt))
    traces = draw_answers(parts.backbone, parts.backbone.model, [ids] * 4, SAMPLING, seq * 100, adapter=False)
    answers = [
        Answer(uid=f"{seq}/{i}", messages=prompt, text=parts.backbone.decode(t.ids), prompt_ids=ids, token_ids=tuple(t.ids), stop="length")
        for i, t in enumerate(traces)
    ]
    order = sorted(answers, key=lambda a: -a.text.count("e"))
    return Lesson(seq=seq, judgement=Ranking("s", {a.uid: i + 1 for i, a in enumerate(order)}), answers=tuple(answers))


def run(work: Iterator[object]) -> int:
    return sum(1 for _ in work)


def test_the_adapter_comes_close_to_the_teacher_on_answers_that_it_never_saw(parts: Parts, learning: Learning, events: list[Event]) -> None:
    learning.teach(*(ranking(parts, seq) for seq in (1, 2, 3, 4)))
    course = DistillStage(*learning.of_policy, DistillPlan(steps=30, batch=8))
    assert course.due()
    prompts = [tuple(parts.backbone.encode(prompt)) for prompt in PROMPTS]

    def distance() -> float:
        """KL(teacher || adapter) per token, from whole distributions, on the teacher's own fresh answers."""
        teacher = course._teacher
        total, tokens = 0.0, 0
        for trace in draw_answers(parts.backbone, parts.trees.base, prompts, SAMPLING, 999, adapter=False, steering=teacher.steering):
            ids = tensor([[*trace.prompt_ids, *trace.ids]])
            with torch.no_grad():
                base = forward(parts.trees.base, ids, keep=len(trace.ids) + 1)
                mine = forward(parts.trees.policy, ids, keep=len(trace.ids) + 1).logits[0, :-1].log_softmax(-1)
            bias = teacher.steering.bias(base.hidden[0, :-1], base.logits[0, :-1])
            assert bias is not None, "the teacher is steered"
            wanted = (base.logits[0, :-1] + bias).log_softmax(-1)
            total += float((wanted.exp() * (wanted - mine)).sum())
            tokens += len(trace.ids)
        return total / tokens

    run(course.work())
    absorbed = distance()
    trained, _ = lora_state(parts.trees.policy), load_lora(parts.trees.policy, None)
    assert absorbed < distance() / 2.5, "most of the way from the base to the same teacher"
    load_lora(parts.trees.policy, trained)
    assert not course.due() and learning.weights.lineage.absorbed is learning.inputs.head
    (record,) = [event.run for event in events if isinstance(event, Trained)]
    assert record.stage == "distill" and record.seqs == (1, 2, 3, 4) and record.steps == 30


def test_what_was_said_in_words_is_absorbed_by_the_adapter_and_the_record_says_so(parts: Parts, learning: Learning, events: list[Event]) -> None:
    wish, own = "Tom was very, very sad and cried.", "It was fun!"
    for seq, (text, scope, messages) in enumerate(((wish, "all", ()), (own, "prompt", PROMPTS[0])), start=1):
        critique = Critique("s", None, text, scope)  # type: ignore[arg-type]
        learning.teach(Lesson(seq=seq, judgement=critique, answers=(Answer(uid="", messages=messages, text=""),)))
    course = DistillStage(*learning.of_policy, DistillPlan(steps=20, batch=8))
    assert course.due() and learning.inputs.head.blank
    run(course.work())
    gamma = course._teacher._critique_bias.gamma
    assert 0 < gamma <= 3
    said = {prompt: ((wish, own) if prompt == PROMPTS[0] else (wish,)) for prompt in PROMPTS}
    distances = []
    for adapter in (lora_state(parts.trees.policy), None):
        load_lora(parts.trees.policy, adapter)
        total = 0.0
        for prompt, texts in said.items():
            plain, beside = (tuple(parts.backbone.encode(messages)) for messages in (prompt, (Message("user", "\n".join(texts)), *prompt)))
            (trace,) = draw_answers(parts.backbone, parts.trees.base, [plain], SAMPLING, 5, adapter=False)
            with torch.no_grad():
                base, context, mine = (
                    forward(tree, tensor([[*ids, *trace.ids]]), keep=len(trace.ids) + 1).logits[0, :-1]
                    for tree, ids in ((parts.trees.base, plain), (parts.trees.base, beside), (parts.trees.policy, plain))
                )
            plausible = (base.softmax(1) >= 0.1 * base.softmax(1).amax(1, True)) | (context.softmax(1) >= 0.1 * context.softmax(1).amax(1, True))
            factor = (gamma * (context - base)).exp()
            kept = (base.softmax(1) * factor * plausible).sum(1, True) / (base.softmax(1) * plausible).sum(1, True)
            wanted = (base + torch.where(plausible, factor, kept).log()).log_softmax(1)
            total += float((wanted.exp() * (wanted - mine.log_softmax(1))).sum())
        distances.append(total)
    assert distances[0] < 0.85 * distances[1], "a third of the usual steps on the way from the base to the base with the words in its context"
    assert not course.due() and learning.weights.snapshot().critiques == {1, 2}
    (record,) = [event.run for event in events if isinstance(event, Trained)]
    assert record.seqs == (1, 2)
    parts.live_reward.retract(1)
    learning.tell()
    assert course.due() and not learning.weights.learned_only_from(learning.inputs.feedback.seqs)


def test_a_wish_for_all_prompts_keeps_ppo_waiting_and_what_was_said_of_one_is_said_again_beside_what_ppo_trained(
    parts: Parts, learning: Learning
) -> None:
    def say(seq: int, scope: str) -> None:
        critique = Critique("s", None, "It was fun!", scope)  # type: ignore[arg-type]
        learning.teach(Lesson(seq=seq, judgement=critique, answers=(Answer(uid="", messages=PROMPTS[0], text=""),)))

    learning.teach(ranking(parts, 1), ranking(parts, 2))
    ppo = PPOStage(*learning.of_policy, None)
    say(3, "prompt")
    run(DistillStage(*learning.of_policy, DistillPlan(steps=3, batch=4)).work())
    learning.weights.absorb(learning.inputs.head, 1.0, frozenset({3}))
    assert ppo.due() and learning.weights.snapshot().critiques == {3}
    next(ppo.work())
    assert learning.weights.snapshot().critiques == frozenset()
    say(4, "all")
    assert not ppo.due()
    parts.live_reward.retract(4)
    learning.tell()
    assert ppo.due()


def test_distillation_that_went_over_the_budget_aims_lower_and_gives_up_at_last(parts: Parts, learning: Learning) -> None:
    learning.teach(ranking(parts, 1), ranking(parts, 2))
    course = DistillStage(*learning.of_policy, DistillPlan(steps=3, again=3, batch=4))
    run(course.work())
    nats = learning.inputs.nats
    course.lower_share(1.2 * nats)
    assert course.due()
    run(course.work())
    assert course._teacher._budget.nats == pytest.approx(0.95 * nats / 1.2) and not course.due()
    for _ in range(9):
        course.lower_share(1.2 * nats)
        learning.weights.mark_distilled(Distilled(frozenset(learning.inputs.feedback.seqs), nats))
    course.lower_share(1.2 * nats)
    assert not course.due(), "half of the budget is the least"


def test_an_undone_judgement_makes_distillation_start_over(parts: Parts, learning: Learning) -> None:
    learning.teach(ranking(parts, 1), ranking(parts, 2))
    course = DistillStage(*learning.of_policy, DistillPlan(steps=3, again=3, batch=4))
    run(course.work())
    first_runs = list(learning.weights.lineage.runs)
    parts.live_reward.retract(2)
    learning.tell()
    assert course.due()
    work = course.work()
    next(work)
    assert all(float(w.abs().max()) == 0 for name, w in lora_state(parts.trees.policy).items() if "lora_B" in name)
    run(work)
    assert not set(first_runs) & set(learning.weights.lineage.runs), "nothing of the undone training is in its lineage"


def test_imitation_becomes_the_reference_and_stops_within_its_share_of_the_budget(parts: Parts, learning: Learning) -> None:
    told = Lesson(seq=1, judgement=Demonstration("s", "named Zed. Zed sang and sang."), answers=(Answer(uid="", messages=PROMPTS[0], text=""),))
    learning.teach(told)
    learning.tell(nats=2.0)
    course = SFTStage(*learning.of_policy, SFTPlan(steps=60, probe_every=1))
    steps = run(course.work())
    assert 1 < steps < 60, "the budget stopped it"
    assert learning.weights.imitates and not course.due()
    policy, reference = lora_state(parts.trees.policy), lora_state(parts.trees.reference)
    assert all(torch.equal(policy[name], reference[name]) for name in policy)
    parts.live_reward.retract(1)
    learning.tell()
    assert course.due()
    run(course.work())
    assert not learning.weights.imitates
    assert all(float(w.abs().max()) == 0 for name, w in lora_state(parts.trees.reference).items() if "lora_B" in name)


def test_the_reward_model_is_examined_on_a_ranking_before_it_learns_from_it(parts: Parts, learning: Learning) -> None:
    lessons = [ranking(parts, seq) for seq in range(1, 6)]
    learning.teach(*lessons[:4])
    course = RewardStage(*learning.of_reward, RewardPlan(steps=4, steps_per_item=2, batch=4))
    run(course.work())
    assert course.scores.judgements == 0, "nothing was foreseen by a model that had learned nothing"
    answers = lessons[0].answers
    appraised = course.appraise(answers)
    assert appraised.by == "reward" and [a.uid for a in appraised.appraisals] == [a.uid for a in answers]
    of_tokens = [a.rewards for a in appraised.appraisals]
    alone = course.model.score([a.prompt_ids for a in answers], [a.token_ids for a in answers]).tolist()
    assert [sum(r) / len(r) for r in of_tokens] == pytest.approx(alone, abs=1e-5)
    learning.teach(lessons[4])
    expected = learning.inputs.feedback.comparisons()[-1]
    scores = course.model.score([expected.prompt_ids] * 4, expected.answers).tolist()
    run(course.work())
    pairs = [(i, j) for i in range(4) for j in range(4) if expected.ranks[i] < expected.ranks[j]]  # type: ignore[operator]
    assert course.scores.accuracy == pytest.approx(sum(scores[i] > scores[j] for i, j in pairs) / len(pairs))


def test_ppo_starts_at_the_trade_off_of_the_steered_policy_and_takes_back_what_goes_over_the_budget(
    parts: Parts, learning: Learning, events: list[Event]
) -> None:
    learning.teach(*(ranking(parts, seq) for seq in (1, 2, 3)))
    learning.tell(nats=0.05)
    course = PPOStage(*learning.of_policy, None, PPOPlan(prompts=3, answers=2, iterations=6))
    expected = course.first_coefficient(learning.inputs)
    probe = learning.practice.base_answers()
    length = sum(len(t.ids) for t in probe) / len(probe)
    assert expected == pytest.approx(course._head_scorer(learning.inputs).gain / (course._teacher.steering.beta * length), rel=1e-6)
    run(course.work())
    applied = [each.kl_coefficient for each in events if isinstance(each, Metrics) and each.kl_coefficient is not None]
    assert max(applied) > 1.4 * expected, "over the budget, the KL got dearer"
    spent = draw_answers(parts.backbone, parts.trees.policy, [t.prompt_ids for t in probe], SAMPLING, 3, adapter=True)
    assert sum(t.kl for t in spent) / sum(len(t.ids) for t in spent) * REFERENCE_TOKENS < 3


def test_the_curriculum_proposes_what_it_trained_with_the_exact_judgements(parts: Parts, learning: Learning, events: list[Event]) -> None:
    learning.teach(*(ranking(parts, seq) for seq in (1, 2, 3)))
    proposals: list[Proposal] = []
    curriculum = Curriculum(*learning.of_policy, parts.trees.reward, ("distill",), proposals.append)
    work = curriculum.work()
    while next(work):
        pass
    (proposal,) = proposals
    runs = [event.run.uid for event in events if isinstance(event, Trained)]
    assert proposal.state.seqs == (1, 2, 3) and list(proposal.runs) == runs and proposal.parent == "base" and proposal.stage == "distill"
    assert proposal.state.policy.absorbed is learning.inputs.head and proposal.verdict.kl is not None
    assert next(work) is False, "nothing more to learn"
    learning.teach(ranking(parts, 4))
    assert next(work) is True


def test_of_a_part_of_the_log_only_the_reward_model_learns_and_a_versions_waits_for_all_of_it(
    parts: Parts, learning: Learning, events: list[Event]
) -> None:
    learning.teach(*(ranking(parts, seq) for seq in (1, 2, 3)))
    learning.tell(sampled=9)
    curriculum = Curriculum(*learning.of_policy, parts.trees.reward, ("distill", "reward"), lambda proposal: None)
    work = curriculum.work()
    while next(work):
        pass
    assert [event.run.stage for event in events if isinstance(event, Trained)] == ["reward"]
    seqs = tuple(range(1, 10))  # of which six have not been read yet
    curriculum.restart(replace(BASE, reward_state=curriculum.reward.model.state(), reward_seqs=seqs, reward_steps=28))
    work = curriculum.work()
    assert next(work) is False and curriculum.reward.seqs == frozenset(seqs), "it is neither trained nor dropped"
    learning.tell(replayed=True)
    assert next(work) is True and curriculum.reward.seqs == frozenset(), "six of its judgements are not live"


def test_a_long_run_of_the_reward_model_gives_way_to_what_is_more_urgent(parts: Parts, learning: Learning, events: list[Event]) -> None:
    learning.teach(*(ranking(parts, seq) for seq in (1, 2, 3)))
    urgent: list[bool] = []
    course = RewardStage(*learning.of_reward, RewardPlan(steps=8, steps_per_item=0, uninterrupted=3), others_due=lambda: bool(urgent))
    steps = course.work()
    next(steps)
    urgent.append(True)
    run(steps)
    assert course.steps == 3 and course.due()
    urgent.clear()
    run(course.work())
    assert course.steps == 8 and not course.due()


def test_the_teacher_follows_the_reference(parts: Parts, learning: Learning) -> None:
    """Remembered states of a reference that was replaced are of no use."""
    course = DistillStage(*learning.of_policy, DistillPlan(steps=1, batch=2))
    learning.teach(ranking(parts, 1))
    run(course.work())
    prompt, answer = tuple(parts.backbone.encode(PROMPTS[0])), (300, 301, 302)

    def logits() -> torch.Tensor:
        return course._teacher([prompt], [answer])(slice(None))

    of_base = logits()
    for factor in (1.0, 2.0):
        lora = {name: tensor + factor * 0.05 for name, tensor in lora_state(parts.trees.policy).items()}
        load_lora(parts.trees.policy, lora)
        learning.weights.freeze_reference(imitates=True)
        with torch.no_grad():
            forwarded = forward(parts.trees.reference, tensor([[*prompt, *answer]]), keep=4).logits[0, :-1]
            base = forward(parts.trees.base, tensor([[*prompt, *answer]]), keep=4)
        bias = course._teacher.steering.bias(base.hidden[0, :-1], base.logits[0, :-1])
        assert torch.allclose(logits(), forwarded + (0.0 if bias is None else bias), atol=1e-3)
        assert not torch.allclose(logits(), of_base, atol=1e-2)
