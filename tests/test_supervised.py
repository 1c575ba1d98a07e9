"""The two trainings of the local scale: they learn, they ignore padding, and their seed decides everything."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scar.supervised.training import (
    RewardAugmentation,
    TrainingConfig,
    _backward,
    accuracy,
    perplexity,
    train_language_model,
    train_reward_model,
    vary,
)
from tests.models.tiny import PAD, VOCABULARY, language_model, sequence_model

SPACE = 2
CONFIG = TrainingConfig(epochs=6, batch_size=8, learning_rate=1e-2, weight_decay=0.0, max_grad_norm=1.0)
AUGMENTATION = RewardAugmentation(min_tokens=4, max_tokens=10, max_masked_fraction=0.5)
PATTERN = [[3 + (start + place) % 5 for place in range(6 + start % 4)] for start in range(32)]
"""Texts that count 3, 4, 5, 6, 7, 3, ... from different starts: each token gives away the next."""


def quiet(done: int, total: int, losses: dict[str, float]) -> None:
    pass


def weights_of(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stream(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained_language_model(*, seed: int = 1, pad_id: int = PAD, config: TrainingConfig = CONFIG) -> Any:
    model = language_model()
    train_language_model(model, PATTERN, config=config, pad_id=pad_id, generator=stream(seed), progress=quiet)
    return model


def trained_reward_model(
    *, seed: int = 1, pad_id: int = PAD, epochs: int = 12
) -> tuple[Any, list[list[int]], list[int]]:
    """Positive texts hold token 10, negative ones token 11, among the rest of the vocabulary."""
    draws = stream(0)
    rows, labels = [], []
    for number in range(64):
        row = torch.randint(12, VOCABULARY, (10,), generator=draws).tolist()
        label = number % 2
        for place in range(0, 10, 2):
            row[place] = 10 if label else 11
        rows.append(row)
        labels.append(label)
    model = sequence_model()
    config = TrainingConfig(epochs=epochs, batch_size=8, learning_rate=1e-2, weight_decay=0.0, max_grad_norm=1.0)
    train_reward_model(
        model,
        rows,
        labels,
        config=config,
        augmentation=AUGMENTATION,
        space_id=SPACE,
        pad_id=pad_id,
        generator=stream(seed),
        progress=quiet,
    )
    return model, rows, labels


def test_language_model_learns_a_repetitive_corpus() -> None:
    before = perplexity(language_model(), PATTERN, pad_id=PAD)
    after = perplexity(trained_language_model(), PATTERN, pad_id=PAD)
    assert before > VOCABULARY  # worse than uniform: the weights are spread
    assert after < 1.5  # 1 would be certainty


def test_perplexity_by_hand() -> None:
    class Uniformish(nn.Module):
        """Gives the next token 5 probability 1/2 and the others equal shares of the rest."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            shares = torch.full((VOCABULARY,), 0.5 / (VOCABULARY - 1))
            shares[5] = 0.5
            return SimpleNamespace(logits=shares.log().expand(*input_ids.shape, VOCABULARY))

    rows = [[5, 5, 5], [9, 5], [5, 9, 9, 9], [5]]
    hits, misses = 3, 3
    expected = math.exp((hits * math.log(2) + misses * math.log(2 * (VOCABULARY - 1))) / (hits + misses))
    assert perplexity(Uniformish(), rows, pad_id=PAD) == pytest.approx(expected, rel=1e-5)
    assert perplexity(Uniformish(), rows, pad_id=5, batch_size=2) == pytest.approx(expected, rel=1e-5)


def test_each_token_is_predicted_from_the_one_before_it() -> None:
    class Counting(nn.Module):
        """Gives the successor of each token probability 1/2 and the others equal shares of the rest."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            successor = nn.functional.one_hot((input_ids + 1) % VOCABULARY, VOCABULARY)
            return SimpleNamespace(logits=torch.where(successor.bool(), 0.5, 0.5 / (VOCABULARY - 1)).log())

    assert perplexity(Counting(), [[3, 4, 5, 6], [8, 9]], pad_id=PAD) == pytest.approx(2, rel=1e-5)
    assert perplexity(Counting(), [[6, 5, 4]], pad_id=PAD) == pytest.approx(2 * (VOCABULARY - 1), rel=1e-5)


def test_padding_token_does_not_matter_to_the_language_model() -> None:
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-3, weight_decay=0.0, max_grad_norm=1.0)
    first, second = (trained_language_model(pad_id=pad, config=config) for pad in (PAD, 7))
    torch.testing.assert_close(weights_of(first), weights_of(second), rtol=0.0, atol=1e-6)
    rows = [[3, 4, 5], [6, 7, 3, 4, 5, 6, 7]]
    assert perplexity(first, rows, pad_id=PAD) == pytest.approx(perplexity(first, rows, pad_id=9), rel=1e-6)


def test_reward_model_learns_what_tells_the_labels_apart() -> None:
    untrained, (model, rows, labels) = sequence_model(), trained_reward_model()
    assert accuracy(untrained, rows, labels, pad_id=PAD) < 0.8
    assert accuracy(model, rows, labels, pad_id=PAD) > 0.95


def test_same_seed_gives_the_same_weights_whatever_the_global_generator_holds() -> None:
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-3, weight_decay=0.0, max_grad_norm=1.0)
    before = torch.get_rng_state()
    first = trained_language_model(config=config)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    second, other = trained_language_model(config=config), trained_language_model(config=config, seed=2)
    assert torch.equal(weights_of(first), weights_of(second))
    assert not torch.equal(weights_of(first), weights_of(other))
    assert torch.equal(weights_of(trained_reward_model(epochs=1)[0]), weights_of(trained_reward_model(epochs=1)[0]))


def test_too_few_texts_for_one_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="3 texts do not fill one batch of 8; use a smaller batch_size"):
        train_language_model(
            language_model(), PATTERN[:3], config=CONFIG, pad_id=PAD, generator=stream(), progress=quiet
        )


def test_varied_texts_are_beginnings_with_spaces_in_them() -> None:
    row, draws = list(range(100, 140)), stream()
    for _ in range(500):
        varied = vary(row, AUGMENTATION, space_id=SPACE, generator=draws)
        assert 4 <= len(varied) <= 10
        assert all(token in (kept, SPACE) for token, kept in zip(varied, row, strict=False))
        assert varied.count(SPACE) <= 0.5 * len(varied)


class LastTokenModel(nn.Module):
    """Its logit at a position is that position's token minus 10."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def base_model(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return SimpleNamespace(last_hidden_state=(input_ids - 10).float()[..., None])

    def score(self, hidden: Tensor) -> Tensor:
        return hidden


def test_accuracy_reads_the_last_real_token_by_hand() -> None:
    rows = [[3, 12], [20, 8], [15], [9, 9, 9, 11], [5, 5, 10]]
    labels = [1, 0, 1, 0, 0]  # right, right, right, wrong, right (a logit of 0 is not positive)
    for batch_size in (1, 2, 256):
        assert accuracy(LastTokenModel(), rows, labels, pad_id=99, batch_size=batch_size) == pytest.approx(4 / 5)


# Microbatches, steps, warm-up, number types.


def after(rows: list[list[int]], *, compute: str = "float32") -> Tensor:
    model = language_model("gpt_neox")
    settings: dict[str, Any] = {"batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0.0, "max_grad_norm": 1.0}
    config = TrainingConfig(compute=compute, **settings)
    train_language_model(model, rows, config=config, pad_id=PAD, generator=stream(), progress=quiet)
    return weights_of(model)


def gradients_of_a_batch(size: int | None) -> Tensor:
    """Of the mean squared distance of 8 numbers to a parameter, `size` at a time."""
    numbers, weight = torch.arange(8.0), torch.zeros((), requires_grad=True)
    settings: dict[str, Any] = {"batch_size": 8, "learning_rate": 1.0, "weight_decay": 0.0, "max_grad_norm": None}
    config = TrainingConfig(microbatch_size=size, **settings)
    loss = _backward(lambda rows: (weight - numbers[rows]).square().mean(), list(range(8)), config, "cpu")
    assert loss == pytest.approx(140 / 8)  # the mean of 0, 1, 4, ..., 49
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("size", [None, 1, 3, 8])
def test_microbatches_add_up_to_the_mean_over_the_batch(size: int | None) -> None:
    assert float(gradients_of_a_batch(size)) == pytest.approx(-2 * 28 / 8)  # -2 x the mean of 0..7


def test_steps_end_a_training_within_its_passes_and_decay_over_them() -> None:
    rates: list[float] = []
    model = language_model()
    settings: dict[str, Any] = {"batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0.0, "max_grad_norm": None}
    config = TrainingConfig(epochs=2, steps=6, warmup=0.0, **settings)
    seen: list[tuple[int, int]] = []
    step = torch.optim.AdamW.step

    def spy(self: Any, *args: Any, **options: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        train_language_model(
            model, PATTERN, config=config, pad_id=PAD, generator=stream(), progress=lambda d, t, _: seen.append((d, t))
        )
    assert seen == [(n, 6) for n in range(1, 7)]  # 32 rows are 4 batches: the second pass ends after two
    assert rates == pytest.approx([1e-3 * (0.5 + 0.5 * math.cos(math.pi * n / 6)) for n in range(6)])


def test_bfloat16_passes_train_float32_weights_nearly_alike() -> None:
    wide, narrow = after(PATTERN), after(PATTERN, compute="bfloat16")
    assert narrow.dtype == torch.float32
    assert 0 < float((wide - narrow).abs().max()) < 0.01


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "training.steps=0; allowed: null or a number above 0"),
        ({"microbatch_size": -1}, "training.microbatch_size=-1; allowed: null or a number above 0"),
        ({"warmup": 1.0}, "training.warmup=1.0; allowed: a number from 0 to below 1"),
        ({"compute": "float16"}, "training.compute=float16; allowed: float32 or bfloat16"),
    ],
)
def test_wrong_settings_are_one_line(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(batch_size=8, learning_rate=1e-3, weight_decay=0.0, max_grad_norm=1.0, **setting)
