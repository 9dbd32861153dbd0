# All commands for users and developers; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Options of the training targets.
DATA_ROOT ?=
SEED ?= 1
RUNS ?=
ARGS ?=
# Parallel runs of sweeps and studies, which share the cores.
PARALLEL ?= 2

.PHONY: help
help: ## List the commands and their variables
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: DATA_ROOT=folder of the real data set (train-mre: MNRE instead of the demo corpus; train-mner15 and"
	@echo "           train-mner17: the folder that holds twitter2015 or twitter2017), SEED=1, ARGS='any option of mmib',"
	@echo "           PARALLEL=2 (parallel runs of sweeps and studies),"
	@echo "           PYTHON=python3 (3.11 or newer, used once to make .venv)"

.PHONY: setup
setup: $(STAMP) ## Make .venv and install the pinned versions (all other commands do this automatically)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@# A source archive contains folders instead of the repository's links.
	@for name in datamodules lightning_configs; do \
	  test -e $$name || { mv src/mmib/$$name $$name && ln -s ../../$$name src/mmib/$$name; }; \
	done
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[encoders,data,lora,sweeps,extract,serve,onnx,docs,dev]'
	@touch $@

LOCK := requirements-py311-linux-x86_64.lock

.PHONY: lock
lock: ## Write the lock file with the hashes of all pinned packages, after a change of constraints.txt (pip install uv)
	uv pip compile setup.cfg --constraints constraints.txt --no-annotate --generate-hashes --no-strip-extras --python-version 3.11.7 \
		--python-platform x86_64-manylinux_2_28 $(addprefix --extra ,encoders data lora sweeps extract serve onnx docs dev) \
		--custom-compile-command 'make lock' --output-file $(LOCK) --quiet

.PHONY: train-mre
train-mre: $(STAMP) ## Train relation extraction: on the demo corpus, or with DATA_ROOT=… on real MNRE
	$(BIN)/mmib fit --config $(if $(DATA_ROOT),mre-mnre-offline --data.root '$(DATA_ROOT)',mre-demo) --seed_everything $(SEED) $(ARGS)

.PHONY: baseline-mre
baseline-mre: $(STAMP) ## Train the late-fusion baseline (whole image; no attention, bottleneck or alignment) on the demo corpus
	$(BIN)/mmib fit --config mre-demo-late-fusion --seed_everything $(SEED) $(ARGS)

.PHONY: train-mner
train-mner: $(STAMP) ## Train entity recognition on the demo corpus
	$(BIN)/mmib fit --config mner-demo --seed_everything $(SEED) $(ARGS)

.PHONY: train-mner15 train-mner17
train-mner15: ## Train entity recognition on Twitter-2015: DATA_ROOT=…
train-mner17: ## Train entity recognition on Twitter-2017: DATA_ROOT=…
train-mner15 train-mner17: train-mner%: $(STAMP)
	@test -n "$(DATA_ROOT)" || { echo "Where is the data? make $@ DATA_ROOT=/path/to/the/folder/of/twitter20$*"; exit 2; }
	$(BIN)/mmib fit --config mner-twitter20$*-offline --data.root '$(DATA_ROOT)' --seed_everything $(SEED) $(ARGS)

.PHONY: sweep-mre sweep-mner
sweep-mre: ## Search beta and temperature for relation extraction, 12 trials; SWEEP=another file; resumes an earlier one
sweep-mner: ## Search beta and temperature for entity recognition
sweep-mre sweep-mner: sweep-%: $(STAMP)
	$(BIN)/mmib sweep '$(or $(SWEEP),experiments/sweeps/$*-grid.yaml)' --parallel $(PARALLEL) $(ARGS)

.PHONY: aggregate
aggregate: $(STAMP) ## Mean over seeds, intervals and paired tests of runs: RUNS='runs/a runs/b' ARGS='--baseline a'
	$(BIN)/mmib aggregate $(or $(RUNS),runs) $(ARGS)

.PHONY: ablations
ablations: $(STAMP) ## Train eight variants of both tasks over three seeds on the study corpus, and compare them
	$(BIN)/mmib study experiments/ablations/study.yaml --parallel $(PARALLEL) --results experiments/results $(ARGS)

.PHONY: studies
studies: $(STAMP) ## Measure rates, the released bottleneck, priors, alignment and regimes on the study corpus: a day on two cores; resumable
	for study in rates released_rates priors alignment regimes; do \
	  $(BIN)/mmib study experiments/ablations/$$study.yaml --parallel $(PARALLEL) --results experiments/results $(ARGS) || exit; \
	done

.PHONY: missing-study
missing-study: $(STAMP) ## Measure F1 against missing images, with and without bottleneck and alignment
	$(BIN)/mmib study experiments/ablations/missing.yaml --parallel $(PARALLEL) --results experiments/results $(ARGS)

.PHONY: results
results: ablations missing-study known-answers ## Make the tables of experiments/results that take less than a night

.PHONY: report
report: $(STAMP) ## Write a page about the newest run; RUNS='runs/a/… runs/b/…' compares those, or shows a study
	$(BIN)/mmib report $(RUNS) $(ARGS)

.PHONY: export
export: $(STAMP) ## Export the best run of each task, on the data of its newest run, to exports/; RUNS='runs/a/…' names others, OUT=another folder
	$(BIN)/mmib export $(RUNS) -o '$(or $(OUT),exports)' $(ARGS)

.PHONY: serve
serve: $(STAMP) ## Open a page to try exported models, with a JSON API: MODEL=exports ARGS='--port 8001' (docs/how-to/serve.md)
	$(BIN)/mmib serve $(addprefix --model ,$(or $(MODEL),exports)) --runtime onnx --open $(ARGS)

.PHONY: demo
demo: $(STAMP) ## Train both demo models unless there are runs of them, export them, and open the page
	$(BIN)/python -m experiments.demo $(ARGS)

.PHONY: screenshots
screenshots: $(STAMP) ## Take new screenshots of page, report and review page: MODEL=exports RUNS=run of the report
	$(BIN)/python -m experiments.screenshots --model $(or $(MODEL),exports) $(if $(RUNS),--run '$(RUNS)') $(ARGS)

.PHONY: demo-data
demo-data: $(STAMP) ## Write the demo corpus to data/demo (training does this automatically)
	$(BIN)/mmib demo-data $(ARGS)

.PHONY: crop-objects
crop-objects: $(STAMP) ## Crop objects from a data set's images: DATA_ROOT=… TASK=mnre or twitter (docs/how-to/crops.md)
	@test -n "$(DATA_ROOT)" || { echo "Where is the data? make $@ TASK=mnre DATA_ROOT=/path/to/mnre"; exit 2; }
	$(BIN)/mmib crop-objects '$(DATA_ROOT)' --task $(or $(TASK),mnre) $(ARGS)

.PHONY: check-data
check-data: $(STAMP) ## Report what a data folder contains, what is missing and what would stop a training: DATA=…
	@test -n "$(DATA)" || { echo "Where is the data? make $@ DATA=/path/to/the/data"; exit 2; }
	$(BIN)/mmib check-data '$(DATA)' $(ARGS)

.PHONY: test
test: $(STAMP) lint ## Run the linters and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

.PHONY: test-smoke
test-smoke: $(STAMP) ## Run the smoke tests of an installation
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m smoke $(ARGS)

.PHONY: test-floor
test-floor: ## Run the smoke tests with the oldest versions that setup.cfg allows, in a fresh environment
	$(PYTHON) -m experiments.installation . --floor $(ARGS)

.PHONY: test-python
test-python: ## Run the smoke tests with another Python, in a fresh environment: VERSION=3.13
	$(PYTHON) -m experiments.installation . --python '$(or $(VERSION),3.13)' $(ARGS)

.PHONY: release
release: $(STAMP) ## Build the files of a release and test them in fresh environments; ARGS=--rehearse before it is ready
	$(BIN)/python -m experiments.release $(ARGS)

.PHONY: test-resume
test-resume: $(STAMP) ## Kill a short training at ten random moments, resume it each time, compare bit for bit
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.robustness.kill_and_resume --kills 10 -- \
		--config experiments/robustness/resume.yaml --data.root data/demo-tiny --wandb off $(ARGS)

.PHONY: test-kills
test-kills: $(STAMP) ## Kill cache building, training and export at 50 random moments; check that no file is damaged and the next start works
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.robustness.kill_anywhere --kills $(or $(KILLS),50) -- --wandb off $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Feed 50,000 damaged and hostile files to all readers, and interrupt 300 extractions in any order
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.robustness.fuzz --inputs 50000 --seed 0 $(ARGS)
	OMP_NUM_THREADS=1 EXAMPLES=300 $(BIN)/python -m pytest tests/mmib/extract/test_interruptions.py --hypothesis-seed 0

.PHONY: soak
soak: $(STAMP) ## Send requests of honest and hostile clients concurrently; no answer may be lost, and half of the throughput must remain (after make export)
	$(BIN)/python -m experiments.robustness.soak --model '$(or $(MODEL),exports)' $(ARGS)

.PHONY: reproduce
reproduce: $(STAMP) ## Train the published settings on the real sets over 3 seeds: DATA_ROOT=… (docs/how-to/reproduction.md)
	@test -n "$(DATA_ROOT)" || { echo "Where is the data? make $@ DATA_ROOT=/path/to/the/folder/of/mnre,twitter2015,twitter2017"; exit 2; }
	$(BIN)/python -m experiments.reproduce --data-root '$(DATA_ROOT)' $(ARGS)

.PHONY: real
real: $(STAMP) ## Measure the method on real posts with captions for images: DATA_ROOT=… CAPTIONS=… (docs/how-to/reproduction.md)
	@test -n "$(DATA_ROOT)" -a -n "$(CAPTIONS)" || { \
	  echo "Where is the data? make $@ DATA_ROOT=/folder/of/mnre,twitter2017 CAPTIONS=/folder/of/mnre.jsonl,twitter2017.jsonl"; exit 2; }
	$(BIN)/mmib study experiments/real/mnre.yaml --parallel $(PARALLEL) --results experiments/results $(ARGS) -- \
	  --config model/side_text.yaml --data.root '$(DATA_ROOT)/mnre' --data.side_text '$(CAPTIONS)/mnre.jsonl' \
	  --model.backbone.image_encoder.regions_per_text mean
	$(BIN)/mmib study experiments/real/twitter2017.yaml --parallel $(PARALLEL) --results experiments/results $(ARGS) -- \
	  --config model/side_text.yaml --data.root '$(DATA_ROOT)' --data.side_text '$(CAPTIONS)/twitter2017.jsonl'

.PHONY: joint
joint: $(STAMP) ## Score entities and relations together, as triples, on the demo corpus's test posts (after make export)
	$(BIN)/python -m experiments.joint --model '$(or $(OUT),exports)' $(ARGS)

.PHONY: known-answers
known-answers: $(STAMP) ## Check the information estimates against known values: a figure and a table
	$(BIN)/python -m experiments.known_answers $(ARGS)

# The existing ones, in this order; each prints tables. Training takes most of the time.
BENCHMARKS := startup cost padding crf attention cache training inference memory scaling
BENCHMARKS := $(filter $(basename $(notdir $(wildcard experiments/benchmarks/*.py))), $(BENCHMARKS))

.PHONY: bench
bench: $(BENCHMARKS:%=bench-%) ## Run all benchmarks (docs/explanation/performance.md); one: make bench-training ARGS='--sets mnre'

bench-%: $(STAMP)
	$(BIN)/python -m experiments.benchmarks.$* $(ARGS)

.PHONY: bench-monitor
bench-monitor: $(STAMP) ## Measure the cost of the bottleneck monitor per training step
	$(BIN)/python -m experiments.benchmarks.monitor -- --config mre-demo $(ARGS)

.PHONY: bench-extraction
bench-extraction: $(STAMP) ## Measure posts per second of extraction, individually and in batches (after make export)
	$(BIN)/python -m experiments.benchmarks.extraction --model '$(or $(OUT),exports)' $(ARGS)

.PHONY: bench-gpu
bench-gpu: $(STAMP) ## Measure everything that needs a GPU, in eight minutes, into runs/bench-gpu (experiments/README.md)
	$(BIN)/python -m experiments.benchmarks.gpu $(ARGS)

.PHONY: gpu-bundle
gpu-bundle: $(STAMP) ## Collect in .gpu what bench-gpu needs on a machine without a network, and print how to run it there
	$(BIN)/python -m experiments.benchmarks.bundle .gpu $(ARGS)

.PHONY: test-slurm
test-slurm: $(STAMP) ## Run the batch scripts on a temporary one-node SLURM cluster (root: installs slurm-wlm, munge)
	$(BIN)/python -m experiments.slurm.test_slurm $(ARGS)

.PHONY: audit
audit: $(STAMP) ## List the licences of the pinned packages, and known vulnerabilities (skipped where no service answers)
	$(BIN)/python -m experiments.audit $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: docs
docs: $(STAMP) ## Build the documentation into build/docs; warnings are errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -j auto -c docs -d build/doctrees . build/docs
	@echo 'build/docs/index.html'

.PHONY: schema
schema: $(STAMP) ## Regenerate the schema of all classes' options, used by --help and early checks
	$(BIN)/python -m mmib.training.option_schema

.PHONY: format
format: $(STAMP) ## Format the code (ruff)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## Remove caches and build products; runs and data stay
	rm -rf build dist *.egg-info .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
