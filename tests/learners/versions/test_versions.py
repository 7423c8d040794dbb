"""A version's files: PEFT alone loads them, and nothing else in them is trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learners.model.forward import forward
from learners.model.lora import LoraSettings, load_lora, lora_state
from learners.protocol import BLOB_CHUNK, Blob
from learners.versions.blobs import Assembler, BlobError, digest, read_directory, split, write_directory
from learners.versions.files import Manifest, States, VersionError, pack, peft_config, unpack
from tests.learners.models import DEVICE, STORIES, needs_stories, prompt, stirred, stories, tensor

MANIFEST = Manifest("b" * 64, "v1", "ppo", 7, (1, 4, 9), h_epoch=3, absorbed_beta=1.5, rank=16, alpha=32.0)


def files_of(reference: bool = True) -> dict[str, bytes]:
    """A version of stories260k with an adapter that does something."""
    backbone = stories()
    tree = stirred(backbone)
    states = States(
        adapter=lora_state(tree),
        human_reward={"weights": torch.randn(3, 64), "tokens": tensor([1, 5, 9])},
        reward_model={"head": torch.randn(64)},
        value_head={},
        reference=lora_state(stirred(backbone, seed=5)) if reference else None,
    )
    return pack(states, MANIFEST, peft_config(LoraSettings(), tree, backbone.name))


# --- the directory -------------------------------------------------------------------------------------------------------


@needs_stories
def test_peft_alone_loads_a_version_and_computes_the_same(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    directory = write_directory(files_of(), tmp_path)
    ids = tensor([prompt(stories())])
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(STORIES).to(DEVICE), directory)
        assert torch.equal(loaded(ids).logits, forward(stirred(stories()), ids).logits)


@needs_stories
@pytest.mark.parametrize("reference", [True, False])
def test_a_version_unpacks_to_what_was_packed(reference: bool) -> None:
    states, manifest = unpack(files_of(reference))
    assert manifest == MANIFEST
    expected = {name: weight.cpu() for name, weight in lora_state(stirred(stories())).items()}
    assert states.adapter.keys() == expected.keys() and all(torch.equal(states.adapter[n], t) for n, t in expected.items())
    assert states.human_reward["tokens"].tolist() == [1, 5, 9] and not states.value_head
    assert (states.reference is not None) == reference
    tree = stories().adapter_tree()
    load_lora(tree, states.adapter)
    assert all(torch.equal(t.cpu(), expected[name]) for name, t in lora_state(tree).items())


@needs_stories
def test_the_same_version_has_the_same_hash_and_another_has_another() -> None:
    torch.manual_seed(0)
    first = files_of()
    torch.manual_seed(0)
    assert digest(files_of()) == digest(first)
    assert digest({**first, "manifest.json": b"{}"}) != digest(first)
    renamed = {("other.json" if name == "manifest.json" else name): content for name, content in first.items()}
    assert digest(renamed) != digest(first)


@needs_stories
@pytest.mark.parametrize("name", ["manifest.json", "adapter_model.safetensors", "human_reward.safetensors"])
def test_a_version_with_a_file_missing_or_damaged_is_refused(name: str) -> None:
    files = files_of()
    for content in (b"", files[name][:20], b"\xff" * 100):
        with pytest.raises(VersionError):
            unpack({**files, name: content})
    del files[name]
    with pytest.raises(VersionError, match=name):
        unpack(files)


@needs_stories
def test_a_version_of_a_newer_program_is_refused() -> None:
    newer = msgspec.json.encode(msgspec.structs.replace(MANIFEST, format=MANIFEST.format + 1))
    with pytest.raises(VersionError, match="newer"):
        unpack({**files_of(), "manifest.json": newer})


@needs_stories
def test_the_configuration_beside_the_adapter_names_no_path_and_no_code() -> None:
    config = json.loads(files_of()["adapter_config.json"])
    assert (config["peft_type"], config["task_type"], config["r"], config["lora_alpha"]) == ("LORA", "CAUSAL_LM", 16, 32.0)
    assert config["inference_mode"] and not config.get("auto_mapping")
    assert set(config["target_modules"]) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


# --- over the wire -------------------------------------------------------------------------------------------------------


contents = st.dictionaries(st.from_regex(r"[a-z_]{1,8}\.(json|safetensors)", fullmatch=True), st.binary(max_size=64), min_size=1, max_size=5)


@given(contents)
def test_pieces_come_together_to_the_files_they_were_cut_from(files: dict[str, bytes]) -> None:
    assembler = Assembler()
    for blob in split(files):
        assembler.add(blob)
    assert assembler.take(digest(files)) == files
    assert assembler.take(digest(files)) is None


def test_large_files_cross_in_pieces_that_fit_a_line() -> None:
    files = {"adapter_model.safetensors": os.urandom(2 * BLOB_CHUNK + 5), "manifest.json": b""}
    blobs = list(split(files))
    assert [(b.name, b.index, b.count) for b in blobs] == [*(("adapter_model.safetensors", i, 3) for i in range(3)), ("manifest.json", 0, 1)]
    assert all(len(b.data) <= BLOB_CHUNK for b in blobs)
    assembler = Assembler()
    for blob in (*blobs[:2], *blobs):  # cut off after two pieces, then sent anew
        assembler.add(blob)
    assert assembler.take(blobs[0].sha256) == files


@pytest.mark.parametrize(
    "name",
    ["../manifest.json", "/etc/passwd", "a/b.json", "..", "", ".hidden.json", "a\0.json", "a.py", "a\\b.json", "x" * 200 + ".json", "é.json"],
)
def test_a_file_with_a_name_that_no_version_has_is_refused(name: str) -> None:
    with pytest.raises(BlobError):
        Assembler().add(Blob(sha256="a" * 64, name=name, index=0, count=1, data=b""))


@pytest.mark.parametrize("sha256", ["", "../..", "A" * 64, "a" * 63])
def test_a_version_with_a_name_that_is_no_hash_is_refused(sha256: str) -> None:
    with pytest.raises(BlobError):
        Assembler().add(Blob(sha256=sha256, name="manifest.json", index=0, count=1, data=b""))


def test_bytes_that_changed_on_the_way_are_refused() -> None:
    files = {"manifest.json": b"{}", "adapter_model.safetensors": b"12345"}
    assembler = Assembler()
    for blob in split(files):
        assembler.add(msgspec.structs.replace(blob, data=blob.data.replace(b"3", b"4")))
    with pytest.raises(BlobError, match="hash"):
        assembler.take(digest(files))


def test_pieces_out_of_order_too_many_or_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a" * 64
    for index, count in ((1, 2), (-1, 2), (0, 0)):
        with pytest.raises(BlobError):
            Assembler().add(Blob(sha256=name, name="manifest.json", index=index, count=count, data=b""))
    assembler = Assembler()
    with pytest.raises(BlobError):
        for i in range(100):
            assembler.add(Blob(sha256=name, name=f"file{i}.json", index=0, count=1, data=b""))
    monkeypatch.setattr("learners.versions.blobs.MOST_BYTES", 10)
    assembler = Assembler()
    for _ in range(5):
        assembler.add(Blob(sha256=name, name="manifest.json", index=0, count=2, data=b"12345678"))  # the same again and again
    with pytest.raises(BlobError):
        assembler.add(Blob(sha256=name, name="manifest.json", index=1, count=2, data=b"123"))


# --- on disk -------------------------------------------------------------------------------------------------------------


FILES = {"manifest.json": b"{}", "adapter_model.safetensors": b"weights"}


def test_a_version_on_disk_reads_back_under_its_hash_and_only_its_owner_may(tmp_path: Path) -> None:
    directory = write_directory(FILES, tmp_path / "new" / "versions")
    assert directory.name == digest(FILES)
    assert read_directory(directory) == FILES
    assert directory.stat().st_mode & 0o077 == 0
    assert write_directory(FILES, tmp_path / "new" / "versions") == directory
    assert [p.name for p in directory.parent.iterdir()] == [directory.name]


def test_a_version_that_rots_on_disk_is_noticed_and_can_be_written_again(tmp_path: Path) -> None:
    directory = write_directory(FILES, tmp_path)
    (directory / "manifest.json").write_bytes(b"{ }")
    with pytest.raises(BlobError, match="damaged"):
        read_directory(directory)
    assert read_directory(write_directory(FILES, tmp_path)) == FILES


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("learners.versions.blobs.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_directory(FILES, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_versions_files_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(BlobError):
        write_directory({"../escaped.json": b""}, tmp_path / "versions")
    assert not (tmp_path / "escaped.json").exists()


def test_the_terminal_can_handle_versions_without_torch() -> None:
    code = "import learners.versions.blobs, sys; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
