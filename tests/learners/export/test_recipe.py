"""The reward model as trainers get it: a sequence-classification model of plain transformers, and a service that gives our scores."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from learners.export import reward_service
from learners.export.__main__ import exported
from learners.export.request import ExportRequest
from learners.feedback.samples import Comparison
from learners.model.checkpoint import ModelError
from learners.model.lora import LoraSettings, adapter_tree, lora_state
from learners.rlhf.reward_model import RewardModel, RewardSettings
from learners.versions.files import Manifest, States, pack, peft_config
from tests.learners.models import STORIES, needs_stories, stirred, stories

PROMPT = "Once upon a time, there was a"
ANSWERS = (" girl. She was happy.", " dog that barked and barked.", " king, and he")
pytestmark = needs_stories


def tokens() -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Prompts and answers as one text is tokenised."""
    encode = stories().tokenizer
    prompt = tuple(encode(PROMPT).input_ids)
    return [prompt] * len(ANSWERS), [tuple(encode(PROMPT + answer).input_ids[len(prompt) :]) for answer in ANSWERS]


@pytest.fixture(scope="module")
def reward_model() -> RewardModel:
    """Far from where it began, normalised."""
    base = stories()
    model = RewardModel(adapter_tree(base.model, LoraSettings(), 1), base.width, RewardSettings(learning_rate=2e-3), seed=3)
    prompts, answers = tokens()
    for _ in range(10):
        model.step([Comparison(prompts[0], tuple(answers), (2, 1, 3), 1)])
    model.normalise(prompts, answers)
    return model


@pytest.fixture(scope="module")
def recipe(reward_model: RewardModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    version, out = (tmp_path_factory.mktemp(name) for name in ("version", "recipe"))
    base, tree = stories(), stirred(stories())
    states = States(lora_state(tree), {"weights": torch.zeros(1)}, reward_model.state(), {})
    manifest = Manifest(base.base_hash, "base", "ppo", 0, (), 0, 0.0, 16, 32.0)
    for name, content in pack(states, manifest, peft_config(LoraSettings(), tree, base.name)).items():
        (version / name).write_bytes(content)
    exported(ExportRequest("recipe", str(STORIES), str(version), str(out), base.base_hash))
    return out


def test_plain_transformers_gives_our_scores_as_the_mean_over_an_answers_tokens(recipe: Path, reward_model: RewardModel) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(recipe / "reward")
    assert model.config.num_labels == 1 and type(model).__name__ == "LlamaForSequenceClassification" and model.dtype == torch.bfloat16
    model.float()
    prompts, answers = tokens()
    wanted = reward_model.score(prompts, answers)
    with torch.no_grad():
        for prompt, answer, score in zip(prompts, answers, wanted, strict=True):
            values = [model(torch.tensor([[*prompt, *answer[: n + 1]]])).logits.item() for n in range(len(answer))]
            assert sum(values) / len(values) + model.config.reward_offset == pytest.approx(float(score), abs=0.05)
    assert float(wanted.std(correction=0)) == pytest.approx(1.0, abs=1e-3), "so 0.05 is a twentieth of what tells them apart"


def test_weights_without_a_reward_model_are_no_recipe(recipe: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({}, tmp_path / "reward_model.safetensors")
    with pytest.raises(ModelError, match="no reward model yet: train with the stage reward"):
        exported(ExportRequest("recipe", str(STORIES), str(tmp_path), str(tmp_path / "out"), stories().base_hash))


@pytest.fixture
def served(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The copy of the service that the recipe has would find the model beside itself; this one is shown where it is."""
    assert (recipe / "reward.py").read_bytes() == Path(reward_service.__file__).read_bytes()
    monkeypatch.setattr(reward_service, "HERE", recipe)
    reward_service._tokenizer.cache_clear()
    server = reward_service.service(recipe / "reward", "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("REWARD_URL", url)
    yield url
    server.shutdown()
    server.server_close()


def ended_scores(reward_model: RewardModel) -> list[float]:
    """Of the answers with the token that ends them."""
    prompts, answers = tokens()
    return reward_model.score(prompts, [(*answer, stories().tokenizer.eos_token_id) for answer in answers]).tolist()


def test_the_service_gives_our_scores_to_each_trainer_in_its_own_way(served: str, reward_model: RewardModel) -> None:
    import urllib.error
    import urllib.request

    prompts, answers = tokens()
    wanted = [pytest.approx(float(score), abs=0.05) for score in reward_model.score(prompts, answers)]
    query = {"query": [PROMPT + answer for answer in ANSWERS], "prompts": [PROMPT] * 3, "labels": [None] * 3}
    with urllib.request.urlopen(urllib.request.Request(served, json.dumps(query).encode())) as said:  # as OpenRLHF asks
        assert json.load(said)["rewards"] == wanted
    ids = [list(answer) for answer in answers]
    assert reward_service.score([PROMPT] * 3, list(ANSWERS), completion_ids=ids, trainer_state=None) == wanted  # as TRL asks
    assert reward_service.score([PROMPT] * 3, list(ANSWERS)) == [pytest.approx(score, abs=0.05) for score in ended_scores(reward_model)]
    asked = {"messages": json.dumps([{"role": "user", "content": PROMPT}])}
    found = [reward_service.compute_score("tamer", answer, "", asked) for answer in ANSWERS]  # as verl asks
    assert found == [pytest.approx(score, abs=0.05) for score in ended_scores(reward_model)]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(served, b"{}"))
