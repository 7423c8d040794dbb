"""The sampler against a loop without cache, batch or twin rows."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from learners.model.answer_text import TextStream, words_of
from learners.model.base import Backbone
from learners.model.forward import causal_model, forward
from learners.model.sampling import Row, Step, decode
from storage.records import Sampling
from tests.learners.models import needs_gpt2, needs_stories, prompt, random_experts, random_gpt2, random_llama, stirred, stories, tensor

SHORT = Sampling(1.0, 24)
PROMPTS = ("Once upon a time, there was a little dog", "One day", "The sun was hot and Lily wanted to", "Tom")


class Answers:
    """Collects the steps of a decode by answer."""

    def __init__(self, steps: Sequence[Step] | object) -> None:
        self.ids: dict[str, list[int]] = defaultdict(list)
        self.logprobs: dict[str, list[float]] = defaultdict(list)
        self.unbiased: dict[str, list[float]] = defaultdict(list)
        self.kl: dict[str, list[float]] = defaultdict(list)
        self.hidden: dict[str, list[Tensor]] = defaultdict(list)
        self.base_logits: dict[str, list[Tensor]] = defaultdict(list)
        self.policy_logits: dict[str, list[Tensor]] = defaultdict(list)
        self.ended: dict[str, str] = {}
        for step in steps:  # type: ignore[attr-defined]
            for i, uid in enumerate(step.uids):
                self.ids[uid].append(step.ids[i])
                self.logprobs[uid].append(step.logprobs[i])
                self.unbiased[uid].append(step.unbiased_logprobs[i])
                self.kl[uid].append(step.kl[i])
                self.hidden[uid].append(step.hidden[i])
                self.base_logits[uid].append(step.base_logits[i])
                self.policy_logits[uid].append(step.policy_logits[i])
            self.ended.update(step.ended)


def draw(backbone: Backbone, tree: nn.Module, rows: Sequence[Row], sampling: Sampling = SHORT, **options: object) -> Answers:
    return Answers(decode(tree, rows, sampling, backbone.eos_ids, backbone.pad_id, **options))  # type: ignore[arg-type]


def naive(backbone: Backbone, tree: nn.Module, row: Row, sampling: Sampling) -> list[int]:
    """One answer by whole forwards: no cache, no batch; the cumulated sum is walked in Python."""
    generator = torch.Generator().manual_seed(row.seed)
    uniforms = torch.rand(sampling.max_new_tokens, generator=generator, dtype=torch.float64).tolist()
    ids: list[int] = list(row.prefix_ids)
    while len(ids) < sampling.max_new_tokens and (not ids or ids[-1] not in backbone.eos_ids):
        with torch.no_grad():
            logits = forward(tree, tensor([[*row.prompt_ids, *ids]])).logits[0, -1]
        probabilities = (logits.double() / sampling.temperature).softmax(0).tolist()
        point = uniforms[len(ids)]
        ids.append(next(token for token, total in enumerate(itertools.accumulate(probabilities)) if total > point))
    return ids


@needs_stories
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_an_answer_is_what_whole_forwards_draw_with_the_same_seed(temperature: float) -> None:
    backbone, sampling = stories(), Sampling(temperature, 24)
    rows = [Row(str(seed), prompt(backbone), seed) for seed in range(3)]
    drawn = draw(backbone, backbone.model, rows, sampling)
    for row in rows:
        assert drawn.ids[row.uid] == naive(backbone, backbone.model, row, sampling)


@needs_gpt2
@pytest.mark.parametrize("load", [random_llama, random_gpt2, random_experts])
@pytest.mark.parametrize("twin", [False, True])
def test_other_architectures_draw_the_same_with_and_without_cache(load: object, twin: bool) -> None:
    backbone = load()  # type: ignore[operator]
    rows = [Row(str(seed), prompt(backbone, text), seed) for seed, text in enumerate(PROMPTS)]
    tree = stirred(backbone)
    drawn = draw(backbone, tree, rows, Sampling(1.0, 8), twin=twin)
    for row in rows:
        assert drawn.ids[row.uid] == naive(backbone, tree, row, Sampling(1.0, 8))
        base = forward(backbone.model, tensor([[*row.prompt_ids, *drawn.ids[row.uid]]]), keep=len(drawn.ids[row.uid]) + 1)
        if twin:
            torch.testing.assert_close(torch.stack(drawn.base_logits[row.uid]), base.logits[0, :-1], atol=1e-3, rtol=1e-3)


@needs_stories
@pytest.mark.parametrize("twin", [False, True])
def test_an_answer_does_not_depend_on_what_is_drawn_beside_it(twin: bool) -> None:
    backbone = stories()
    tree = stirred(backbone)
    rows = [Row(f"{text}/{seed}", prompt(backbone, text), seed) for text in PROMPTS for seed in range(2)]
    together = draw(backbone, tree, rows, twin=twin)
    for row in rows:
        alone = draw(backbone, tree, [row], twin=twin)
        assert together.ids[row.uid] == alone.ids[row.uid]
        torch.testing.assert_close(together.logprobs[row.uid], alone.logprobs[row.uid], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(torch.stack(together.hidden[row.uid]), torch.stack(alone.hidden[row.uid]), atol=1e-4, rtol=1e-4)


@needs_stories
def test_the_same_seed_draws_the_same_answer_and_another_seed_another() -> None:
    backbone = stories()
    rows = [Row(name, prompt(backbone), seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))]
    drawn = draw(backbone, backbone.model, rows)
    assert drawn.ids["a"] == drawn.ids["b"] != drawn.ids["c"]


@needs_stories
def test_the_global_random_state_neither_matters_nor_moves() -> None:
    backbone = stories()
    row = Row("a", prompt(backbone), 1)
    torch.manual_seed(1)
    first, state = draw(backbone, backbone.model, [row]).ids, torch.get_rng_state()
    torch.manual_seed(2)
    assert draw(backbone, backbone.model, [row]).ids == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@needs_stories
def test_tokens_come_as_often_as_their_probability_says() -> None:
    backbone = stories()
    ids = prompt(backbone)
    drawn = draw(backbone, backbone.model, [Row(str(seed), ids, seed) for seed in range(400)], Sampling(1.0, 1))
    with torch.no_grad():
        probabilities = forward(backbone.model, tensor([ids])).logits[0, -1].softmax(0)
    likeliest = int(probabilities.argmax())
    p, share = float(probabilities[likeliest]), sum(ids == [likeliest] for ids in drawn.ids.values()) / 400
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 400)


@needs_stories
def test_twin_rows_see_the_base_and_the_exact_kl() -> None:
    backbone = stories()
    tree, base = stirred(backbone), backbone.tree()
    rows = [Row(text, prompt(backbone, text), i) for i, text in enumerate(PROMPTS)]
    sampling = Sampling(0.8, 24)
    drawn = draw(backbone, tree, rows, sampling, twin=True)
    for row in rows:
        ids = tensor([[*row.prompt_ids, *drawn.ids[row.uid]]])
        n = ids.shape[1] - len(row.prompt_ids) + 1
        with torch.no_grad():
            expected, policy = (forward(t, ids, keep=n) for t in (base, tree))
        torch.testing.assert_close(torch.stack(drawn.base_logits[row.uid]), expected.logits[0, :-1], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(torch.stack(drawn.hidden[row.uid]), expected.hidden[0, :-1], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(torch.stack(drawn.policy_logits[row.uid]), policy.logits[0, :-1], atol=1e-3, rtol=1e-4)
        p, q = ((o.logits[0, :-1].double() / 0.8).softmax(-1) for o in (policy, expected))
        kl = [sum(a * math.log(a / b) for a, b in zip(*pair, strict=True)) for pair in zip(p.tolist(), q.tolist(), strict=True)]
        torch.testing.assert_close(drawn.kl[row.uid], kl, atol=1e-4, rtol=1e-3)
        assert sum(kl) > 0.5  # the adapter does something


@needs_stories
def test_the_kl_is_a_number_where_a_token_cannot_be_drawn() -> None:
    tree = stirred(stories())
    head = causal_model(tree).get_output_embeddings()
    head.register_forward_hook(lambda module, arguments, logits: logits.index_fill(-1, tensor([7, 9]), -math.inf))
    drawn = draw(stories(), tree, [Row("a", prompt(stories()), 1)], Sampling(1.0, 12), twin=True)
    assert all(math.isfinite(kl) for kl in drawn.kl["a"]) and sum(drawn.kl["a"]) > 0


@needs_stories
def test_rows_of_one_batch_may_come_from_the_adapter_and_from_the_base() -> None:
    backbone = stories()
    tree = stirred(backbone)
    rows = [Row("adapter", prompt(backbone), 3), Row("base", prompt(backbone), 3, adapter=False)]
    for twin in (False, True):
        drawn = draw(backbone, tree, rows, twin=twin)
        assert drawn.ids["base"] == naive(backbone, backbone.model, rows[1], SHORT)
        assert drawn.ids["adapter"] == naive(backbone, tree, rows[0], SHORT)
        assert sum(drawn.kl["base"]) == pytest.approx(0, abs=1e-5)
    assert sum(drawn.kl["adapter"]) > 0.5


@needs_stories
def test_a_tree_between_two_steps_computes_with_its_own_scaling() -> None:
    backbone = stories()
    tree = stirred(backbone)
    ids = tensor([prompt(backbone)])
    with torch.no_grad():
        before = forward(tree, ids).logits
    for _ in decode(tree, [Row("a", prompt(backbone), 0)], Sampling(1.0, 4), backbone.eos_ids, backbone.pad_id, twin=True):
        assert torch.equal(forward(tree, ids).logits, before)


class Push:
    """Adds `strength` to one token, and to another from the state."""

    def __init__(self, token: int, strength: float) -> None:
        self.token, self.strength = token, strength
        self.states: list[Tensor] = []

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor:
        self.states.append(hidden)
        found = torch.zeros_like(base_logits)
        found[:, self.token], found[:, 7] = self.strength, hidden[:, 0] * 0.1
        return found


@needs_stories
def test_a_bias_raises_its_token_in_steered_rows_only_and_its_kl_is_exact() -> None:
    backbone = stories()
    tree, token = stirred(backbone), 300
    push = Push(token, 5.0)
    rows = [Row("steered", prompt(backbone), 1, steer=True), Row("plain", prompt(backbone), 1)]
    drawn = draw(backbone, tree, rows, steer=push, twin=True)
    assert drawn.ids["steered"].count(token) > drawn.ids["plain"].count(token)
    assert drawn.ids["plain"] == naive(backbone, tree, rows[1], SHORT)
    assert drawn.logprobs["plain"] == pytest.approx(drawn.unbiased["plain"], abs=1e-6)
    for i, (state, policy, base) in enumerate(
        zip(drawn.hidden["steered"], drawn.policy_logits["steered"], drawn.base_logits["steered"], strict=True)
    ):
        acting = policy.double().clone()
        acting[token] += 5.0
        acting[7] += 0.1 * float(state[0])
        a, p, q = acting.log_softmax(0), policy.double().log_softmax(0), base.double().log_softmax(0)
        drawn_id = drawn.ids["steered"][i]
        assert drawn.logprobs["steered"][i] == pytest.approx(float(a[drawn_id]), abs=1e-4)
        assert drawn.unbiased["steered"][i] == pytest.approx(float(p[drawn_id]), abs=1e-4)
        assert drawn.kl["steered"][i] == pytest.approx(float((a.exp() * (a - q)).sum()), abs=1e-4)
    torch.testing.assert_close(torch.stack([s[0] for s in push.states[: len(drawn.hidden["steered"])]]), torch.stack(drawn.hidden["steered"]))


@needs_stories
def test_a_bias_that_changes_between_tokens_holds_from_the_next_token_on() -> None:
    backbone = stories()
    push = Push(300, 0.0)
    rows, seen = [Row("a", prompt(backbone), 1, steer=True)], []
    for step in decode(backbone.model, rows, SHORT, backbone.eos_ids, backbone.pad_id, steer=push):
        seen.append(step.ids[0])
        push.strength = 50.0 if len(seen) == 3 else push.strength
    assert 300 not in seen[:3] and set(seen[3:]) == {300}


@needs_stories
def test_an_answer_ends_at_the_end_token_at_the_length_or_when_it_is_stopped() -> None:
    backbone = stories()
    (end,) = backbone.eos_ids
    rows = [Row(name, prompt(backbone), i, steer=name == "eos") for i, name in enumerate(("eos", "length", "stopped"))]
    wanted: set[str] = set()
    answers = Answers([])
    options = {"steer": Push(end, 1e4), "want_stop": lambda: wanted}
    steps = decode(backbone.model, rows, Sampling(1.0, 6), backbone.eos_ids, backbone.pad_id, **options)  # type: ignore[arg-type]
    for count, step in enumerate(steps, 1):
        for uid, token in zip(step.uids, step.ids, strict=True):
            answers.ids[uid].append(token)
        answers.ended.update(step.ended)
        if count == 3:
            wanted.add("stopped")
    assert answers.ended == {"eos": "eos", "length": "length", "stopped": "stopped"}
    assert {uid: len(ids) for uid, ids in answers.ids.items()} == {"eos": 1, "length": 6, "stopped": 3}
    assert answers.ids["eos"] == [end]


@needs_stories
def test_stopping_everything_ends_every_answer() -> None:
    backbone = stories()
    rows = [Row(str(i), prompt(backbone), i) for i in range(3)]
    steps = list(decode(backbone.model, rows, SHORT, backbone.eos_ids, backbone.pad_id, want_stop=lambda: {"0", "1", "2", "x"}))
    assert [step.ended for step in steps] == [{"0": "stopped", "1": "stopped", "2": "stopped"}]
    assert steps[0].uids == ()


@needs_stories
def test_an_answer_resumed_from_any_token_goes_on_as_it_did() -> None:
    backbone = stories()
    tree = stirred(backbone)
    whole = draw(backbone, tree, [Row("a", prompt(backbone), 4)]).ids["a"]
    rows = [Row(str(n), prompt(backbone), 4, prefix_ids=tuple(whole[:n])) for n in (1, 5, 20)]
    resumed = draw(backbone, tree, rows, twin=True)
    for n in (1, 5, 20):
        assert whole[:n] + resumed.ids[str(n)] == whole


@needs_stories
def test_an_answer_that_is_complete_already_ends_without_a_token() -> None:
    backbone = stories()
    (end,) = backbone.eos_ids
    rows = [
        Row("eos", prompt(backbone), 0, prefix_ids=(300, end)),
        Row("length", prompt(backbone), 0, prefix_ids=(300,) * SHORT.max_new_tokens),
        Row("alive", prompt(backbone), 0),
    ]
    drawn = draw(backbone, backbone.model, rows)
    assert drawn.ended["eos"] == "eos" and drawn.ended["length"] == "length"
    assert set(drawn.ids) == {"alive"}
    assert draw(backbone, backbone.model, rows[:2]).ended == {"eos": "eos", "length": "length"}
    assert draw(backbone, backbone.model, []).ended == {}


@needs_stories
def test_a_temperature_of_zero_is_refused() -> None:
    backbone = stories()
    with pytest.raises(ValueError, match="temperature"):
        draw(backbone, backbone.model, [Row("a", prompt(backbone), 0)], Sampling(0.0, 4))


# --- text ----------------------------------------------------------------------------------------------------------------


def streamed(backbone: Backbone, ids: Sequence[int]) -> list[str]:
    stream = TextStream(backbone)
    return [*(stream.push(i) for i in ids), stream.flush()]


@needs_gpt2
@pytest.mark.parametrize("text", [" a dog", "naïve café", "日本語のテキスト", "🙂👩‍👩‍👧 ok", "  two  spaces\n\n\tand tabs", "é"])
def test_pieces_of_multi_byte_characters_concatenate_to_the_text(text: str) -> None:
    backbone = random_llama()
    ids = backbone.encode_completion(text)
    pieces = streamed(backbone, ids)
    assert "".join(pieces) == backbone.decode(ids) == text
    assert not any("\ufffd" in piece for piece in pieces)


@needs_gpt2
@given(st.lists(st.integers(0, 50256), max_size=30))
@settings(max_examples=60, deadline=None)
def test_pieces_of_any_tokens_concatenate_to_their_decoding(ids: list[int]) -> None:
    backbone = random_llama()
    assert "".join(streamed(backbone, ids)) == backbone.decode(ids)


@needs_stories
@given(st.lists(st.integers(259, 511), max_size=30))
@settings(max_examples=60, deadline=None)
def test_leading_spaces_survive_in_a_continuation(ids: list[int]) -> None:
    backbone = stories()
    assert "".join(streamed(backbone, ids)) == backbone.decode(ids)


@needs_stories
def test_prompt_and_answer_read_as_one_text() -> None:
    backbone = stories()
    text = "Once upon a time, there was a little dog named Max. He ran."
    whole = backbone.tokenizer(text).input_ids
    for cut in range(2, len(whole)):
        head = backbone.tokenizer.decode(whole[:cut], skip_special_tokens=True)
        assert head + backbone.decode(whole[cut:]) == text
        assert head + "".join(streamed(backbone, whole[cut:])) == text


@needs_stories
def test_end_tokens_have_no_text() -> None:
    backbone = stories()
    (end,) = backbone.eos_ids
    assert backbone.decode([300, end]) == backbone.decode([300])
    assert streamed(backbone, [300, end])[1:] == ["", ""]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([" ha", "pp", "y", ".", " The", "y", " did", "n", "'", "t", "!"], [" happy", ".", " They", " didn't", "!"]),
        (['"', "H", "i", '"'], ['"', "Hi", '"']),
        (["caf", "", "é", " ", "A", "1"], ["café", " A1"]),
        (["\n", " The", "y"], ["\n They"]),
        (["狗", "猫", " ok"], ["狗", "猫", " ok"]),
        ([], []),
        (["", ""], []),
    ],
)
def test_a_word_is_letters_that_touch_with_the_space_before_them(pieces: list[str], words: list[str]) -> None:
    spans = words_of(pieces)
    assert ["".join(pieces[start:stop]) for start, stop in spans] == words
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans)][: len(spans)]


def test_tokens_of_an_unfinished_character_belong_to_the_word_that_it_opens() -> None:
    assert words_of([" ok", "", "", "🙂", "", "ñ", "u"]) == [(0, 1), (1, 4), (4, 7)]
