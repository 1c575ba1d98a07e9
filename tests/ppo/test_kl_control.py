"""The KL coefficient against numbers worked by hand (horizon 10,000 episodes, target 6 nats)."""

from __future__ import annotations

import pytest

from scar.ppo.updater import KLController


def controller(kind: str = "adaptive") -> KLController:
    return KLController(kind=kind, coef=0.2, target=6.0, horizon=10000.0)


@pytest.mark.parametrize(
    ("sequence_kl", "episodes", "expected"),
    [
        (6.0, 128, 0.2),  # on target
        (6.6, 128, 0.2 * 1.00128),  # error .1: 1 + .1 * 128 / 10000
        (5.4, 128, 0.2 * 0.99872),  # error -.1
        (60.0, 128, 0.2 * 1.00256),  # error 9, clipped to .2
        (0.0, 128, 0.2 * 0.99744),  # error -1, clipped to -.2
        (-3.0, 128, 0.2 * 0.99744),  # a negative estimate lowers it no further
        (60.0, 16, 0.2 * 1.00032),  # fewer episodes, smaller step: 1 + .2 * 16 / 10000
    ],
)
def test_adaptive_coefficient_by_hand(sequence_kl: float, episodes: int, expected: float) -> None:
    control = controller()
    control.update(sequence_kl, episodes=episodes)
    assert control.coef == pytest.approx(expected, rel=1e-12)


def test_updates_compound() -> None:
    control = controller()
    for _ in range(3):
        control.update(60.0, episodes=128)
    assert control.coef == pytest.approx(0.2 * 1.00256**3, rel=1e-12)


def test_fixed_coefficient_never_moves() -> None:
    control = controller("fixed")
    control.update(60.0, episodes=128)
    assert control.coef == 0.2
