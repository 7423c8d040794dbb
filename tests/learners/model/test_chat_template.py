"""What is said arrives in the prompt, whatever form a template wants it in; and what a template cannot take is told in a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from learners.engine.assembly import assemble
from learners.model.chat_format import PromptError, Renderer
from learners.model.checkpoint import ModelError
from learners.model.conversion import copy_tokenizer
from learners.model.loading import load_backbone
from learners.protocol import Load, Notice
from storage.records import Message, Sampling
from tests.learners.model import templates
from tests.learners.model.families import FAMILIES, VOCABULARY, saved_family, tokenizer_of
from tests.learners.models import DEVICE

TALK = [Message("system", "Be brief."), Message("user", "What is a dog?"), Message("assistant", "An animal."), Message("user", "And a cat?")]


def renderer_of(template: str) -> Renderer:
    tokenizer: Any = tokenizer_of(FAMILIES["llama"])
    tokenizer.chat_template = template
    return Renderer(tokenizer, VOCABULARY)


def prompt(template: str, messages: Sequence[Message]) -> str:
    renderer = renderer_of(template)
    return renderer.decode_raw(renderer.encode(messages), special=True)


def stored(template: str, directory: Path) -> str:
    """A tiny Llama that has it."""
    shutil.copytree(saved_family("llama"), directory, dirs_exist_ok=True)
    (directory / "chat_template.jinja").write_text(template)
    return str(directory)


@pytest.mark.parametrize(
    "family",
    ["CHATML", "SMOLVLM", "LLAVA", "LLAVA_NEXT", "INTERNVL", "PHI3", "GEMMA", "MISTRAL", "DEMANDS_SYSTEM", "DEMANDS_WORDS", "COUNTS_TOOLS"],
)
def test_every_word_of_a_conversation_arrives_in_order(family: str) -> None:
    template = getattr(templates, family)
    for messages in (TALK, TALK[1:], TALK[1:2], TALK[:2]):
        text = prompt(template, messages)
        places = [text.find(m.content) for m in messages]
        assert -1 not in places and places == sorted(places), text
    assert "{'type'" not in text and "tools!" not in text


def test_parts_are_for_templates_that_want_them() -> None:
    assert prompt(templates.SMOLVLM, TALK[1:2]) == "<|im_start|>User: What is a dog?<end_of_utterance>\nAssistant:"
    assert prompt(templates.LLAVA, TALK[:2]) == "Be brief. USER: What is a dog? ASSISTANT:"
    assert prompt(templates.INTERNVL, TALK[1:2]) == prompt(templates.CHATML, TALK[1:2])


def test_what_a_person_writes_is_text_in_a_part_too() -> None:
    renderer = renderer_of(templates.LLAVA)
    assert 259 not in renderer.encode([Message("user", "so<|end|> it goes")])


def test_a_system_message_that_would_be_left_out_stands_in_the_first_user_turn() -> None:
    assert prompt(templates.PHI3, TALK[:2]) == "<|user|>\nBe brief.\n\nWhat is a dog?<|end|>\n<|assistant|>\n"
    assert prompt(templates.CHATML, TALK[:2]).startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_a_system_message_that_is_demanded_is_the_persons_or_an_empty_one() -> None:
    assert prompt(templates.DEMANDS_SYSTEM, TALK[:2]) == prompt(templates.CHATML, TALK[:2])
    assert prompt(templates.DEMANDS_SYSTEM, TALK[1:2]) == prompt(templates.CHATML, [Message("system", ""), TALK[1]])
    assert "You are a helpful assistant." in prompt(templates.DEMANDS_WORDS, TALK[1:2])
    assert "You are" not in prompt(templates.DEMANDS_WORDS, TALK)
    (note,) = renderer_of(templates.DEMANDS_SYSTEM).notes
    assert note.endswith("demands a system message: where none is given it gets an empty one")
    assert not renderer_of(templates.CHATML).notes


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{# nothing #}", "leaves out what is said"),
        ("{{ 'assistant: ' }}", "leaves out what is said"),
        (templates.DEMANDS_TOOLS, "refuses the conversation: tools needed"),
        ("{{ raise_exception('I never answer') }}", "refuses the conversation: I never answer"),
    ],
)
def test_a_template_to_which_nothing_can_be_said_is_refused_in_one_line_as_the_model_is_loaded(template: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=said):
        prompt(template, TALK)
    with pytest.raises(ModelError, match=f"no prompt works with this model: the model's chat template {said}: ") as caught:
        load_backbone(stored(template, tmp_path), "none", DEVICE)
    assert "\n" not in str(caught.value) and "chat_template.jinja" in caught.value.hint


def test_a_model_that_demands_a_system_message_is_taught_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.engine.calibration.TOKENS", 2)
    model = stored(templates.DEMANDS_SYSTEM, tmp_path)
    load = Load(model=model, quantize="none", device=DEVICE, sampling=Sampling(1.0, 4), train_prompts=((TALK[1],), tuple(TALK[:2])))
    parts = assemble(load, lambda event: None)
    assert len(parts.inputs.train_prompts) == 2
    assert any(isinstance(told, Notice) and "demands a system message" in told.what for told in parts.complaints)


OLDER = (templates.LLAVA, [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": templates.LLAVA}])


@pytest.mark.parametrize("kept", OLDER)
def test_a_template_that_stands_where_processors_once_kept_it_is_the_models(kept: object, tmp_path: Path) -> None:
    directory = Path(stored("", tmp_path / "model"))
    (directory / "chat_template.jinja").unlink()
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": kept}))
    backbone = load_backbone(str(directory), "none", DEVICE)
    assert backbone.renderer.decode_raw(backbone.encode(TALK[1:2])) == "USER: What is a dog? ASSISTANT:"
    (copy := tmp_path / "copy").mkdir()
    copy_tokenizer(directory, copy)
    assert AutoTokenizer.from_pretrained(copy).chat_template == templates.LLAVA, "so that others find it, too"
    (directory / "chat_template.jinja").write_text(templates.CHATML)
    assert load_backbone(str(directory), "none", DEVICE).tokenizer.chat_template == templates.CHATML


@pytest.mark.parametrize("kept", ["{", "[]", '{"chat_template": 3}', '{"chat_template": [{"name": "rag"}]}'])
def test_one_that_is_damaged_is_told(kept: str, tmp_path: Path) -> None:
    directory = Path(stored("", tmp_path))
    (directory / "chat_template.jinja").unlink()
    (directory / "chat_template.json").write_text(kept)
    with pytest.raises(ModelError, match=r"chat_template\.json holds no chat template"):
        load_backbone(str(directory), "none", DEVICE)
