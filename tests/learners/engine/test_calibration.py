"""What is fixed once per base: the same bits from the cache as from drawing, whatever lies there, and never more memory than it may take."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from learners.engine import calibration
from learners.engine.calibration import BaseCalibration, stride_of
from learners.human_reward.features import Features
from learners.human_reward.kl_budget import STATE_BYTES
from learners.model.forward import forward
from tests.learners.models import needs_stories, stories, tensor

pytestmark = needs_stories


def file_in(cache: Path) -> Path:
    (file,) = (cache / "calibration").iterdir()
    return file


def tensors_of(found: BaseCalibration) -> list[torch.Tensor]:
    seen = [tensor for answer in found.answers for tensor in (*answer.seen, answer.base_logprobs, answer.policy_logprobs)]
    return [found.features.mean, found.features.basis, found.similarity, *seen]


def same(one: BaseCalibration, other: BaseCalibration) -> bool:
    places = [(a.sequence, a.positions, a.spent) for a in one.answers] == [(a.sequence, a.positions, a.spent) for a in other.answers]
    return places and all(torch.equal(a, b) for a, b in zip(tensors_of(one), tensors_of(other), strict=True))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseCalibration, Path]:
    cache = tmp_path_factory.mktemp("cache")
    return BaseCalibration.of(stories(), cache), cache


def test_from_the_cache_it_is_the_same_and_nothing_is_drawn(drawn: tuple[BaseCalibration, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    found, cache = drawn
    monkeypatch.setattr(calibration, "draw_answers", lambda *a, **k: pytest.fail("it was drawn again"))
    assert same(BaseCalibration.of(stories(), cache), found)


def test_its_distributions_are_the_base_s_own_in_the_states_that_it_names(drawn: tuple[BaseCalibration, Path]) -> None:
    answer = drawn[0].answers[5]
    output = forward(stories().model, tensor([answer.sequence]))
    torch.testing.assert_close(answer.base_logprobs, output.logits[0, list(answer.positions)].log_softmax(-1), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(answer.seen.hidden, output.hidden[0, list(answer.positions)], atol=1e-3, rtol=1e-3)


def test_features_are_fitted_on_every_state_however_few_distributions_are_kept(
    drawn: tuple[BaseCalibration, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[torch.Tensor] = []
    monkeypatch.setattr(Features, "fit", staticmethod(lambda hidden: fitted.append(hidden) or drawn[0].features))
    monkeypatch.setattr(calibration, "STATE_BYTES", 8 * 512 * 32)  # room for one state of each answer
    few = BaseCalibration.of(stories(), tmp_path)
    assert sum(len(answer.positions) for answer in few.answers) == 32
    assert len(fitted[0]) > 1000 and len(fitted[0]) == sum(len(answer.positions) for answer in drawn[0].answers)


@pytest.mark.parametrize("vocabulary", [512, 49_152, 151_936, 262_144])
def test_all_distributions_together_keep_to_their_bytes(vocabulary: int) -> None:
    stride = stride_of(32, 48, vocabulary)
    kept = 32 * len(range(0, 48, stride))
    assert kept >= 32 and kept * 2 * 4 * vocabulary <= STATE_BYTES
    assert stride == 1 or 32 * len(range(0, 48, stride - 1)) * 8 * vocabulary > STATE_BYTES * 0.6, "and use them"


def damaged(data: bytes) -> list[bytes]:
    flipped = bytearray(data)
    flipped[-5] ^= 1
    return [b"", data[:1000], data[:-8], bytes(flipped), b"not at all", (1 << 62).to_bytes(8, "little") + b"{}"]


def test_a_damaged_file_is_made_anew(drawn: tuple[BaseCalibration, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    found, cache = drawn
    file = file_in(cache)
    whole = file.read_bytes()
    monkeypatch.setattr(calibration, "_drawn", lambda backbone, report: found)
    for data in damaged(whole):
        file.write_bytes(data)
        assert same(BaseCalibration.of(stories(), cache), found)
        assert file.read_bytes() == whole


def test_another_base_s_file_under_this_name_is_made_anew(drawn: tuple[BaseCalibration, Path], tmp_path: Path) -> None:
    _, cache = drawn
    other = dataclasses.replace(stories(), hashes=stories().hashes._replace(base="0" * 64))
    foreign = tmp_path / "calibration" / f"{calibration._key(other)}.safetensors"
    foreign.parent.mkdir()
    foreign.write_bytes(file_in(cache).read_bytes())
    assert calibration._load(foreign, other) is None
    assert calibration._load(file_in(cache), stories()) is not None


def test_quantization_and_dtype_and_device_have_files_of_their_own() -> None:
    base = stories()
    others = [
        dataclasses.replace(base, quantize="nf4"),
        dataclasses.replace(base, dtype=torch.float64),
        dataclasses.replace(base, device=torch.device("meta")),
        dataclasses.replace(base, hashes=base.hashes._replace(base="0" * 64)),
    ]
    assert len({calibration._key(each) for each in (base, *others)}) == 5


def test_a_cache_that_cannot_be_written_is_no_error(drawn: tuple[BaseCalibration, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_drawn", lambda backbone, report: drawn[0])
    blocked = tmp_path / "file"
    blocked.write_text("where the folder should be")
    assert BaseCalibration.of(stories(), blocked) is drawn[0]
    assert blocked.read_text() == "where the folder should be"


def test_the_cache_keeps_the_newest_files_and_forgets_the_oldest(
    drawn: tuple[BaseCalibration, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_drawn", lambda backbone, report: drawn[0])
    folder = tmp_path / "calibration"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.safetensors").write_bytes(b"old")
        os.utime(folder / f"{i}.safetensors", (i, i))
    BaseCalibration.of(stories(), tmp_path)
    left = {file.name for file in folder.iterdir()}
    assert left == {f"{i}.safetensors" for i in range(5, 12)} | {f"{calibration._key(stories())}.safetensors"}
