"""SCAR's credit as planned, beside the real scorer on real numbers."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.benchmarks.planning import measure, real_credit
from scar.credit.estimators import OwenEstimator, PermutationEstimator
from scar.credit.partition import PartitionEstimator
from scar.planning.credit import CreditCost, Players, credit_cost
from scar.planning.models import fake_models, policy_shape, reward_shape
from scar.planning.tracing import fake_tensors
from scar.planning.workloads import SIZES, random_reward_model
from tests.planning.tiny import counted_flops, held, models

SHAPE = {
    "model_type": "gpt_neox",
    "max_position_embeddings": 1024,
    "intermediate_size": 512,
    "pad_token_id": 0,
} | SIZES["smaller"]
MIB = 2**20


def planned(players: Players, *, memory_mib: int = 64, shape: dict[str, Any] = SHAPE, **options: Any) -> CreditCost:
    nodes = models(shape, shape)
    with fake_tensors():
        model = fake_models(policy_shape(nodes), reward_shape(nodes), held()).reward_model
        usual = {"estimator": OwenEstimator(2048), "gpu": True, "fill": "space"} | options
        return credit_cost(model, usual.pop("estimator"), players, memory_bytes=memory_mib * MIB, **usual)


@pytest.mark.slow
def test_coalitions_are_those_of_the_plan() -> None:
    found = planned(Players(batch=3, prompt=40, response=24, units=12))
    assert found.coalitions == 108 - 1  # v(all) is known
    assert planned(Players(3, 40, 24, 2)).coalitions == 3
    few = planned(Players(3, 40, 24, 12), estimator=PermutationEstimator(2))
    assert few.coalitions == 2 * 11 + 1  # two orders, and nothing
    cut = planned(Players(3, 40, 24, 24), estimator=PartitionEstimator(100, 5, "shap"), fill="dots")
    assert cut.coalitions == 100 - 1


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [8, 40], ids=["short", "long"])
def test_flops_are_those_of_the_real_scorer(prompt: int) -> None:
    players = Players(batch=2, prompt=prompt, response=20, units=6)
    found = planned(players, gpu=False, traced=2)
    work = real_credit(random_reward_model("smaller"), players, memory_mib=64)
    assert found.cost.flops == counted_flops(work)


@pytest.mark.slow
def test_a_small_bound_makes_more_passes_over_short_prompts() -> None:
    players = Players(2, 8, 12, 12)
    wide, narrow = planned(players, memory_mib=256), planned(players, memory_mib=8)
    assert narrow.cost.operations > 1.5 * wide.cost.operations
    assert narrow.cost.peak_bytes < 8 * MIB < wide.cost.peak_bytes < 256 * MIB


@pytest.mark.slow
def test_the_peak_is_that_of_pytorchs_profiler_prompts_keys_and_values_included() -> None:
    players = Players(batch=4, prompt=128, response=32, units=12)
    found = planned(players, gpu=False, traced=4)
    _, measured = measure(real_credit(random_reward_model("smaller"), players, memory_mib=64))
    assert found.cost.peak_bytes == pytest.approx(measured * MIB, rel=0.02)


def test_an_impossible_bound_is_the_scorers_own_error() -> None:
    with pytest.raises(ValueError, match=r"raise coalitions\.memory_mib"):
        planned(Players(2, 500, 20, 6), memory_mib=1)


def test_architectures_without_a_fused_scorer_are_refused() -> None:
    shape = {"model_type": "opt", "vocab_size": 100, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "word_embed_proj_dim": 32}
    with pytest.raises(ValueError, match="coalitions of a opt model cannot be planned; allowed: gpt2, gpt_neox, llama"):
        planned(Players(2, 40, 20, 6), shape=shape)
