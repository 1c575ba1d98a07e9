"""Measure on this machine: `python experiments/bench.py target=attribution quick=true`."""

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from scar.commands.cli import check_flags, check_overrides, one_line_errors, run_script, training_bar
from scar.printing import say
from scar.report.files import write_files

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS, STUDIES = ("attribution", "estimators", "memory", "planning", "scaling"), ("agreement",)
OF_A_SCALE = ("estimators", "agreement")
"""These read the models of a scale; the others make models of their own sizes."""


def bench(cfg: DictConfig) -> str:
    """Run one benchmark, write its rows, return its table."""
    if cfg.target not in BENCHMARKS + STUDIES:
        raise ValueError(f"target={cfg.target}; allowed: {' '.join(sorted(BENCHMARKS + STUDIES))}")
    if type(cfg.quick) is not bool:
        raise ValueError(f"quick={cfg.quick}; allowed: true or false")
    if cfg.target not in OF_A_SCALE and cfg.scale != "local":
        raise ValueError(
            f"scale={cfg.scale}: target={cfg.target} measures models of its own sizes; a scale is for {' and '.join(OF_A_SCALE)}"
        )
    import torch

    from scar.models.loading import quiet_transformers

    sys.path.insert(0, str(REPOSITORY))  # for `experiments`, of which this is a script
    from experiments.benchmarks.update import as_dicts, machine, markdown

    torch.set_num_threads(1)
    quiet_transformers()
    name = f"studies.{cfg.target}.run" if cfg.target in STUDIES else f"benchmarks.{cfg.target}"
    module = importlib.import_module(f"experiments.{name}")
    settings: dict[str, Any] = {"quick": cfg.quick, "cache": Path(cfg.cache)}
    if cfg.target in OF_A_SCALE:
        settings["scale"] = cfg.scale
    GlobalHydra.instance().clear()  # some compose the config of a run
    results = module.run(**settings, advance=training_bar(f"bench {cfg.target}"))
    tables = results if isinstance(results, dict) else {"": results}
    shown = "\n".join((f"{title}\n\n" if title else "") + markdown(rows) for title, rows in tables.items())
    dicts = {title: as_dicts(rows) for title, rows in tables.items()}
    table = f"{inspect.getdoc(module)}\n\n{machine()}\n\n{shown}"
    files = {
        f"{cfg.target}.json": (json.dumps(dicts if isinstance(results, dict) else dicts[""], indent=1) + "\n").encode(),
        f"{cfg.target}.md": table.encode(),
    }
    return table + "".join(f"wrote {path}\n" for path in write_files(Path(cfg.results) / "bench", files))


@hydra.main(config_path="../conf/tools", config_name="bench", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Measure what conf/tools/bench.yaml asks for."""
    with one_line_errors():
        try:
            say(bench(cfg))
        except ImportError as error:
            raise ValueError(f"{error}; `make bench BENCH={cfg.target}` installs what it needs") from error


def checked() -> None:
    """The same, for a command that is checked first."""
    if __spec__ is not None:
        raise ValueError("python -m experiments.bench: write python experiments/bench.py target=attribution quick=true")
    check_flags(sys.argv[1:], {"--quick": "quick=true"})
    check_overrides(sys.argv[1:], REPOSITORY / "conf" / "tools" / "bench.yaml")
    main()


if __name__ == "__main__":
    run_script(checked)
