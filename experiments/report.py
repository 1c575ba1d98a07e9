"""Make tables and figures from records, without any model: `python experiments/report.py target=table1 "seeds=[1,2,3]"`."""

import sys
from dataclasses import replace
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from scar.commands.cli import check_overrides, one_line_errors, run_script
from scar.printing import say
from scar.report import items
from scar.report.credit import load_credit
from scar.report.credit_items import write_credit
from scar.report.files import write_files
from scar.tracking.wandb_runs import open_records

CONFIG = Path(__file__).resolve().parents[1] / "conf" / "tools" / "report.yaml"


def report(request: items.Request) -> str:
    """Write the target's files; return its tables and the paths of the files."""
    if request.record is not None:
        paths = write_credit(load_credit(request.record), request.results, item=request.item)
        return "".join(f"wrote {path}\n" for path in paths)
    sources = replace(request.sources, records=open_records(request.records, cache=Path("wandb_records")))
    files = items.report(request.target, sources, name=request.name)
    paths = write_files(request.results / sources.scale, files)
    tables = [text.decode() for name, text in files.items() if name.endswith(".md") and request.target != "all"]
    return "\n".join(tables) + "".join(f"wrote {path}\n" for path in paths)


@hydra.main(config_path="../conf/tools", config_name="report", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Make what conf/tools/report.yaml asks for."""
    with one_line_errors():
        settings = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(settings, dict)
        say(report(items.read_request({str(key): value for key, value in settings.items()})))


def checked() -> None:
    """The same, for a command that is checked first."""
    check_overrides(sys.argv[1:], CONFIG)
    main()


if __name__ == "__main__":
    run_script(checked)
