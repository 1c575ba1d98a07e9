"""What a function on fake tensors computes, moves and holds: the real code is run, shapes take the place of numbers.

Fake tensors are on the "cpu", because what PyTorch chooses for a fake GPU depends on how it was built. Its attention kernel
there keeps what a GPU's fused kernels keep, so memory is alike.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from scar.config import PPOConfig
from scar.models.policy import CachedDecoder, CausalPolicy
from scar.ppo.losses import policy_losses, value_losses
from scar.types import PromptBatch

aten = torch.ops.aten
GATHERS = (aten.embedding, aten.index, aten.index_select, aten.gather)
"""Operations that read as much of their first argument as they return."""


@dataclass(frozen=True)
class Cost:
    """FLOPs of products by the type of their operands, bytes that products and all other operations read and write, how many
    operations there were, how many bytes more than before were held at most, and how many more at the end."""

    narrow_flops: float = 0.0
    wide_flops: float = 0.0
    product_bytes: float = 0.0
    other_bytes: float = 0.0
    operations: float = 0.0
    peak_bytes: float = 0.0
    kept_bytes: float = 0.0

    @property
    def flops(self) -> float:
        """FLOPs of all types."""
        return self.narrow_flops + self.wide_flops

    def __add__(self, other: Cost) -> Cost:
        """One after the other, nothing of the first kept for the second."""
        return Cost(
            self.narrow_flops + other.narrow_flops,
            self.wide_flops + other.wide_flops,
            self.product_bytes + other.product_bytes,
            self.other_bytes + other.other_bytes,
            self.operations + other.operations,
            max(self.peak_bytes, other.peak_bytes),
            other.kept_bytes,
        )

    def times(self, count: float) -> Cost:
        """The same `count` times, one after the other."""
        return replace(
            self,
            narrow_flops=count * self.narrow_flops,
            wide_flops=count * self.wide_flops,
            product_bytes=count * self.product_bytes,
            other_bytes=count * self.other_bytes,
            operations=count * self.operations,
        )


_FAKE = FakeTensorMode(allow_non_fake_inputs=True)


def fake_tensors() -> FakeTensorMode:
    """Context in which new tensors have shapes and no numbers; real ones that are used become such. It is one for all: fake
    tensors of two do not go together."""
    return _FAKE


def real_tensors() -> Any:
    """Context inside `fake_tensors` in which new tensors are real ones again."""
    return unset_fake_temporarily()


def trace(work: Callable[[], Any]) -> tuple[Cost, Any]:
    """Run `work` inside `fake_tensors`; its cost and its result. A question about a value is answered with 1 or True."""
    tracer = Tracer()
    with tracer:
        result = work()
    return tracer.cost(), result


class Tracer(TorchDispatchMode):
    """Watches every operation. `live_bytes` is how much more there is now than at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = 0
        self._peak = 0
        self._followed: set[int] = set()
        self._flops = {True: 0.0, False: 0.0}
        self._product_bytes = self._other_bytes = 0.0
        self._operations = 0

    def cost(self) -> Cost:
        """What was seen until now."""
        return Cost(
            self._flops[True],
            self._flops[False],
            self._product_bytes,
            self._other_bytes,
            self._operations,
            self._peak,
            self.live_bytes,
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called for each operation."""
        if func is torch.ops.prim.device.default:  # asked all the time
            return args[0].fake_device
        if func is aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1
        inputs = _tensors((args, kwargs))
        for tensor in inputs:
            self._hold(tensor, new=False)
        result = func(*args, **(kwargs or {}))
        outputs = _tensors(result)
        if func._schema.is_mutable or not _are_views(outputs, inputs):
            self._count(func, args, kwargs or {}, inputs, outputs, result)
        for tensor in outputs:
            self._hold(tensor, new=True)
        return result

    def _count(
        self, func: Any, args: Any, kwargs: Any, inputs: list[Tensor], outputs: list[Tensor], result: Any
    ) -> None:
        flops = _product_flops(func, args, kwargs, result)
        moved = sum(map(_bytes, outputs))
        moved += moved if func.overloadpacket in GATHERS else sum(map(_bytes, inputs))
        self._operations += 1
        if flops:
            self._flops[outputs[0].dtype.itemsize < 4] += flops
            self._product_bytes += moved
        elif not func.overloadpacket.__name__.startswith(("empty", "new_empty")):
            self._other_bytes += moved

    def _hold(self, tensor: Tensor, *, new: bool) -> None:
        """Follow a storage from its first sight until it is freed; one that was there before counts when it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._followed:
            self._followed.add(key)
            self.live_bytes += size if new else 0
            self._peak = max(self._peak, self.live_bytes)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._followed.remove(key)
        self.live_bytes -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """What is read of a tensor; an expanded one is no larger than its storage."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())


def _are_views(outputs: list[Tensor], inputs: list[Tensor]) -> bool:
    known = {tensor.untyped_storage()._cdata for tensor in inputs}
    return all(tensor.untyped_storage()._cdata in known for tensor in outputs)


def _product_flops(func: Any, args: Any, kwargs: Any, result: Any) -> float:
    """FLOPs of a matrix product or an attention kernel, by PyTorch's own formulas; 0 for all else."""
    packet = func.overloadpacket
    if packet is aten._scaled_dot_product_flash_attention_for_cpu:
        return sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
    if packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))
    formula = flop_registry.get(packet)
    return 0.0 if formula is None else formula(*args, **kwargs, out_val=result)


# The stages of one update as scar/ppo/rollout.py and scar/ppo/updater.py run them, on made-up texts.
#
# The functions under "work" do a stage's work on real tensors as well (experiments/benchmarks/planning.py times them); those
# under "cost" trace it on fake ones.


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
