"""Training Pocket on a small scale: it goes on where it stopped, however it stopped, and says what it needs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from learners.model.checkpoint import ModelError
from learners.model.loading import load_backbone
from learners.pocket.card import Training, read_card, write_card
from learners.pocket.corpus import chats, corpus_hash
from learners.pocket.labels import label
from learners.pocket.measuring import Drawn, figures
from learners.pocket.model import SHARPNESS, Shape, write_weights
from learners.pocket.run import PocketRun, Recipe, open_run, rate_share
from learners.pocket.saving import TrainingError
from learners.pocket.train import main, train

SMALL = Recipe(seed=3, batch_tokens=1024, rate=1e-2, tokens=24_000, shape=Shape(32, 64, 1, 2), vocabulary=400)
CPU = torch.device("cpu")
FEW_CHATS = 400
"""That the tokenizer learns from here; as many as it really takes are ten times the time of everything else."""


@pytest.fixture(scope="module", autouse=True)
def few_chats() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("learners.pocket.run.TOKENIZER_CHATS", FEW_CHATS)
        yield


def finished(work: Path, recipe: Recipe = SMALL, stop_after: int = 0) -> PocketRun:
    """A run to its end; with `stop_after` first one that is stopped after so many steps, and then another that goes on."""
    if stop_after:
        run = open_run(recipe, work, CPU)
        assert not train(run, work, lambda line: None, lambda: run.steps >= stop_after)
    run = open_run(recipe, work, CPU)
    assert run.steps == stop_after
    assert train(run, work, lambda line: None)
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PocketRun:
    return finished(tmp_path_factory.mktemp("whole"))


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(whole: PocketRun, tmp_path: Path) -> None:
    resumed = finished(tmp_path, stop_after=3)
    assert (resumed.steps, resumed.tokens) == (whole.steps, whole.tokens)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


def test_a_run_that_was_killed_between_two_saves_goes_on_from_the_last(whole: PocketRun, tmp_path: Path) -> None:
    run = open_run(SMALL, tmp_path, CPU)
    run.step()
    run.save(tmp_path)
    run.step()  # never saved
    (tmp_path / "run.pt.new").write_bytes(b"half a file")
    resumed = open_run(SMALL, tmp_path, CPU)
    assert resumed.steps == 1
    assert train(resumed, tmp_path, lambda line: None)
    assert all(torch.equal(weights, resumed.model.state_dict()[name]) for name, weights in whole.model.state_dict().items())


def test_it_learns(whole: PocketRun, tmp_path: Path) -> None:
    fresh = open_run(SMALL, tmp_path, CPU)
    first = fresh.step()
    assert first > 5.5  # nats: nearly as little as nothing is known of 400 pieces
    assert whole.step() < first - 0.5


@pytest.mark.parametrize(("changed", "what"), [({"seed": 4}, "seed"), ({"rate": 1e-3}, "rate"), ({"shape": Shape(64, 64, 1, 2)}, "shape")])
def test_another_run_in_the_same_folder_is_refused(tmp_path: Path, changed: dict[str, object], what: str) -> None:
    run = open_run(SMALL, tmp_path, CPU)
    run.save(tmp_path)
    with pytest.raises(TrainingError, match=f"has another {what}: delete it, or pass another --work"):
        open_run(Recipe(**(vars(SMALL) | changed)), tmp_path, CPU)  # type: ignore[arg-type]


def test_another_corpus_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_run(SMALL, tmp_path, CPU).save(tmp_path)
    monkeypatch.setattr("learners.pocket.run.corpus_hash", lambda: "another")
    with pytest.raises(TrainingError, match="has another corpus"):
        open_run(SMALL, tmp_path, CPU)


def test_more_tokens_stretch_a_run(tmp_path: Path) -> None:
    run = open_run(SMALL, tmp_path, CPU)
    run.step()
    run.save(tmp_path)
    stretched = open_run(Recipe(**(vars(SMALL) | {"tokens": 2 * SMALL.tokens})), tmp_path, CPU)  # type: ignore[arg-type]
    assert stretched.steps == 1 and stretched.progress == pytest.approx(run.progress / 2)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_run(SMALL, tmp_path, CPU).save(tmp_path)
    (tmp_path / "run.pt").write_bytes(b"damaged")
    assert main(["--work", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be read: delete" in said and not (tmp_path / "out").exists()


def test_the_rate_rises_stays_and_descends() -> None:
    shares = [rate_share(progress) for progress in (0.0, 0.01, 0.02, 0.3, 0.6, 0.8, 1.0)]
    assert shares == pytest.approx([0.01, 0.5, 1.0, 1.0, 1.0, 0.5, 0.01])


def test_a_whole_model_directory_is_written_and_loads(whole: PocketRun, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    write_weights(whole.model, whole.tokenizer, out)
    backbone = load_backbone(str(out), "none", "cpu")
    assert backbone.chat_template and backbone.eos_ids
    stored = safetensors.torch.load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    ids = torch.tensor([[5, 6, 7]])
    ours, theirs = (model(input_ids=ids).logits.float().detach() for model in (backbone.model, whole.model))
    assert torch.allclose(ours, SHARPNESS * theirs, atol=0.05, rtol=0.05)
    write_weights(whole.model, whole.tokenizer, out)  # what was there is replaced
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights"]


@pytest.mark.parametrize("text", ["plain words", "naïve café", "你好，世界", "🦊 \u200d\x00\x1b[31m", "", "x" * 3000])
def test_any_text_survives_the_tokenizer(whole: PocketRun, text: str) -> None:
    assert whole.tokenizer.decode(whole.tokenizer(text, add_special_tokens=False).input_ids) == text


def test_figures_of_the_corpus_itself_are_what_its_parameters_say() -> None:
    """The measuring, by answers whose faults are known: those that the corpus draws."""
    exchanges = [chat.exchanges[0] for _, chat in zip(range(400), chats(7), strict=False)]
    sets = [Drawn(one.prompt, (one.answer.text,), (True,)) for one in exchanges]
    found = figures(sets, 1.5)
    known = [label(one.prompt, one.answer.text) for one in exchanges]
    stated = [one.truthful for one in known if one.truthful is not None]
    assert found.answers == 400 and found.perplexity == 1.5
    assert found.untrue == pytest.approx(stated.count(False) / len(stated), abs=1e-4) and 0.25 < found.untrue < 0.55
    assert 0.15 < found.harmful < 0.45 and found.well_formed > 0.97


def test_help_explains_itself_and_a_stop_by_signal_can_go_on(tmp_path: Path) -> None:
    told = subprocess.run([sys.executable, "-m", "learners.pocket.train", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(word in told for word in ("--tokens", "--minutes", "--work", "--seed", "goes on from there"))
    program = f"import sys; from learners.pocket import run, train; run.TOKENIZER_CHATS = {FEW_CHATS}; sys.exit(train.main())"
    command = [sys.executable, "-c", program, "--batch-tokens", "1024", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert "parameters; a new run" in run.stdout.readline()
        time.sleep(0.5)
        run.terminate()
        rest = run.stdout.read()
    assert run.returncode == 130 and "the same command goes on from there" in rest
    assert (tmp_path / "work" / "run.pt").exists() and not (tmp_path / "out").exists()


def test_a_card_is_read_as_it_was_written_and_a_missing_one_is_told(tmp_path: Path) -> None:
    sets = [Drawn("What is two plus two?", ("Four.", "*bold* <b>"), (True, True))]
    training, found = Training(corpus_hash(), 3, 24_000, 9, 12345), figures(sets, 2.0)
    write_card(tmp_path, training, found, sets)
    assert read_card(tmp_path) == (training, found)
    with pytest.raises(ModelError, match="no model card"):
        read_card(tmp_path / "nowhere")
