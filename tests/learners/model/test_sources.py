"""Bases as they are stored: GGUF, adapters, packed weights, and what is refused in one line."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from learners.model.base import Backbone
from learners.model.checkpoint import ModelError
from learners.model.conversion import converted
from learners.model.device import choose_device
from learners.model.fp8_weights import product
from learners.model.inspection import inspect_machine
from learners.model.loading import load_backbone
from learners.model.replicas import freeze
from learners.model.stored import check_source
from learners.protocol import Loading
from storage.records import Message
from tests.learners.model.families import BOS, COMMON, EOS, FAMILIES, PAD, TEMPLATE, TOKENS, VOCABULARY, Family, _random, tokenizer_of
from tests.learners.models import cpu_only

PROMPT = (Message("user", "What is a dog?"),)
IDS = torch.tensor([[3, 5, 8, 13, 21, 34]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


def refusal(model: object, **options: Any) -> ModelError:
    """Of loading it; what is on this disk is refused with the same line before anything is loaded, unless that takes the libraries."""
    with pytest.raises(ModelError) as caught:
        load_backbone(str(model), device="cpu", **options)
    assert caught.value.what and caught.value.hint and "\n" not in str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def llama() -> Any:
    """Its weights are those of bfloat16, so that none is rounded on the way."""
    return _random(FAMILIES["llama"]).to(torch.bfloat16).float()


@pytest.fixture(scope="module")
def base(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llama")
    llama.save_pretrained(directory)
    tokenizer_of(FAMILIES["llama"]).save_pretrained(directory)
    return directory


# --- GGUF ----------------------------------------------------------------------------------------------------------------


def written_gguf(model: Any, file: Path, architecture: str = "llama", without: str = " ") -> Path:
    """As llama.cpp's converter writes it: queries and keys with the two halves of a head interleaved. `without` weights of such a name."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    config, writer = model.config, gguf.GGUFWriter(file, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(VOCABULARY)
    tokenizer = tokenizer_of(FAMILIES["llama"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*tokenizer.convert_ids_to_tokens(range(TOKENS)), "ab", *(f"<|unused{i}|>" for i in range(TOKENS + 1, VOCABULARY))])
    writer.add_token_types([1] * BOS + [3] * (TOKENS - BOS) + [1] * (VOCABULARY - TOKENS))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if without in name:
            continue
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads if "k_proj" in name else 0
        if heads:
            weight = weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name.removesuffix(".weight")) + ".weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def gguf_file(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_gguf(llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_a_gguf_is_converted_once_and_is_the_model_that_was_written_under_the_hash_of_the_file(gguf_file: Path, llama: Any) -> None:
    told: list[Loading] = []
    first = load_backbone(str(gguf_file), device="cpu", progress=told.append)
    assert all(torch.equal(first.model.get_parameter(name), weight) for name, weight in llama.named_parameters())
    torch.testing.assert_close(logits(first.model), logits(llama), atol=1e-4, rtol=1e-4)  # its epsilon is a float32 in the file
    assert first.base_hash == hashlib.sha256(gguf_file.read_bytes()).hexdigest()
    assert first.chat_template and first.encode(PROMPT) == tokenizer_of(FAMILIES["llama"])(TEMPLATE_OF_PROMPT, add_special_tokens=False).input_ids
    assert any(event.what == "convert" and event.total for event in told)
    told.clear()
    again = load_backbone(str(gguf_file), "nf4", device="cpu", progress=told.append)
    assert again.base_hash == first.base_hash and again.hashes == first.hashes and not any(event.what == "convert" for event in told)
    assert "tiny.gguf" in first.notes[0]


TEMPLATE_OF_PROMPT = "<|bos|>user: What is a dog?<|end|>assistant: "


def told_by_the_doctor(model: object) -> str:
    (problem,) = inspect_machine(str(model), "auto").problems
    return problem


def test_a_gguf_of_an_unknown_architecture_is_refused_also_by_the_doctor(llama: Any, tmp_path: Path) -> None:
    file = written_gguf(llama, tmp_path / "w.gguf", "wizard")
    assert "'wizard'" in refusal(file).what and "'wizard'" in told_by_the_doctor(file)


def test_a_gguf_of_a_model_without_attention_is_refused_before_it_is_converted(llama: Any, tmp_path: Path) -> None:
    file = written_gguf(llama, tmp_path / "m.gguf", "mamba")
    with pytest.raises(ModelError, match="no attention"):
        check_source(str(file))
    assert "no attention" in told_by_the_doctor(file)


def test_a_gguf_that_lacks_weights_is_refused_and_not_filled_at_random(llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "lacks weights: model.layers.1.mlp.up_proj" in refusal(written_gguf(llama, tmp_path / "l.gguf", without="1.mlp.up_proj")).what
    assert not list(tmp_path.rglob("*.json"))


def test_a_gguf_that_was_cut_off_is_refused_wherever_it_was(gguf_file: Path, tmp_path: Path) -> None:
    content, cut = gguf_file.read_bytes(), tmp_path / "cut.gguf"
    for length in (0, 3, 20, 200, len(content) // 2, len(content) - 64):
        cut.write_bytes(content[:length])
        assert refusal(cut).hint == "fetch the file again"


def test_a_file_that_only_calls_itself_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model at all " * 20)
    assert "not a GGUF" in refusal(tmp_path / "x.gguf").what


def test_a_gguf_without_the_package_says_what_to_install(gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "tamer-tui[gguf]" in refusal(gguf_file).hint and "tamer-tui[gguf]" in told_by_the_doctor(gguf_file)
    assert not list(tmp_path.rglob("*.json")), "nothing is left of what was begun"


def test_the_doctor_reads_a_gguf_without_converting_it(gguf_file: Path, llama: Any) -> None:
    found = inspect_machine(str(gguf_file), "auto").model
    assert found is not None and found.layers == 2 and found.width == 32
    assert found.parameters == sum(p.numel() for p in llama.parameters()) and found.converted_bytes == 2 * found.parameters


def test_what_a_killed_conversion_left_is_removed_and_what_one_at_work_writes_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    models = tmp_path / "tamer-tui" / "models"
    ended = subprocess.Popen(["true"])
    ended.wait()
    for process in (ended.pid, os.getppid()):
        (models / f".x.{process}").mkdir(parents=True)
    made = converted("x", lambda directory: (directory / "config.json").touch())
    assert {path.name for path in models.iterdir()} == {"x", f".x.{os.getppid()}"} and made == models / "x"
    with pytest.raises(ModelError, match="a model cannot be converted"):
        converted("y", lambda directory: (directory / "no" / "such").touch())
    assert not list(models.glob(".y*"))


# --- somebody's adapter ----------------------------------------------------------------------------------------------------


def written_adapter(model: Any, directory: Path, base: str, **settings: Any) -> torch.Tensor:
    """Saved by PEFT; the logits of the model with it."""
    from peft import LoraConfig, get_peft_model

    tree = get_peft_model(copy.deepcopy(model), LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]} | settings))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in tree.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=generator)
    tree.peft_config["default"].base_model_name_or_path = base
    tree.save_pretrained(directory)
    return logits(tree.eval())


def test_an_adapter_becomes_part_of_the_base(llama: Any, base: Path, tmp_path: Path) -> None:
    expected = written_adapter(llama, tmp_path, str(base))
    found = load_backbone(str(base), device="cpu", adapter=str(tmp_path))
    torch.testing.assert_close(logits(found.model), expected, atol=1e-4, rtol=1e-4)
    assert float((expected - logits(llama)).abs().max()) > 0.05
    assert torch.equal(logits(found.adapter_tree()), logits(found.model)), "what is taught goes on from there"
    plain = load_backbone(str(base), device="cpu")
    assert found.base_hash != plain.base_hash and found.encode(PROMPT) == plain.encode(PROMPT)
    assert str(tmp_path) in found.notes[0]


def test_a_directory_that_is_an_adapter_finds_its_base(llama: Any, base: Path, tmp_path: Path) -> None:
    expected = written_adapter(llama, tmp_path, str(base), r=32, use_rslora=True)
    found = load_backbone(str(tmp_path), device="cpu")
    torch.testing.assert_close(logits(found.model), expected, atol=1e-3, rtol=1e-3)  # by how A was drawn, sums in another order differ by 1e-4
    assert found.base_hash == load_backbone(str(base), device="cpu", adapter=str(tmp_path)).base_hash


def test_an_adapter_that_was_trained_on_four_bits_fits_the_weights_that_they_stand_for(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    packed = AutoModelForCausalLM.from_pretrained(base, quantization_config=four_bits, device_map="cpu", dtype=torch.float32)
    packed.save_pretrained(tmp_path / "base")
    tokenizer_of(FAMILIES["llama"]).save_pretrained(tmp_path / "base")
    freeze(packed)  # see below
    expected = written_adapter(packed, tmp_path / "adapter", str(tmp_path / "base"))
    found = load_backbone(str(tmp_path / "adapter"), device="cpu")
    assert found.quantize == "none"
    torch.testing.assert_close(logits(found.model), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_an_adapter_for_another_base_is_refused(change: dict[str, int], base: Path, tmp_path: Path) -> None:
    written_adapter(_random(Family("llama", COMMON | change)), tmp_path, "somebody/else")
    found = refusal(base, adapter=str(tmp_path))
    assert "does not fit" in found.what and "somebody/else" in found.hint
    assert not found.what.endswith((":", ".")), "it says what does not fit"


def test_an_adapter_that_is_none_or_whose_base_is_not_here_is_refused(llama: Any, base: Path, tmp_path: Path) -> None:
    assert "no adapter" in refusal(base, adapter=str(base)).what
    written_adapter(llama, tmp_path, "/home/of/somebody/model")
    assert "/home/of/somebody/model" in refusal(tmp_path).what
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    assert "pickled" in refusal(base, adapter=str(tmp_path)).what


# --- packed weights --------------------------------------------------------------------------------------------------------


def in_fp8(model: Any, directory: Path, block: int = 16) -> dict[str, torch.Tensor]:
    """As DeepSeek and Qwen store it: a scale for each block. The weights that it stands for."""
    from safetensors.torch import save_file

    stored, meant = {}, {}
    for name, weight in model.state_dict().items():
        if "_proj" not in name:
            stored[name] = weight.to(torch.bfloat16)
            continue
        blocks = weight.view(weight.shape[0] // block, block, weight.shape[1] // block, block)
        scale = blocks.abs().amax((1, 3), keepdim=True) / 448
        packed = (blocks / scale).to(torch.float8_e4m3fn)
        meant[name] = (packed.float() * scale).view(weight.shape)
        stored[name], stored[f"{name}_scale_inv"] = packed.view(weight.shape), scale[:, 0, :, 0].contiguous()
    save_file(stored, directory / "model.safetensors", {"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [block, block]}
    (directory / "config.json").write_text(json.dumps(config))
    return meant


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_weights_in_fp8_are_unpacked_and_said_to_be(llama: Any, base: Path, tmp_path: Path, quantize: str) -> None:
    directory = Path(shutil.copytree(base, tmp_path / "fp8"))
    meant = in_fp8(llama, directory)
    found = load_backbone(str(directory), quantize, device="cpu")
    assert "fp8" in found.notes[0] and found.quantize == quantize
    if quantize == "none":
        for name, weight in meant.items():
            torch.testing.assert_close(found.model.get_parameter(name), weight, atol=1e-6, rtol=2**-8)


def stored_in_fp8(base: Path, directory: Path, scale: tuple[int, ...], **settings: Any) -> dict[str, torch.Tensor]:
    """The base with a scale of that shape for each projection, by another name than DeepSeek's. The weights that it stands for."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, directory)
    generator, stored, meant = torch.Generator().manual_seed(0), load_file(base / "model.safetensors"), {}
    for name in [name for name in stored if "_proj.weight" in name]:
        shape = tuple(of or size for of, size in zip(scale, stored[name].shape, strict=False))
        factors = torch.rand(shape, generator=generator) / 100 + 1e-3
        packed = (stored[name] / 0.01).to(torch.float8_e4m3fn)
        meant[name] = packed.float() * factors
        stored[name], stored[name + "_scale"] = packed, factors
    save_file(stored, directory / "model.safetensors", {"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return meant


CHANNELS = {"config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}, "format": "float-quantized"}


@pytest.mark.parametrize(
    ("scale", "settings"),
    [
        ((), {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}),
        ((1,), {"quant_method": "fp8", "activation_scheme": "static"}),
        ((0, 1), {"quant_method": "fbgemm_fp8"}),
        ((0, 1), {"quant_method": "compressed-tensors"} | CHANNELS),
    ],
)
def test_weights_in_fp8_are_products_with_their_scales_by_whichever_name(
    base: Path, tmp_path: Path, scale: tuple[int, ...], settings: dict[str, Any]
) -> None:
    meant = stored_in_fp8(base, tmp_path / "fp8", scale, **settings)
    assert not inspect_machine(str(tmp_path / "fp8"), "auto").problems
    found = load_backbone(str(tmp_path / "fp8"), device="cpu")
    assert len(meant) == 14
    for name, weight in meant.items():
        torch.testing.assert_close(found.model.get_parameter(name), weight, atol=1e-6, rtol=2**-8)


def test_blocks_that_do_not_divide_a_weight_evenly_keep_their_size() -> None:
    """Of 32 columns the first block has 20, and the second the other 12."""
    weight, scale = torch.ones(48, 32).to(torch.float8_e4m3fn), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found = product(weight, scale, (20, 20))
    assert found[19, 19] == 1 and found[20, 19] == 3 and found[19, 20] == 2 and found[47, 31] == 6 and found.dtype is torch.bfloat16
    eights = torch.tensor([[126], [128], [127]], dtype=torch.uint8)
    assert product(weight, eights, (20, 32))[:, 0].tolist() == [0.5] * 20 + [2.0] * 20 + [1.0] * 8


def test_weights_in_fp8_of_which_it_is_not_certain_what_they_stand_for_are_refused_everywhere(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    blocks = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    name = "model.layers.0.mlp.up_proj.weight"

    def changed(directory: str, settings: dict[str, Any] = blocks, **tensors: torch.Tensor | None) -> Path:
        stored_in_fp8(base, tmp_path / directory, (), **settings)
        stored = load_file(tmp_path / directory / "model.safetensors")
        stored |= {f"{name}_{end}": tensor for end, tensor in tensors.items() if tensor is not None}
        for end in (end for end, tensor in tensors.items() if tensor is None):
            del stored[f"{name}_{end}"]
        save_file(stored, tmp_path / directory / "model.safetensors", {"format": "pt"})
        return tmp_path / directory

    for directory, said in {
        changed("none", scale=None): "no scale",
        changed("two", scale_inv=torch.ones(())): "several scales",
        changed("grid", scale=torch.ones(2, 3)): "[2, 3]",
        changed("zero", zero_point=torch.zeros(())): "zero point",
        changed("bytes", scale=torch.ones(3, 2, dtype=torch.uint8)): "U8",
        changed("packed", codes=torch.ones(3, 2, dtype=torch.int8)): "I8",
        changed("bare", {}): "says nothing",
    }.items():
        assert said in refusal(directory).what and said in told_by_the_doctor(directory)
        with pytest.raises(ModelError):
            check_source(str(directory))
    rotated = changed("rotated", {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {}, "a": 1}} | CHANNELS)
    assert "quantized already (compressed-tensors)" in refusal(rotated).what


@pytest.mark.parametrize("form", ["plain", "fp8", "adapted", "mxfp4"])
def test_weights_that_are_missing_are_never_random(llama: Any, base: Path, tmp_path: Path, form: str) -> None:
    from safetensors.torch import load_file, save_file

    directory = Path(shutil.copytree(base, tmp_path / "lacks"))
    if form == "fp8":
        in_fp8(llama, directory)
    if form == "mxfp4":
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}))
    stored = {name: weight for name, weight in load_file(directory / "model.safetensors").items() if "1.mlp.up_proj" not in name}
    save_file(stored, directory / "model.safetensors", {"format": "pt"})
    adapter = tmp_path / "adapter" if form == "adapted" else None
    if adapter is not None:
        written_adapter(llama, adapter, str(directory))
    found = refusal(directory, adapter=str(adapter) if adapter else None)
    assert found.what == f"{directory} lacks weights: model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("form", ["fp8", "adapted"])
def test_what_is_changed_in_the_settings_of_a_model_counts_in_its_copy_too(llama: Any, base: Path, tmp_path: Path, form: str) -> None:
    directory = Path(shutil.copytree(base, tmp_path / "base"))
    if form == "fp8":
        in_fp8(llama, directory)
    else:
        written_adapter(llama, tmp_path / "adapter", str(directory))
    options: dict[str, Any] = {"device": "cpu", "adapter": str(tmp_path / "adapter") if form == "adapted" else None}
    first = load_backbone(str(directory), **options)
    for name, change in (("config.json", {"max_position_embeddings": 64}), ("generation_config.json", {"temperature": 0.5})):
        before = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps(before | change))
    again = load_backbone(str(directory), **options)
    assert (first.context, again.context) == (128, 64) and again.drawing["temperature"] == 0.5
    assert again.base_hash == first.base_hash, "what was taught on it still belongs to it"


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def test_experts_in_mxfp4_are_unpacked(tmp_path: Path) -> None:
    """Blocks of 32 numbers of four bits, each with a power of two."""
    from safetensors.torch import load_file, save_file

    family, generator = FAMILIES["gpt_oss"], torch.Generator().manual_seed(0)
    _random(Family(family.type, family.sizes | {"intermediate_size": 64})).save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer_of(family).save_pretrained(tmp_path)
    stored, meant = load_file(tmp_path / "model.safetensors"), {}
    for name in [name for name in stored if name.endswith("_proj") and "experts" in name]:
        experts, inputs, outputs = stored.pop(name).shape
        codes = torch.randint(0, 16, (experts, outputs, inputs // 32, 32), generator=generator)
        exponents = torch.randint(125, 130, (experts, outputs, inputs // 32), generator=generator)
        numbers = torch.where(codes < 8, 1.0, -1.0) * FP4[codes % 8] * 2.0 ** (exponents[..., None] - 127)
        meant[name] = numbers.view(experts, outputs, inputs).transpose(1, 2)
        stored[f"{name}_blocks"] = (codes[..., ::2] + 16 * codes[..., 1::2]).to(torch.uint8)
        stored[f"{name}_scales"] = exponents.to(torch.uint8)
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}))
    found = load_backbone(str(tmp_path), device="cpu")
    assert "mxfp4" in found.notes[0] and len(meant) == 4
    for name, weight in meant.items():
        assert torch.equal(found.model.get_parameter(name), weight)


@pytest.mark.parametrize("kind", ["fp4", "nf4", "int8"])
def test_weights_that_bitsandbytes_stored_load_as_they_are(base: Path, tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(load_in_8bit=True) if kind == "int8" else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind)
    packed = AutoModelForCausalLM.from_pretrained(base, quantization_config=how, device_map="cpu")
    packed.save_pretrained(tmp_path, max_shard_size="30KB")
    tokenizer_of(FAMILIES["llama"]).save_pretrained(tmp_path)
    found = load_backbone(str(tmp_path), device="cpu")
    assert found.quantize == kind and len(list(tmp_path.glob("model-*.safetensors"))) > 1
    freeze(packed)  # on some processors it would be packed once more, which works for no layer as narrow as this
    wanted = load_backbone(str(base), device="cpu").model if kind == "int8" else packed  # whose own forward rounds activations to 8 bit too
    cosine = torch.nn.functional.cosine_similarity(logits(found.model).flatten(), logits(wanted).flatten(), 0)
    assert cosine > (0.99 if kind == "int8" else 0.999)


# --- what does not work ------------------------------------------------------------------------------------------------------


def refused_everywhere(model: Path, said: str, adapter: Path | None = None) -> None:
    """With the same line by the doctor, before a screen opens and at load."""
    found = refusal(model, adapter=str(adapter) if adapter else None)
    assert said in found.what
    with pytest.raises(ModelError) as early:
        check_source(str(model), str(adapter) if adapter else None)
    assert str(early.value) == str(found)
    assert adapter is not None or told_by_the_doctor(model) == str(found)


def with_config(base: Path, directory: Path, **changes: object) -> Path:
    """The same model; its config.json says something else."""
    shutil.copytree(base, directory)
    (directory / "config.json").write_text(json.dumps(json.loads((base / "config.json").read_text()) | changes))
    return directory


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "a BertForMaskedLM, and a causal language model is needed"),
        ({"architectures": None, "model_type": "roberta"}, "a roberta"),
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True}, "a T5ForConditionalGeneration"),
        ({"architectures": ["ViTForImageClassification"], "model_type": "vit"}, "a ViTForImageClassification"),
        ({"architectures": ["LlamaForSequenceClassification"], "tie_word_embeddings": True}, "a LlamaForSequenceClassification"),
    ],
)
def test_what_is_no_causal_language_model_is_refused_as_what_it_is(base: Path, tmp_path: Path, changes: dict[str, object], said: str) -> None:
    refused_everywhere(with_config(base, tmp_path / "m", **changes), said)


def test_a_model_that_sees_images_or_has_code_of_its_own_is_a_language_model(base: Path, tmp_path: Path) -> None:
    from learners.model.checkpoint import check_architecture

    for config in (
        {"architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl"},
        {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"},
        {"architectures": ["BertLMHeadModel"], "model_type": "bert"},
        {"architectures": ["ForwardModel"], "model_type": "x", "auto_map": {"AutoModelForCausalLM": "x.ForwardModel"}},
        {},
    ):
        check_architecture(config)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_a_gguf_of_an_encoder_is_refused(llama: Any, tmp_path: Path, kind: str) -> None:
    refused_everywhere(written_gguf(llama, tmp_path / "e.gguf", kind), f"a {kind}, and a causal")


@pytest.mark.parametrize(("version", "said"), [(1, "version 1"), (9, "version 9"), (3 << 24, "big-endian")])
def test_a_gguf_of_another_version_or_byte_order_is_refused(gguf_file: Path, tmp_path: Path, version: int, said: str) -> None:
    (tmp_path / "v.gguf").write_bytes(b"GGUF" + version.to_bytes(4, "little") + gguf_file.read_bytes()[8:])
    refused_everywhere(tmp_path / "v.gguf", said)


@pytest.mark.parametrize("missing", ["architecture", "package"])
def test_what_cannot_be_converted_is_said_before_a_whole_file_is_read(
    missing: str, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written_gguf(llama, tmp_path / "w.gguf", "wizard" if missing == "architecture" else "llama")
    if missing == "package":
        monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("learners.model.conversion.hash_files", lambda *_: pytest.fail("it was read"))
    assert "wizard" in refusal(file).what or "package gguf" in str(refusal(file))


def test_a_directory_that_holds_only_a_gguf_names_the_file(gguf_file: Path) -> None:
    refused_everywhere(gguf_file.parent, "a GGUF and no other model")
    assert str(gguf_file) in refusal(gguf_file.parent).hint


def with_metadata(file: Path, key: str, kind: int, value: bytes) -> Path:
    """A GGUF without tensors that says this of itself."""
    entries = [(b"general.architecture", 8, len(b"llama").to_bytes(8, "little") + b"llama"), (key.encode(), kind, value)]
    said = b"".join(len(name).to_bytes(8, "little") + name + form.to_bytes(4, "little") + content for name, form, content in entries)
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + len(entries).to_bytes(8, "little") + said + bytes(64))
    return file


def test_settings_of_another_kind_than_they_should_be_are_told_in_a_line(llama: Any, base: Path, tmp_path: Path) -> None:
    refused_everywhere(with_config(base, tmp_path / "text", quantization_config="gptq"), "quantized already (gptq)")
    refused_everywhere(with_config(base, tmp_path / "inner", text_config={"quantization_config": {"quant_method": "awq"}}), "already (awq)")
    refused_everywhere(with_metadata(tmp_path / "a.gguf", "general.alignment", 4, bytes(4)), "damaged")
    check_source(str(with_metadata(tmp_path / "s.gguf", "split.count", 8, (1).to_bytes(8, "little") + b"3")))
    written_adapter(llama, tmp_path / "itself", str(tmp_path / "itself"))
    refused_everywhere(tmp_path / "itself", "names itself")
    for one, other in (("a", "b"), ("b", "a")):
        written_adapter(llama, tmp_path / one, str(tmp_path / other))
    refused_everywhere(tmp_path / "a", "names itself")
    wrong = with_config(base, tmp_path / "wrong", hidden_size="x")
    assert "config.json" in refusal(wrong).what and told_by_the_doctor(wrong) == str(refusal(wrong))
    strange = with_config(base, tmp_path / "strange", model_type=["llama"])
    with pytest.raises(ModelError, match="cannot be read"):
        check_source(str(strange))
    assert "cannot be read" in told_by_the_doctor(strange)
    with pytest.raises(ModelError):
        check_source("x" * 5000 + ".gguf")


@cpu_only
def test_the_doctor_says_that_a_gpu_is_full(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 bytes.\nMore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", full)
    monkeypatch.setattr("learners.model.loading.has_kernels", lambda kind: True)
    found = inspect_machine(str(base), "auto")
    assert found.device == "cuda" and found.model is not None
    assert found.problems == ("the memory of cuda is full: end what uses it (nvidia-smi), or use another device",)
    monkeypatch.setattr("learners.model.device.choose_device", full)
    assert "no device can be used: CUDA out of memory. Tried to allocate 2 bytes" in inspect_machine(None, "auto").problems


@pytest.mark.parametrize(("kind", "said"), [("PROMPT_TUNING", "a PROMPT_TUNING, which cannot"), ("PREFIX_TUNING", "a PREFIX_TUNING")])
def test_an_adapter_that_is_no_change_of_weights_is_refused(llama: Any, base: Path, tmp_path: Path, kind: str, said: str) -> None:
    written_adapter(llama, tmp_path, str(base))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"peft_type": kind}))
    refused_everywhere(base, said, tmp_path)
    refused_everywhere(tmp_path, said)


def test_an_adapter_of_a_kind_that_peft_does_not_know_is_refused_as_that(llama: Any, base: Path, tmp_path: Path) -> None:
    written_adapter(llama, tmp_path, str(base))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"peft_type": "WOW"}))
    assert "of the kind 'WOW'" in refusal(base, adapter=str(tmp_path)).what and "'WOW'" in told_by_the_doctor(tmp_path)


def test_an_adapter_that_names_another_base_is_taken_and_said_to(llama: Any, base: Path, tmp_path: Path) -> None:
    written_adapter(llama, tmp_path / "a", "somebody/else")
    notes = load_backbone(str(base), device="cpu", adapter=str(tmp_path / "a")).notes
    assert len(notes) == 2 and "names somebody/else as its base" in notes[1] and str(base) in notes[1]


def test_a_base_is_known_by_its_path_and_by_its_folder_in_the_hubs_cache(llama: Any, base: Path, tmp_path: Path) -> None:
    from learners.model.stored import other_base

    written_adapter(llama, tmp_path / "a", "owner/name")
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    assert other_base(tmp_path / "a", "owner/name", snapshot) is None and other_base(tmp_path / "a", str(snapshot), snapshot) is None
    assert other_base(tmp_path / "a", "owner/other", tmp_path) == "owner/name"
    written_adapter(llama, tmp_path / "b", str(snapshot))
    assert other_base(tmp_path / "b", "owner/name", snapshot) is None
    (tmp_path / "link").symlink_to(base)
    written_adapter(llama, tmp_path / "c", str(tmp_path / "link"))
    assert other_base(tmp_path / "c", str(base), base) is None and other_base(tmp_path / "c", "pocket", tmp_path) is not None


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "rwkv"])
def test_models_without_attention_are_refused_at_load_and_by_the_doctor(kind: str, base: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(base, tmp_path / kind))
    (directory / "config.json").write_text(json.dumps({"model_type": kind}))
    assert "attention" in refusal(directory).what
    assert any(kind in problem for problem in inspect_machine(str(directory), "auto").problems)


def test_what_can_be_seen_without_libraries_is_refused_before_anything_is_loaded(base: Path, tmp_path: Path) -> None:
    def stored_as(name: str, **changes: object) -> tuple[str, None]:
        directory = Path(shutil.copytree(base, tmp_path / name))
        (directory / "config.json").write_text(json.dumps(json.loads((directory / "config.json").read_text()) | changes))
        return str(directory), None

    (tmp_path / "no.gguf").write_bytes(b"GGUF\x03\0\0\0")
    refused = [stored_as("m", model_type="mamba"), stored_as("g", quantization_config={"quant_method": "gptq"}), (str(tmp_path / "no.gguf"), None),
               ("/nowhere/at/all", None), (str(base), "/nowhere"), (str(base), str(base)), (str(tmp_path), None)]  # fmt: skip
    for model, adapter in refused:
        with pytest.raises(ModelError) as early:
            check_source(model, adapter)
        assert str(early.value) == str(refusal(model, adapter=adapter))
    for model in (str(base), "pocket", "owner/name", stored_as("f", quantization_config={"quant_method": "fp8"})[0]):
        check_source(model)


def test_a_model_that_keeps_something_of_its_own_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward
    monkeypatch.setattr(LlamaForCausalLM, "forward", lambda self, input_ids=None, attention_mask=None, state=None: forward(self, input_ids))
    assert "keeps no keys and values" in refusal(base).what


def test_a_tokenizer_whose_template_has_tokens_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    _random(Family("llama", COMMON | {"vocab_size": BOS, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": None})).save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer_of(FAMILIES["llama"]).save_pretrained(tmp_path)
    assert "does not have" in refusal(tmp_path).what


def test_a_tokenizer_that_only_has_more_tokens_than_rows_works(tmp_path: Path) -> None:
    _random(Family("llama", COMMON | {"vocab_size": BOS, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": None})).save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer_of(Family("llama", {}, template=False, bos=False)).save_pretrained(tmp_path)
    found: Backbone = load_backbone(str(tmp_path), device="cpu")
    assert found.vocabulary == BOS and max(found.encode(PROMPT)) < BOS


def test_a_model_with_code_of_its_own_is_told_how_to_allow_it(base: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(base, tmp_path / "own"))
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}))
    assert "--trust-remote-code" in refusal(directory).hint and "--trust-remote-code" in told_by_the_doctor(directory)
    for kind, said in (({"model_type": "own"}, "'own'"), ({}, "does not say")):
        (directory / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "model_type"} | kind))
        assert said in refusal(directory).what and said in told_by_the_doctor(directory)


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def own(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and a tokenizer with code of their own beside them."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    directory = with_config(base, tmp_path / "own", model_type="own", architectures=["OwnForCausalLM"], auto_map=classes)
    (directory / "own.py").write_text(OWN_CODE)
    return directory


def with_own_tokenizer(directory: Path) -> Path:
    file = directory / "tokenizer_config.json"
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    (directory / "own.py").write_text(OWN_CODE)
    return directory


def test_a_tokenizer_with_code_of_its_own_is_told_how_to_allow_it(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    directory = with_own_tokenizer(Path(shutil.copytree(base, tmp_path / "t")))
    found = refusal(directory)
    assert "the tokenizer in" in found.what and "--trust-remote-code" in found.hint and told_by_the_doctor(directory) == str(found)
    assert type(load_backbone(str(directory), device="cpu", trust_remote_code=True).tokenizer).__name__ == "OwnTokenizer"


def test_an_adapter_goes_into_a_base_with_code_of_its_own_where_that_is_allowed(llama: Any, own: Path, tmp_path: Path) -> None:
    with_own_tokenizer(own)
    expected = written_adapter(llama, tmp_path / "a", str(own))
    assert "--trust-remote-code" in refusal(own, adapter=str(tmp_path / "a")).hint
    found = load_backbone(str(own), device="cpu", adapter=str(tmp_path / "a"), trust_remote_code=True)
    torch.testing.assert_close(logits(found.model), expected, atol=1e-4, rtol=1e-4)
    assert type(found.model).__name__ == "OwnForCausalLM" and type(found.tokenizer).__name__ == "OwnTokenizer"


def test_a_version_of_a_base_with_code_of_its_own_is_exported_where_that_is_allowed(own: Path, tmp_path: Path) -> None:
    from learners.export.__main__ import exported
    from learners.export.request import ExportRequest
    from tests.learners.export.test_export import version_of

    backbone = load_backbone(str(own), device="cpu", trust_remote_code=True)
    for name in ("version", "out"):
        (tmp_path / name).mkdir()
    request = ExportRequest("merged", str(own), str(version_of(backbone, tmp_path / "version")), str(tmp_path / "out"), backbone.base_hash)
    with pytest.raises(ModelError, match="--trust-remote-code"):
        exported(request)
    exported(msgspec.structs.replace(request, trust_remote_code=True))
    assert type(load_backbone(str(tmp_path / "out"), device="cpu", trust_remote_code=True).model).__name__ == "OwnForCausalLM"


def test_every_file_that_a_tokenizer_may_be_is_fetched_and_goes_along_and_the_hash_of_the_base_stays(llama: Any, base: Path, tmp_path: Path) -> None:
    from fnmatch import fnmatch

    from learners.model.checkpoint import DOWNLOADED

    directory = Path(shutil.copytree(base, tmp_path / "base"))
    for name in ("qwen.tiktoken", "sentencepiece.bpe.model"):
        assert any(fnmatch(name, pattern) for pattern in DOWNLOADED)
        (directory / name).touch()
    assert load_backbone(str(directory), device="cpu").base_hash == load_backbone(str(base), device="cpu").base_hash
    from learners.model.conversion import copy_tokenizer

    copy_tokenizer(directory, Path(shutil.copytree(tmp_path / "base", tmp_path / "other", ignore=lambda *_: ["qwen.tiktoken"])))
    assert (tmp_path / "other" / "qwen.tiktoken").is_file()


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ModelError, match="no device cuda:7: there is one"):
        choose_device("cuda:7")


@cpu_only
def test_cuda_without_kernels_of_bitsandbytes_is_told_before_anything_is_loaded(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.model.loading.choose_device", lambda asked: torch.device("cuda"))
    with pytest.raises(ModelError, match="no kernels"):
        load_backbone(str(base), "nf4", "cuda")
