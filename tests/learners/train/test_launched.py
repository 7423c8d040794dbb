"""What launchers say to a process, and the configurations that come with the program, as Accelerate itself reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

from learners.model.checkpoint import ModelError
from learners.rlhf import ranks
from learners.train import launched

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "accelerate"
SIZES = {"1x8": (1, 8), "2x8": (2, 16), "fsdp2-1x8": (1, 8), "fsdp2-2x8": (2, 16), "qlora-fsdp2-1x8": (1, 8), "zero3-1x8": (1, 8)}


def environment(file: Path, *options: str) -> dict[str, str]:
    """Of the processes that `accelerate launch` would start."""
    args = launch_command_parser().parse_args(["--config_file", str(file), *options, "script"])
    args, _, _ = _validate_launch_command(args)
    return prepare_multi_gpu_env(args)


def test_alone_a_process_joins_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    launched.join()
    assert ranks.world() == 1


@pytest.mark.parametrize("name", SIZES)
def test_a_configuration_is_what_accelerate_reads(name: str) -> None:
    config = load_config_from_file(str(EXAMPLES / f"{name}.yaml"))
    assert (config.num_machines, config.num_processes) == SIZES[name]
    assert bool(config.fsdp_config) == ("fsdp2" in name)
    assert bool(config.deepspeed_config) == ("zero3" in name)


def test_all_configurations_are_tried() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.yaml")} == SIZES.keys()


@pytest.mark.parametrize(
    ("name", "options", "policy"),
    [
        ("fsdp2-1x8", (), OffloadPolicy),
        ("fsdp2-2x8", (), OffloadPolicy),
        ("qlora-fsdp2-1x8", (), OffloadPolicy),
        ("fsdp2-1x8", ("--fsdp_offload_params", "true"), CPUOffloadPolicy),
        ("fsdp2-1x8", ("--fsdp_cpu_ram_efficient_loading", "true"), OffloadPolicy),
    ],
)
def test_accelerates_settings_of_fsdp2_reach_the_shards(name: str, options: tuple[str, ...], policy: type, monkeypatch: pytest.MonkeyPatch) -> None:
    said = environment(EXAMPLES / f"{name}.yaml", *options)
    assert said[launched.FSDP] == "true"
    for variable in said.keys() - os.environ.keys():
        monkeypatch.setenv(variable, said[variable])
    sharding = launched._fsdp2()
    assert type(sharding.offload) is policy
    assert sharding.copies == SIZES[name][0]
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false", "else transformers would not load all of the model everywhere"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("fsdp2-1x8", ("--fsdp_version", "1", "--fsdp_reshard_after_forward", "FULL_SHARD"), "FSDP 1 cannot"),
        ("fsdp2-1x8", ("--fsdp_reshard_after_forward", "false"), "is whole everywhere"),
        ("fsdp2-2x8", ("--parallelism_config_tp_size", "2"), "tp_size"),
        ("fsdp2-1x8", ("--fsdp_auto_wrap_policy", "perhaps"), "Accelerate's FSDP settings"),
    ],
)
def test_settings_that_would_do_something_else_are_refused(name: str, options: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = environment(EXAMPLES / f"{name}.yaml", *options)
    for variable in said.keys() - os.environ.keys():
        monkeypatch.setenv(variable, said[variable])
    with pytest.raises(ModelError, match=words):
        launched._fsdp2()


def test_zero_3_is_read_by_accelerates_plugin_and_what_would_do_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(**settings: str) -> dict[str, object] | None:
        config = load_config_from_file(str(EXAMPLES / "zero3-1x8.yaml")).deepspeed_config | settings
        for name in ("zero_stage", "offload_param_device", "zero3_init_flag"):
            monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{name.removesuffix('_flag').upper()}", str(config[name]))
        return launched._zero3().zero3

    assert said() == {"stage": 3, "stage3_gather_16bit_weights_on_model_save": False}
    assert said(offload_param_device="cpu") == {**(said() or {}), "offload_param": {"device": "cpu"}}
    for settings, words in (({"zero_stage": "2"}, "third stage"), ({"offload_param_device": "nvme"}, "NVMe")):
        with pytest.raises(ModelError, match=words):
            said(**settings)


def test_what_cannot_shard_a_base_that_trees_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launched.MEGATRON, "true")
    with pytest.raises(ModelError, match="Megatron-LM"):
        launched.join()
    monkeypatch.delenv(launched.MEGATRON)
    monkeypatch.setenv(launched.DEEPSPEED, "true")
    monkeypatch.setattr(launched, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="not installed"):
        launched.join()
