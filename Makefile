# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo check test lint chaos fuzz soak bench bench-gpu kernels evaluate format lock clean

demo: .venv/.base
	$(BIN)/seqd demo --output demo

# Lint and the fast tests, in a minute and a half on two cores.
check: lint
	$(BIN)/pytest --numprocesses 2 -m 'not slow'

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Disturbs hundreds of runs and compares each with the undisturbed one; docs/explanation/durability.md.
CHAOS := --runs 200 --minutes 25
chaos: .venv/.dev
	$(BIN)/python -m tests.chaos $(CHAOS)

fuzz: .venv/.dev
	$(BIN)/pip install -q -e ./client -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz codec --minutes 10
	$(BIN)/python -m tests.fuzz control --minutes 10

soak: .venv/.dev
	$(BIN)/python -m tests.soak

bench: .venv/.dev
	$(BIN)/python -m tests.benchmarks.cpu
	$(BIN)/python -m tests.benchmarks.jointfit
	$(BIN)/python -m tests.benchmarks.daemon
	$(BIN)/python -m tests.benchmarks.consumer
	$(BIN)/python -m tests.benchmarks.export

bench-gpu: .venv/.dev
	$(BIN)/python -m tests.benchmarks.gpu

# What is checked in beside the sources; needs nvcc.
kernels: $(patsubst %,engines/kernels/%.ptx,normalise readout strips)

engines/kernels/%.ptx: engines/kernels/%.cu engines/kernels/header.cuh
	{ printf '// %s\n' "$$(cat $^ | sha256sum | cut -d' ' -f1)"; $$(sed -n '1s,^// *,,p' $<) -o - $<; } > $@

.DELETE_ON_ERROR:

CONDITIONS := $(basename $(notdir $(wildcard calib/offline/evaluation/conditions/*.json)))
LEARNING := $(shell find calib/offline -name '*.py')
RUN_TIME := $(shell find client camera daemon calib engines -name '*.py' -not -path 'calib/offline/*') $(wildcard engines/bundles/default/*)

# Simulates, calls and compares what is older than the code that made it, or not there.
evaluate: evaluation/report.html

READOUTS := network fit fused
CALLED := $(foreach readout,$(READOUTS),$(CONDITIONS:%=evaluation/$(readout)/%/.called))

evaluation/report.html: $(CALLED) $(LEARNING)
	$(BIN)/seqd calib evaluate $(CONDITIONS:%=evaluation/images/%) --classical \
	    $(foreach readout,$(READOUTS),--calls '$(readout)=evaluation/$(readout)/{run}/fastq') \
	    --report $@ --json evaluation/figures.json

define called_by
evaluation/$(1)/%/.called: evaluation/images/%/.simulated $$(RUN_TIME)
	rm -rf $$(@D)
	mkdir -p evaluation/$(1)
	printf '[calling]\nreadout = "$(1)"\n' > evaluation/$(1)/seqd.toml
	$$(BIN)/seqd call evaluation/images/$$* --output evaluation/$(1) --config evaluation/$(1)/seqd.toml
	touch $$@
endef
$(foreach readout,$(READOUTS),$(eval $(call called_by,$(readout))))

CYCLES = 40
evaluation/images/phased/.simulated: CYCLES = 100
evaluation/images/%/.simulated: calib/offline/evaluation/conditions/%.json $(wildcard calib/offline/simulation/*.py) | .venv/.dev
	$(BIN)/seqd calib simulate $(@D) --run $* --conditions $< --size 256 --cycles $(CYCLES) --seed 2024 --overwrite
	touch $@

.SECONDARY:

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Newest versions that the project's bounds admit, tested before they are kept.
lock:
	rm -rf .venv && $(PYTHON) -m venv .venv
	PIP_CONSTRAINT= $(BIN)/pip install -q -e ./client -e '.[dev,train]' 'torch==2.13.0'
	PIP_CONSTRAINT= $(BIN)/python -m tests.doubles.buildpycuda
	(echo '# Versions that seqd is tested with; `make lock` writes them again.'; \
	 $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//') > constraints.txt
	$(BIN)/pip list --format=freeze | grep '^setuptools==' >> constraints.txt

clean:
	rm -rf .venv demo evaluation build dist *.egg-info client/*.egg-info client/build

.venv/.base: pyproject.toml client/pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e ./client -e .
	touch $@

.venv/.dev: .venv/.base
	$(BIN)/pip install -q -e ./client -e '.[dev,train]'
	$(BIN)/python -m tests.doubles.buildpycuda
	touch $@
