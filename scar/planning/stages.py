"""The stages of one update as scar/rollout.py, scar/scoring.py and scar/ppo/updater.py run them, on made-up texts.

The functions under "work" do a stage's work on real tensors as well (experiments/benchmarks/planning.py times them); those
under "cost" trace it on fake ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scar.config import PPOConfig
from scar.models.policy import CachedDecoder, CausalPolicy
from scar.planning.tracing import Cost, real_tensors, trace
from scar.ppo.losses import policy_losses, value_losses
from scar.types import PromptBatch

# work


def made_up_prompts(rows: int, length: int) -> PromptBatch:
    """Prompts without padding. They are real tensors, because prompts check their values."""
    with real_tensors():
        return PromptBatch(*made_up_text(rows, length), [""] * rows)


def made_up_text(rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Ids and mask [R,L]."""
    ids = torch.ones(rows, length, dtype=torch.int64)
    return ids, torch.ones_like(ids, dtype=torch.bool)


def decode_step(decoder: Any, noise: tuple[int, int]) -> None:
    """Draw a token of each response and append it, as Sampler does; `noise`: rows and tokens of the vocabulary."""
    decoder.append(decoder.draw(torch.empty(noise).exponential_()))


def generate(policy: CausalPolicy, prompts: PromptBatch, response: int) -> None:
    """Sample `response` tokens behind each prompt."""
    with policy.decoder(prompts) as decoder:
        for _ in range(response - 1):
            decode_step(decoder, (len(prompts.texts), policy.vocabulary))


def microbatch(policy: CausalPolicy, ppo: PPOConfig, prompts: PromptBatch, response: tuple[Tensor, Tensor]) -> None:
    """Losses and gradients of some episodes."""
    ids, mask = response
    new = policy.evaluate(prompts, ids, mask)
    zeros = torch.zeros(ids.shape)
    losses, _ = policy_losses(new.logprobs, zeros, zeros, clip_range=ppo.clip_range)
    value, _ = value_losses(new.values, zeros, zeros, clip_range=ppo.value_clip_range)
    ((losses * mask).sum() + ppo.value_loss_coef * (value * mask).sum()).backward()


def optimizer_step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Gradient norm and step, as PPOUpdater takes it."""
    nn.utils.clip_grad_norm_(parameters, float("inf"), foreach=True)
    optimizer.step()


# cost


@torch.no_grad()
def generation_cost(policy: CausalPolicy, *, rows: int, prompt: int, response: int) -> Cost:
    """Sampling `response` tokens behind prompts of `prompt`. Every step is linear in what is cached, so the first and the
    last tell all; `kept_bytes` are the keys and values at the end."""
    cost, decoder = trace(lambda: CachedDecoder(policy, made_up_prompts(rows, prompt)))
    if response == 1:
        return cost
    first, _ = trace(lambda: decode_step(decoder, (rows, policy.vocabulary)))
    before, decoder = trace(lambda: CachedDecoder(policy, made_up_prompts(rows, prompt + response - 2)))
    last, _ = trace(lambda: decode_step(decoder, (rows, policy.vocabulary)))
    steps = (first + last).times((response - 1) / 2)
    peak = max(cost.peak_bytes, before.kept_bytes + last.peak_bytes)
    return replace(cost + steps, peak_bytes=peak, kept_bytes=before.kept_bytes)


@torch.no_grad()
def evaluation_cost(policy: CausalPolicy, *, rows: int, rows_a_pass: int, prompt: int, response: int) -> Cost:
    """Log-probabilities and values of `rows` responses, some at a time."""
    prompts, text = made_up_prompts(rows_a_pass, prompt), made_up_text(rows_a_pass, response)
    cost, _ = trace(lambda: policy.evaluate(prompts, *text))
    return cost.times(rows / rows_a_pass)


def reading_cost(read: Callable[[Tensor, Tensor], Tensor], *, rows: int, length: int) -> Cost:
    """Whole texts through one of the reward model's functions."""
    text = made_up_text(rows, length)
    return trace(lambda: read(*text))[0]


def update_costs(policy: CausalPolicy, ppo: PPOConfig, *, prompt: int, response: int) -> tuple[Cost, Cost]:
    """All forward and backward passes of one update, and all its optimizer steps. Gradients that were there before a pass
    are not in its peak (they are where a minibatch is more than one pass)."""
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=ppo.learning_rate, foreach=True)  # what torch chooses on a GPU
    passes = ppo.minibatch_size // ppo.microbatch_size
    steps = ppo.ppo_epochs * ppo.batch_size // ppo.minibatch_size
    if passes > 1:
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
    prompts, text = made_up_prompts(ppo.microbatch_size, prompt), made_up_text(ppo.microbatch_size, response)
    one_pass, _ = trace(lambda: microbatch(policy, ppo, prompts, text))
    optimizer_step(optimizer, trained)  # the first step makes the optimizer's state
    one_step, _ = trace(lambda: optimizer_step(optimizer, trained))
    optimizer.zero_grad(set_to_none=True)
    return one_pass.times(steps * passes), one_step.times(steps)
