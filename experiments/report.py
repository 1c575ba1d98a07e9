"""Make tables and figures from records, without any model: `python experiments/report.py table1 scale=local seeds=1,2,3`."""

import sys
from dataclasses import replace
from pathlib import Path

from scar.printing import ended, say
from scar.report import items
from scar.report.credit import load_credit
from scar.report.credit_items import write_credit
from scar.report.files import write_files
from scar.tracking.wandb_runs import open_records


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


def main() -> int:
    """Run from the command line: 0, or 2 and one line on stderr."""
    try:
        say(report(items.parse(sys.argv[1:], description=__doc__)))
        return ended(0)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
