"""Answers as they were asked for, over tiny models: the model's own settings, texts that end them, and thoughts, of which nothing is learned."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from learners.curriculum.practice import Practice
from learners.curriculum.teacher import DistillationTeacher
from learners.curriculum.weights import PolicyWeights
from learners.engine.assembly import Parts, assemble
from learners.feedback.snapshot import Feedback
from learners.human_reward.critique_bias import CritiqueBias
from learners.model.checkpoint import ModelError
from learners.model.forward import forward
from learners.model.lora import load_lora, lora_state
from learners.model.rows import wish_of
from learners.model.sampling import Row, decode
from learners.protocol import Answer, AnswerRequest, Ended, Error, Event, Lesson, Load, Started, Tokens
from learners.rlhf.ppo import PPO, PPOSettings
from learners.rlhf.rollouts import Rollouts
from storage.records import Correction, Critique, Demonstration, Message, Ranking, Sampling
from storage.thoughts import split_thought
from tests.learners.model.families import TEMPLATE, saved_family
from tests.learners.models import stirred, tensor
from tests.learners.test_families import Course

PROMPT = (Message("user", "What is a dog?"),)
OPENED = TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"
PEAKED, CONSTANT, OFTEN = 5.0, 1.0, 2.0
SHORT = Sampling(1.0, 6, max_thinking_tokens=5)


def model_in(folder: Path, template: str = TEMPLATE, generation: dict[str, Any] | None = None) -> Path:
    """A tiny model with tags for thoughts; its template and its generation settings are as given. The closing tag comes often."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    shutil.copytree(saved_family("llama"), folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | (generation or {})))
    weights = load_file(folder / "model.safetensors")
    embeddings, head = weights["model.embed_tokens.weight"], weights["lm_head.weight"].mul_(PEAKED)
    embeddings[:, 0], head[:, 0] = CONSTANT, 0.0  # one dimension that is about the same in every state
    head[tokenizer.convert_tokens_to_ids("</think>"), 0] = OFTEN
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@dataclass
class Drawn:
    """What the engine said of one answer."""

    ended: Ended
    prompt_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    unbiased: tuple[float, ...] = ()

    @property
    def answer(self) -> Answer:
        return Answer(
            uid=self.ended.uid, messages=PROMPT, text=self.ended.text, prompt_ids=self.prompt_ids, token_ids=self.ids, stop=self.ended.reason
        )


class Engine:
    """The parts of an engine in this thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Path, **load: Any) -> None:
        monkeypatch.setattr("learners.engine.calibration.TOKENS", 2)
        self.events: list[Event] = []
        self.parts: Parts = assemble(Load(model=str(model), quantize="none", **load), self.events.append)
        self.parts.generator._emit = self.events.append

    def draw(self, sampling: Sampling, n: int = 3, temperatures: Sequence[float | None] = ()) -> list[Drawn]:
        self.events.clear()
        requests = [
            AnswerRequest(uid=str(i), seed=i, messages=PROMPT, policy="base", temperature=t)
            for i, t in itertools.islice(enumerate(itertools.chain(temperatures, itertools.repeat(None))), n)
        ]
        for _ in self.parts.generator.draw(requests, sampling):
            pass
        ended = {event.uid: Drawn(event) for event in self.events if isinstance(event, Ended)}
        for event in self.events:
            if isinstance(event, Started):
                ended[event.uid].prompt_ids = event.prompt_ids
            for piece in event.pieces if isinstance(event, Tokens) else ():
                drawn = ended[piece.uid]
                drawn.ids, drawn.logprobs = drawn.ids + piece.ids, drawn.logprobs + piece.logprobs
                drawn.unbiased += piece.unbiased_logprobs
        return [ended[request.uid] for request in requests]

    def rank(self, drawn: Sequence[Drawn], seq: int = 1) -> None:
        ranks = {each.ended.uid: i + 1 for i, each in enumerate(drawn)}
        self.parts.live_reward.learn(Lesson(seq=seq, judgement=Ranking("s", ranks), answers=tuple(each.answer for each in drawn)))


# --- sampling ------------------------------------------------------------------------------------------------------------------

OWN = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "do_sample": True}
TINY = {"temperature": 1e-300, "repetition_penalty": 1e-300, "top_k": 1e300, "min_p": float("nan")}
FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def test_what_no_option_sets_comes_from_the_models_own_settings_and_learners_draw_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_in(tmp_path / "m", generation=OWN)
    parts = Engine(monkeypatch, model, sampling=Sampling(max_new_tokens=9, top_p=0.5), unset=("temperature", *FIELDS[2:])).parts
    assert parts.ready.sampling == Sampling(0.7, 9, top_p=0.5, top_k=20, repetition_penalty=1.05)
    assert parts.ready.from_model == ("temperature", "top_k", "repetition_penalty")
    assert parts.sampling == Sampling(0.7, 9)
    asked = Engine(monkeypatch, model, sampling=Sampling(1.0, 9)).parts  # all of it was asked for
    assert (asked.ready.sampling, asked.ready.from_model) == (Sampling(1.0, 9), ())


@pytest.mark.parametrize("settings", [OWN | {"do_sample": False}, {"temperature": 0.0, "top_p": 2.0, "top_k": -1, "min_p": "much"}, {}, TINY])
def test_settings_that_say_nothing_of_drawing_are_left_alone(settings: dict[str, Any]) -> None:
    from learners.model.drawing_settings import drawing_settings

    assert drawing_settings(settings) == {}


@pytest.mark.parametrize("extreme", [{"temperature": 0.01}, {"repetition_penalty": 0.1}, {"repetition_penalty": 10.0, "temperature": 0.01},
                                     {"top_p": 1e-300}, {"min_p": 1.0}, {"min_p": 1e-300}, {"top_k": 1_000_000}])  # fmt: skip
def test_every_setting_within_the_bounds_draws_whole_answers(monkeypatch: pytest.MonkeyPatch, extreme: dict[str, Any]) -> None:
    for drawn in Engine(monkeypatch, saved_family("llama")).draw(Sampling(max_new_tokens=6, **extreme)):
        assert len(drawn.ids) == drawn.ended.n_tokens > 0 and all(math.isfinite(p) for p in (*drawn.logprobs, *drawn.unbiased))


def broken(tmp_path: Path) -> Path:
    """A model one of whose weights is no number."""
    directory = tmp_path / "broken"
    shutil.copytree(saved_family("llama"), directory)
    weights = load_file(directory / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


def test_a_model_without_a_finite_number_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="not finite, and no token can be drawn"):
        Engine(monkeypatch, broken(tmp_path))


def test_an_answer_that_runs_into_such_numbers_ends_with_what_came_of_it_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, saved_family("llama"))
    head, calls = engine.parts.backbone.model.get_output_embeddings(), itertools.count()
    hook = head.register_forward_hook(lambda module, inputs, logits: logits * math.nan if next(calls) >= 3 else logits)
    drawn = engine.draw(Sampling(1.0, 9))
    hook.remove()
    told = [event for event in engine.events if isinstance(event, Error)]
    assert sorted(event.uid for event in told) == ["0", "1", "2"] and all("not finite" in event.what for event in told)
    for each in drawn:
        assert each.ended.reason == "stopped" and 0 < len(each.ids) == each.ended.n_tokens <= 3 and math.isfinite(each.ended.kl)
    assert all(each.ended.n_tokens > 3 or each.ended.reason == "eos" for each in engine.draw(Sampling(1.0, 9))), "the next ones are drawn as ever"


def test_a_text_ends_an_answer_and_is_not_shown_and_its_tokens_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, saved_family("llama"))
    whole = engine.draw(Sampling(1.0, 40))
    (end, _), *_ = Counter(c for each in whole for c in each.ended.text[3:] if c.isascii()).most_common(1)
    for before, after in zip(whole, engine.draw(Sampling(1.0, 40, stop=(end,))), strict=True):
        said, found, _ = before.ended.text.partition(end)
        assert after.ended.text == said and after.ids == before.ids[: len(after.ids)]
        assert (after.ended.reason, len(after.ids) < len(before.ids)) == (("eos", True) if found else (before.ended.reason, False))
        if found:
            assert engine.parts.backbone.decode(after.ids) == said + end
    assert any(end in each.ended.text for each in whole)


def test_answers_of_one_set_are_drawn_each_at_its_own_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, model_in(tmp_path / "m"))
    spread = engine.draw(Sampling(1.0, 12), 3, (0.3, None, 2.0))
    for i, temperature in enumerate((0.3, 1.0, 2.0)):
        alone = engine.draw(Sampling(temperature, 12))[i]
        assert spread[i].ids == alone.ids and spread[i].logprobs == pytest.approx(alone.logprobs, abs=1e-4)


# --- thinking ------------------------------------------------------------------------------------------------------------------


def test_a_thought_is_closed_at_its_longest_and_the_answer_has_a_length_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, model_in(tmp_path / "m", OPENED))
    backbone, closing = engine.parts.backbone, engine.parts.backbone.renderer.closing
    assert backbone.renderer.decode_raw(closing, special=True) == "\n</think>\n\n"
    free = engine.draw(Sampling(1.0, 40), 8)
    closed = engine.draw(SHORT, 8)
    forced = [(before, after) for before, after in zip(free, closed, strict=True) if after.ended.forced_tokens]
    assert forced and len(forced) < len(closed)  # some close by themselves, earlier
    for before, after in forced:
        n = SHORT.max_thinking_tokens + len(closing)  # type: ignore[operator]
        assert after.ids[:5] == before.ids[:5] and after.ids[5:n] == closing
        assert after.logprobs[5:n] == after.unbiased[5:n] == (0.0,) * len(closing) and min(after.logprobs[:5]) < 0
        assert after.ended.thought_tokens == n and after.ended.forced_tokens == len(closing)
        row = Row("a", after.prompt_ids, int(after.ended.uid), prefix_ids=after.ids[:n])  # as if these had been drawn
        rest = [step.ids[0] for step in decode(backbone.model, [row], Sampling(1.0, n + 6), backbone.eos_ids, backbone.pad_id) if step.ids]
        assert list(after.ids[n:]) == rest
        said = split_thought(after.ended.text).answer
        assert after.ended.text.startswith("<think>\n") and said == backbone.decode(after.ids[n:]).lstrip()
        assert after.ended.reason == ("length" if len(after.ids) == n + 6 else "eos")
    for after in closed:
        assert len(after.ids) - after.ended.thought_tokens <= 6


def test_nothing_is_learned_of_thoughts_unless_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_in(tmp_path / "m", OPENED)
    engine, whole = Engine(monkeypatch, model), Engine(monkeypatch, model, learn_thoughts=True)
    drawn = engine.draw(Sampling(1.0, 30, max_thinking_tokens=5), 6)
    for each in (engine, whole):
        each.rank(drawn)
        each.parts.live_reward.learn(Lesson(seq=2, judgement=Demonstration("s", "A dog!"), answers=(Answer(uid="", messages=PROMPT, text=""),)))
        each.parts.live_reward.learn(Lesson(seq=3, judgement=Correction("s", "0", "A cat!"), answers=(drawn[0].answer,)))
    samples, all_of_it = (each.parts.live_reward.lessons.samples for each in (engine, whole))
    for each in drawn:
        uid, n = each.ended.uid, each.ended.thought_tokens
        assert n > 0 and samples[uid].prompt_ids == (*each.prompt_ids, *each.ids[:n]) and samples[uid].token_ids == each.ids[n:]
        assert (all_of_it[uid].prompt_ids, all_of_it[uid].token_ids) == (each.prompt_ids, each.ids)
    feedback, backbone = engine.parts.live_reward.lessons, engine.parts.backbone
    assert feedback.prompts() == [drawn[0].prompt_ids]  # what was asked
    assert feedback.comparisons()[0].prompts == tuple(samples[each.ended.uid].prompt_ids for each in drawn)
    demonstrated, corrected = (target for _, target in feedback.targets())
    assert demonstrated.prompt_ids == (*backbone.encode(PROMPT), *backbone.renderer.closing)
    assert corrected.prompt_ids == samples["0"].prompt_ids and corrected.token_ids == tuple(backbone.encode_completion("A cat!"))
    engine.parts.generator.use_head(engine.parts.live_reward.head)
    (appraisal, *_) = engine.parts.generator.appraise([drawn[0].answer]).appraisals
    n = drawn[0].ended.thought_tokens
    assert len(appraisal.rewards) == len(drawn[0].ids) and not any(appraisal.rewards[:n]) and any(appraisal.rewards[n:])


def test_all_stages_learn_from_answers_after_thoughts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.engine.calibration.TOKENS", 2)
    load = Load(
        model=str(model_in(tmp_path / "m", OPENED)), quantize="none", sampling=Sampling(1.0, 12, max_thinking_tokens=8), train_prompts=(PROMPT,)
    )
    course = Course(assemble(load, lambda event: None))
    course.learn_all()
    seen: list[int] = []
    rollouts = course.ppo.ppo.rollout(course.prompts, 4)  # type: ignore[union-attr]
    for prompt, answer in zip(rollouts.prompts, rollouts.answers, strict=True):
        seen.append(len(prompt) - min(map(len, course.prompts)))
        assert any(prompt[: len(asked)] == asked for asked in course.prompts) and answer
    assert max(seen) > 0


@pytest.mark.parametrize("learn_thoughts", [False, True])
def test_rollouts_close_thoughts_and_what_closes_them_is_no_choice_of_the_policy(
    learn_thoughts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Engine(monkeypatch, model_in(tmp_path / "m", OPENED), sampling=SHORT, train_prompts=(PROMPT,), learn_thoughts=learn_thoughts).parts
    backbone, closing = parts.backbone, parts.backbone.renderer.closing
    asked = tuple(backbone.encode(PROMPT))
    scored: list[torch.Tensor] = []

    def reward(prompts: Any, answers: Any) -> torch.Tensor:
        scored.append(torch.linspace(-1.0, 1.0, len(answers)))
        return scored[-1]

    policy = stirred(backbone, size=0.03)  # tags stay likely
    ppo = PPO(policy, backbone.tree(), reward, PPOSettings(microbatch=4, minibatch=64, epochs=1), backbone=backbone, sampling=parts.sampling)
    rollouts = ppo.rollout([asked], 12)
    assert len(rollouts.answers) == 12, "none is left out"
    drawn = [(p + a)[len(asked) :] for p, a in zip(rollouts.prompts, rollouts.answers, strict=True)]
    forced = [ids for ids in drawn if ids[5 : 5 + len(closing)] == closing]
    assert forced and len(forced) < 12, "some close their thought themselves, earlier"
    for ids in drawn:
        thought = backbone.renderer.answer_start(ids)
        assert not backbone.decode(ids[5 + len(closing) : thought]).strip() and len(ids) - thought <= SHORT.max_new_tokens
    for answer, logprobs, prompt, span in zip(rollouts.answers, rollouts.logprobs, rollouts.prompts, rollouts.forced or [(0, 0)] * 12, strict=True):
        assert len(answer) == len(logprobs) and (learn_thoughts or span == (0, 0))
        assert answer[slice(*span)] in ((), closing)
        with torch.no_grad():
            logits = forward(policy, tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, tensor(answer)[:, None])[:, 0]
        expected[slice(*span)] = 0.0
        torch.testing.assert_close(tensor(logprobs), expected, atol=1e-3, rtol=0)
    assert bool(rollouts.forced) == learn_thoughts
    stats = ppo.step(rollouts)
    assert stats.ratio == 1.0 and stats.approx_kl == 0.0
    if learn_thoughts:  # however unlikely what was forced: it is no part of the KL
        tree = backbone.tree()
        nats = 0.0
        for prompt, answer, (start, stop) in zip(rollouts.prompts, rollouts.answers, rollouts.forced, strict=True):
            ids = tensor([[*prompt, *answer]])
            with torch.no_grad():
                load_lora(policy, lora_state(stirred(backbone, size=0.03)))
                p, q = (forward(each, ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for each in (policy, tree))
            kl = (p.exp() * (p - q)).sum(1)
            nats += float(kl.sum() - kl[start:stop].sum())
        assert stats.kl == pytest.approx(nats / 12, rel=1e-3)


def test_a_gradient_is_of_what_was_drawn_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tokens in the place of those that were forced, of the same likelihood or not, in states that nothing else depends on: the last ones."""
    parts = Engine(monkeypatch, model_in(tmp_path / "m", OPENED), learn_thoughts=True).parts
    backbone, found = parts.backbone, []
    asked = tuple(backbone.encode(PROMPT))
    for end in ((7, 8), (9, 10)):
        policy = stirred(backbone)
        ppo = PPO(policy, backbone.tree(), lambda prompts, answers: torch.tensor([1.0, -1.0]), PPOSettings(epochs=1), backbone=backbone)
        rollouts = Rollouts((asked,) * 2, ((4, 5, 6, *end), (6, 5)), ("length", "eos"), ((0.0,) * 5, (0.0,) * 2), ((3, 5), (0, 0)))
        found.append((ppo.step(rollouts), lora_state(policy)))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1].values(), found[1][1].values(), strict=True))


def test_without_an_answer_there_is_nothing_to_learn_and_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, model_in(tmp_path / "m", OPENED))
    drawn = [each for each in engine.draw(Sampling(1.0, 4), 12) if each.ended.thought_tokens == len(each.ids)][:2]
    assert len(drawn) == 2
    engine.rank(drawn)
    assert list(engine.parts.live_reward.refused) == [1]


@pytest.mark.parametrize(("template", "thinking"), [(TEMPLATE, "on"), (OPENED, "off")])
def test_a_model_that_cannot_be_switched_is_refused_in_a_line(tmp_path: Path, template: str, thinking: str) -> None:
    model = saved_family("llama") if thinking == "on" else model_in(tmp_path / "m", template)
    with pytest.raises(ModelError, match=f"no switch that turns thinking {thinking}"):
        assemble(Load(model=str(model), thinking=thinking), lambda event: None)  # type: ignore[arg-type]


def test_states_of_plain_models_are_what_they_were() -> None:
    torch.manual_seed(0)  # no thoughts: answers and prompts are taken as they are
    parts = assemble(Load(model=str(saved_family("llama")), quantize="none"), lambda event: None)
    assert parts.backbone.spoken((1, 2), (3, 4)) == ((1, 2), (3, 4)) and parts.backbone.renderer.no_thought == ()


# --- critiques of answers with thoughts ---------------------------------------------------------------------------------------


def said(text: str, scope: str, messages: tuple[Message, ...] = PROMPT, seq: int = 1) -> Lesson:
    critique = Critique("s", None, text, scope)  # type: ignore[arg-type]
    return Lesson(seq=seq, judgement=critique, answers=(Answer(uid="", messages=messages, text=""),))


def teacher_of(parts: Parts, *lessons: Lesson) -> tuple[DistillationTeacher, Practice]:
    read = {lesson.seq: parts.live_reward.lessons.read.get(lesson.seq, ()) for lesson in lessons}
    inputs = replace(parts.inputs, feedback=Feedback(lessons, read))
    practice = Practice(parts.backbone, parts.trees.base, parts.sampling, 0, lambda: inputs)
    teacher = DistillationTeacher(practice, PolicyWeights(parts.trees.policy, parts.trees.reference), 0.95)
    teacher.refresh(inputs)
    return teacher, practice


@pytest.mark.parametrize("scope", ["all", "prompt"])
def test_what_critiques_ask_for_is_taught_behind_thoughts_and_is_absorbed_only_where_it_was(
    scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Engine(monkeypatch, model_in(tmp_path / "m", OPENED), sampling=Sampling(1.0, 30), train_prompts=(PROMPT,)).parts
    backbone = parts.backbone
    elsewhere = said("louder!", "prompt", (Message("user", "Who are you?"),), 2)
    teacher, _ = teacher_of(parts, said("shorter!", scope), elsewhere)
    prompt = tuple(backbone.fit(PROMPT, 30)[0])
    drawn = [t for t in teacher.draw([prompt] * 8) if t.prompt_ids == prompt and len(backbone.spoken(prompt, t.ids)[1]) > 1]
    behind = [t for t in drawn if len(backbone.spoken(prompt, t.ids)[0]) > len(prompt)]
    assert behind, "some with a thought before the answer"
    batch, absorbed = teacher.batch(behind)
    assert absorbed == {1}, "the other one holds for a prompt that is not among these"
    teacher._critique_bias = CritiqueBias(2.0)
    found = teacher(batch.prompts, batch.answers)(slice(0, 10_000))
    asked = (Message("user", PROMPT[0].content + "\n\nshorter!"),)
    wanted = []
    for trace in behind:
        thought = len(trace.ids) - len(backbone.spoken(prompt, trace.ids)[1])
        with torch.no_grad():
            plain, beside = (
                forward(parts.trees.base, torch.tensor([[*ids, *trace.ids]])).logits[0, len(ids) - 1 : -1][thought:]
                for ids in (prompt, backbone.fit(asked, 30)[0])
            )
        of = torch.arange(len(plain))
        wish = wish_of(plain, beside, of, torch.ones(len(plain), 1))
        wanted.append(plain + CritiqueBias(2.0).bias(teacher.steering, plain.new_zeros(len(plain), backbone.width), plain, wish))
    assert torch.allclose(found.log_softmax(1), torch.cat(wanted).log_softmax(1), atol=2e-3)


def test_prompts_of_answers_with_thoughts_are_known_by_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, model_in(tmp_path / "m", OPENED))
    drawn = engine.draw(Sampling(1.0, 30), 4)
    engine.rank(drawn)
    _, practice = teacher_of(engine.parts, *engine.parts.live_reward.lessons.lessons)
    samples = engine.parts.live_reward.lessons.read[1]
    assert any(sample.thought for sample in samples)
    assert set(practice.conversations()) == set(practice.prompts(9)) == {drawn[0].prompt_ids}


def test_a_critique_of_a_conversation_that_the_template_refuses_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = "{% for m in messages %}{% if 'pirate' in m.content %}{{ raise_exception('none here') }}{% endif %}{% endfor %}" + TEMPLATE
    parts = Engine(monkeypatch, model_in(tmp_path / "m", strict), sampling=Sampling(1.0, 9), train_prompts=(PROMPT,)).parts
    refused = (Message("user", "Are you a pirate?"),)
    teacher, practice = teacher_of(parts, said("shorter!", "prompt", refused), said("warmer!", "prompt", seq=2))
    prompt = tuple(parts.backbone.fit(PROMPT, 9)[0])
    assert set(practice.prompts(8)) == set(practice.conversations()) == {prompt}
    traces = teacher.draw([prompt] * 2)
    assert teacher.batch(traces)[1] == {2}
    assert traces[0].without_states().ids == traces[0].ids and traces[0].without_states().kl == traces[0].kl
