"""`tamer export --format trl-recipe|openrlhf-recipe|verl-recipe`: a folder that a cluster trains from, with nothing of this program on it.

    policy/           the version with its adapter merged: where training begins, and what it is held to
    reward/           the reward model, as a sequence-classification model of transformers
    reward.py         a service that gives its scores, and what trainers call to ask it
    data/prompts.jsonl, preference.jsonl
    run.sh            the command; for TRL also config.yaml
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from storage.exchange.exporting import Options, prompts
from storage.records import Prompt
from tamer_tui.exchange import export_to
from tamer_tui.session_store import SessionError

RECIPES = {
    "trl-recipe": "a folder for TRL: GRPO with vLLM in the trainers",
    "openrlhf-recipe": "a folder for OpenRLHF: PPO with Ray and vLLM",
    "verl-recipe": "a folder for verl: PPO with Ray, FSDP and vLLM",
}
FEWEST_PROMPTS, MOST_IN_A_BATCH = 8, 256
SAMPLES = 8
"""Answers to each prompt."""
KL_COEFFICIENT = 0.05
"""Of the KL by token beside scores with a standard deviation of 1."""
PROMPT_TOKENS = 1024
RATE = 1e-6
"""Of whole weights; the usual one for policies of some billions of parameters."""


class Task(NamedTuple):
    """What a recipe is made of."""

    prompts: Sequence[Prompt]
    batch: int  # prompts of one round
    answer_tokens: int
    temperature: float
    chat: bool  # whether the model has a chat template


def write_recipe(format: str, made: Path, database: Path, drawing: dict[str, Any]) -> tuple[str, ...]:
    """Beside policy, reward and reward.py, which are there: everything else. Raises SessionError, JournalError."""
    asked = prompts(database, Options("parquet"))
    if len(asked) < FEWEST_PROMPTS:
        raise SessionError(f"{database} has {len(asked)} judged prompts: too few to train on", f"a recipe takes {FEWEST_PROMPTS} at least")
    chat = has_template(made / "policy")
    if format == "verl-recipe" and not chat:
        raise SessionError("verl takes models with a chat template alone", "use --format openrlhf-recipe or trl-recipe")
    batch = 1 << (min(len(asked), MOST_IN_A_BATCH).bit_length() - 1)
    task = Task(asked, batch, int(drawing.get("max_new_tokens") or 256), float(drawing.get("temperature") or 1.0), chat)
    (made / "data").mkdir()
    with (made / "data" / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for i, prompt in enumerate(asked):
            file.write(json.dumps(_row(format, prompt, chat, i), ensure_ascii=False) + "\n")
    told = export_to(database, made / "preference.jsonl", Options("trl-preference"), False)
    engine = {"trl-recipe": trl, "openrlhf-recipe": openrlhf, "verl-recipe": verl}[format]
    for name, text in engine(task).items():
        (made / name).write_text(text, encoding="utf-8")
    (made / "run.sh").chmod(0o755)
    return (f"{len(asked):,} prompts; {told.partition(': ')[2]}", "run.sh in it starts the training, where the engine is installed")


def about(format: str) -> str:
    """For the folder's README."""
    return _ABOUT.format(what=RECIPES[format])


def has_template(model: Path) -> bool:
    """Whether the model knows how conversations are written."""
    if (model / "chat_template.jinja").is_file():
        return True
    settings = model / "tokenizer_config.json"
    return settings.is_file() and bool(json.loads(settings.read_text(encoding="utf-8")).get("chat_template"))


def _row(format: str, prompt: Prompt, chat: bool, place: int) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    asked: Any = messages if chat else "\n".join(message.content for message in prompt.messages)
    if format != "verl-recipe":
        return {"prompt": asked}
    judge = {"style": "model", "ground_truth": ""}
    return {
        "data_source": "tamer", "prompt": asked, "ability": "chat", "reward_model": judge,
        "extra_info": {"messages": json.dumps(messages, ensure_ascii=False), "index": place},
    }  # fmt: skip


# --- engines ---------------------------------------------------------------------------------------------------------------


def trl(task: Task) -> dict[str, str]:
    """Checked against TRL 1.16: `trl grpo`."""
    settings = {
        "model_name_or_path": "./policy", "dataset_name": "./data", "reward_funcs": ["reward.score"], "output_dir": "./trained",
        "dtype": "bfloat16", "bf16": True, "gradient_checkpointing": True, "learning_rate": RATE, "beta": KL_COEFFICIENT,
        "temperature": task.temperature, "num_generations": SAMPLES, "max_completion_length": task.answer_tokens,
        "per_device_train_batch_size": SAMPLES, "gradient_accumulation_steps": max(1, task.batch // 8), "max_steps": 200,
        "use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3, "logging_steps": 1, "save_steps": 50, "report_to": "none",
    }  # fmt: skip
    lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items())
    command = 'trl grpo --config config.yaml --accelerate_config zero3 --num_processes "$GPUS" "$@"'
    return {"config.yaml": lines, "run.sh": _script(command)}


def openrlhf(task: Task) -> dict[str, str]:
    """Checked against OpenRLHF 0.11: `train_ppo_ray`. The critic begins as the reward model."""
    roles = [f'--{role}.num_nodes "$NODES" --{role}.num_gpus_per_node "$GPUS"' for role in ("actor", "ref", "critic")]
    chat = ["--data.apply_chat_template"] if task.chat else []
    command = _joined(
        "python3 -m openrlhf.cli.train_ppo_ray", *roles, "--train.colocate_all",
        '--vllm.num_engines "$((NODES * GPUS / TP))" --vllm.tensor_parallel_size "$TP" --vllm.gpu_memory_utilization 0.4',
        "--vllm.enable_sleep --ds.enable_sleep", '--actor.model_name_or_path "$HERE/policy" --critic.model_name_or_path "$HERE/reward"',
        '--reward.remote_url "$REWARD_URL"', '--data.prompt_dataset "$HERE/data/prompts.jsonl" --data.input_key prompt', *chat,
        f"--data.max_len {PROMPT_TOKENS + task.answer_tokens} --rollout.max_new_tokens {task.answer_tokens}",
        f"--rollout.temperature {task.temperature:g} --rollout.batch_size {task.batch} --rollout.n_samples_per_prompt {SAMPLES}",
        f"--train.batch_size {task.batch} --train.micro_batch_size 1 --rollout.micro_batch_size 1 --train.num_episodes 4",
        f"--algo.advantage.estimator gae --algo.kl.init_coef {KL_COEFFICIENT} --actor.adam.lr {RATE:g} --critic.adam.lr 9e-6",
        "--ds.zero_stage 3 --ds.param_dtype bf16 --actor.gradient_checkpointing_enable",
        '--ckpt.output_dir "$HERE/trained" --ckpt.path "$HERE/checkpoints" --ckpt.save_hf', '"$@"',
    )  # fmt: skip
    return {"run.sh": _script(command)}


def verl(task: Task) -> dict[str, str]:
    """Checked against verl 0.9: `main_ppo`. The critic begins as the reward model."""
    command = _joined(
        "python3 -m verl.trainer.main_ppo", "algorithm.adv_estimator=gae algorithm.use_kl_in_reward=True",
        f"algorithm.kl_ctrl.kl_coef={KL_COEFFICIENT}", 'data.train_files="$HERE/data/prompts.jsonl" data.val_files="$HERE/data/prompts.jsonl"',
        f"data.train_batch_size={task.batch} data.max_prompt_length={PROMPT_TOKENS} data.max_response_length={task.answer_tokens}",
        "data.filter_overlong_prompts=True", 'reward.custom_reward_function.path="$HERE/reward.py" reward.custom_reward_function.name=compute_score',
        f'actor_rollout_ref.model.path="$HERE/policy" actor_rollout_ref.actor.optim.lr={RATE:g}',
        f"actor_rollout_ref.actor.ppo_mini_batch_size={task.batch} actor_rollout_ref.actor.use_dynamic_bsz=True",
        "actor_rollout_ref.model.enable_gradient_checkpointing=True actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True",
        f"actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n={SAMPLES} actor_rollout_ref.rollout.temperature={task.temperature:g}",
        'actor_rollout_ref.rollout.tensor_model_parallel_size="$TP" actor_rollout_ref.rollout.gpu_memory_utilization=0.4',
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True",
        'critic.model.path="$HERE/reward" critic.optim.lr=9e-6 critic.use_dynamic_bsz=True',
        'trainer.n_gpus_per_node="$GPUS" trainer.nnodes="$NODES" trainer.total_epochs=4 trainer.save_freq=50 trainer.test_freq=-1',
        "trainer.val_before_train=False trainer.project_name=tamer trainer.experiment_name=ppo trainer.logger='[\"console\"]'",
        'trainer.default_local_dir="$HERE/trained"', '"$@"',
    )  # fmt: skip
    return {"run.sh": _script(command)}


def _joined(*parts: str) -> str:
    return " \\\n  ".join(parts)


def _script(command: str) -> str:
    return _SCRIPT.replace("COMMAND", command)


_SCRIPT = """#!/usr/bin/env bash
# GPUS on each of NODES machines, TP of them together for one vLLM engine; arguments are handed on to the trainer.
# Without REWARD_URL the reward service runs here, on GPU REWARD_GPU; with it, it is taken to run there already.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
cd "$HERE"
NODES=${NODES:-1} GPUS=${GPUS:-8} TP=${TP:-1}
if [ -z "${REWARD_URL:-}" ]; then
  export REWARD_URL=http://127.0.0.1:${REWARD_PORT:-5001}
  CUDA_VISIBLE_DEVICES=${REWARD_GPU:-0} python3 reward.py --port "${REWARD_PORT:-5001}" > reward.log 2>&1 &
  SERVICE=$!
  trap 'kill $SERVICE 2>/dev/null' EXIT
  until grep -q "^rewards at" reward.log; do
    kill -0 $SERVICE || { cat reward.log; exit 1; }
    sleep 1
  done
fi
COMMAND
"""
_ABOUT = """
## To train on

This is {what}. `./run.sh` starts it on 8 GPUs of one machine; `NODES`, `GPUS` and `TP` (GPUs for one vLLM engine) say otherwise, and what
stands behind `run.sh` goes to the trainer. On several machines the folder is in the same place on each.

- `policy/`: where training begins, and what the KL penalty holds it to
- `reward/`: the reward model that learned from the operator, a sequence-classification model with one label. **An answer's score is the mean,
  over its tokens, of the value after each**, plus `reward_offset` of its config; the value after the last token alone, which trainers take by
  themselves, is not it.
- `reward.py`: gives that score. `run.sh` starts it as a service on GPU `REWARD_GPU` (0). Where a GPU has no room for it, or there are several
  machines, start `python3 reward.py --host 0.0.0.0` elsewhere in a private network, and set `REWARD_URL`.
- `data/prompts.jsonl`: the prompts that were judged; `preference.jsonl`: the comparisons, for a reward model of another base

Rates and the KL coefficient are usual ones and were not tuned for this model.
"""
