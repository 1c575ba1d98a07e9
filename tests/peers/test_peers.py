"""PPO, ABC's credit and Owen values beside the code bases that they come from (`make test-peers`).

The peers' numbers come from numbers_of_trl.py, in the environment of requirements.txt; the shap package is in ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from scar.credit.methods import AttentionMethod, SparseMethod
from scar.credit.plans import owen_plan
from scar.credit.rewards import shape_rewards
from scar.models.policy import CausalPolicy
from scar.models.reading import as_sampled
from scar.models.reward import SequenceRewardModel
from scar.ppo.advantages import estimate_advantages, masked_mean
from scar.ppo.losses import policy_losses, value_losses
from scar.ppo.updater import KLController
from scar.types import Advantages, Rollout, Scores
from tests.builders import ppo_config, random_hierarchy, rollout_of, updater_for

pytestmark = pytest.mark.peers
Numbers = dict[str, Any]
Equal = Callable[..., None]
NONE = np.random.default_rng(0)


def language_model(numbers: Numbers, weights: dict[str, Tensor]) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel(GPT2Config(**numbers["model"]))
    model.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("v_head.")})
    return model


def policy_of(numbers: Numbers, weights: dict[str, Tensor]) -> CausalPolicy:
    """The policy of TRL's weights, at temperature 1 and with EOS allowed everywhere; a value head where they have one."""
    head = None
    if "v_head.summary.weight" in weights:
        head = torch.nn.Linear(numbers["model"]["n_embd"], 1)
        head.load_state_dict({key: weights[f"v_head.summary.{key}"] for key in ("weight", "bias")})
    ids = {"eos_id": numbers["model"]["eos_token_id"], "pad_id": numbers["model"]["pad_token_id"]}
    return CausalPolicy(language_model(numbers, weights), temperature=1.0, min_new_tokens=0, value_head=head, **ids)


def texts_of(case: Numbers) -> Rollout:
    contents, prompts = ([row.tolist() for row in case[key]] for key in ("responses", "queries"))
    return rollout_of(contents, [False] * len(contents), prompts=prompts)


def scores_of(rollout: Rollout, raw: Tensor) -> Scores:
    return Scores(raw, raw, torch.zeros(len(raw), dtype=torch.bool), as_sampled(rollout, reads_eos=False))


def evaluated(policy: CausalPolicy, reference: CausalPolicy, rollout: Rollout) -> Rollout:
    texts = rollout.prompts, rollout.response_ids, rollout.response_mask
    with torch.no_grad():
        own, frozen = policy.evaluate(*texts), reference.evaluate(*texts)
    return dataclasses.replace(rollout, logprobs=own.logprobs, ref_logprobs=frozen.logprobs, values=own.values)


def test_whole_ppo_updates_are_those_of_trl(
    numbers: Numbers, equal: Equal, rows: Callable[[Tensor, Numbers], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two updates of 8 optimizer steps on ragged texts: all that is computed on the way, and the weights after each.

    One thing differs on purpose: TRL whitens by the unbiased variance of n tokens (docs/decisions.md#advantages), so our
    advantages are larger by sqrt(n / (n - 1)). The weights are compared on TRL's.
    """
    theirs = numbers["ppo"]
    config = ppo_config(
        batch_size=theirs["batch_size"],
        minibatch_size=theirs["mini_batch_size"],
        ppo_epochs=theirs["ppo_epochs"],
        learning_rate=theirs["learning_rate"],
        adam_eps=theirs["adam_eps"],
        value_loss_coef=theirs["vf_coef"],
        max_mean_ratio=10.0,
    )
    found = numbers["ppo_updates"]
    policy, reference = policy_of(numbers, found["start"]), policy_of(numbers, found["reference"])
    updater = updater_for(policy, config)
    control = KLController(kind="adaptive", coef=theirs["init_kl_coef"], target=6.0, horizon=10_000.0)
    for update in found["updates"]:
        rollout = evaluated(policy, reference, texts_of(update))
        mask = rollout.response_mask
        for key in ("logprobs", "ref_logprobs", "values"):
            equal(f"PPO: {key}", getattr(rollout, key), rows(update[key], update) * mask, within=5e-6)
        scores = scores_of(rollout, update["scores"])
        credit = SparseMethod().assign(rollout, scores, generator=NONE)
        equal("PPO: KL coefficient", control.coef, update["kl_coef"][0], within=1e-7)
        rewards = shape_rewards(rollout, scores, credit, kl_coef=control.coef, alpha=1.0).total
        equal("PPO: rewards", rewards, rows(update["rewards"], update) * mask, within=5e-6)
        advantages = estimate_advantages(rewards, rollout.values, mask, gamma=1.0, gae_lambda=0.95)
        equal("PPO: returns", advantages.returns, rows(update["returns"], update) * mask, within=5e-6)
        count = int(mask.sum())
        unbiased = advantages.advantages * math.sqrt((count - 1) / count)
        equal("PPO: whitened advantages", unbiased, rows(update["advantages"], update) * mask, within=5e-6)
        orders = iter(update["orders"])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randperm", lambda size, generator, orders=orders: torch.tensor(next(orders)))
            statistics = updater.update(rollout, Advantages(unbiased, advantages.returns), generator=torch.Generator())
        assert next(orders, None) is None
        for key, value in update["statistics"].items():
            # Ours clips old + (new - old), which rounds: a value within the range may count as clipped.
            equal(f"PPO: mean {key}", statistics[key], value, within=0.05 if key == "vf_clipfrac" else 5e-6)
        for name, parameter in policy.named_parameters():
            key = name.removeprefix("model.").replace("value_head.", "v_head.summary.")
            equal("PPO: weights after the update", parameter.detach(), update["weights"][key], within=1e-6)
        kl = float(((rollout.logprobs - rollout.ref_logprobs) * mask).sum(1).mean())
        equal("PPO: KL of a sequence", kl, update["sequence_kl"], within=5e-6)
        control.update(kl, episodes=config.batch_size)
        equal("PPO: KL coefficient", control.coef, update["kl_coef"][1], within=1e-7)
    moved = (found["updates"][-1]["weights"]["v_head.summary.weight"] - found["start"]["v_head.summary.weight"]).abs()
    assert float(moved.max()) > 1e-3  # 1,000 times what is allowed


def test_clipped_losses_and_their_gradients_are_those_of_trl(numbers: Numbers, equal: Equal) -> None:
    case, coefficient = numbers["ppo_updates"]["losses"], numbers["ppo"]["vf_coef"]
    new, old, advantages, values, old_values, returns = case["inputs"]
    new.requires_grad_()
    values.requires_grad_()
    policy, policy_clipped = policy_losses(new, old, advantages, clip_range=0.2)
    value, value_clipped = value_losses(values, old_values, returns, clip_range=0.2)
    means = [masked_mean(losses, case["mask"]) for losses in (policy, value)]
    clipped = [masked_mean(found.float(), case["mask"]) for found in (policy_clipped, value_clipped)]
    assert min(clipped) > 0
    equal("clipped losses: share", torch.stack(clipped), torch.stack(case["clipped"]), within=1e-6)
    equal("clipped losses: policy", means[0].detach(), case["policy"], within=1e-6)
    equal("clipped losses: value", coefficient * means[1].detach(), case["value"], within=1e-6)
    (means[0] + coefficient * means[1]).backward()
    for tensor, gradient in zip((new, values), case["gradients"], strict=True):
        equal("clipped losses: gradients", tensor.grad, gradient, within=1e-6)


def test_the_adaptive_kl_coefficient_is_that_of_trl(numbers: Numbers, equal: Equal) -> None:
    control = KLController(kind="adaptive", coef=0.2, target=6.0, horizon=10_000.0)
    for kl, episodes, coefficient in numbers["controller"]:
        control.update(kl, episodes=episodes)
        equal("adaptive KL coefficient", control.coef, coefficient, within=1e-12)


def test_abc_is_its_formula_on_the_attention_of_transformers_4_36(numbers: Numbers, equal: Equal) -> None:
    """Responses without EOS: on EOS we differ on purpose (docs/decisions.md#attention-credit)."""
    case = numbers["abc"]
    model = GPT2ForSequenceClassification(GPT2Config(**numbers["model"], num_labels=2))
    model.load_state_dict(case["weights"])
    reward_model = SequenceRewardModel(model, space_id=2)
    rollout = texts_of(case)
    inputs = as_sampled(rollout, reads_eos=False)
    raw = reward_model.score(inputs.sequence_ids(), inputs.sequence_mask())
    equal("ABC: scores", raw, case["scores"], within=1e-5)  # differences of logits that are larger
    scores = scores_of(rollout, case["scores"])
    credit = AttentionMethod(reward_model=reward_model).assign(rollout, scores, generator=NONE)
    rewards = shape_rewards(rollout, scores, credit, kl_coef=0.0, alpha=case["alpha"]).total
    for row, expected in enumerate(case["rewards"]):
        equal("ABC: rewards", rewards[row, : len(expected)], expected, within=1e-6)


def test_owen_values_are_those_of_the_shap_package(equal: Equal) -> None:
    """Games with interactions of every order, on random trees of 2 to 10 units."""
    from scar.credit.shap_oracle import partition_values

    for count in range(2, 11):
        rng = np.random.default_rng(count)
        hierarchy, table = random_hierarchy(count, rng), rng.normal(size=2**count)

        def values(coalitions: np.ndarray, table: np.ndarray = table) -> np.ndarray:
            return table[coalitions @ (1 << np.arange(coalitions.shape[1]))]

        theirs = partition_values(values, hierarchy, max_evals=2_000, batch_size=100)
        plan = owen_plan(hierarchy)
        equal("Owen values", plan.weights @ values(plan.coalitions), theirs, within=1e-9)
