"""The engine of one process: plain torch, no wrapper around any model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scar.config import PPOConfig
from scar.interfaces import CoalitionScorer, Policy, RewardModel

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
SHOWN = 8
"""Parameters that an error names; the rest are counted."""


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """What an optimizer gets, by name; a weight that two layers share has one name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


class GradientCheck:
    """Whether every trained parameter gets a gradient, zeros allowed: asked once, at the first step that is taken.

    A parameter without one stays as it is in silence, and so does its share of the policy. Each is watched by a hook, which
    is the same for plain and sharded parameters; DeepSpeed's own `safe_get_full_grad` gives zeros for a gradient that never
    came.
    """

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self._waiting = set(parameters)
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._arrived, name))
            for name, parameter in parameters.items()
        ]

    def _arrived(self, name: str, parameter: Tensor) -> None:
        self._waiting.discard(name)

    def __call__(self) -> None:
        """ValueError names the parameters that got none."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if missing := sorted(self._waiting):
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise ValueError(
                f"no gradient reaches {len(missing)} of the trained parameters ({', '.join(missing[:SHOWN])}{more}), so they "
                "would never change; check models.policy.load (4 bits, adapters) and ppo.value_net"
            )


def adam(parameters: list[nn.Parameter], config: PPOConfig, kind: Any = torch.optim.AdamW) -> Any:
    """The optimizer of PPO. AdamW with weight decay 0 is Adam."""
    return kind(parameters, lr=config.learning_rate, eps=config.adam_eps, weight_decay=config.weight_decay)


def copy_weights(into: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Fill parameters from tensors of the same names and shapes; ValueError where they differ."""
    if {name: tensor.shape for name, tensor in into.items()} != {name: t.shape for name, t in weights.items()}:
        raise ValueError("the weights of the checkpoint are those of another model; delete it and run again")
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(weights[name])


class TorchLearner:
    """A policy and its Adam in this process."""

    def __init__(self, policy: Any, config: PPOConfig) -> None:
        self.policy: Policy = policy
        self._parameters = trained_parameters(policy)
        self._optimizer = adam(list(self._parameters.values()), config)
        self._check_gradients = GradientCheck(self._parameters)
        self._max_norm = config.max_grad_norm or float("inf")

    def share(self, rows: Tensor) -> Tensor:
        """All of them."""
        return rows

    def add_up(self, sums: dict[str, float]) -> dict[str, float]:
        """They are the sums already."""
        return sums

    def backward(self, loss: Tensor) -> None:
        """See Learner."""
        loss.backward()

    def set_learning_rate(self, rate: float) -> None:
        """See Learner."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def step(self, *, skip: bool) -> float:
        """See Learner."""
        norm = nn.utils.clip_grad_norm_(list(self._parameters.values()), self._max_norm)
        if not skip:
            self._check_gradients()
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def held_bytes(self) -> dict[str, int]:
        """See Learner."""
        state = [tensor for state in self._optimizer.state.values() for tensor in state.values()]
        return {"weights": sum(p.nbytes for p in self._parameters.values()), "optimizer": sum(t.nbytes for t in state)}

    def save(self, folder: Path) -> None:
        """`weights.safetensors` and `optimizer.safetensors` (`<parameter>/exp_avg`, ...)."""
        save_file({name: p.detach().contiguous() for name, p in self._parameters.items()}, folder / WEIGHTS)
        state = self._optimizer.state
        tensors = {f"{name}/{key}": t for name, p in self._parameters.items() for key, t in state.get(p, {}).items()}
        save_file(tensors, folder / OPTIMIZER)

    def load(self, folder: Path) -> None:
        """See Learner."""
        copy_weights(dict(self._parameters), load_file(folder / WEIGHTS))
        for name, tensor in load_file(folder / OPTIMIZER).items():
            parameter, key = self._parameters[name.rpartition("/")[0]], name.rpartition("/")[2]
            # Adam counts its steps on the CPU.
            self._optimizer.state[parameter][key] = tensor if key == "step" else tensor.to(parameter.device)


class TorchEngine:
    """One process, one device."""

    processes = 1
    is_main = True

    def learner(self, policy: Any, config: PPOConfig) -> TorchLearner:
        """See Engine."""
        return TorchLearner(policy, config)

    def sampled(self, policy: Any) -> Policy:
        """Itself."""
        return policy

    def frozen(self, policy: Any) -> Policy:
        """Itself."""
        return policy

    def reward_model(self, model: Any) -> RewardModel:
        """Itself."""
        return model

    def scorer(self, scorer: CoalitionScorer, model: Any) -> CoalitionScorer:
        """Itself."""
        return scorer

    def settle(self) -> None:
        """Models stay where they are."""

    def merge(self, row: dict[str, Any], costs: dict[str, float]) -> dict[str, Any]:
        """Both."""
        return row | costs

    def agreed(self, value: Any) -> Any:
        """Itself."""
        return value

    def any(self, flag: bool) -> bool:
        """Itself."""
        return flag

    def describe(self) -> dict[str, Any]:
        """See Engine."""
        return {"name": "torch", "processes": 1}
