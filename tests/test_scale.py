"""The tables of docs/scale.md are what its script prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale

ROOT = Path(__file__).parents[1]


def test_no_figure_of_the_page_is_made_by_hand() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for table in (*scale.gpu_tables(), scale.measured_table()):
        assert table in page, "print them anew: python -m benchmarks.scale"


@pytest.mark.parametrize(("of", "published"), [(scale.EIGHT, 8.03e9), (scale.SEVENTY, 70.55e9), (scale.SMALL, 1.54e9), (scale.SEVEN, 7.62e9)])
def test_shapes_have_the_parameters_that_their_models_have(of: scale.Shape, published: float) -> None:
    assert of.parameters == pytest.approx(published, rel=0.005)


def test_more_gpus_take_less_time_and_never_more_memory() -> None:
    for kind in scale.PASSES:
        costs = [cost for gpus in scale.COUNTS if (cost := scale.iteration(scale.EIGHT, scale.H100, gpus, kind)) is not None]
        times = [cost.draw + cost.score + cost.train for cost in costs]
        assert times == sorted(times, reverse=True) and [c.memory for c in costs] == sorted((c.memory for c in costs), reverse=True)


def test_over_shards_a_token_takes_as_long_as_the_base_takes_to_come() -> None:
    """Seven eighths of 141 GB over 450 GB/s at 70 %, 256 times, and never a shorter time with more machines than that."""
    for gpus in (8, 16, 64):
        cost = scale.iteration(scale.SEVENTY, scale.H100, gpus, "bf16 LoRA")
        assert cost is not None and cost.bound["draw"] == "network"
        assert cost.draw > 256 * 141e9 * 7 / 8 / (0.7 * 450e9)
