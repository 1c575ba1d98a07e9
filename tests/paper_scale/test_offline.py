"""Without a hub: one line that names what is missing, where it was looked for, and the command that fetches it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, errors

from scar.commands import build
from scar.commands.models import prepare_model
from scar.models import loading
from tests.paper_scale.conftest import Hub
from tests.smoke_scale import composed, silent_progress

CPU = torch.device("cpu")


@pytest.mark.slow
def test_a_missing_model_is_named_with_its_command(hubs: dict[str, Hub]) -> None:
    cfg = hubs["hh"].config("models.policy.name=VMware/open-llama-7b-open-instruct", "models.policy.revision=v1")
    with pytest.raises(FileNotFoundError) as caught:
        build.load_parts(cfg, CPU)
    message = str(caught.value)
    assert "the model VMware/open-llama-7b-open-instruct at v1 is neither a local folder nor in the cache" in message
    assert str(constants.HF_HUB_CACHE) in message
    assert "HF_HUB_OFFLINE=1 forbids to ask the hub" in message
    assert "`hf download VMware/open-llama-7b-open-instruct --revision v1`" in message
    assert "\n" not in message


@pytest.mark.slow
def test_a_missing_base_model_stops_the_training_with_the_same_message(hubs: dict[str, Hub], tmp_path: Path) -> None:
    revision = "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"
    cfg = hubs["tldr"].config("models.pretrained.name=EleutherAI/pythia-1b-deduped", f"paths.cache={tmp_path}")
    with pytest.raises(FileNotFoundError, match=f"`hf download EleutherAI/pythia-1b-deduped --revision {revision}`"):
        prepare_model(cfg, "policy", start_progress=silent_progress)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("task", "command"),
    [
        (
            "imdb",
            "hf download --repo-type dataset stanfordnlp/imdb --revision e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
        ),
        ("hh", "hf download --repo-type dataset Anthropic/hh-rlhf --revision 09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa"),
        (
            "tldr",
            "hf download --repo-type dataset vwxyzjn/summarize_from_feedback_tldr_3_filtered_oai_preprocessing_1706381144",
        ),
    ],
)
def test_missing_data_are_named_with_their_command(task: str, command: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"`{command}`"):
        build.build_task(composed("scale=paper", f"task={task}")).prompts("test")


def test_missing_comparisons_are_named_too() -> None:
    source = build.build_task(composed("scale=paper", "task=tldr")).source
    with pytest.raises(
        FileNotFoundError, match="dataset vwxyzjn/summarize_from_feedback_oai_preprocessing_1706381144`"
    ):
        source.comparisons("train")


def test_a_gated_repository_is_told_from_a_missing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **options: object) -> None:
        try:
            raise errors.GatedRepoError("403", response=_Response())  # type: ignore[arg-type]
        except errors.GatedRepoError as error:
            raise OSError("You are trying to access a gated repo.") from error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError) as caught:
        loading.load_or_explain(refuse, "meta/gated")
    assert "the hub cannot be reached or refuses (GatedRepoError)" in str(caught.value)
    assert "`hf auth login`" in str(caught.value)


class _Response:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.request = None
        self.status_code = 403


def test_the_revisions_of_the_config_reach_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []

    def model(name: str, **options: object) -> None:
        asked.append((name, options.get("revision")))
        raise OSError("no hub here")

    def data(name: str, **options: object) -> None:
        asked.append((f"{name} {options['split']}", options.get("revision")))
        raise OSError("no hub here")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", model)
    monkeypatch.setattr("datasets.load_dataset", data)
    for task in ("imdb", "hh"):
        with pytest.raises(FileNotFoundError):
            build.build_task(composed("scale=paper", f"task={task}")).prompts("test")
    with pytest.raises(FileNotFoundError):
        prepare_model(composed("scale=paper", "task=tldr"), "policy", start_progress=silent_progress)
    with pytest.raises(FileNotFoundError):
        build.load_parts(composed("scale=paper", "models.policy.revision=abc"), CPU)
    assert asked == [
        ("stanfordnlp/imdb train", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31"),
        ("Anthropic/hh-rlhf train", "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa"),
        ("EleutherAI/pythia-1b-deduped", "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"),
        ("lvwerra/gpt2-imdb", "abc"),
    ]
