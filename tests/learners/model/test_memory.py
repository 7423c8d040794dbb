"""The memory budget: its estimate against what autograd really keeps, and how answers are put into forwards."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from learners.model import memory
from learners.model.memory import ALLOWANCE, MemoryBudget, positions_at_once, shares
from learners.model.shared_prompts import states_after
from tests.learners.model.families import random_model, random_tree
from tests.learners.models import needs_gpt2, random_gpt2

LONG, SHORT = tuple(range(2, 62)), (3, 4, 5)


def kept_bytes(tree: nn.Module, prompts: list[tuple[int, ...]], answers: list[tuple[int, ...]], budget: MemoryBudget | None = None) -> int:
    """Of distinct storages that a forward leaves for its backward, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in tree.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        graph = states_after(tree, prompts, answers, budget)
    assert graph.requires_grad
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2", "granite", "cohere"])
def test_the_estimate_is_of_the_size_of_what_is_kept(family: str, dtype: torch.dtype) -> None:
    tree = deepcopy(random_tree(family))
    for name, parameter in tree.named_parameters():
        if ".lora_" not in name:
            parameter.data = parameter.data.to(dtype)
    budget = MemoryBudget.of_tree(tree)
    for prompts in ([LONG] * 4, [LONG, SHORT, LONG, SHORT], [SHORT] * 4):
        answers = [tuple(range(2, 2 + n)) for n in (60, 30, 50, 60)]
        assert 0.6 < budget._bytes(prompts, answers, gradients=True) / kept_bytes(tree, prompts, answers) < 2.5


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_of_an_answer_that_is_too_long_only_the_inputs_of_layers_are_kept(family: str) -> None:
    """The estimate has one layer's own beside them: what stands while it is computed again."""
    tree = random_tree(family)
    prompts, answers = [LONG] * 4, [tuple(range(2, 2 + n)) for n in (60, 30, 50, 60)]
    budget = replace(MemoryBudget.of_tree(tree), allowance=0.0)
    kept = kept_bytes(tree, prompts, answers, budget)
    needed, whole = budget._bytes(prompts, answers, True, room=0.0), budget._bytes(prompts, answers, True)
    assert kept < 0.1 * kept_bytes(tree, prompts, answers)
    assert kept < needed - whole / budget.layers < 0.3 * whole, "keys and values stand beside what autograd keeps"


def test_layers_are_computed_again_when_one_answer_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = budget(1e12)._bytes([LONG], [LONG], True)
    assert not budget(0.99 * alone).recomputes([LONG], [LONG]), "a CPU has memory for one"
    monkeypatch.setattr(memory, "available_memory", lambda: 0.0)
    assert not budget(1.01 * alone).recomputes([LONG] * 8, [LONG] * 8)
    assert budget(0.99 * alone).recomputes([SHORT, LONG], [SHORT, LONG])


@needs_gpt2
def test_a_base_and_an_adapter_on_it_have_one_budget() -> None:
    of_model, of_tree = MemoryBudget.of_tree(random_model("llama")), MemoryBudget.of_tree(random_tree("llama"))
    assert of_model == of_tree
    assert random_gpt2().memory_budget is random_gpt2().memory_budget
    assert random_gpt2().memory_budget.vocabulary == 50257


def budget(allowance: float) -> MemoryBudget:
    return replace(MemoryBudget.of_tree(random_model("llama")), allowance=allowance)


def test_answers_to_one_prompt_stand_beside_each_other_and_none_is_lost() -> None:
    prompts = [LONG, SHORT, LONG, SHORT, LONG]
    answers = [(7,) * n for n in (5, 6, 7, 8, 9)]
    assert budget(1e12).parts(prompts, answers, gradients=True) == [[0, 2, 4, 1, 3]]
    assert budget(1e12).parts(prompts, answers, gradients=True, most=2) == [[0, 2], [4, 1], [3]]


def test_an_answer_larger_than_the_allowance_goes_alone() -> None:
    assert budget(1.0).parts([SHORT] * 3, [LONG] * 3, gradients=True) == [[0], [1], [2]]


def test_long_prompts_and_long_answers_and_gradients_take_room() -> None:
    def most(prompt: tuple[int, ...], answer: tuple[int, ...], gradients: bool) -> int:
        distinct = [(i + 2, *prompt[1:]) for i in range(40)]
        return len(budget(3e6).parts(distinct, [answer] * 40, gradients)[0])

    assert most(SHORT, SHORT, True) > most(LONG, SHORT, True) >= 1, "a prompt's length counts"
    assert most(SHORT, SHORT, True) > most(SHORT, LONG, True)
    assert most(LONG, LONG, False) > most(LONG, LONG, True)


def test_a_shared_prompt_takes_less_than_prompts_of_ones_own() -> None:
    together, apart = [LONG] * 40, [(i + 2, *LONG[1:]) for i in range(40)]
    assert len(budget(3e6).parts(together, [SHORT] * 40, True)[0]) > len(budget(3e6).parts(apart, [SHORT] * 40, True)[0])


def test_after_running_out_of_memory_there_is_half_as_much() -> None:
    ours = budget(ALLOWANCE)
    ours.halve()
    assert ours.allowance == ALLOWANCE / 2


def test_what_was_halved_comes_back_after_steps_that_went_well_and_later_each_time_it_ran_out_again() -> None:
    ours = budget(ALLOWANCE)
    assert not any(ours.went_well() for _ in range(500)) and ours.allowance == ALLOWANCE, "nothing to come back to"
    ours.halve()
    ours.halve()
    found = []
    for _ in range(300):
        found.append(ours.allowance / ALLOWANCE)
        ours.went_well()
    assert found[0] == 0.25 and found[-1] == 1.0 and sorted(found) == found and set(found) == {0.25, 0.5, 1.0}
    steps = found.count(0.25)
    assert found.count(0.5) == steps
    ours.halve()
    assert [ours.went_well() for _ in range(2 * steps)].index(True) == 2 * steps - 1
    assert ours.allowance == ALLOWANCE


def test_a_step_that_runs_out_begins_the_count_anew() -> None:
    ours = budget(ALLOWANCE)
    ours.halve()
    while not ours.went_well():
        before = ours._went_well
    assert before > 0
    ours.halve()
    ours.went_well()
    ours.halve()
    assert ours._went_well == 0 and ours.allowance == ALLOWANCE / 4


def test_fewer_rows_are_drawn_at_a_large_vocabulary_and_with_twins() -> None:
    small, large = (replace(budget(1e9), vocabulary=v) for v in (1000, 500_000))
    assert small.rows_to_draw(60, 60, most=48) == 48
    assert large.rows_to_draw(60, 60, most=1000) // 2 == large.rows_to_draw(60, 60, most=1000, twin=True)
    assert large.rows_to_draw(60, 60, most=48) < 52


@pytest.mark.parametrize("vocabulary", [512, 49_152, 151_936])
def test_a_chunk_of_logits_takes_fifty_megabytes_at_most(vocabulary: int) -> None:
    assert 40e6 < positions_at_once(vocabulary, torch.device("cpu")) * vocabulary * 4 <= 50e6


def test_free_memory_counts_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = replace(budget(1e9), device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400e6, 8e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300e6)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100e6)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
    assert ours._room == 300e6
    monkeypatch.setattr("learners.model.memory.kept_in_graphs", lambda device: 150e6)
    assert ours._room == 225e6, "what is set aside for graphs is of no use here"
    monkeypatch.setattr("learners.model.memory.kept_in_graphs", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3e9, 8e9))
    assert ours._room == 1e9
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80e9, 88e9))
    assert ours._room == (80e9 + 200e6) / 4, "a large card beside a small model"
    ours.halve()
    assert ours._room == (80e9 + 200e6) / 8, "unless something ran out of memory"
    ours = replace(budget(1e9), device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6e9, 8e9))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.3)
    assert ours._room == 0.5 * (6e9 - 0.7 * 8e9 + 200e6), "a process may be held to a share of the card"


def test_on_a_gpu_prompts_are_shared_where_that_saves_more_than_another_forwards_launches() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    few, many = [SHORT] * 4, [tuple(range(700))] * 4
    assert shares(few, cpu) and shares(many, cpu) and shares(many, gpu)
    assert not shares(few, gpu) and not shares([SHORT, LONG], cpu)
