"""Numbers of TRL 0.7.4 and of transformers 4.36: `python numbers_of_trl.py FILE` writes what went in and what came out.

Runs in the environment of requirements.txt and imports nothing of ours; test_peers.py computes the same in ours.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer
from trl.trainer import AdaptiveKLController

VOCABULARY, EOS, PAD = 23, 0, 1
MODEL = {
    "vocab_size": VOCABULARY,
    "n_positions": 32,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "initializer_range": 0.4,  # far from uniform, so that a wrong position or mask shows
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
PPO = {
    "batch_size": 6,
    "mini_batch_size": 3,
    "ppo_epochs": 4,
    "learning_rate": 1e-3,
    "init_kl_coef": 0.2,
    "vf_coef": 0.1,
}
ADAM_EPS = 1e-2
"""Not 1e-8: the gradient of a key's bias is 0 but for rounding, which Adam would blow up to whole steps."""


def draw(*shape: int) -> Tensor:
    return torch.randn(shape)


def texts(count: int, low: int, high: int) -> list[Tensor]:
    """Random rows of low..high tokens, none of them EOS or padding."""
    return [torch.randint(2, VOCABULARY, (int(torch.randint(low, high + 1, ())),)) for _ in range(count)]


def weights(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


class Recorder(PPOTrainer):
    """TRL's trainer, whose intermediate tensors are kept."""

    def compute_rewards(self, scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, masks: Tensor) -> Any:
        out = super().compute_rewards(scores, logprobs, ref_logprobs, masks)
        self.kept = {"logprobs": logprobs, "ref_logprobs": ref_logprobs, "mask": masks, "rewards": out[0]}
        return out

    def compute_advantages(self, values: Tensor, rewards: Tensor, mask: Tensor) -> Any:
        out = super().compute_advantages(values, rewards, mask)
        self.kept |= {"values": out[0], "advantages": out[1], "returns": out[2]}
        return out


def trainer_of(reference: Any) -> Recorder:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="2")),
        eos_token="0",
        pad_token="1",
    )
    policy = AutoModelForCausalLMWithValueHead.from_pretrained(GPT2LMHeadModel(GPT2Config(**MODEL)))
    optimizer = torch.optim.Adam(policy.parameters(), lr=PPO["learning_rate"], eps=ADAM_EPS)
    frozen = AutoModelForCausalLMWithValueHead.from_pretrained(reference)
    return Recorder(PPOConfig(**PPO), policy, frozen, tokenizer, optimizer=optimizer)


def updates(count: int) -> dict[str, Any]:
    """Whole PPO updates, one after the other: everything that TRL's `step` computes on the way."""
    reference = GPT2LMHeadModel(GPT2Config(**MODEL))
    trainer = trainer_of(reference)
    orders: list[list[int]] = []
    drawn = np.random.permutation

    def permutation(size: int) -> Any:
        orders.append(drawn(size).tolist())
        return np.array(orders[-1])

    np.random.permutation = permutation
    out: dict[str, Any] = {"reference": weights(reference), "start": weights(trainer.model), "updates": []}
    for _ in range(count):
        queries, responses = texts(PPO["batch_size"], 2, 5), texts(PPO["batch_size"], 3, 7)
        scores = [2 * draw(1) for _ in queries]
        orders.clear()
        coefficient = trainer.kl_ctl.value
        statistics = trainer.step(queries, responses, scores)
        losses = {"policy_loss": "loss/policy", "value_loss": "loss/value", "approx_kl": "policy/approxkl"}
        shares = {"clipfrac": "policy/clipfrac", "vf_clipfrac": "val/clipfrac", "entropy": "policy/entropy"}
        out["updates"].append(
            {
                "queries": queries,
                "responses": responses,
                "scores": torch.cat(scores),
                "orders": [list(order) for order in orders],
                "kl_coef": (coefficient, trainer.kl_ctl.value),
                "sequence_kl": float(statistics["objective/kl"]),
                "statistics": {ours: float(statistics[f"ppo/{key}"]) for ours, key in (losses | shares).items()},
                "weights": weights(trainer.model),
                **{name: tensor.clone() for name, tensor in trainer.kept.items()},
            }
        )
    np.random.permutation = drawn
    return out | {"losses": clipped_losses(trainer)}


def clipped_losses(trainer: PPOTrainer) -> dict[str, Any]:
    """Both losses where many terms are clipped, with their gradients."""
    old, change, old_values, advantages, returns = (draw(5, 8) for _ in range(5))
    new, values = (old + 0.3 * change).requires_grad_(), (old_values + 0.3 * draw(5, 8)).requires_grad_()
    mask = torch.arange(8) < torch.tensor([8, 3, 5, 1, 7])[:, None]
    logits = draw(5, 8, VOCABULARY)
    policy, value, statistics = trainer.loss(old, old_values, logits, values, new, mask, advantages, returns)
    (policy + value).backward()
    assert isinstance(new.grad, Tensor)
    return {
        "inputs": [tensor.detach() for tensor in (new, old, advantages, values, old_values, returns)],
        "mask": mask,
        "policy": policy.detach(),
        "value": value.detach(),  # times vf_coef
        "clipped": (statistics["policy/clipfrac"], statistics["val/clipfrac"]),
        "gradients": (new.grad, values.grad),
    }


def controller() -> list[tuple[float, int, float]]:
    """Sequence KL, episodes and the coefficient after them, one after the other."""
    control = AdaptiveKLController(0.2, 6.0, 10_000.0)
    out = []
    for kl, episodes in ((0.0, 128), (5.5, 128), (6.3, 64), (40.0, 128), (-2.0, 16), (7.0, 128)):
        control.update(kl, episodes)
        out.append((kl, episodes, float(control.value)))
    return out


def attention_credit(count: int, share: float) -> dict[str, Any]:
    """ABC (Chan et al. 2024) on responses without EOS, one at a time and without padding: the score times `share` in
    proportion to the last layer's attention (mean over heads) from the last token to the response's, the rest at the end."""
    model = GPT2ForSequenceClassification(GPT2Config(**MODEL, num_labels=2)).eval()
    queries, responses, scores, rewards = texts(count, 2, 6), texts(count, 1, 9), [], []
    for query, response in zip(queries, responses, strict=True):
        with torch.no_grad():
            read = model(torch.cat([query, response])[None], output_attentions=True)
        score = read.logits[0, 1] - read.logits[0, 0]
        last = read.attentions[-1][0].mean(0)[-1, len(query) :]
        rewards.append(share * score * last / last.sum())
        rewards[-1][-1] += (1 - share) * score
        scores.append(score)
    return {
        "weights": weights(model),
        "queries": queries,
        "responses": responses,
        "scores": torch.stack(scores),
        "rewards": rewards,
        "alpha": share,
    }


def main(file: str) -> None:
    torch.manual_seed(20)
    numbers = {
        "versions": {name: version(name) for name in ("trl", "transformers", "torch", "accelerate")},
        "model": MODEL,
        "ppo": PPO | {"adam_eps": ADAM_EPS},
        "ppo_updates": updates(2),
        "controller": controller(),
        "abc": attention_credit(8, 0.8),
    }
    torch.save(numbers, file)


if __name__ == "__main__":
    main(sys.argv[1])
