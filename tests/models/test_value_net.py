"""The reward model's offset in every way of scoring, and its copy that becomes a value function of its own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scar.coalitions.backends import make_scorer
from scar.models.loading import load_reward_sequence_model
from scar.models.policy import CausalPolicy
from scar.models.reward import SCORE_OFFSET, SequenceRewardModel
from scar.types import Advantages, Rollout
from tests.builders import ppo_config, updater_for
from tests.coalitions.tiny_scorers import SCORERS, check_scores, classifier, mixed_batch
from tests.models.tiny import (
    ARCHITECTURES,
    EOS,
    PAD,
    PROMPTS,
    RESPONSES,
    language_model,
    left_padded,
    right_padded,
    sequence_model,
    tiny_policy,
)

OFFSET = 3.25
ROWS = [prompt + response for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
CLOSE = {"rtol": 0.0, "atol": 2e-5}


def reward_of(model: Any, *, offset: float | None = None) -> SequenceRewardModel:
    model = copy.deepcopy(model)
    if offset is not None:
        setattr(model.config, SCORE_OFFSET, offset)
    return SequenceRewardModel(model, space_id=2)


def with_value_net(reward: SequenceRewardModel, architecture: str = "gpt2") -> CausalPolicy:
    trunk, head = reward.as_value_net()
    return CausalPolicy(
        language_model(architecture, seed=7),
        temperature=0.7,
        min_new_tokens=0,
        eos_id=EOS,
        pad_id=PAD,
        value_head=head,
        value_trunk=trunk,
    )


def weights_of(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


# The offset.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("labels", [1, 2])
def test_offset_is_taken_off_scores_and_prefix_scores_but_not_off_attention(architecture: str, labels: int) -> None:
    model = sequence_model(architecture, labels=labels)
    plain, lowered = reward_of(model), reward_of(model, offset=OFFSET)
    ids, mask = right_padded(ROWS, extra=2)
    torch.testing.assert_close(lowered.score(ids, mask), plain.score(ids, mask) - OFFSET, **CLOSE)
    expected = plain.score_prefixes(ids, mask) - OFFSET
    torch.testing.assert_close(lowered.score_prefixes(ids, mask)[mask], expected[mask], **CLOSE)
    assert torch.equal(lowered.last_layer_attention(ids, mask), plain.last_layer_attention(ids, mask))


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("backend", SCORERS)
def test_offset_is_taken_off_coalition_scores_by_every_backend(backend: str, labels: int) -> None:
    model = classifier("gpt2", labels=labels)
    plain = SCORERS["plain"](reward_of(model)).score(mixed_batch())
    lowered = SCORERS[backend](reward_of(model, offset=OFFSET)).score(mixed_batch())
    check_scores(lowered, [scores - OFFSET for scores in plain], tolerance=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_offset_reaches_the_scorer_that_a_run_uses(dtype: str) -> None:
    model = classifier("gpt_neox")
    settings: dict[str, Any] = {"backend": "auto", "dtype": dtype, "memory_mib": 64}
    scorer, report = make_scorer(reward_model=reward_of(model, offset=OFFSET), device=torch.device("cpu"), **settings)
    assert report.backend == "fused"
    plain = SCORERS["plain"](reward_of(model)).score(mixed_batch())
    differences = [a - b for a, b in zip(plain, scorer.score(mixed_batch()), strict=True)]
    joined = np.concatenate(differences)
    np.testing.assert_allclose(joined, OFFSET, atol=1e-4 if dtype == "float32" else 0.5)
    assert joined.mean() == pytest.approx(OFFSET, abs=0.1)


def test_offset_is_stored_with_the_model(tmp_path: Path) -> None:
    model = sequence_model("gpt_neox")
    expected = reward_of(model).score(*right_padded(ROWS)) - OFFSET
    saved = reward_of(model, offset=OFFSET)
    saved.model.save_pretrained(tmp_path)
    loaded = load_reward_sequence_model(tmp_path, device=torch.device("cpu"))
    again = SequenceRewardModel(loaded, space_id=2)
    assert again.offset == OFFSET
    torch.testing.assert_close(again.score(*right_padded(ROWS)), expected, **CLOSE)


# The value function.


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_values_start_as_the_scores_of_the_text_so_far(architecture: str, labels: int, padding: int) -> None:
    reward = reward_of(sequence_model(architecture, labels=labels), offset=OFFSET)
    policy = with_value_net(reward, architecture)
    # One token more than the response, so that the last value is that of the whole of it.
    ids, mask = right_padded([[*response, 9] for response in RESPONSES], extra=padding)
    values = policy.evaluate(left_padded(PROMPTS, extra=padding), ids, mask).values
    assert values.dtype == torch.float32
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        for step in range(len(response) + 1):
            text = torch.tensor([prompt + response[:step]])
            score = reward.score(text, torch.ones_like(text, dtype=torch.bool))
            torch.testing.assert_close(values[row, step : step + 1], score, **CLOSE)
        assert (values[row, len(response) + 1 :] == 0).all()


@torch.no_grad()
def test_value_trunk_changes_neither_log_probabilities_nor_entropy() -> None:
    policy = with_value_net(reward_of(sequence_model()))
    alone = CausalPolicy(policy.model, temperature=0.7, min_new_tokens=0, eos_id=EOS, pad_id=PAD)
    ids, mask = right_padded(RESPONSES)
    both = [one.evaluate(left_padded(PROMPTS), ids, mask) for one in (policy, alone)]
    assert torch.equal(both[0].logprobs, both[1].logprobs)
    assert torch.equal(both[0].entropy, both[1].entropy)
    assert both[0].values.abs().max() > 0.1
    assert (both[1].values == 0).all()


@pytest.mark.parametrize("labels", [1, 2])
def test_value_net_of_half_precision_weights_starts_as_their_scores(labels: int) -> None:
    reward = reward_of(sequence_model(labels=labels).to(torch.bfloat16), offset=OFFSET)
    trunk, head = reward.as_value_net()
    weight = reward.model.score.weight.float()
    assert torch.equal(head.weight, weight if labels == 1 else (weight[1] - weight[0])[None])
    assert head.weight.dtype == head.bias.dtype == torch.float32
    ids, mask = right_padded(ROWS)
    with torch.no_grad():
        hidden = trunk(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        values = head(hidden.float()).squeeze(-1)
    expected = reward.score_prefixes(ids, mask)
    torch.testing.assert_close(values[mask], expected[mask], rtol=0, atol=0.05)


# PPO.


def rollout_by(policy: CausalPolicy) -> Rollout:
    ids, mask = right_padded(RESPONSES)
    prompts = left_padded(PROMPTS)
    with torch.no_grad():
        out = policy.evaluate(prompts, ids, mask)
    finished = torch.tensor([row[-1] == EOS for row in RESPONSES])
    return Rollout(prompts, ids, mask, out.logprobs, out.logprobs, out.values, finished, ["", "", ""])


def update(policy: CausalPolicy, *, advantage: float, value_loss_coef: float) -> None:
    """One PPO update with this advantage everywhere, returns one above the values, and plain SGD-like Adam."""
    rollout = rollout_by(policy)
    mask = rollout.response_mask
    advantages = Advantages(advantage * mask.float(), (rollout.values + 1) * mask)
    config = ppo_config(
        batch_size=3, minibatch_size=3, microbatch_size=3, learning_rate=1e-3, value_loss_coef=value_loss_coef
    )
    updater_for(policy, config).update(rollout, advantages, generator=torch.Generator().manual_seed(0))


def parts_of(policy: CausalPolicy) -> dict[str, Tensor]:
    parts = {"policy": policy.model, "trunk": policy.value_trunk, "head": policy.value_head}
    return {name: weights_of(part) for name, part in parts.items() if part is not None}


@pytest.mark.parametrize(
    ("advantage", "value_loss_coef", "changed"),
    [(0.0, 0.5, {"trunk", "head"}), (1.0, 0.0, {"policy"}), (1.0, 0.5, {"policy", "trunk", "head"})],
)
def test_each_loss_trains_its_own_network(advantage: float, value_loss_coef: float, changed: set[str]) -> None:
    reward = reward_of(sequence_model())
    policy = with_value_net(reward)
    before, reward_before = parts_of(policy), weights_of(reward.model)
    update(policy, advantage=advantage, value_loss_coef=value_loss_coef)
    after = parts_of(policy)
    assert {name for name in before if not torch.equal(before[name], after[name])} == changed
    assert torch.equal(weights_of(reward.model), reward_before)


def test_on_a_shared_trunk_the_value_loss_alone_moves_the_policy() -> None:
    policy = tiny_policy(min_new_tokens=0)
    before = parts_of(policy)
    update(policy, advantage=0.0, value_loss_coef=0.5)
    after = parts_of(policy)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"policy", "head"}
