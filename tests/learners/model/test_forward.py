"""States without logits, and logits from states, against the model's own whole forward, in several families."""

from __future__ import annotations

import pytest
import torch

from learners.model.forward import LMHead, causal_model, forward, plain_cache, states
from tests.learners.model.families import MECHANICS, VOCABULARY, random_model, random_tree
from tests.learners.models import DEVICE

IDS = torch.randint(2, VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(0)).to(DEVICE)


@pytest.mark.parametrize("family", MECHANICS)
def test_the_lm_head_gives_the_logits_of_the_whole_forward(family: str) -> None:
    model = random_model(family)
    with torch.no_grad():
        wanted = model(IDS).logits
        found = LMHead(model)(states(model, IDS).flatten(0, 1))
    torch.testing.assert_close(found.view_as(wanted), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", MECHANICS)
def test_the_body_computes_one_row_of_logits_alone(family: str) -> None:
    model, rows = random_model(family), []
    hook = model.get_output_embeddings().register_forward_hook(lambda head, args, output: rows.append(output.shape[:-1].numel()))
    states(model, IDS)
    assert rows == [1]
    hook.remove()
    assert forward(model, IDS).logits.shape == (3, 11, VOCABULARY), "afterwards it computes all of them again"


@pytest.mark.parametrize("family", MECHANICS)
def test_gradients_of_body_and_head_are_those_of_the_whole_forward(family: str) -> None:
    gradients = []
    for apart in (False, True):
        tree = random_tree(family)
        logits = LMHead(tree)(states(tree, IDS).flatten(0, 1)).view(3, 11, -1) if apart else tree(IDS).logits
        logits.log_softmax(-1)[..., 5].sum().backward()
        gradients.append([p.grad for p in tree.parameters() if p.grad is not None])
    assert gradients[0]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_nothing_of_a_forward_stays_in_the_tree() -> None:
    tree = random_tree("llama")
    LMHead(tree)(states(tree, IDS)[0])
    head = causal_model(tree).get_output_embeddings()
    assert not [value for value in head.__dict__.values() if isinstance(value, torch.Tensor)]


def test_a_forward_that_was_broken_off_leaves_the_tree_as_it_was() -> None:
    tree = random_tree("llama")
    before = forward(tree, IDS).logits

    def stop(module: object, arguments: object) -> None:
        raise KeyboardInterrupt

    hook = causal_model(tree).model.layers[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        states(tree, IDS)
    hook.remove()
    assert torch.equal(forward(tree, IDS).logits, before)


def test_the_body_of_a_model_that_does_not_name_it_is_what_holds_its_layers() -> None:
    model = random_model("llama")
    wanted = LMHead(model)(states(model, IDS)[0])
    model.base_model_prefix = "something_else"  # type: ignore[assignment]
    assert torch.equal(LMHead(model)(states(model, IDS)[0]), wanted)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "gpt2", "bloom", "gemma4", "qwen3_vl", "lfm2"])
@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_a_long_text_is_read_in_parts(family: str, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that slide, positions of every kind, rows of padding alone; what keeps more than keys and values is read whole."""
    tree, ids = random_tree(family), torch.cat([IDS, IDS.flip(1)], 1)
    mask = torch.ones_like(ids)
    mask[0, : 7 * padded] = 0
    caches = [plain_cache(causal_model(tree)) for _ in range(2)]
    whole = [states(tree, ids, mask), *forward(tree, ids, mask, keep=2)[:2], forward(tree, ids[:, :15], mask[:, :15], caches[0], keep=1).hidden]
    read = []
    hook = causal_model(tree).get_output_embeddings().register_forward_pre_hook(lambda head, args: read.append(args[0].shape[1]))
    monkeypatch.setattr("learners.model.forward.COLUMNS_AT_ONCE", 4)
    parts = [states(tree, ids, mask), *forward(tree, ids, mask, keep=2)[:2], forward(tree, ids[:, :15], mask[:, :15], caches[1], keep=1).hidden]
    hook.remove()
    assert len(read) == (3 if family == "lfm2" else 6 + 6 + 4)
    seen = mask.bool()
    torch.testing.assert_close(parts[0][seen], whole[0][seen], atol=1e-4, rtol=1e-4)
    for part, all_at_once in zip(parts[1:], whole[1:], strict=True):
        torch.testing.assert_close(part, all_at_once, atol=1e-4, rtol=1e-4)
    further = [forward(tree, ids[:, 15:16], mask[:, :16], cache, keep=1).hidden for cache in caches]
    torch.testing.assert_close(*further, atol=1e-4, rtol=1e-4)
