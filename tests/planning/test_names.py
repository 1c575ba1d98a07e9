"""Names and revisions that can and cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scar.commands.build import plain
from scar.packages import check_names
from tests.planning.tiny import GPT2, models
from tests.smoke_scale import composed

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def with_policy(**changes: Any) -> dict[str, Any]:
    found = models(GPT2, GPT2)
    found["policy"] |= changes
    return found


def test_everything_that_a_config_names_is_found() -> None:
    cfg = composed("scale=paper", "task=tldr", "models.gold.name=owner/judge")
    found = {one.key: one.name for one in check_names(plain(cfg.models), plain(cfg.task.sources.hub))}
    assert found["models.pretrained.name"] == "EleutherAI/pythia-1b-deduped"
    assert found["models.gold.name"] == "owner/judge"
    assert {key for key in found if key.startswith("task")} == {
        "task.sources.hub.path",
        "task.sources.hub.comparisons_path",
    }
    assert "models.policy.name" not in found


@pytest.mark.parametrize("revision", [None, COMMIT, "main", "v1.0", "refs/pr/3"])
def test_revisions_that_can_be(revision: str | None) -> None:
    named = check_names(with_policy(revision=revision), {"path": "owner/data", "revision": revision})
    assert [one.state for one in named if one.key != "models.reward.name"] == [revision or "newest"] * 2


@pytest.mark.parametrize("revision", ["", "abc1234", COMMIT[:-1], COMMIT + "0", "two words", 1234567, "../main", "-x"])
def test_revisions_that_cannot_be(revision: Any) -> None:
    with pytest.raises(ValueError, match=r"models\.policy\.revision=.*; allowed: null .*commit of 40"):
        check_names(with_policy(revision=revision), None)
    with pytest.raises(ValueError, match=r"task\.sources\.hub\.other_revision="):
        check_names({}, {"other_path": "owner/data", "other_revision": revision})


@pytest.mark.parametrize(
    "name",
    ["owner/", "/name", "a--b", "owner/x.git", "owner/-x", "a/b/c", "owner/na me", "http://hub/x", 7, "owner/\u00e9"],
)
def test_names_that_cannot_be(name: Any) -> None:
    with pytest.raises(ValueError, match=r"models\.policy\.name=.*; allowed: owner/name as on the hub, or an existing"):
        check_names(with_policy(name=name), None)


def test_names_of_the_hubs_own_models_have_no_owner() -> None:
    named = check_names(with_policy(name="gpt2"), None)
    assert [name.name for name in named if name.key == "models.policy.name"] == ["gpt2"]


def test_a_local_folder_is_a_name(tmp_path: Path) -> None:
    named = check_names(with_policy(name=str(tmp_path)), None)
    assert named[0].state == "local folder"


def test_nothing_named_is_nothing_found() -> None:
    assert check_names(plain(composed("scale=local", "task=hh").models), None) == []
    assert check_names({"gold": {"name": None}}, None) == []
