"""Decoding over fixed tensors against the growing cache: the same tokens, and numbers as near as attention over masked columns lets them be."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from learners.human_reward.critique_bias import BiasWithCritiques, CritiqueBias
from learners.human_reward.features import Features
from learners.human_reward.head import RewardHead
from learners.human_reward.logit_bias import LogitBias
from learners.model import cuda_graph, static_decoder
from learners.model.base import Backbone
from learners.model.eager_rows import EagerRows
from learners.model.forward import Output, causal_model, forward
from learners.model.loading import load_backbone
from learners.model.lora import copy_lora, load_lora
from learners.model.replicas import DECODER, ENTERING, between_layers, freeze, replicate, watch_head
from learners.model.sampling import Context, Row, decode
from learners.model.static_decoder import Buffers, Outputs, Shape, StaticDecoder, Unread
from learners.model.static_rows import StaticRows
from learners.model.traced_step import traced_decoder
from storage.records import Sampling
from tests.learners.model.families import FAMILIES, Family, _random, random_model, random_tree, saved_family, with_adapter
from tests.learners.model.test_sampling import PROMPTS, SHORT, Answers, draw
from tests.learners.models import cpu_only, needs_gpt2, needs_stories, prompt, random_gpt2, random_llama, stirred, stories, tensor


class Graph:
    """As a captured graph behaves: made by runs that are taken back, replayed without being asked again, its outputs always the same tensors."""

    made = 0

    def __call__(self, step: Callable[[], Outputs], restore: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], Outputs]:
        type(self).made += 1
        kept = step()
        restore()

        def replay() -> Outputs:
            new = step()
            for old, each in zip(kept, new, strict=True):
                old.copy_(each)
            return kept

        return replay


def as_it_is(step: Callable[[], Outputs], restore: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], Outputs]:
    """In place of a graph: the step itself."""
    return step


def head_of(backbone: Backbone, seed: int, tokens: int = 40) -> RewardHead:
    generator = torch.Generator().manual_seed(seed)
    features = Features(torch.zeros(backbone.width), torch.randn(backbone.width, 8, generator=generator) / backbone.width**0.5, 0.5)
    known = torch.randperm(backbone.vocabulary, generator=generator)[:tokens].sort().values
    return RewardHead(seed, known, torch.randn(tokens, 9, generator=generator), features, 0.3)


def same(found: Answers, expected: Answers) -> None:
    assert found.ids == expected.ids and found.ended == expected.ended
    for uid in expected.ids:
        for name in ("logprobs", "unbiased", "kl"):
            torch.testing.assert_close(Tensor(getattr(found, name)[uid]), Tensor(getattr(expected, name)[uid]), atol=1e-4, rtol=1e-4)
        for name in ("hidden", "base_logits", "policy_logits"):
            torch.testing.assert_close(torch.stack(getattr(found, name)[uid]), torch.stack(getattr(expected, name)[uid]), atol=1e-3, rtol=1e-4)


def rows_of(backbone: Backbone, prompts: tuple[str, ...] = PROMPTS) -> list[Row]:
    """Some from the base, some steered, of different lengths."""
    return [Row(str(i), prompt(backbone, text), i, adapter=i != 1, steer=i % 2 == 0) for i, text in enumerate(prompts)]


@needs_stories
@pytest.mark.parametrize("capture", [as_it_is, Graph()])
@pytest.mark.parametrize("twin", [False, True])
def test_a_fixed_cache_draws_what_a_growing_one_draws(twin: bool, capture: object) -> None:
    backbone = stories()
    tree = stirred(backbone)
    steer = LogitBias(head_of(backbone, 1), 2.0, head_of(backbone, 2), 0.7)
    options = {"steer": steer, "twin": twin}
    expected = draw(backbone, tree, rows_of(backbone), **options)
    same(draw(backbone, tree, rows_of(backbone), decoder=StaticDecoder(tree, capture), **options), expected)  # type: ignore[arg-type]


def criticised_rows(backbone: Backbone) -> list[Row]:
    """One, two and no critiques, the base's own answer among them, contexts longer and shorter than the prompts."""
    texts = ("Be short. Once upon a time there was a dog who", "Once upon a time")
    one, two = (Context(strength, prompt(backbone, text)) for strength, text in zip((1.0, -2.0), texts, strict=True))
    given = ((one,), (), (one, two), ())
    return [replace(row, contexts=each, steer=i != 1) for i, (row, each) in enumerate(zip(rows_of(backbone), given, strict=True))]


def critical(backbone: Backbone, gamma: float = 0.7, share: float = 0.5, seed: int = 1) -> BiasWithCritiques:
    return BiasWithCritiques(LogitBias(head_of(backbone, seed), 2.0, head_of(backbone, 2), 0.7), CritiqueBias(gamma, share))


class TakenBack(LogitBias):
    """As where a critique is no more that rows still have contexts of."""

    def criticised(self, hidden: Tensor, base_logits: Tensor, wish: Tensor, rows: Tensor) -> Tensor | None:
        return self.bias(hidden, base_logits)


@needs_stories
@pytest.mark.parametrize("capture", [as_it_is, Graph()])
@pytest.mark.parametrize("twin", [False, True])
def test_answers_with_critiques_are_drawn_in_fixed_tensors_too(twin: bool, capture: object) -> None:
    backbone = stories()
    tree, rows = stirred(backbone), criticised_rows(backbone)
    decoder = StaticDecoder(tree, capture)  # type: ignore[arg-type]
    same_head = head_of(backbone, 2)
    absorbed = (BiasWithCritiques(LogitBias(same_head, beta, same_head, 0.7), CritiqueBias(0.7, 0.5)) for beta in (0.7, 1.4))
    shares = (critical(backbone, *each) for each in ((0.7, 0.5), (2.0, 1.0), (0.0, 0.3), (0.7, 0.0)))
    for steer in (*shares, *absorbed, TakenBack(head_of(backbone, 1), 2.0)):
        same(draw(backbone, tree, rows, twin=twin, steer=steer, decoder=decoder), draw(backbone, tree, rows, twin=twin, steer=steer))
    assert len(decoder._buffers) == 1 and next(iter(decoder._buffers)).contexts == 2


@needs_stories
def test_what_critiques_wish_for_is_the_same_in_fixed_tensors() -> None:
    backbone = stories()
    tree, rows = stirred(backbone), criticised_rows(backbone)
    found = []
    for decoder in (None, StaticDecoder(tree, Graph())):
        steps = decode(tree, rows, SHORT, backbone.eos_ids, backbone.pad_id, critical(backbone), True, decoder=decoder)
        found.append([step.wish.clone() for step in steps if step.wish is not None])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.isfinite(), other.isfinite())
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@needs_gpt2
@pytest.mark.parametrize("load", [random_llama, random_gpt2])
def test_other_families_draw_the_same(load: Callable[[], Backbone]) -> None:
    backbone = load()
    tree = stirred(backbone)
    rows = rows_of(backbone, PROMPTS[:2])
    found = draw(backbone, tree, rows, Sampling(1.0, 6), twin=True, decoder=StaticDecoder(tree, as_it_is))
    same(found, draw(backbone, tree, rows, Sampling(1.0, 6), twin=True))


EAGER = ("qwen3_next", "qwen3_5", "qwen3_5_moe", "granite_hybrid", "lfm2", "bloom")
"""Keep more than keys and values, or make their positions of a mask that grows."""
WINDOWED = ("mistral", "gemma2", "gemma3", "gemma3_multimodal", "gemma4", "phi3", "cohere2", "starcoder2", "exaone4", "gpt_oss")


@pytest.mark.parametrize("family", EAGER)
def test_families_whose_step_has_no_fixed_shape_are_drawn_eagerly(family: str) -> None:
    tree = random_tree(family)
    assert static_decoder._tried(tree) is None and traced_decoder(tree, 2) is None


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {*EAGER, "deeper"}))
def test_small_families_draw_the_same_within_their_windows_and_eagerly_beyond(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoder, "LEAST_LENGTH", 16)
    tree = random_tree(family)
    window = 16
    if family in WINDOWED:
        causal_model(tree).config.get_text_config().sliding_window = window
        for module in tree.modules():
            if getattr(module, "sliding_window", None):
                module.sliding_window = window
    decoder = StaticDecoder(tree, Graph())
    for tokens in (6, 20):
        rows = [Row(str(i), tuple(range(3, 7 + i)), i) for i in range(3)]
        expected, found = (Answers(decode(tree, rows, Sampling(1.0, tokens), (1,), 0, twin=True, decoder=d)) for d in (None, decoder))
        same(found, expected)
        lengths = {shape.length for shape in decoder._buffers}
        assert lengths == ({16} if tokens == 6 or family in WINDOWED else {16, 32})
        for row in rows:
            ids = tensor([[*row.prompt_ids, *expected.ids[row.uid]]])
            with torch.no_grad():
                whole = forward(tree, ids, keep=len(expected.ids[row.uid]) + 1).logits[0, :-1]
            torch.testing.assert_close(torch.stack(expected.policy_logits[row.uid]), whole, atol=1e-3, rtol=1e-3)


@needs_stories
def test_one_graph_serves_one_shape_whatever_steers_and_whichever_version_acts() -> None:
    backbone = stories()
    tree, other = stirred(backbone), stirred(backbone, seed=5)
    decoder, rows = StaticDecoder(tree, Graph()), rows_of(backbone)
    Graph.made = 0
    for seed in (1, 2):
        steer = LogitBias(head_of(backbone, seed), float(seed))
        same(draw(backbone, tree, rows, twin=True, steer=steer, decoder=decoder), draw(backbone, tree, rows, twin=True, steer=steer))
    copy_lora(other, tree)
    same(draw(backbone, tree, rows, twin=True, steer=steer, decoder=decoder), draw(backbone, other, rows, twin=True, steer=steer))
    assert Graph.made == 1
    load_lora(tree, None)
    large = LogitBias(head_of(backbone, 3, tokens=backbone.vocabulary), 1.0)  # has no room in the old tensors
    same(draw(backbone, tree, rows, steer=large, twin=True, decoder=decoder), draw(backbone, tree, rows, steer=large, twin=True))


@needs_stories
def test_buffers_grow_and_shrink_and_what_was_said_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoder, "LEAST_LENGTH", 32)
    backbone = stories()
    tree = stirred(backbone)
    ids = prompt(backbone)
    rows = [Row(str(i), ids, i, prefix_ids=(300,) * (0 if i < 3 else 60)) for i in range(17)]  # all but three end early
    decoder = StaticDecoder(tree, Graph())
    sampling = Sampling(1.0, 66)
    same(draw(backbone, tree, rows, sampling, twin=True, decoder=decoder), draw(backbone, tree, rows, sampling, twin=True))
    assert {shape.length for shape in decoder._buffers} >= {128} and {shape.rows for shape in decoder._buffers} == {32, 4}


@needs_stories
def test_tokens_that_are_read_late_are_the_same_tokens() -> None:
    backbone = stories()
    tree = stirred(backbone)
    rows = rows_of(backbone)
    expected = draw(backbone, tree, rows)
    ids, logprobs, ended = defaultdict(list), defaultdict(list), {}
    for step in decode(tree, rows, SHORT, backbone.eos_ids, backbone.pad_id, decoder=StaticDecoder(tree, Graph()), ahead=5):  # type: ignore[arg-type]
        for uid, token, logprob in zip(step.uids, step.ids, step.logprobs, strict=True):
            ids[uid].append(token)
            logprobs[uid].append(logprob)
        ended |= step.ended
    assert ids == expected.ids and ended == expected.ended
    for uid in ids:
        assert logprobs[uid] == pytest.approx(expected.logprobs[uid], abs=1e-4)


@needs_stories
def test_a_step_that_cannot_be_captured_runs_as_it_is_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def fails(step: Callable[[], Outputs], restore: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], Outputs]:
        step()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    backbone = stories()
    tree = stirred(backbone)
    same(draw(backbone, tree, rows_of(backbone), twin=True, decoder=StaticDecoder(tree, fails)), draw(backbone, tree, rows_of(backbone), twin=True))
    assert [record.message for record in caplog.records] == [static_decoder.WITHOUT_GRAPHS % "operation not permitted when stream is capturing"]


@needs_stories
def test_a_tree_whose_logits_differ_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tree: nn.Module = stirred(stories())
    monkeypatch.setattr(static_decoder.FixedCache, "update", lambda self, k, v, layer, *_, **__: (self._kept[layer][0] * 0, self._kept[layer][1]))
    with pytest.raises(ValueError, match="logits are off"):
        StaticDecoder(tree, as_it_is)


@cpu_only
def test_a_tree_whose_step_reads_from_the_device_is_refused_before_a_capture_can_fail() -> None:
    growing = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}
    tree = _random(Family("llama", FAMILIES["llama"].sizes | growing))
    freeze(tree)
    watch_head(tree)
    experts = load_backbone(str(saved_family("qwen3_moe")), "nf4", "cpu").model  # unpacked one by one
    for each in (tree, experts):
        with pytest.raises(ValueError, match="reads numbers"):
            StaticDecoder(each, as_it_is)
        assert traced_decoder(each, 2) is None, "a recording would have today's numbers for good"


@pytest.mark.parametrize(
    "read", [Tensor.item, Tensor.nonzero, torch.unique, bool, lambda x: x[x > 0], lambda x: x.equal(x), lambda x: x[None, x == 1]]
)
def test_whatever_looks_at_numbers_is_found(read: Callable[[Tensor], object]) -> None:
    with pytest.raises(ValueError, match="reads numbers"), Unread():
        read(tensor([1]))


def test_what_takes_places_or_masks_is_no_look_at_numbers_and_a_copy_to_the_host_is() -> None:
    x, there = tensor([1]), torch.empty(1, device="meta")
    with Unread():
        torch.where(x > 0, x, 0).masked_fill_(x > 0, 1)[x - 1]
        there.bfloat16().to("meta")
        with pytest.raises(ValueError, match="reads numbers"):
            there.cpu()


@cpu_only
@needs_stories
def test_a_recorded_step_draws_the_same_once_prepared_with_other_heads_and_versions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoder, "WORTH_PREPARING", 2 * SHORT.max_new_tokens)
    backbone = stories()
    tree, other = stirred(backbone), stirred(backbone, seed=5)
    decoder, rows = traced_decoder(tree, backbone.layers), rows_of(backbone)
    assert decoder is not None and decoder.due() is None
    steer = LogitBias(head_of(backbone, 1), 2.0, head_of(backbone, 2), 0.7)
    expected = draw(backbone, tree, rows, twin=True, steer=steer)
    for _ in range(2):  # by ordinary forwards
        assert not decoder._buffers
        same(draw(backbone, tree, rows, twin=True, steer=steer, decoder=decoder), expected)
    decoder.prepare(decoder.due())  # type: ignore[arg-type]
    assert decoder.due() is None and len(decoder._buffers) == 1
    assert all(parameter.requires_grad for name, parameter in tree.named_parameters() if "lora" in name)
    same(draw(backbone, tree, rows, twin=True, steer=steer, decoder=decoder), expected)
    criticised = {"twin": True, "steer": critical(backbone), "decoder": decoder}
    for _ in range(2):
        draw(backbone, tree, criticised_rows(backbone), **criticised)
    decoder.prepare(decoder.due())  # type: ignore[arg-type]
    for buffers in decoder._buffers.values():
        buffers._step = None  # type: ignore[method-assign, assignment]  # what is replayed is not Python
    for steer in (critical(backbone), critical(backbone, 1.5, 0.9, seed=4)):
        same(draw(backbone, tree, criticised_rows(backbone), **(criticised | {"steer": steer})),
             draw(backbone, tree, criticised_rows(backbone), twin=True, steer=steer))  # fmt: skip
    assert len(decoder._buffers) == 2
    decoder._buffers.popitem()
    steer = LogitBias(head_of(backbone, 3), 1.0)
    copy_lora(other, tree)
    (buffers,) = decoder._buffers.values()
    buffers._step = None  # type: ignore[method-assign, assignment]  # what is replayed is not Python
    same(draw(backbone, tree, rows, twin=True, steer=steer, decoder=decoder), draw(backbone, other, rows, twin=True, steer=steer))


@cpu_only
@needs_stories
def test_a_recorded_step_without_twins_has_one_tensor_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoder, "WORTH_PREPARING", SHORT.max_new_tokens)
    backbone = stories()
    decoder, rows = traced_decoder(backbone.model, backbone.layers), rows_of(backbone)
    expected = draw(backbone, backbone.model, rows, decoder=decoder)
    decoder.prepare(decoder.due())  # type: ignore[union-attr, arg-type]
    same(draw(backbone, backbone.model, rows, decoder=decoder), expected)
    for step in decode(backbone.model, rows, SHORT, backbone.eos_ids, backbone.pad_id, decoder=decoder):
        assert step.policy_logits is step.base_logits


@needs_gpt2
def test_a_model_of_many_layers_is_not_recorded() -> None:
    assert traced_decoder(random_llama().model, 30) is None


def by_bools(tree: nn.Module, input_ids: Tensor, seen: Tensor, positions: Tensor, past_key_values: Any) -> Output:
    """As `forward_at`, with a mask that each layer makes scores of by itself."""
    model = causal_model(tree)
    kept = {"past_key_values": past_key_values, "use_cache": True, "logits_to_keep": 1}
    output = model(input_ids=input_ids, attention_mask=seen[:, None, None], position_ids=positions, **kept)
    return Output(output.logits[:, -1:].float(), model.get_output_embeddings().__dict__.pop(ENTERING)[:, -1:].float(), past_key_values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen2_moe", "deepseek_v3", "gpt2", "falcon", "cohere", "opt"])
@cpu_only
@torch.no_grad()
def test_a_mask_that_is_made_once_a_step_gives_the_very_logits_of_masks_by_layer(
    family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of padded rows and of those that nobody uses too."""
    tree = with_adapter(random_model(family).to(dtype))
    rows = [Row("a", (1, 2, 3, 4, 5), 0), Row("b", (3, 1), 0), Row("c", (9,), 1, adapter=False)]
    eager = EagerRows(tree, rows, Sampling(1.0, 4), 0, True)
    eager.append(eager.draw().ids)
    state = eager.state()
    assert state is not None
    found = []
    for forward_at in (static_decoder.forward_at, by_bools):
        monkeypatch.setattr(static_decoder, "forward_at", forward_at)
        buffers = Buffers(tree, Shape(4, True, 256, 4, False), state.keys_values, None)
        buffers.take(state)
        found.append([])
        for _ in range(3):
            found[-1] += [*buffers.logits(), *(each.clone() for both in buffers.cache for each in both)]
            buffers.column.add_(1)
            buffers.positions.add_(1)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


# --- what waits for the device ----------------------------------------------------------------------------------------


class Asked(TorchDispatchMode):
    """Names of the operations that were asked for, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.found.append(str(function).split(".")[1])
        return function(*arguments, **(named or {}))


@needs_stories
@pytest.mark.parametrize("ahead", [1, 4])
def test_all_of_a_token_is_launched_before_the_host_waits_for_it(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = stories()
    tree = stirred(backbone)
    rows, sampling = [replace(row, adapter=True) for row in rows_of(backbone)], Sampling(1.0, 9)
    eager = EagerRows(tree, rows, sampling, backbone.pad_id, True)
    static = StaticRows(StaticDecoder(tree, as_it_is), eager, sampling, None, ahead)
    to_host = Tensor.cpu
    with torch.no_grad():
        static.append(static.draw().ids)
        static.drop(())
        with Asked() as asked:
            monkeypatch.setattr(Tensor, "cpu", lambda each: asked.found.append("wait") or to_host(each))
            drawn = static.draw()
    assert asked.found.count("wait") == 1 and "_local_scalar_dense" not in asked.found
    after = asked.found[asked.found.index("wait") :]
    assert after.count("index") == 1, "which are the live ones, on the host"
    assert drawn.hidden.shape == ((len(rows), backbone.width) if ahead == 1 else (0, 0))


@needs_stories
def test_rows_move_between_caches_without_a_look_at_numbers_and_without_an_index_made_anew_for_each_layer() -> None:
    backbone = stories()
    tree = stirred(backbone)
    rows = rows_of(backbone)
    eager = EagerRows(tree, rows, SHORT, backbone.pad_id, True)
    with torch.no_grad():
        eager.append(eager.draw().ids)
        with Asked() as asked:
            state = eager.state()
            assert state is not None
            shapes = [Shape(k, True, 256, 64, False, candidates=9) for k in (len(rows), len(rows), 4)]
            first, second, fewer = (Buffers(tree, shape, state.keys_values, None) for shape in shapes)
            first.take(state)
            slots = torch.arange(len(rows), device=first.ids.device)
            second.take(first.given(slots, state.columns))
            fewer.take(second.given(slots[1:3], state.columns))
    assert "_local_scalar_dense" not in asked.found and asked.found.count("lift_fresh") < backbone.layers
    k = len(rows)
    assert all(torch.equal(one, other) for both in zip(first.cache, second.cache, strict=True) for one, other in zip(*both, strict=True))
    for (keys, _), (others, _) in zip(fewer.cache, second.cache, strict=True):
        assert torch.equal(keys[[0, 1, 4, 5]], others[[1, 2, k + 1, k + 2]]) and bool(keys[0, :, : state.columns].any())
    for name in ("seen", "ids", "positions", "scaling"):
        assert torch.equal(getattr(first, name), getattr(second, name))
        assert torch.equal(getattr(fewer, name)[[0, 1, 4, 5]], getattr(second, name)[[1, 2, k + 1, k + 2]])


# --- masks by length -------------------------------------------------------------------------------------------------


def neo(window: int, context: int) -> nn.Module:
    """GPT-Neo: its local layers mask by the length of what is kept, and there is no mask beyond its context."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}
    tree = GPTNeoForCausalLM(GPTNeoConfig(**sizes, max_position_embeddings=context, window_size=window, bos_token_id=1, eos_token_id=1))
    for parameter in tree.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(8)
    freeze(tree)
    watch_head(tree)
    return tree


@pytest.mark.parametrize(("window", "context"), [(300, 512), (512, 300)])
def test_layers_that_mask_by_the_length_of_what_is_kept_draw_the_same_up_to_their_last_column(window: int, context: int) -> None:
    tree = neo(window, context)
    rows = [Row("a", tuple(range(3, 23)), 1)]
    decoder = StaticDecoder(tree, as_it_is)
    expected, found = ([step.ids for step in decode(tree, rows, Sampling(1.0, 280), (), 0, decoder=d, ahead=8)] for d in (None, decoder))
    assert found == expected and max(shape.length for shape in decoder._buffers) == 300
    assert not decoder.may_hold(window + 1)


def test_a_window_that_goes_by_another_name_is_found_by_trying_more_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoder, "_window", lambda config: 1 << 30)
    with pytest.raises(ValueError, match="logits are off"):
        StaticDecoder(neo(300, 2048), as_it_is)


# --- what cannot be captured, and what memory does not hold -----------------------------------------------------------


@cpu_only
@needs_stories
def test_truncated_sampling_is_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoder, "WORTH_PREPARING", SHORT.max_new_tokens)
    backbone = stories()
    decoder, rows = traced_decoder(backbone.model, backbone.layers), rows_of(backbone)
    sampling = Sampling(0.8, SHORT.max_new_tokens, top_p=0.9, top_k=40, min_p=0.01, repetition_penalty=1.1)
    expected = draw(backbone, backbone.model, rows, sampling, decoder=decoder)
    decoder.prepare(decoder.due())  # type: ignore[union-attr, arg-type]
    assert decoder is not None and decoder.usable and [each.captured for each in decoder._buffers.values()] == [True]
    same(draw(backbone, backbone.model, rows, sampling, decoder=decoder), expected)


class Failing(Graph):
    """Captures that fail with these errors, one after the other, before they succeed."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.asked = list(errors), 0

    def __call__(self, step: Callable[[], Outputs], restore: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], Outputs]:
        self.asked += 1
        if self.errors:
            step()
            raise self.errors.pop(0)
        return super().__call__(step, restore, changed)


@needs_stories
def test_after_a_capture_in_vain_ordinary_forwards_draw_whoever_holds_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = stories()
    failing = Failing(*[RuntimeError("not permitted")] * 9)
    for prepared in (False, True):
        failing.asked = 0
        decoder = StaticDecoder(backbone.model, failing, prepared)
        monkeypatch.setattr(static_decoder, "WORTH_PREPARING", SHORT.max_new_tokens)
        for _ in range(3):
            draw(backbone, backbone.model, rows_of(backbone), decoder=decoder)
            if shape := decoder.due():
                decoder.prepare(shape)
        assert failing.asked == 1 and not decoder.usable and decoder.due() is None
        with monkeypatch.context() as patch:
            patch.setattr(static_decoder.Buffers, "run", None)
            draw(backbone, backbone.model, rows_of(backbone), decoder=decoder)


@needs_stories
def test_a_capture_that_memory_does_not_hold_is_tried_again_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoder, "WORTH_PREPARING", SHORT.max_new_tokens)
    backbone, rows = stories(), rows_of(stories())
    expected = draw(backbone, backbone.model, rows)
    for prepared in (False, True):
        decoder = StaticDecoder(backbone.model, Failing(torch.OutOfMemoryError("CUDA out of memory")), prepared)

        def attempt(decoder: StaticDecoder = decoder, prepared: bool = prepared) -> Answers:
            found = draw(backbone, backbone.model, rows, decoder=decoder)
            if prepared and (shape := decoder.due()):
                decoder.prepare(shape)
            return found

        with pytest.raises(torch.OutOfMemoryError):
            attempt()
        assert decoder.usable and not (prepared and decoder._buffers), "nobody who waits is to wait for it"
        attempt()
        same(attempt(), expected)
        assert decoder.usable and all(each.captured for each in decoder._buffers.values()) and decoder._buffers


@needs_stories
@pytest.mark.parametrize("make", [static_decoder._tried, lambda tree: traced_decoder(tree, 2)])
def test_a_trial_that_memory_does_not_hold_says_nothing_of_the_tree(make: Callable[[nn.Module], object], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> Callable[[StaticDecoder], None]:
        def trial(decoder: StaticDecoder) -> None:
            raise error

        return trial

    tree = torch.nn.Linear(1, 1)
    monkeypatch.setattr(StaticDecoder, "_try", fails(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        make(tree)
    monkeypatch.setattr(StaticDecoder, "_try", fails(KeyError("its own code")))
    assert make(tree) is None


@needs_stories
def test_buffers_are_kept_as_far_as_they_take_no_more_than_their_share_and_can_be_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = stories()
    tree = stirred(backbone)

    def drawn(decoder: StaticDecoder) -> list[int]:
        for n in (1, 2, 4):
            draw(backbone, tree, rows_of(backbone)[:n], Sampling(1.0, 4), twin=True, decoder=decoder)
        return [shape.rows for shape in decoder._buffers]

    decoder = StaticDecoder(tree, Graph())
    assert drawn(decoder) == [1, 2, 4]
    sizes = [each.nbytes for each in decoder._buffers.values()]
    cache = next(iter(decoder._buffers.values())).cache
    assert sizes[0] >= sum(keys.nbytes + values.nbytes for keys, values in cache) and sizes[2] > 3 * sizes[0]
    monkeypatch.setattr(static_decoder, "KEPT_BYTES", sizes[1] + sizes[2])
    assert drawn(StaticDecoder(tree, Graph())) == [2, 4]
    monkeypatch.setattr(static_decoder, "KEPT_BYTES", 1)
    assert drawn(StaticDecoder(tree, Graph())) == [4], "what draws now is needed"
    tree.__dict__[DECODER] = decoder
    static_decoder.forget_buffers(tree, backbone.model)
    assert decoder.nbytes == 0 and not decoder._buffers and drawn(decoder) == [1, 2, 4]
    del tree.__dict__[DECODER]


@needs_stories
def test_a_copy_of_a_tree_that_draws_by_captured_steps_has_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that is copied: a graph would read and write the tensors of the original."""
    backbone = stories()
    trees = [backbone.tree(), stirred(backbone)]
    monkeypatch.setattr(StaticDecoder, "__deepcopy__", None, raising=False)
    for tree, base in zip(trees, (None, backbone.model), strict=True):
        decoder = tree.__dict__[DECODER] = StaticDecoder(tree, Graph())
        expected = draw(backbone, tree, rows_of(backbone), decoder=decoder)
        other = replicate(tree, base)
        assert static_decoder.known_decoder(other) is None and static_decoder.known_decoder(tree) is decoder
        same(draw(backbone, other, rows_of(backbone), decoder=StaticDecoder(other, Graph())), expected)


@needs_stories
def test_of_what_may_be_prepared_sizes_are_remembered_and_no_cache() -> None:
    backbone = stories()
    decoder = StaticDecoder(backbone.model, as_it_is, prepared=True)
    draw(backbone, backbone.model, rows_of(backbone), decoder=decoder)
    ((_, like),) = decoder._wanted.values()
    assert all(each.untyped_storage().nbytes() == each.nbytes for both in like for each in both)


@needs_stories
def test_one_thread_captures_at_a_time_and_waits_for_nobody_within(monkeypatch: pytest.MonkeyPatch) -> None:
    """The learner's hook between layers would wait for the generator, which waits to capture."""
    backbone = stories()
    trees = [backbone.tree(), backbone.tree()]
    hooked, within, overlaps = list[str](), list[int](), list[int]()
    for tree in trees:
        between_layers(tree, lambda: hooked.append(threading.current_thread().name))

    def captured(step: Callable[[], None], restore: Callable[[], None], device: torch.device) -> Callable[[], None]:
        within.append(1)
        overlaps.append(len(within))
        for _ in range(3):
            step()
        within.pop()
        return step

    monkeypatch.setattr(cuda_graph, "_captured", captured)

    def work(tree: nn.Module) -> None:
        with torch.no_grad():
            cuda_graph.capture(lambda: forward(tree, tensor([[5, 6, 7]])), lambda: None, [torch.zeros(1)])

    threads = [threading.Thread(target=work, args=(tree,)) for tree in trees for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1] * 4 and not hooked and not cuda_graph.capturing()
    with torch.no_grad():
        forward(trees[0], tensor([[5, 6, 7]]))
    assert hooked
