"""Settings are checked against one another; errors name the key, what was got and what is allowed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.config import EvaluationConfig, GenerationConfig, fingerprint
from tests.builders import ppo_config


def generation(**changes: Any) -> GenerationConfig:
    fields: dict[str, Any] = {"temperature": 0.7, "min_new_tokens": 16, "max_new_tokens": 24, "sample_length": True}
    return GenerationConfig(**(fields | changes))


def evaluation(**changes: Any) -> EvaluationConfig:
    return EvaluationConfig(**({"prompts": 10, "batch_size": 5, "seed": 0, "temperature": None} | changes))


def assert_names(error: BaseException, *parts: str) -> None:
    for part in parts:
        assert part in str(error)


def test_valid_settings_build() -> None:
    config = ppo_config(batch_size=128, minibatch_size=64, microbatch_size=16)
    assert (config.batch_size, config.minibatch_size, config.microbatch_size) == (128, 64, 16)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.batch_size = 1  # type: ignore[misc]
    generation()
    evaluation()


def test_an_indivisible_batch_lists_the_divisors() -> None:
    with pytest.raises(ValueError) as caught:
        ppo_config(batch_size=128, minibatch_size=48)
    assert_names(caught.value, "ppo.batch_size=128", "ppo.minibatch_size=48", "1, 2, 4, 8, 16, 32, 64, 128")


def test_an_indivisible_minibatch_lists_the_divisors() -> None:
    with pytest.raises(ValueError) as caught:
        ppo_config(batch_size=24, minibatch_size=12, microbatch_size=5)
    assert_names(
        caught.value,
        "ppo.minibatch_size=12",
        "ppo.microbatch_size=5",
        "set microbatch_size to one of 1, 2, 3, 4, 6, 12",
    )


def test_a_minibatch_above_the_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"ppo.batch_size=8 is not divisible by ppo.minibatch_size=16"):
        ppo_config(batch_size=8, minibatch_size=16)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("updates", 0, "1 or more"),
        ("batch_size", 0, "1 or more"),
        ("minibatch_size", 0, "1 or more"),
        ("microbatch_size", -1, "1 or more"),
        ("ppo_epochs", 0, "1 or more"),
        ("gamma", 1.1, "a number from 0 to 1"),
        ("gae_lambda", -0.1, "a number from 0 to 1"),
        ("learning_rate", 0, "a number above 0"),
        ("clip_range", 0.0, "a number above 0"),
        ("value_clip_range", -0.2, "a number above 0"),
        ("kl_target", 0.0, "a number above 0"),
        ("kl_horizon", 0, "a number above 0"),
        ("kl_scale", 0.0, "a number above 0"),
        ("adam_eps", 0.0, "a number above 0"),
        ("kl_coef", -0.1, "0 or more"),
        ("value_loss_coef", -1, "0 or more"),
        ("weight_decay", -0.01, "0 or more"),
        ("kl_coef", float("nan"), "0 or more"),
        ("learning_rate", float("nan"), "a number above 0"),
    ],
)
def test_ppo_errors_name_key_value_and_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError) as caught:
        ppo_config(**{key: value})
    assert_names(caught.value, f"ppo.{key}=", str(value), f"allowed: {allowed}")


@pytest.mark.parametrize(
    ("key", "value"),
    [("gamma", 0), ("gamma", 1), ("gae_lambda", 0.0), ("kl_coef", 0), ("value_loss_coef", 0.0), ("max_grad_norm", 1.0)],
)
def test_limits_themselves_are_allowed(key: str, value: float) -> None:
    assert getattr(ppo_config(**{key: value}), key) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_grad_norm", -1.0),  # turns every gradient round
        ("max_grad_norm", 0.0),  # read as no clipping
        ("max_mean_ratio", 0.0),  # skips every step
        ("max_mean_ratio", -1.0),
    ],
)
def test_optional_limits_must_be_positive(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"ppo.{key}="):
        ppo_config(**{key: value})


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"max_new_tokens": 0}, ["task.generation.max_new_tokens=0", "allowed: 1 or more"]),
        (
            {"min_new_tokens": 0},
            ["task.generation.min_new_tokens=0", "allowed: 1 to task.generation.max_new_tokens=24"],
        ),
        ({"min_new_tokens": 25}, ["task.generation.min_new_tokens=25", "task.generation.max_new_tokens=24"]),
        ({"temperature": 0.0}, ["task.generation.temperature=0.0", "allowed: a number above 0"]),
        ({"temperature": -1.0}, ["task.generation.temperature=-1.0"]),
    ],
)
def test_generation_errors(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        generation(**changes)
    assert_names(caught.value, *parts)


@pytest.mark.parametrize("key", ["prompts", "batch_size"])
def test_evaluation_errors(key: str) -> None:
    with pytest.raises(ValueError) as caught:
        evaluation(**{key: 0})
    assert_names(caught.value, f"evaluation.{key}=0", "allowed: 1 or more")
    with pytest.raises(
        ValueError, match=r"evaluation\.temperature=0; allowed: null \(the training's\) or a number above 0"
    ):
        evaluation(temperature=0)


SETTINGS: dict[str, Any] = {"ppo": {"updates": 3, "gamma": 1.0}, "task": {"name": "imdb", "sizes": [1, 2]}, "seed": 0}


def test_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    turned = {"seed": 0, "task": {"sizes": [1, 2], "name": "imdb"}, "ppo": {"gamma": 1.0, "updates": 3}}
    assert fingerprint(turned) == fingerprint(SETTINGS)


@pytest.mark.parametrize(
    "changed",
    [
        SETTINGS | {"seed": 1},
        SETTINGS | {"seed": None},
        SETTINGS | {"extra": 0},
        {k: v for k, v in SETTINGS.items() if k != "seed"},
        SETTINGS | {"task": {"name": "imdb", "sizes": [2, 1]}},  # the order of a list counts
        SETTINGS | {"ppo": {"updates": 3, "gamma": 0.99}},
    ],
)
def test_fingerprint_changes_with_any_setting(changed: dict[str, Any]) -> None:
    assert fingerprint(changed) != fingerprint(SETTINGS)


def test_fingerprint_by_hand() -> None:
    # printf '{"a":1,"b":[true,null]}' | sha256sum
    assert fingerprint({"b": [True, None], "a": 1}) == "1cc69c7fa2"
    assert fingerprint({"b": [True, None], "a": 1}, length=4) == "1cc69c7fa2"[:4]


def test_fingerprint_refuses_what_has_no_portable_text() -> None:
    with pytest.raises(ValueError):
        fingerprint({"a": float("nan")})
    with pytest.raises(TypeError):
        fingerprint({"a": object()})


@given(
    settings=st.dictionaries(
        st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.none()), min_size=1
    )
)
def test_fingerprints_of_reordered_settings_agree(settings: dict[str, Any]) -> None:
    reordered = dict(reversed(settings.items()))
    assert fingerprint(reordered) == fingerprint(settings)
    name = next(iter(settings))
    assert fingerprint(settings | {name: "another value"}) != fingerprint(settings)


def test_equal_numbers_give_equal_fingerprints() -> None:
    assert fingerprint({"alpha": 1}) == fingerprint({"alpha": 1.0})
    assert fingerprint({"a": {"sizes": [1, 0.5]}}) == fingerprint({"a": {"sizes": [1.0, 0.5]}})
    assert fingerprint({"a": 0.5}) != fingerprint({"a": 0})
