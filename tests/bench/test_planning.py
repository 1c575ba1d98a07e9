"""The planner's benchmark compares the stages that it names; nothing here looks at how long anything took."""

from __future__ import annotations

import pytest
import torch

from experiments.benchmarks.planning import Processor, compare, measure
from experiments.benchmarks.update import as_dicts, markdown
from scar.planning.models import reward_shape
from scar.planning.tracing import Cost
from tests.planning.tiny import GPT2, models


@pytest.mark.slow
def test_a_row_for_each_stage_with_true_ratios() -> None:
    rows = compare("tiny", reward_shape(models(GPT2 | {"n_positions": 256}, GPT2 | {"n_positions": 256})))
    assert [row.stage for row in rows] == ["generate", "logprobs", "score", "credit", "update"]
    for row in rows:
        assert row.model == "tiny"
        assert row.time_ratio == row.predicted_seconds / row.measured_seconds > 0
        assert row.memory_ratio == row.predicted_mib / row.measured_mib
        assert 0.9 < row.memory_ratio < 1.1  # traced memory is no estimate
    assert len(as_dicts(rows)) == markdown(rows).count("\n") - 2


def test_the_most_that_was_allocated() -> None:
    held = []

    def work() -> None:
        a = torch.ones(2**18)  # 1 MiB
        b = a + 1
        del a
        held.append(b + 1)

    _, mib = measure(work)
    assert mib == pytest.approx(2, abs=0.01)


def test_a_processor_starts_operations_one_after_the_other() -> None:
    processor = Processor("", 0, 0, 10, memory_rate=5, host_rate=1, start_seconds=2, cache_rate=4)
    assert processor.seconds(Cost(wide_flops=100, product_bytes=10, other_bytes=8, operations=3)) == 10 + 2 + 6
    assert processor.seconds(Cost(wide_flops=1, product_bytes=10)) == 2
