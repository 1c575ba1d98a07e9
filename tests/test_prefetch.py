"""What is fetched for a config: every repository that its run loads, at the revision that the config pins, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from scar.commands.prefetch import Repository, fetch, repositories
from tests.smoke_scale import composed

POSTS = "vwxyzjn/summarize_from_feedback_tldr_3_filtered_oai_preprocessing_1706381144"
PAIRS = "vwxyzjn/summarize_from_feedback_oai_preprocessing_1706381144"


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (
            "imdb",
            [
                Repository("model", "lvwerra/gpt2-imdb"),
                Repository("model", "XanderJC/gpt2-rm-imdb"),
                Repository("dataset", "stanfordnlp/imdb", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31"),
            ],
        ),
        (
            "tldr",
            [
                Repository("model", "EleutherAI/pythia-1b-deduped", "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"),
                Repository("dataset", POSTS),
                Repository("dataset", PAIRS),
            ],
        ),
        (
            "hh",
            [
                Repository("model", "VMware/open-llama-7b-open-instruct"),
                Repository("model", "weqweasdas/hh_rlhf_rm_open_llama_3b"),
                Repository("dataset", "Anthropic/hh-rlhf", "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa", "helpful-base"),
            ],
        ),
    ],
)
def test_paper_scale_names_its_repositories(task: str, wanted: list[Repository]) -> None:
    assert list(repositories(composed("scale=paper", f"task={task}"))) == wanted


@pytest.mark.parametrize("scale", ["smoke", "local", "small"])
def test_the_other_scales_need_no_hub(scale: str) -> None:
    assert [list(repositories(composed(f"scale={scale}", f"task={task}"))) for task in ("imdb", "tldr", "hh")] == [
        []
    ] * 3


def test_folders_on_this_machine_are_left_out(tmp_path: Any) -> None:
    cfg = composed("scale=paper", f"models.policy.name={tmp_path}", f"task.sources.hub.path={tmp_path}")
    assert [one.name for one in repositories(cfg)] == ["XanderJC/gpt2-rm-imdb"]


def test_a_subset_is_fetched_alone_and_other_formats_are_not() -> None:
    asked: list[Any] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return "cache/folder"

    assert fetch(Repository("dataset", "a/b", "v1", "part"), download) == "cache/folder"
    ((name, options),) = asked
    assert (name, options["repo_type"], options["revision"], options["allow_patterns"]) == (
        "a/b",
        "dataset",
        "v1",
        ["part/*"],
    )
    assert "*.h5" in options["ignore_patterns"]
    fetch(Repository("model", "a/c"), download)
    assert "allow_patterns" not in asked[1][1]


def test_what_cannot_be_fetched_is_named() -> None:
    def refuse(name: str, **options: Any) -> str:
        raise ConnectionError("no network")

    with pytest.raises(FileNotFoundError, match="the model a/c cannot be fetched: no network"):
        fetch(Repository("model", "a/c"), refuse)
