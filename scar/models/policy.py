"""The policy: a causal language model seen as the very distribution that it is sampled from.

Temperature and EOS suppression are part of the policy, so sampling, old, new and reference log-probabilities all use
the same distribution (docs/decisions.md#temperature). The value head sits on the policy's trunk, or on a trunk of its own
(docs/decisions.md#value-function).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from scar.interfaces import PolicyOutput
from scar.models.precision import adapters_off, computing_in, has_adapters, prepare_recomputing, recomputing
from scar.types import PromptBatch


def positions(mask: Tensor) -> Tensor:
    """i64[B,L]: 0 on the first real token, one more on each later one; padding gets a harmless 0 or repeat."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


class CausalPolicy(nn.Module):
    """A Hugging Face causal LM with an optional scalar value head and fixed sampling settings.

    Forward passes use `compute`; log-probabilities and values are float32. `recompute`: backward passes compute the
    activations of the layers again instead of keeping them.
    """

    def __init__(
        self,
        model: Any,
        *,
        temperature: float,
        min_new_tokens: int,
        eos_id: int,
        pad_id: int,
        value_head: nn.Module | None = None,
        value_trunk: nn.Module | None = None,
        compute: torch.dtype = torch.float32,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.value_head = value_head
        self.value_trunk = value_trunk
        self.temperature = temperature
        self.min_new_tokens = min_new_tokens
        self.eos_id = eos_id
        self.pad_id = pad_id
        self.compute = compute
        self.adapted = True
        self.recompute = recompute
        self.eval()  # dropout stays off in rollout and update alike (docs/decisions.md#dropout)
        if recompute:
            for trunk in self._trunks():
                prepare_recomputing(trunk)

    def reference(self) -> CausalPolicy:
        """The reference policy: the same weights, no value function. It is a frozen copy, or, of a model with adapters, the
        model itself while they are off (TRL does the same): its weights are frozen anyway."""
        shared = has_adapters(self.model)
        reference = CausalPolicy(
            self.model if shared else copy.deepcopy(self.model),
            temperature=self.temperature,
            min_new_tokens=self.min_new_tokens,
            eos_id=self.eos_id,
            pad_id=self.pad_id,
            compute=self.compute,
        )
        reference.adapted = not shared
        return reference if shared else reference.requires_grad_(False)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are to draw from."""
        return int(self.model.get_output_embeddings().out_features)

    @property
    def shares_weights(self) -> bool:
        """Whether this is a reference policy that is another policy without its adapters."""
        return not self.adapted

    def _trunks(self) -> list[Any]:
        return [trunk for trunk in (self.model.base_model, self.value_trunk) if trunk is not None]

    @contextmanager
    def forward_context(self, *, recompute: bool = False) -> Iterator[None]:
        """Context of the trunks' forward passes: number type, adapters, whether activations are kept."""
        with ExitStack() as stack:
            stack.enter_context(computing_in(self.compute, self.model.device))
            if not self.adapted:
                stack.enter_context(adapters_off(self.model))
            if recompute and torch.is_grad_enabled():
                stack.enter_context(recomputing(*self._trunks()))
            yield

    def sampling_logits(self, logits: Tensor, *, first_step: int, temperature: float | None = None) -> Tensor:
        """Logits of the sampling distribution at response steps first_step.. for raw `logits` [B,S,V], at the policy's own
        temperature (None) or another."""
        logits = logits.float() / (self.temperature if temperature is None else temperature)
        steps = torch.arange(first_step, first_step + logits.shape[1], device=logits.device)
        too_early = (steps < self.min_new_tokens)[None, :, None]
        is_eos = torch.arange(logits.shape[-1], device=logits.device) == self.eos_id
        return logits.masked_fill(too_early & is_eos, -torch.inf)

    def evaluate(self, prompts: PromptBatch, response_ids: Tensor, response_mask: Tensor) -> PolicyOutput:
        """Log-probability and entropy of each response token, and the value of the state before it; zero off the mask.

        Args: `response_ids` i64[B,T], `response_mask` b[B,T]. Without a value head the values are zero.
        """
        return PolicyOutput(*self(prompts.prompt_ids, prompts.prompt_mask, response_ids, response_mask))

    def forward(
        self, prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`evaluate` on plain tensors, as engines call it: log-probabilities, entropies and values."""
        ids = torch.cat([prompt_ids, response_ids], 1)
        mask = torch.cat([prompt_mask, response_mask], 1)
        # The state before response token t ends at position P + t - 1.
        states = slice(prompt_ids.shape[1] - 1, -1)
        with self.forward_context(recompute=self.recompute):
            hidden = _hidden(self.model.base_model, ids, mask)[:, states]
            logits = self.model.get_output_embeddings()(hidden)
            value_hidden = hidden if self.value_trunk is None else _hidden(self.value_trunk, ids, mask)[:, states]
        log_softmax = self.sampling_logits(logits, first_step=0).log_softmax(-1)
        logprobs = log_softmax.gather(-1, response_ids[..., None]).squeeze(-1)
        # A suppressed EOS has probability 0 and log-probability -inf: it adds nothing to the entropy.
        entropy = -(log_softmax.exp() * log_softmax.clamp(min=torch.finfo(torch.float32).min)).sum(-1)
        values = (
            torch.zeros_like(logprobs) if self.value_head is None else self.value_head(value_hidden.float()).squeeze(-1)
        )
        # torch.where, not a product: a padded EOS position has log-probability -inf and -inf * 0 is nan.
        zero = torch.zeros((), device=logprobs.device)
        logprobs, entropy, values = (torch.where(response_mask, tensor, zero) for tensor in (logprobs, entropy, values))
        return logprobs, entropy, values

    @contextmanager
    def decoder(self, prompts: PromptBatch, *, temperature: float | None = None) -> Iterator[CachedDecoder]:
        """Start generating behind `prompts`; `temperature`: None for the policy's own."""
        yield CachedDecoder(self, prompts, temperature)


class CachedDecoder:
    """Token-by-token generation with a key/value cache (our own loop: `generate` draws from torch's global generator)."""

    def __init__(self, policy: CausalPolicy, prompts: PromptBatch, temperature: float | None = None) -> None:
        self._policy = policy
        self._temperature = temperature
        self._mask = prompts.prompt_mask
        self._cache: Any = None
        self._step = 0
        self._forward(prompts.prompt_ids, positions(prompts.prompt_mask))

    def _forward(self, ids: Tensor, position_ids: Tensor) -> None:
        with self._policy.forward_context():
            out = self._policy.model.base_model(
                input_ids=ids,
                attention_mask=self._mask.long(),
                position_ids=position_ids,
                past_key_values=self._cache,
                use_cache=True,
            )
            self._logits = self._policy.model.get_output_embeddings()(out.last_hidden_state[:, -1:])
        self._cache = out.past_key_values

    def next_logits(self) -> Tensor:
        """f32[B,V]: logits of the sampling distribution of the next token."""
        logits = self._policy.sampling_logits(self._logits, first_step=self._step, temperature=self._temperature)
        return logits.squeeze(1)

    def draw(self, noise: Tensor) -> Tensor:
        """i64[B]: the next token. The largest p / noise is a draw from p when the noise is exponential: the very
        computation of torch.multinomial, but a row's draw depends on its own noise alone, whoever has the other rows."""
        return (self.next_logits().softmax(-1) / noise).argmax(-1)

    def append(self, tokens: Tensor) -> None:
        """Append `tokens` i64[B] and advance."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)
        self._step += 1
        self._forward(tokens[:, None], (self._mask.sum(1) - 1)[:, None])


def _hidden(trunk: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """[B,L,H]: last hidden states of `ids` i64[B,L] where `mask` b[B,L]."""
    return trunk(
        input_ids=ids, attention_mask=mask.long(), position_ids=positions(mask), use_cache=False
    ).last_hidden_state


def new_value_head(hidden_size: int, generator: torch.Generator) -> nn.Linear:
    """Linear(hidden, 1) with torch's default uniform initialisation, drawn from `generator` (docs/decisions.md#value-function)."""
    head = nn.utils.skip_init(nn.Linear, hidden_size, 1)  # plain nn.Linear would draw from the global generator
    bound = hidden_size**-0.5
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=generator)
        head.bias.uniform_(-bound, bound, generator=generator)
    return head
