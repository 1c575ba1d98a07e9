"""From prompts to responses with old and reference log-probabilities and values, and their scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scar.config import GenerationConfig, ScoringConfig
from scar.interfaces import Policy, RewardModel
from scar.models.reading import RewardReader
from scar.types import PromptBatch, Rollout, Scores


class Sampler:
    """Draws responses from `policy` and says what `policy` and `reference` think of them, `rows_a_pass` at a time (None:
    all at once)."""

    def __init__(
        self,
        policy: Policy,
        reference: Policy,
        *,
        tokenizer: Any,
        generation: GenerationConfig,
        rows_a_pass: int | None = None,
    ) -> None:
        self._policy = policy
        self._reference = reference
        self._tokenizer = tokenizer
        self._generation = generation
        self._rows_a_pass = rows_a_pass

    @torch.no_grad()
    def sample(self, prompts: PromptBatch, *, generator: torch.Generator) -> Rollout:
        """One response per prompt. Old log-probabilities come from one fresh forward pass over the whole response, the
        same computation as in the update, so that the first PPO ratio is 1 (docs/decisions.md#temperature)."""
        response_ids, response_mask, finished = self._generate(prompts, generator)
        logprobs, values = self._evaluate(self._policy, prompts, response_ids, response_mask)
        ref_logprobs, _ = self._evaluate(self._reference, prompts, response_ids, response_mask)
        texts = self._texts(response_ids, response_mask)
        return Rollout(prompts, response_ids, response_mask, logprobs, ref_logprobs, values, finished, texts)

    @torch.no_grad()
    def respond(self, prompts: PromptBatch, *, generator: torch.Generator, temperature: float) -> Rollout:
        """One response per prompt at another `temperature` than the policy's own, to be judged and not learned from:
        log-probabilities and values are 0 (docs/decisions.md#evaluation)."""
        response_ids, response_mask, finished = self._generate(prompts, generator, temperature)
        zeros = torch.zeros(response_ids.shape, device=response_ids.device)
        texts = self._texts(response_ids, response_mask)
        return Rollout(prompts, response_ids, response_mask, zeros, zeros, zeros, finished, texts)

    def _texts(self, ids: Tensor, mask: Tensor) -> list[str]:
        """The responses without EOS and padding, decoded."""
        return [
            self._tokenizer.decode(
                [token for token, real in zip(row, real_row, strict=True) if real and token != self._policy.eos_id]
            )
            for row, real_row in zip(ids.tolist(), mask.tolist(), strict=True)
        ]

    def _evaluate(self, policy: Policy, prompts: PromptBatch, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and values f32[B,T]."""
        indices = torch.arange(len(ids), device=ids.device).split(self._rows_a_pass or len(ids))
        outputs = [policy.evaluate(prompts.select(index), ids[index], mask[index]) for index in indices]
        return torch.cat([out.logprobs for out in outputs]), torch.cat([out.values for out in outputs])

    def _generate(
        self, prompts: PromptBatch, generator: torch.Generator, temperature: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Response ids i64[B,T], mask b[B,T] (EOS included) and finished b[B]."""
        generation, device = self._generation, prompts.prompt_ids.device
        limits = self._length_limits(len(prompts.texts), generator)
        running = torch.ones(len(limits), dtype=torch.bool, device=device)
        finished = torch.zeros_like(running)
        tokens, masks = [], []
        noise = torch.empty(len(limits), self._policy.vocabulary, device=device)
        with self._policy.decoder(prompts, temperature=temperature) as decoder:
            for step in range(generation.max_new_tokens):
                drawn = decoder.draw(noise.exponential_(generator=generator))
                token = torch.where(running, drawn, torch.full_like(drawn, self._policy.pad_id))
                tokens.append(token)
                masks.append(running)
                finished = finished | (running & (token == self._policy.eos_id))
                running = running & ~finished & (step + 1 < limits)
                if not bool(running.any()) or step + 1 == generation.max_new_tokens:
                    break
                decoder.append(token)
        return torch.stack(tokens, 1), torch.stack(masks, 1), finished

    def _length_limits(self, batch: int, generator: torch.Generator) -> Tensor:
        """i64[B]: the largest length of each response (docs/decisions.md#response-length)."""
        low, high = self._generation.min_new_tokens, self._generation.max_new_tokens
        if not self._generation.sample_length:
            low = high
        return torch.randint(low, high + 1, (batch,), generator=generator, device=generator.device)


# Scores of responses: what the reward model says, and the one rule that a task may put in its place.


class ResponseScoring:
    """Scores rollouts: raw r_phi(x, y), and the task's rule for responses without EOS (docs/decisions.md#missing-eos)."""

    def __init__(self, reward_model: RewardModel, reader: RewardReader, config: ScoringConfig) -> None:
        self._reward_model = reward_model
        self._reader = reader
        self._missing_eos_score = config.missing_eos_score

    def score(self, rollout: Rollout) -> Scores:
        """Raw and final scores f32[B] of a rollout."""
        inputs = self._reader.read(rollout)
        raw = self._reward_model.score(inputs.sequence_ids(), inputs.sequence_mask()).float()
        if self._missing_eos_score is None:
            return Scores(raw=raw, final=raw, replaced=torch.zeros_like(rollout.finished), inputs=inputs)
        replaced = ~rollout.finished
        return Scores(raw, raw.masked_fill(replaced, self._missing_eos_score), replaced, inputs)
