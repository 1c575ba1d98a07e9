"""Fetch what a config needs from the hub: `python experiments/prefetch.py scale=paper task=tldr` (or `make prefetch`)."""

import hydra
from omegaconf import DictConfig

from scar.commands.cli import one_line_errors, run_script
from scar.printing import say


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Fetch every repository of the composed config."""
    from huggingface_hub import snapshot_download

    from scar.commands.prefetch import fetch, repositories
    from scar.commands.settings import prepared

    with one_line_errors():
        fetched = [
            f"{repository.kind} {repository.name}: {fetch(repository, snapshot_download)}\n"
            for repository in repositories(prepared(cfg))
        ]
    say("".join(fetched) or "nothing of this config is on the hub\n")


if __name__ == "__main__":
    run_script(main)
