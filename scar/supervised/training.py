"""The two prerequisites of RLHF: a language model of the task's texts (SFT) and a sentiment reward model.

Both are plain minibatch loops over token rows; what is random (order, cuts, masks) comes from a generator passed in.
Cross entropy and accuracy are means over items; perplexity is exp of the mean over predicted tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scar.config import GenerationConfig, require
from scar.interfaces import PromptText
from scar.models.policy import CausalPolicy
from scar.ppo.rollout import Sampler
from scar.seeding import generator as seeded
from scar.tasks.prompts import Cut, PromptBatches, WholePrompt
from scar.types import Rollout

ProgressCallback = Callable[[int, int, dict[str, float]], None]
"""Called after each optimizer step with (steps done, steps in all, named losses)."""


@dataclass(frozen=True)
class TrainingConfig:
    """AdamW with linear warm-up over the share `warmup` of the steps and cosine decay to zero; no clipping where
    `max_grad_norm` is None. `steps` optimizer steps end the training within its `epochs` (None: all of them). A batch is
    computed `microbatch_size` rows at a time (None: at once), in the number type `compute`."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    max_grad_norm: float | None
    epochs: int = 1
    steps: int | None = None
    microbatch_size: int | None = None
    warmup: float = 0.05
    adam_beta2: float = 0.95
    adam_eps: float = 1e-8
    compute: str = "float32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "adam_eps"):
            require(getattr(self, name) > 0, f"training.{name}={getattr(self, name)}", "a number above 0")
        for name in ("steps", "microbatch_size", "max_grad_norm"):
            value = getattr(self, name)
            require(value is None or value > 0, f"training.{name}={value}", "null or a number above 0")
        for name in ("warmup", "adam_beta2"):
            require(
                0 <= getattr(self, name) < 1, f"training.{name}={getattr(self, name)}", "a number from 0 to below 1"
            )
        floats = ("float32", "bfloat16")
        require(self.compute in floats, f"training.compute={self.compute}", " or ".join(floats))

    def total_steps(self, count: int) -> int:
        """Optimizer steps of a training on `count` rows; ValueError when they do not fill a batch."""
        if count < self.batch_size:
            raise ValueError(f"{count} texts do not fill one batch of {self.batch_size}; use a smaller batch_size")
        whole = self.epochs * (count // self.batch_size)
        return whole if self.steps is None else min(self.steps, whole)


@dataclass(frozen=True)
class RewardAugmentation:
    """How reward-model inputs are varied so that short and partly blanked texts are familiar to it.

    Half of the texts are cut to U{min_tokens..max_tokens} tokens; on half of the texts (drawn apart), up to
    `max_masked_fraction` of the tokens, in spans of 1-6, become the space token, as absent units do in the game.
    """

    min_tokens: int
    max_tokens: int
    max_masked_fraction: float

    def __post_init__(self) -> None:
        lengths = f"augmentation.min_tokens={self.min_tokens}, max_tokens={self.max_tokens}"
        require(1 <= self.min_tokens <= self.max_tokens, lengths, "1 <= min_tokens <= max_tokens")
        fraction = self.max_masked_fraction
        require(0 <= fraction <= 1, f"augmentation.max_masked_fraction={fraction}", "a number from 0 to 1")


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token rows of `texts`, without special tokens."""
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


def prompt_rows(prompts: Sequence[PromptText], tokenizer: Any, *, max_tokens: int) -> list[list[int]]:
    """Token rows of whole prompts, cut where they are too long, as the policy reads them."""
    return WholePrompt(max_tokens=max_tokens, overlong="cut").tokens(prompts, tokenizer, torch.Generator())


def reward_prompt_rows(prompts: Sequence[PromptText], tokenizer: Any, *, max_tokens: int) -> list[list[int]]:
    """Token rows of prompts as the reward model reads them: of its own form, if the task has one."""
    own = [prompt.reward for prompt in prompts if prompt.reward is not None]
    if not own:
        return prompt_rows(prompts, tokenizer, max_tokens=max_tokens)
    return [row[:max_tokens] for row in encode(tokenizer, own)]


def dialog_rows(
    prompts: Sequence[PromptText], responses: Sequence[str], tokenizer: Any, lengths: Mapping[str, int]
) -> list[list[int]]:
    """Token rows of prompt, response and EOS, of at most `prompt_tokens` and `response_tokens` of `lengths`; a response that
    is too long is cut and then not closed (N+)."""
    closed = [[*row, tokenizer.eos_token_id][: lengths["response_tokens"]] for row in encode(tokenizer, responses)]
    heads = prompt_rows(prompts, tokenizer, max_tokens=lengths["prompt_tokens"])
    return [prompt + response for prompt, response in zip(heads, closed, strict=True)]


def pad_right(rows: Sequence[Sequence[int]], *, pad_id: int) -> tuple[Tensor, Tensor]:
    """Stack token rows into ids i64[B,L] and mask b[B,L], padding on the right."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([list(row) + [pad_id] * (width - len(row)) for row in rows], dtype=torch.int64)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width) < lengths[:, None]


def _batches(count: int, config: TrainingConfig, generator: torch.Generator) -> Iterator[list[int]]:
    for _ in range(config.epochs):
        order = torch.randperm(count, generator=generator).tolist()
        for start in range(0, count - config.batch_size + 1, config.batch_size):
            yield order[start : start + config.batch_size]


def _backward(loss_of: Callable[[list[int]], Tensor], chosen: list[int], config: TrainingConfig, device: str) -> float:
    """Gradients of the mean loss of the rows `chosen`, which is returned; every microbatch counts by its rows."""
    size, total = config.microbatch_size or len(chosen), 0.0
    for start in range(0, len(chosen), size):
        microbatch = chosen[start : start + size]
        with torch.autocast(device, torch.bfloat16, enabled=config.compute == "bfloat16"):
            loss = loss_of(microbatch)
        (loss * (len(microbatch) / len(chosen))).backward()
        total += loss.item() * len(microbatch) / len(chosen)
    return total


def fit(
    model: nn.Module,
    loss_of: Callable[[list[int]], Tensor],
    count: int,
    *,
    config: TrainingConfig,
    generator: torch.Generator,
    progress: ProgressCallback,
) -> None:
    """The loop that all trainings share; `loss_of` gives the loss of a batch of row numbers."""
    total = config.total_steps(count)
    warmup = max(int(total * config.warmup), 1)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, config.adam_beta2),
        eps=config.adam_eps,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / total))
    )
    model.train()
    device, smoothed = next(model.parameters()).device.type, None
    # Dropout draws from torch's global generator: fix it for this training alone.
    with torch.random.fork_rng():
        torch.manual_seed(generator.initial_seed())
        for done, chosen in zip(range(1, total + 1), _batches(count, config, generator), strict=False):
            loss = _backward(loss_of, chosen, config, device)
            if config.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            smoothed = loss if smoothed is None else 0.98 * smoothed + 0.02 * loss
            progress(done, total, {"loss": smoothed})
    model.eval()


def _next_token_losses(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """f32[tokens]: cross entropy of every real token after the first, in nats."""
    logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1]
    targets = ids[:, 1:].masked_fill(~mask[:, 1:], -100)
    losses = nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return losses[mask[:, 1:].flatten()]


def train_language_model(
    model: Any,
    rows: Sequence[Sequence[int]],
    *,
    config: TrainingConfig,
    pad_id: int,
    generator: torch.Generator,
    progress: ProgressCallback,
) -> None:
    """Train `model` in place on next-token cross entropy of `rows`."""
    device = next(model.parameters()).device

    def loss_of(chosen: list[int]) -> Tensor:
        ids, mask = pad_right([rows[i] for i in chosen], pad_id=pad_id)
        return _next_token_losses(model, ids.to(device), mask.to(device)).mean()

    fit(model, loss_of, len(rows), config=config, generator=generator, progress=progress)


@torch.no_grad()
def perplexity(model: Any, rows: Sequence[Sequence[int]], *, pad_id: int, batch_size: int = 64) -> float:
    """exp of the mean cross entropy over all predicted tokens of `rows`."""
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    for start in range(0, len(rows), batch_size):
        ids, mask = pad_right(rows[start : start + batch_size], pad_id=pad_id)
        losses = _next_token_losses(model, ids.to(device), mask.to(device))
        total += losses.sum().item()
        tokens += losses.numel()
    return math.exp(total / tokens)


def sample_texts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[PromptText],
    *,
    cut: Cut,
    generation: GenerationConfig,
    count: int,
    seed: int,
    device: torch.device,
) -> Rollout:
    """Responses of a language model to `count` of the prompts (stream "sft_samples" of `seed`)."""
    policy = CausalPolicy(
        model,
        temperature=generation.temperature,
        min_new_tokens=generation.min_new_tokens,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
    )
    batches = PromptBatches(prompts, cut=cut, tokenizer=tokenizer, batch_size=count, seed=seed, device=device)
    sampler = Sampler(policy, policy, tokenizer=tokenizer, generation=generation)
    return sampler.sample(batches.batch(0), generator=seeded(seed, "sft_samples", device=device))


def vary(
    row: Sequence[int], augmentation: RewardAugmentation, *, space_id: int, generator: torch.Generator
) -> list[int]:
    """One training input of the reward model: perhaps cut, perhaps partly blanked (see RewardAugmentation)."""
    cut, blank, length, fraction = torch.rand(4, generator=generator).tolist()
    tokens = list(row[: augmentation.max_tokens])
    if cut < 0.5:
        low, high = augmentation.min_tokens, augmentation.max_tokens
        tokens = tokens[: low + int(length * (high - low + 1))]
    if blank < 0.5:
        to_mask = int(fraction * augmentation.max_masked_fraction * len(tokens))
        while to_mask > 0:
            span = min(int(torch.randint(1, 7, (), generator=generator)), to_mask)
            start = int(torch.randint(0, len(tokens) - span + 1, (), generator=generator))
            tokens[start : start + span] = [space_id] * span
            to_mask -= span
    return tokens


def train_reward_model(
    model: Any,
    rows: Sequence[Sequence[int]],
    labels: Sequence[int],
    *,
    config: TrainingConfig,
    augmentation: RewardAugmentation,
    space_id: int,
    pad_id: int,
    generator: torch.Generator,
    progress: ProgressCallback,
) -> None:
    """Train a one-logit classifier in place: binary cross entropy of the logit at the last real token."""
    device = next(model.parameters()).device
    targets = torch.tensor(labels, dtype=torch.float32)

    def loss_of(chosen: list[int]) -> Tensor:
        varied = [vary(rows[i], augmentation, space_id=space_id, generator=generator) for i in chosen]
        logits = _last_logits(model, varied, pad_id=pad_id)
        return nn.functional.binary_cross_entropy_with_logits(logits, targets[chosen].to(device))

    fit(model, loss_of, len(rows), config=config, generator=generator, progress=progress)


def _last_logits(model: Any, rows: Sequence[Sequence[int]], *, pad_id: int) -> Tensor:
    """f32[B]: the scalar head at each row's last real token."""
    device = next(model.parameters()).device
    ids, mask = (x.to(device) for x in pad_right(rows, pad_id=pad_id))
    hidden = model.base_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return model.score(hidden[torch.arange(len(rows), device=device), mask.sum(1) - 1]).squeeze(-1)


@torch.no_grad()
def accuracy(
    model: Any, rows: Sequence[Sequence[int]], labels: Sequence[int], *, pad_id: int, batch_size: int = 256
) -> float:
    """Share of rows whose logit has the sign of its label (1: positive)."""
    correct = 0
    for start in range(0, len(rows), batch_size):
        logits = _last_logits(model, rows[start : start + batch_size], pad_id=pad_id)
        wanted = torch.tensor(labels[start : start + batch_size], device=logits.device) > 0
        correct += int(((logits > 0) == wanted).sum())
    return correct / len(rows)
