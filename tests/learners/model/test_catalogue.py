"""The list of models: what fits comes first, and sizes are those of the models' own configurations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from learners.model import inspection, memory
from learners.model.catalogue import CONTEXT, MODELS, Known, _recomputed, bytes_of, catalogue
from learners.model.inspection import estimate, inspect_machine
from tamer_tui.models import Catalogue, as_text
from tests.learners.models import cpu_only


def test_what_fits_comes_first_with_the_largest_at_its_head_on_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "models--Qwen--Qwen3-8B" / "snapshots" / "f").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "models--Qwen--Qwen3-8B" / "snapshots" / "f" / name).touch()
    found = catalogue("cuda:0", 12_000_000_000, tmp_path)
    fits = [model.fits for model in found.models]
    assert fits == sorted(fits, reverse=True) and True in fits and False in fits and len(fits) == len(MODELS)
    sizes = [model.parameters for model in found.models if model.fits]
    assert sizes == sorted(sizes, reverse=True) and all(model.fits == (model.bytes <= 12_000_000_000) for model in found.models)
    on_cpu = catalogue("cpu", 12_000_000_000, tmp_path).models
    assert [model.fits for model in on_cpu] == sorted([model.fits for model in on_cpu], reverse=True)
    fast = [model.parameters for model in on_cpu if model.fits]
    assert fast == sorted(fast), "the fastest first"
    assert [model.name for model in found.models if model.cached] == ["Qwen/Qwen3-8B"]


def test_a_larger_model_takes_more_and_a_cpu_more_than_a_gpu() -> None:
    by_size = sorted(MODELS, key=lambda model: model.parameters)
    assert list(MODELS) == by_size
    assert all(bytes_of(model, "cuda") < bytes_of(model, "cpu") for model in MODELS if model.parameters > 1e9), "of small ones CUDA itself is more"
    assert bytes_of(by_size[0], "cuda") < 3e9 < bytes_of(by_size[-1], "cuda")


def test_numbers_of_weights_are_those_of_models_of_these_shapes() -> None:
    for known, model in shaped():
        assert sum(p.numel() for p in model.parameters()) == known.parameters


def shaped() -> Iterator[tuple[Known, nn.Module]]:
    """Some of the list, and transformers' models of their shapes, without numbers."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for name, kind, heads, groups in (("SmolLM2-135M", "llama", 9, 3), ("Qwen3-0.6B", "qwen3", 16, 8), ("phi-4", "phi3", 40, 10)):
        known = next(model for model in MODELS if name in model.name)
        config = CONFIG_MAPPING[kind](
            num_hidden_layers=known.layers, hidden_size=known.width, intermediate_size=known.inner, vocab_size=known.vocabulary,
            num_attention_heads=heads, num_key_value_heads=groups, head_dim=known.keys // groups, tie_word_embeddings=known.tied, pad_token_id=None,
        )  # fmt: skip
        with torch.device("meta"):
            yield known, AutoModelForCausalLM.from_config(config)


def test_what_one_long_answer_takes_in_training_is_what_the_memory_border_says_of_such_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SHARE_FOR_ONE", 0.0)  # layers are computed again
    for known, model in shaped():
        budget = memory.MemoryBudget.of_tree(model)
        half = [tuple(range(CONTEXT // 2))]
        assert _recomputed(known, "cpu") == pytest.approx(budget._bytes(half, half, gradients=True, room=1.0), rel=0.15)


def test_a_model_is_in_the_cache_when_all_of_it_is(tmp_path: Path) -> None:
    name = MODELS[0].name
    snapshot = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    (snapshot / "config.json").touch()
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(zip("ab", names, strict=True))}))

    def is_cached() -> bool:
        return next(model.cached for model in catalogue("cpu", 1 << 40, tmp_path).models if model.name == name)

    for file in names:
        assert not is_cached()
        (snapshot / file).touch()
    assert is_cached()


def test_on_apple_sizes_are_in_full_precision_which_is_what_loads_there(tmp_path: Path) -> None:
    for model in MODELS:
        assert bytes_of(model, "mps") > 4 * model.parameters
        assert estimate("x", model.shape, "auto", "mps").quantize == "none"
    on_cpu = estimate("x", MODELS[-1].shape, "auto", "cpu")
    assert on_cpu.quantize == "nf4" and estimate("x", MODELS[0].shape, "auto", "cpu").quantize == "none"
    assert "In full precision" in as_text(msgspec.convert(catalogue("mps", 16 << 30, tmp_path), Catalogue, from_attributes=True))


def test_the_doctor_says_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = inspect_machine("pocket", "auto")
    assert fits.memory > 0 and not fits.problems
    monkeypatch.setattr(inspection, "memory_of", lambda device: 1 << 20)
    (problem,) = inspect_machine("pocket", "auto").problems
    assert "pocket takes more than" in problem and "--quantize nf4" in problem
    (problem,) = inspect_machine("pocket", "nf4").problems
    assert "--quantize" not in problem


@cpu_only
def test_the_doctor_says_where_a_gpu_has_no_kernels_for_four_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.model.device.choose_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(inspection, "memory_of", lambda device: 24 << 30)
    (problem,) = inspect_machine("pocket", "auto").problems
    assert "no kernels" in problem and "python -m bitsandbytes" in problem
