"""Cached models survive a round trip and nothing else does; checkpoints by name fail in one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from scar.models import loading
from scar.models.cache import COMPLETE, ModelCache

CPU = torch.device("cpu")
ARCHITECTURE = {"layers": 1, "width": 16, "heads": 2, "context": 32, "dropout": 0.1}
TEXTS = ["The film was good.", "The film was not good at all!", "A good film, a very good film."] * 20


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return loading.train_tokenizer(TEXTS, vocab_size=300)


@pytest.fixture(scope="module")
def policy_model(tokenizer: Any) -> Any:
    return loading.new_policy_model(tokenizer, ARCHITECTURE, seed=1)


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache")


@pytest.fixture
def saved(cache: ModelCache, tokenizer: Any, policy_model: Any) -> Path:
    """The folder of a saved policy."""
    return cache.save("imdb-policy", "f00d", parts=[policy_model, tokenizer], report={"validation_perplexity": 7.5})


def weights_of(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class FailsToSave:
    """A model part that writes a file and then fails."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def save_pretrained(self, folder: Path) -> None:
        (Path(folder) / "half.bin").write_bytes(b"half")
        raise self._error


def test_saved_model_tokenizer_and_report_come_back(
    cache: ModelCache, saved: Path, policy_model: Any, tokenizer: Any
) -> None:
    assert cache.has("imdb-policy", "f00d")
    assert saved == cache.folder("imdb-policy", "f00d")
    assert cache.report("imdb-policy", "f00d") == {"validation_perplexity": 7.5}
    loaded = loading.load_policy_model(saved, device=CPU)
    assert torch.equal(weights_of(loaded), weights_of(policy_model))
    text = "A good film — très bon 😀"
    ids = loading.load_tokenizer(saved).encode(text)
    assert ids == tokenizer.encode(text)
    assert tokenizer.decode(ids) == text


def test_saved_reward_model_comes_back_with_its_one_logit(cache: ModelCache, tokenizer: Any) -> None:
    model = loading.new_reward_model(tokenizer, ARCHITECTURE, seed=1)
    folder = cache.save("imdb-reward", "f00d", parts=[model, tokenizer], report={})
    loaded = loading.load_reward_sequence_model(folder, device=CPU)
    assert loaded.config.num_labels == 1
    assert torch.equal(weights_of(loaded), weights_of(model))


def grow(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")


def lose(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def cut_list(folder: Path) -> None:
    file = folder / COMPLETE
    file.write_text(file.read_text()[:20])


def lose_list(folder: Path) -> None:
    (folder / COMPLETE).unlink()


def wrong_list(folder: Path) -> None:
    (folder / COMPLETE).write_text("[]")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (grow, "model.safetensors"),
        (lose, "tokenizer.json"),
        (cut_list, "damaged"),
        (lose_list, "complete.json"),
        (wrong_list, "damaged"),
    ],
)
def test_damage_names_the_folder_and_the_way_out(
    cache: ModelCache, saved: Path, damage: Callable[[Path], None], what: str
) -> None:
    damage(saved)
    with pytest.raises(ValueError, match=what) as caught:
        cache.has("imdb-policy", "f00d")
    assert f"delete the folder {saved} and make it again (`make models`)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), OSError),
        (SafetensorError("No space left on device"), OSError),
        (RuntimeError("shape"), RuntimeError),
    ],
)
def test_interrupted_save_leaves_nothing(
    cache: ModelCache, policy_model: Any, error: BaseException, raised: type[BaseException]
) -> None:
    with pytest.raises(raised):
        cache.save("imdb-policy", "f00d", parts=[policy_model, FailsToSave(error)], report={})
    assert list(cache.root.iterdir()) == []
    assert not cache.has("imdb-policy", "f00d")


def test_a_model_that_another_process_finished_first_stays(cache: ModelCache, saved: Path, tokenizer: Any) -> None:
    before = (saved / COMPLETE).read_text()
    assert cache.save("imdb-policy", "f00d", parts=[tokenizer], report={"other": 1}) == saved
    assert (saved / COMPLETE).read_text() == before
    assert cache.has("imdb-policy", "f00d")
    assert [path.name for path in cache.root.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    "load",
    [
        loading.load_tokenizer,
        lambda name: loading.load_policy_model(name, device=CPU),
        lambda name: loading.load_reward_sequence_model(name, device=CPU),
    ],
    ids=["tokenizer", "policy", "reward"],
)
def test_hub_name_offline_is_one_clear_message(load: Callable[[str], Any]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load("nobody/no-such-model")
    message = str(caught.value)
    assert message.startswith("the model nobody/no-such-model is neither a local folder nor in the cache ")
    assert "`hf download nobody/no-such-model`" in message
    assert "\n" not in message


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def cut_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def cut_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


@pytest.mark.parametrize("damage", [no_weights, cut_weights, cut_config, cut_tokenizer])
def test_broken_checkpoint_folder_is_named_and_not_called_unreachable(
    tmp_path: Path, tokenizer: Any, policy_model: Any, damage: Callable[[Path], None]
) -> None:
    for part in (tokenizer, policy_model):
        part.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=rf"the model in {tmp_path} cannot be read .*delete the folder"):
        loading.load_tokenizer(tmp_path) if damage is cut_tokenizer else loading.load_policy_model(tmp_path, device=CPU)


def test_loaded_models_are_float32_in_evaluation_mode_without_dropout(tmp_path: Path, tokenizer: Any) -> None:
    model = loading.new_policy_model(tokenizer, ARCHITECTURE, seed=1).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = loading.load_policy_model(tmp_path, device=CPU)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not loaded.training
    dropouts = [module.p for module in loaded.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts
    assert set(dropouts) == {0.0}
    loaded.train()
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(loaded(ids).logits, loaded(ids).logits)


def test_padding_and_end_of_sequence_are_different_tokens(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.decode([tokenizer.eos_token_id]) == loading.EOS
    assert tokenizer.decode([tokenizer.pad_token_id]) == loading.PAD
    assert len(tokenizer) <= 300


def test_tokenizer_without_padding_token_pads_with_eos(tmp_path: Path) -> None:
    tokenizer = loading.train_tokenizer(TEXTS, vocab_size=300)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    loaded = loading.load_tokenizer(tmp_path)
    assert loaded.pad_token_id == loaded.eos_token_id


def test_space_token_is_one_blank(tokenizer: Any) -> None:
    assert tokenizer.decode([loading.space_token(tokenizer)]) == " "


@pytest.mark.parametrize("new", [loading.new_policy_model, loading.new_reward_model])
def test_weights_come_from_the_seed_and_leave_the_global_generator_alone(new: Any, tokenizer: Any) -> None:
    before = torch.get_rng_state()
    first, second, other = (new(tokenizer, ARCHITECTURE, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights_of(first), weights_of(second))
    assert not torch.equal(weights_of(first), weights_of(other))
