"""Groups of responses behind one prompt score as whole sequences do, and training raises the better ones."""

from __future__ import annotations

import math

import pytest
import torch

from scar.models import loading
from scar.supervised.pairwise import (
    Group,
    PairLoss,
    compare,
    group_scores,
    group_states,
    label_loss,
    margins,
    pair_loss,
    score_groups,
    train_pairwise,
    wilson_interval,
)
from scar.supervised.training import TrainingConfig

TEXTS = ["the film was good and the actors were good", "the film was bad and the music was loud"]
ARCHITECTURE = {"layers": 1, "width": 16, "heads": 2, "context": 32, "dropout": 0.0}
PAD = 0


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    tokenizer = loading.train_tokenizer(TEXTS, vocab_size=280)
    return loading.new_reward_model(tokenizer, ARCHITECTURE, seed=3).eval()


GROUPS = [
    Group([5, 6, 7, 8], [[9, 10], [11], [12, 13, 14]]),
    Group([15], [[16], [17, 18]]),
]


def test_scores_behind_a_shared_prompt_equal_those_of_whole_sequences(model: torch.nn.Module) -> None:
    found = group_scores(model, GROUPS, pad_id=PAD)
    expected = []
    for group in GROUPS:
        for row in group.responses:
            ids = torch.tensor([[*group.prompt, *row]])
            hidden = model.base_model(input_ids=ids).last_hidden_state[0, -1]
            expected.append(model.score(hidden).item())
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_margins_are_the_better_score_less_each_worse_one() -> None:
    found = margins(torch.tensor([3.0, 1.0, 4.0, 2.0, 2.5]), GROUPS)
    assert found.tolist() == [2.0, -1.0, -0.5]


def test_loss_by_hand() -> None:
    scores = torch.tensor([3.0, 1.0, 4.0, 2.0, 2.5])
    preferences = sum(math.log(1 + math.exp(-margin)) for margin in (2.0, -1.0, -0.5)) / 3
    assert pair_loss(scores, GROUPS).item() == pytest.approx(preferences)
    levels = (4.0**2 + 7.0**2 + 4.5**2) / 3
    assert pair_loss(scores, GROUPS, center=0.1).item() == pytest.approx(preferences + 0.1 * levels)


def test_label_loss_by_hand() -> None:
    reader = torch.nn.Linear(2, 2)
    with torch.no_grad():
        reader.weight.copy_(torch.eye(2))  # prompts are read from the first component, responses from the second
        reader.bias.zero_()
    groups = [Group([1], [[2], [3]], labels=[1.0, 0.0, math.nan]), Group([1], [[2]], labels=[0.0, 1.0])]
    prompts = torch.tensor([[2.0, 9.0], [1.0, 9.0]])
    responses = torch.tensor([[9.0, -1.0], [9.0, 5.0], [9.0, 3.0]])
    of_prompts = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    of_responses = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2
    found = label_loss(reader, prompts, responses, groups).item()
    assert found == pytest.approx((of_prompts + of_responses) / 2)


def test_states_of_prompts_do_not_depend_on_padding(model: torch.nn.Module) -> None:
    prompts, _ = group_states(model, GROUPS, pad_id=PAD)
    alone, _ = group_states(model, GROUPS[1:], pad_id=PAD)
    torch.testing.assert_close(prompts[1:], alone, atol=1e-6, rtol=1e-5)


def train(groups: list[Group], loss: PairLoss, *, epochs: int = 10) -> tuple[torch.nn.Module, list[float]]:
    tokenizer = loading.train_tokenizer(TEXTS, vocab_size=280)
    model = loading.new_reward_model(tokenizer, ARCHITECTURE, seed=3)
    losses: list[float] = []
    train_pairwise(
        model,
        lambda chosen: [groups[i] for i in chosen],
        len(groups),
        loss=loss,
        config=TrainingConfig(epochs=epochs, batch_size=4, learning_rate=2e-2, weight_decay=0.0, max_grad_norm=1.0),
        pad_id=PAD,
        generator=torch.Generator().manual_seed(0),
        progress=lambda done, total, shown: losses.append(shown["loss"]),
    )
    return model, losses


def test_training_learns_which_token_is_better() -> None:
    groups = [Group([5 + i], [[20, 21], [30, 21]]) for i in range(8)]
    model, losses = train(groups, PairLoss())
    assert losses[0] == pytest.approx(math.log(2), abs=0.2)  # a fresh head hardly tells them apart
    assert bool((margins(score_groups(model, groups, pad_id=PAD), groups) > 1).all())


def test_centering_takes_the_level_of_every_prompt_to_0() -> None:
    groups = [Group([5 + i], [[20, 21], [30, 21]]) for i in range(8)]
    model, _ = train(groups, PairLoss(center=0.5), epochs=40)
    better, worse = score_groups(model, groups, pad_id=PAD).reshape(-1, 2).T
    assert bool((better - worse > 1).all())
    assert float((better + worse).abs().max()) < 0.2


def test_labels_shape_the_states_and_leave_no_head_behind() -> None:
    # Labels follow the prompt's token; preferences follow the response's.
    groups = [Group([5 + i], [[20], [30]], labels=[float(i % 2)] * 3) for i in range(8)]
    model, _ = train(groups, PairLoss(label=1.0), epochs=40)
    prompts, _ = group_states(model, groups, pad_id=PAD)
    untaught, _ = train(groups, PairLoss(), epochs=40)
    plain, _ = group_states(untaught, groups, pad_id=PAD)

    def apart(states: torch.Tensor) -> float:
        """How far the two labels' means lie apart, in standard deviations within a label."""
        even, odd = states[0::2].detach(), states[1::2].detach()
        return float((even.mean(0) - odd.mean(0)).norm() / (even.std(0).norm() + odd.std(0).norm()))

    assert apart(prompts) > 2 * apart(plain)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in untaught.parameters())


def test_report_counts_right_pairs_by_kind_and_what_length_alone_would_get(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter([torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([0.0, 1.0])])
    monkeypatch.setattr("scar.supervised.pairwise.score_groups", lambda *args, **kwargs: next(given))
    longer = [Group([1], [[2, 3], [4]]), Group([1], [[2], [3, 4]])]
    report = compare(model, {"a": longer, "none": [], "b": [Group([1], [[2], [3]])]}, name="accuracy", pad_id=PAD)
    assert report["accuracy"] == pytest.approx(1 / 3)  # 3 > 1; a tie and a smaller score are wrong
    assert report["accuracy_by_kind"] == {"a": {"share": 0.5, "pairs": 2}, "b": {"share": 0.0, "pairs": 1}}
    assert report["accuracy_by_length"] == {"longer": pytest.approx(1 / 3), "shorter": pytest.approx(1 / 3)}
    assert report["accuracy_interval"] == wilson_interval(1, 3)
