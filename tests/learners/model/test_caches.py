"""Caches that double, and prompts that are read from where they differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from learners.model import eager_rows
from learners.model.forward import forward
from learners.model.sampling import Context, Row
from learners.model.static_decoder import static_decoder
from storage.records import Sampling
from tests.learners.model.test_sampling import SHORT, draw
from tests.learners.model.test_static_rows import same
from tests.learners.models import needs_gpt2, needs_stories, prompt, random_gpt2, random_llama, stirred, stories, tensor


@needs_gpt2
@pytest.mark.parametrize("load", [random_llama, random_gpt2])
def test_a_cache_that_doubles_computes_bit_for_bit_what_one_that_copies_does(load: object) -> None:
    from transformers import DynamicCache

    from learners.model.caches import new_cache

    backbone = load()  # type: ignore[operator]
    ids = torch.randint(0, 50_000, (3, 60), generator=torch.Generator().manual_seed(0)).to(backbone.device)
    mine, theirs = new_cache(backbone.model.config, 64), DynamicCache(config=backbone.model.config)
    with torch.no_grad():
        for at in (0, 7, 8, 40, 41):
            part = ids[:, at : at + 1] if at else ids[:, :7]
            a, b = (forward(backbone.model, part[: len(ids)], None, cache, keep=1) for cache in (mine, theirs))
            assert torch.equal(a.logits, b.logits)
            if at == 8:
                ids = ids[[2, 0]]
                mine.reorder_cache(tensor([2, 0]))
                theirs.reorder_cache(tensor([2, 0]))
    assert mine.get_seq_length() == theirs.get_seq_length()


@needs_stories
def test_a_prompt_that_begins_like_another_is_computed_from_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    from learners.model.caches import PromptCache

    backbone = stories()
    tree = stirred(backbone)
    static_decoder(tree)  # tries a step, on a GPU
    computed = read_columns(monkeypatch)
    cache = PromptCache(1e6)
    texts = ["Once upon a time, there was a little dog", "Once upon a time, there was a big cat who"]
    for text in texts:
        rows = [Row(str(i), prompt(backbone, text), i, adapter=i < 2) for i in range(3)]
        found = draw(backbone, tree, rows, SHORT, twin=True, prompts=cache)
        same(found, draw(backbone, tree, rows, SHORT, twin=True))
    lengths, common = [len(prompt(backbone, text)) for text in texts], len(prompt(backbone, "Once upon a time, there was a"))
    (cached, alone), (other, other_alone) = ([n for n in computed if n > 1][i : i + 2] for i in (0, 2))
    assert cached == alone == lengths[0] and other_alone == lengths[1] and other <= lengths[1] - common + 1


@needs_stories
@pytest.mark.parametrize("prefix", [(), (5, 6)], ids=["", "begun"])
def test_a_prompt_that_was_read_before_is_not_read_again_whatever_stands_beside_it(monkeypatch: pytest.MonkeyPatch, prefix: tuple[int, ...]) -> None:
    from learners.model.caches import PromptCache

    backbone = stories()
    tree = stirred(backbone)
    static_decoder(tree)
    asked, cache = prompt(backbone, "Once upon a time, there was a little dog"), PromptCache(1e6)
    plain = [Row(str(i), asked, i, adapter=i < 2, prefix_ids=prefix) for i in range(3)]
    expected = draw(backbone, tree, plain, SHORT, twin=True)
    same(draw(backbone, tree, plain, SHORT, twin=True, prompts=cache), expected)
    others = [prompt(backbone, text) for text in ("Be short. Once upon a time, there was a little dog who sang", "Once upon")]
    contexts = [replace(row, steer=True, contexts=tuple(Context(1.0, ids) for ids in others) if i else ()) for i, row in enumerate(plain)]
    beside = draw(backbone, tree, contexts, SHORT, twin=True, steer=Towards())
    computed = read_columns(monkeypatch)
    again = draw(backbone, tree, plain, SHORT, twin=True, prompts=cache)
    assert set(computed) == {1}
    same(again, expected)
    computed.clear()
    same(draw(backbone, tree, contexts, SHORT, twin=True, steer=Towards(), prompts=cache), beside)
    assert computed[0] <= max(map(len, others)) + len(prefix) and set(computed[1:]) == {1}
    more = [*plain, Row("new", others[0], 9, prefix_ids=prefix)]
    same(draw(backbone, tree, more, SHORT, twin=True, prompts=cache), draw(backbone, tree, more, SHORT, twin=True))


def read_columns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each forward from here on."""
    computed: list[int] = []
    whole = eager_rows.forward
    monkeypatch.setattr(eager_rows, "forward", lambda t, ids, *rest, **named: (computed.append(ids.shape[1]), whole(t, ids, *rest, **named))[1])
    return computed


class Towards:
    """As critiques steer."""

    def bias(self, hidden: Tensor, base_logits: Tensor) -> None:
        return None

    def criticised(self, hidden: Tensor, base_logits: Tensor, wish: Tensor, rows: Tensor) -> Tensor:
        return torch.where(rows & wish.isfinite(), 0.5 * wish, 0.0)


@needs_stories
def test_what_an_adapter_computed_is_forgotten_with_its_weights_and_the_base_is_not() -> None:
    from learners.model.caches import PromptCache

    backbone, cache = stories(), PromptCache(1e6)
    ids = prompt(backbone)
    rows = [Row("a", ids, 0), Row("b", ids, 1, adapter=False)]
    first, second = stirred(backbone), stirred(backbone, seed=4)
    draw(backbone, first, rows, Sampling(1.0, 2), prompts=cache)
    assert cache.begin(ids, True).tokens == cache.begin(ids, False).tokens == len(ids)
    cache.forget_adapter()
    assert cache.begin(ids, True).tokens == 0 and cache.begin(ids, False).tokens == len(ids)
    same(draw(backbone, second, rows, SHORT, prompts=cache), draw(backbone, second, rows, SHORT))


@needs_stories
def test_rows_of_different_lengths_share_what_they_begin_with_and_old_prompts_go() -> None:
    from learners.model.caches import PromptCache

    backbone = stories()
    texts = ("Once upon a time, there was a little dog", "Once upon a time, Tom", "Once upon a time, there was a sun and it was hot")
    rows = [Row(text, prompt(backbone, text), i) for i, text in enumerate(texts)]
    cache = PromptCache(1e6)
    for _ in range(2):
        same(draw(backbone, backbone.model, rows, SHORT, prompts=cache), draw(backbone, backbone.model, rows, SHORT))
    small = PromptCache(cache._bytes() / 2)
    draw(backbone, backbone.model, rows, SHORT, prompts=small)
    assert 0 < small._bytes() <= cache._bytes() / 2 and small.begin(rows[0].prompt_ids, False).tokens < len(rows[0].prompt_ids) - 1
