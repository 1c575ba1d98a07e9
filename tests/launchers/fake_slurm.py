"""SLURM's commands for tests: jobs are processes of this machine, and what was asked for is written down.

`Cluster(folder)` makes them in `<folder>/bin`. A job starts as soon as it is submitted (never with `holds`), and again when it
is requeued. Nothing is limited, nothing is checked: only what submitit says to SLURM is real.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "sacct", "scancel")
JOB = 4711
"""The number of the first job."""

SOURCE = """#!{python}
import os, re, subprocess, sys
from pathlib import Path

here, holds, refusal = Path({folder!r}), {holds!r}, {refusal!r}
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
with open(here / "calls.txt", "a") as calls:
    calls.write(" ".join([name, *arguments]) + "\\n")

def start(number):
    job, _, task = number.partition("_")
    env = os.environ | {{"SLURM_JOB_ID": job}} | ({{"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": task}} if task else {{}})
    script = here / f"{{job}}.sh"
    env["SLURM_CPUS_PER_TASK"] = re.search("--cpus-per-task=([0-9]+)", script.read_text()).group(1)
    with open(here / "batch.log", "a") as log:
        subprocess.Popen(["bash", script], env=env, stdout=log, stderr=log, start_new_session=True)

if name == "sbatch":
    if refusal:
        sys.exit("sbatch: error: " + refusal)
    script = Path(arguments[0]).read_text()
    job = {job} + len(list(here.glob("*.sh")))
    (here / f"{{job}}.sh").write_text(script)
    print("Submitted batch job", job)
    array = re.search("--array=0-([0-9]+)", script)
    numbers = [f"{{job}}_{{task}}" for task in range(int(array.group(1)) + 1)] if array else [str(job)]
    for number in [] if holds else numbers:
        start(number)
elif name == "srun":
    (here / "srun-cpus.txt").write_text(os.environ.get("SRUN_CPUS_PER_TASK", "none"))
    command = arguments[arguments.index("--output") + 2 :]
    log = arguments[arguments.index("--output") + 1]
    for key, value in {{"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID"}}.items():
        log = log.replace(key, os.environ.get(value, ""))
    out = open(log.replace("%t", "0"), "a")
    process = subprocess.Popen(command, env=os.environ | {{"SLURM_PROCID": "0"}}, stdout=out, stderr=out)
    (here / ("pid-" + os.environ.get("SLURM_ARRAY_TASK_ID", "0"))).write_text(str(process.pid))
    sys.exit(process.wait())
elif name == "scontrol":
    start(arguments[1])
elif name == "sacct":
    print("JobID|State|NodeList")
    for script in here.glob("*.sh"):
        print(f"{{script.stem}}_[0-9]|RUNNING|node1\\n{{script.stem}}|RUNNING|node1")
"""


class Cluster:
    """Fake commands in `folder`. `holds`: jobs stay in the queue; `refusal`: what sbatch says instead of taking jobs."""

    def __init__(self, folder: Path, *, holds: bool = False, refusal: str = "") -> None:
        self._folder = folder
        (folder / "bin").mkdir(parents=True)
        source = SOURCE.format(python=sys.executable, folder=str(folder), holds=holds, refusal=refusal, job=JOB)
        for name in COMMANDS:
            (folder / "bin" / name).write_text(source, encoding="utf-8")
            (folder / "bin" / name).chmod(0o755)

    @property
    def path(self) -> str:
        """PATH with the commands in front."""
        return f"{self._folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def calls(self, name: str) -> list[str]:
        """The arguments of each call of a command, in order."""
        file = self._folder / "calls.txt"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [line.removeprefix(name).strip() for line in lines if line.split()[0] == name]

    def asked(self) -> dict[str, str]:
        """The options in the first script given to sbatch; "" for one without a value."""
        script = (self._folder / f"{JOB}.sh").read_text(encoding="utf-8")
        return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, flags=re.MULTILINE))

    def send(self, number: int, *, task: int) -> None:
        """Send a signal to the process that srun started for an array's task."""
        os.kill(int((self._folder / f"pid-{task}").read_text(encoding="utf-8")), number)

    def cpus_of_srun(self) -> str:
        """How many CPUs the last srun was told to ask for."""
        return (self._folder / "srun-cpus.txt").read_text(encoding="utf-8")
