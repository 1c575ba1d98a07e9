"""Measure on this machine: `python -m experiments.bench attribution --quick` (or `make bench BENCH=attribution QUICK=1`)."""

import argparse
import importlib
import inspect
import json
import sys
from pathlib import Path

import torch

try:
    from experiments.benchmarks.update import as_dicts, machine, markdown
except ModuleNotFoundError:  # started as a file
    sys.exit("error: start it as `python -m experiments.bench ...` in the repository's root, or with `make bench`")
from scar.commands.cli import training_bar
from scar.models.loading import quiet_transformers
from scar.printing import ended, say
from scar.report.files import write_files

BENCHMARKS, STUDIES = ("attribution", "estimators", "memory", "planning", "scaling"), ("agreement",)


def bench(args: argparse.Namespace) -> str:
    """Run one benchmark, write its rows, return its table."""
    torch.set_num_threads(1)
    quiet_transformers()
    name = f"studies.{args.target}.run" if args.target in STUDIES else f"benchmarks.{args.target}"
    module = importlib.import_module(f"experiments.{name}")
    results = module.run(quick=args.quick, cache=Path(args.cache), advance=training_bar(f"bench {args.target}"))
    tables = results if isinstance(results, dict) else {"": results}
    shown = "\n".join((f"{title}\n\n" if title else "") + markdown(rows) for title, rows in tables.items())
    dicts = {title: as_dicts(rows) for title, rows in tables.items()}
    table = f"{inspect.getdoc(module)}\n\n{machine()}\n\n{shown}"
    files = {
        f"{args.target}.json": (
            json.dumps(dicts if isinstance(results, dict) else dicts[""], indent=1) + "\n"
        ).encode(),
        f"{args.target}.md": table.encode(),
    }
    return table + "".join(f"wrote {path}\n" for path in write_files(Path(args.results) / "bench", files))


def main() -> int:
    """Run from the command line: 0, or 2 and one line on stderr; 130 after Ctrl-C (nothing is written then)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(BENCHMARKS + STUDIES), help="what to measure")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument(
        "--cache", default="cache", help="folder of the local models (agreement and estimators need them)"
    )
    parser.add_argument("--results", default="results", help="folder to write into")
    try:
        say(bench(parser.parse_args()))
        return ended(0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        return 130
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
