"""Caches that double, and prompts that are read from where they differ."""

from __future__ import annotations

import pytest
import torch

from learners.model import eager_rows
from learners.model.forward import forward
from learners.model.sampling import Row
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
    computed: list[int] = []
    whole = eager_rows.forward
    monkeypatch.setattr(eager_rows, "forward", lambda t, ids, *rest, **named: (computed.append(ids.shape[1]), whole(t, ids, *rest, **named))[1])
    cache = PromptCache(1e6)
    texts = ["Once upon a time, there was a little dog", "Once upon a time, there was a big cat who", "Once upon a time, there was a little dog"]
    lengths = [len(prompt(backbone, text)) for text in texts]
    for text in texts:
        rows = [Row(str(i), prompt(backbone, text), i, adapter=i < 2) for i in range(3)]
        found = draw(backbone, tree, rows, SHORT, twin=True, prompts=cache)
        first = computed[0]
        computed.clear()
        same(found, draw(backbone, tree, rows, SHORT, twin=True))
        computed.clear()
        lengths.append(first)
    common = len(prompt(backbone, "Once upon a time, there was a"))
    assert lengths[3] == lengths[0] and lengths[4] <= lengths[1] - common + 1 and lengths[5] == 1


@needs_stories
def test_what_an_adapter_computed_is_forgotten_with_its_weights_and_the_base_is_not() -> None:
    from learners.model.caches import PromptCache

    backbone, cache = stories(), PromptCache(1e6)
    ids = prompt(backbone)
    rows = [Row("a", ids, 0), Row("b", ids, 1, adapter=False)]
    first, second = stirred(backbone), stirred(backbone, seed=4)
    draw(backbone, first, rows, Sampling(1.0, 2), prompts=cache)
    assert cache.begin(ids, True)[0] == cache.begin(ids, False)[0] == len(ids) - 1
    cache.forget_adapter()
    assert cache.begin(ids, True)[0] == 0 and cache.begin(ids, False)[0] == len(ids) - 1
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
    assert 0 < small._bytes() <= cache._bytes() / 2 and small.begin(rows[0].prompt_ids, False)[0] < len(rows[0].prompt_ids) - 1
