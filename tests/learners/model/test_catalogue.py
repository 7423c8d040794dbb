"""The list of models: what fits comes first, and sizes are those of the models' own configurations."""

from __future__ import annotations

from pathlib import Path

import torch

from learners.model.catalogue import MODELS, bytes_of, catalogue


def test_what_fits_comes_first_with_the_largest_at_its_head_on_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "models--Qwen--Qwen3-8B" / "snapshots" / "f").mkdir(parents=True)
    (tmp_path / "models--Qwen--Qwen3-8B" / "snapshots" / "f" / "model.safetensors").touch()
    found = catalogue("cuda:0", 12_000_000_000, tmp_path)
    fits = [model.fits for model in found.models]
    assert fits == sorted(fits, reverse=True) and True in fits and False in fits and len(fits) == len(MODELS)
    sizes = [model.bytes for model in found.models if model.fits]
    assert sizes == sorted(sizes, reverse=True) and max(sizes) <= 12_000_000_000
    on_cpu = [model.bytes for model in catalogue("cpu", 12_000_000_000, tmp_path).models]
    assert on_cpu == sorted(on_cpu), "the fastest first"
    assert [model.name for model in found.models if model.cached] == ["Qwen/Qwen3-8B"]


def test_a_larger_model_takes_more_and_a_cpu_more_than_a_gpu() -> None:
    by_size = sorted(MODELS, key=lambda model: model.parameters)
    assert list(MODELS) == by_size
    assert all(bytes_of(model, "cuda") < bytes_of(model, "cpu") for model in MODELS)
    assert bytes_of(by_size[0], "cuda") < 2e9 < bytes_of(by_size[-1], "cuda")


def test_numbers_of_weights_are_those_of_models_of_these_shapes() -> None:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for name, kind, heads, groups in (("SmolLM2-135M", "llama", 9, 3), ("Qwen3-0.6B", "qwen3", 16, 8), ("phi-4", "phi3", 40, 10)):
        known = next(model for model in MODELS if name in model.name)
        config = CONFIG_MAPPING[kind](
            num_hidden_layers=known.layers, hidden_size=known.width, intermediate_size=known.inner, vocab_size=known.vocabulary,
            num_attention_heads=heads, num_key_value_heads=groups, head_dim=known.keys // groups, tie_word_embeddings=known.tied, pad_token_id=None,
        )  # fmt: skip
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        assert sum(p.numel() for p in model.parameters()) == known.parameters
