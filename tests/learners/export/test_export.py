"""Exported versions are loaded by those who run models: transformers by itself, from a directory and from a GGUF file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from learners.export.__main__ import exported
from learners.export.gguf_file import check_family, write_gguf
from learners.export.ollama import GoTemplate, go_template
from learners.export.request import Exporting, ExportRequest
from learners.model.base import Backbone
from learners.model.checkpoint import ModelError, read_config
from learners.model.forward import forward
from learners.model.loading import load_backbone
from learners.model.lora import LoraSettings, lora_state
from learners.versions.files import Manifest, States, pack, peft_config
from tests.learners.models import STORIES, needs_gpt2, needs_stories, random_llama, stirred, stories

TEXT = "Once upon a time there was a little girl, and she"


def version_of(backbone: Backbone, folder: Path) -> Path:
    """An adapter that says other things than the base."""
    tree = stirred(backbone)
    states = States(lora_state(tree), {"weights": torch.zeros(1)}, {}, {})
    manifest = Manifest(backbone.base_hash, "base", "sft", 0, (), 0, 0.0, 16, 32.0)
    for name, content in pack(states, manifest, peft_config(LoraSettings(), tree, backbone.name)).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return version_of(stories(), tmp_path_factory.mktemp("version"))


def request(format: str, adapter: Path, out: Path, **more: object) -> ExportRequest:
    return ExportRequest(format, str(STORIES), str(adapter), str(out), stories().base_hash, **more)  # type: ignore[arg-type]


def ids() -> Tensor:
    return torch.tensor([stories().tokenizer(TEXT).input_ids])


def error_of(logits: Tensor, backbone: Backbone | None = None) -> float:
    """The mean error against the adapter's logits, as a share of what the adapter changes in the base's."""
    backbone = backbone or stories()
    with torch.no_grad():
        wanted, base = (forward(tree, ids()).logits.float() for tree in (stirred(backbone), backbone.model))
    return float((logits - wanted).abs().mean() / (base - wanted).abs().mean())


@needs_stories
def test_plain_transformers_gets_the_adapters_logits_from_the_merged_model(adapter: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert exported(request("merged", adapter, tmp_path, quantize="nf4")) == (
        "it was taught on the base in nf4; the adapter is merged into the base's full weights",
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        assert error_of(model.float()(ids()).logits) < 0.02
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXT).input_ids == ids()[0].tolist()
    assert str(STORIES) not in (tmp_path / "config.json").read_text()


@needs_stories
def test_a_base_that_is_stored_in_four_bits_is_dequantized_and_that_is_said(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    packed, version, out = (tmp_path / name for name in ("packed", "version", "out"))
    shutil.copytree(STORIES, packed)
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(STORIES, quantization_config=how, device_map="cpu").save_pretrained(packed)
    version.mkdir()
    backbone = load_backbone(str(packed), device="cpu")
    said = exported(ExportRequest("merged", str(packed), str(version_of(backbone, version)), str(out), backbone.base_hash, quantize="nf4"))
    assert said == ("the base is stored as nf4: its weights were dequantized to bfloat16",)
    with torch.no_grad():
        assert error_of(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(ids()).logits, backbone) < 0.05
    assert "quantization_config" not in (out / "config.json").read_text()


@needs_stories
@pytest.mark.parametrize(("outtype", "most"), [("f16", 0.02), ("q8_0", 0.1)])
def test_transformers_reads_the_gguf_back(adapter: Path, tmp_path: Path, outtype: str, most: float) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    told: list[Exporting] = []
    exported(request("gguf", adapter, tmp_path, outtype=outtype, name="mine"), told.append)
    for what in ("merging layers:", "converting tensors:"):
        steps = [(each.done, each.of) for each in told if each.what == what]
        assert steps == [(n, len(steps)) for n in range(len(steps))] and steps
    assert [path.name for path in tmp_path.iterdir()] == ["mine.gguf"]
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="mine.gguf", dtype=torch.float32)
        assert error_of(model(ids()).logits) < most
    assert AutoTokenizer.from_pretrained(tmp_path, gguf_file="mine.gguf")(TEXT).input_ids == ids()[0].tolist()


@needs_stories
@pytest.mark.parametrize("family", ["Mistral", "Qwen2", "Qwen3"])
def test_every_family_of_the_table_computes_the_same_from_its_gguf(family: str, tmp_path: Path) -> None:
    """Biases, norms of queries and keys, heads of another size than width / heads, and an LM head of its own."""
    import transformers

    head = {"Mistral": {"head_dim": 16}, "Qwen2": {}, "Qwen3": {"head_dim": 128}}[family]  # transformers takes no other for Qwen 3 from a GGUF
    config = getattr(transformers, f"{family}Config")(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, sliding_window=None,
        rope_theta=50_000.0, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False, **head,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)  # biases and norms too
    model.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(STORIES / name, tmp_path / "model" / name)
    check_family(read_config(tmp_path / "model"), "f16")
    write_gguf(tmp_path / "model", tmp_path / "x.gguf", "f16", "x")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="x.gguf", dtype=torch.float32)
    tokens = torch.tensor([[11, 500, 40, 7, 7, 123]])
    with torch.no_grad():
        assert (model(tokens).logits - found(tokens).logits).abs().max() < 0.01 * model(tokens).logits.std()


@needs_stories
def test_a_modelfile_names_what_a_version_was_taught_with(adapter: Path, tmp_path: Path) -> None:
    exported(request("ollama", adapter, tmp_path, name="mine", system='Say "yes".', drawing={"temperature": 0.5}, max_new_tokens=9))
    lines = (tmp_path / "Modelfile").read_text().splitlines()
    assert lines[:4] == ["FROM ./mine.gguf", 'TEMPLATE """{{ .Prompt }}"""', 'SYSTEM """Say "yes"."""', 'PARAMETER stop """</s>"""']
    assert {"PARAMETER temperature 0.5", "PARAMETER num_predict 9", "PARAMETER top_k 0", "PARAMETER num_ctx 512"} <= set(lines)


@needs_stories
def test_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="adapts another model than pocket: pass the base"):
        exported(ExportRequest("merged", "pocket", str(adapter), str(tmp_path), stories().base_hash))


@pytest.mark.parametrize("config", [{"model_type": "mamba"}, {"model_type": "llama", "rope_parameters": {"rope_type": "llama3"}}])
def test_what_gguf_has_no_table_of_names_the_converter(config: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"convert_hf_to_gguf.py MERGED --outtype q8_0"):
        check_family(config, "q8_0")


# --- chat templates ---------------------------------------------------------------------------------------------------------

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TWO_TURNS = "{% for m in messages[-3:] if m.role != 'system' %}{{ '<' + m.role + '>' + m.content }}{% endfor %}<assistant>"
NUMBERED = "{% for m in messages %}{{ loop.index }}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def template_of(jinja: str) -> tuple[GoTemplate | None, bool]:
    tokenizer = random_llama().tokenizer
    before, tokenizer.chat_template = tokenizer.chat_template, jinja
    try:
        return go_template(tokenizer)
    finally:
        tokenizer.chat_template = before


@needs_gpt2
def test_a_chat_template_becomes_one_of_ollamas() -> None:
    found, whole = template_of(CHATML)
    assert found is not None and whole
    assert found.render((("user", "a"), ("assistant", "b"), ("user", "c"))) == (
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert str(found).startswith("{{ if not .System }}<|im_start|>system\nYou help.") and str(found).count("{{ .Content }}") == 3


@needs_gpt2
def test_a_template_that_does_more_than_put_texts_around_turns_is_told() -> None:
    short, whole = template_of(TWO_TURNS)
    assert short is not None and short.system == ("<user>", "\n\n") and not whole  # a system message that it leaves out goes to the user
    assert template_of(NUMBERED) == (None, False)
