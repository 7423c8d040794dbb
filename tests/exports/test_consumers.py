"""Exports in the hands of those who read them: `datasets` loads every one, and each of TRL's trainers takes a step on a real model.

    make test-exports

Skipped where `datasets` and `trl` are not installed (the extra `exports`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from storage.exchange.exporting import Options, export
from storage.exchange.formats import FORMATS
from storage.exchange.importing import import_file
from storage.exchange.items import Steps
from storage.journal import Journal
from storage.records import BaseModel, Critique, Message, Prompt, Ranking, Response, SampleSet, Sitting

datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")
SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="no shared data beside the checkout")
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every format, of real rankings, and of labels and answers from a file."""
    folder = tmp_path_factory.mktemp("exports")
    rows: list[dict[str, Any]] = [{"prompt": f"Question {i}?", "completion": f"Answer {i}.", "label": i % 2 == 0} for i in range(12)]
    rows += [{"prompt": f"Question {i}?", "completion": f"Ideal {i}."} for i in range(12)]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Journal.open(folder / "tamer.db") as journal:
        import_file(journal, SHARED / "oasst_en_100_trees.jsonl", "oasst", "0")
        import_file(journal, folder / "more.jsonl", "trl-kto", "0")
        followed_critique(journal)
    steps = [Steps((Message("user", "Why?"),), ("Because. ", "So."), (True, False))]
    for format in FORMATS:
        export(folder / "tamer.db", folder / format, Options(format), steps)
    return folder


def followed_critique(journal: Journal) -> None:
    """An answer is criticised, and one that was drawn afterwards is put first."""
    base = BaseModel("b" * 64, "stories", "none")
    journal.bind(base, Sitting("here", base.base_hash, "0", "{}"))
    for uid, judgement in (("c0", Critique("c0", "c0/1", "shorter")), ("c1", Ranking("c1", {"c1/0": 1, "c1/1": 2}))):
        journal.write(SampleSet(uid, "here", Prompt.of("Why is the sky blue?"), 2)).result()
        for slot in (0, 1):
            answer = Response.written_elsewhere(f"{uid}/{slot}", uid, slot, f"It is {uid} {slot}.", "shown")
            journal.write(replace(answer, policy="acting", version="base")).result()
        journal.append(judgement).result()


def loaded(path: Path) -> Any:
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / f".cache-{path.name}"))


@pytest.mark.parametrize("format", [name for name, each in FORMATS.items() if not each.folder])
def test_datasets_loads_what_was_written(exports: Path, format: str) -> None:
    rows = [json.loads(line) for line in (exports / format).read_text().splitlines()]
    found = loaded(exports / format)
    assert len(found) == len(rows) > 0
    assert set(found.column_names) == set(rows[0])
    if format != "openai-dpo":  # its empty list of tools has no type
        assert found[0] == rows[0] and found[-1] == rows[-1]


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder in ("llamafactory", "axolotl") for name in ("kto.jsonl", "sft.jsonl")])
def test_datasets_loads_the_files_of_folders(exports: Path, folder: str, name: str) -> None:
    found = loaded(exports / folder / name)
    assert len(found) == len((exports / folder / name).read_text().splitlines()) > 0


@pytest.mark.parametrize("config", ["preference", "kto", "sft"])
def test_a_parquet_folder_is_a_dataset_with_configs(exports: Path, tmp_path: Path, config: str) -> None:
    found = datasets.load_dataset(str(exports / "parquet"), config, split="train", cache_dir=str(tmp_path))
    assert list(found) == [json.loads(line) for line in (exports / f"trl-{config}").read_text().splitlines()]


@pytest.mark.parametrize("format", ["trl-preference", "trl-kto", "trl-sft", "openrlhf", "openai-sft"])
def test_trl_takes_it_for_a_conversation(exports: Path, format: str) -> None:
    assert trl.data_utils.is_conversational(loaded(exports / format)[0])


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHARED / "stories260k")
    tokenizer.chat_template = TEMPLATE
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(SHARED / "stories260k"), tokenizer


@pytest.mark.parametrize(("format", "name"), [("trl-preference", "Reward"), ("trl-preference", "DPO"), ("trl-kto", "KTO"), ("trl-sft", "SFT")])
def test_each_trainer_takes_a_step(exports: Path, tmp_path: Path, model: tuple[Any, Any], format: str, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    trainer, config = (getattr(trl, f"{name}{what}") for what in ("Trainer", "Config"))
    kind, more = (AutoModelForSequenceClassification, {"num_labels": 1}) if name == "Reward" else (AutoModelForCausalLM, {})
    net = kind.from_pretrained(SHARED / "stories260k", **more)
    net.config.pad_token_id = model[1].pad_token_id
    rows = loaded(exports / format)
    rows = rows.select(range(min(8, len(rows))))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    arguments = config(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, learning_rate=1e-2, max_length=512, report_to=[], use_cpu=True,
        save_strategy="no", logging_steps=1, bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    done = trainer(model=net, args=arguments, train_dataset=rows, processing_class=model[1]).train()
    assert done.global_step == 1 and done.training_loss == done.training_loss
    assert any((before[key] != value).any() for key, value in net.state_dict().items())
