# make demo · make test · make bench · make setup     each sets up what it needs
PYTHON ?= python3
# another build of torch: make setup TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
MODALITIES := image event fusion
SEEDS := 0 1 2

.PHONY: help setup demo test bench clean-demo

help:
	@echo "make demo   draw videos, extract, train, evaluate, probe; ends with a table and pictures in figure/demo/"
	@echo "make test   run the tests"
	@echo "make bench  time what was made fast against the plain way"
	@echo "make setup  make .venv/ alone"

setup: $(VENV)/.ready

# one call for torch and the rest: a later one would let torchvision ask for another torch
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check "$(TORCH)" ".[test]"
	@touch $@

demo: setup
	$(PY) -m vad.demo
	@for modality in $(MODALITIES); do \
		$(PY) main.py --dataset demo --modality $$modality --runs 3 --exp_name demo/$$modality || exit $$?; \
	done
	$(PY) test2.py --dataset demo --ckpt_path checkpoints/demo/fusion_seed0.pth --exp_name demo
	$(PY) test.py --dataset demo --exp_name demo \
		--ckpt_path $(foreach m,$(MODALITIES),$(foreach s,$(SEEDS),checkpoints/demo/$(m)_seed$(s).pth))

test: setup
	$(PY) -m ruff check --quiet .
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto

bench: setup
	$(PY) tests/bench.py

clean-demo:
	rm -rf data/demo list/demo checkpoints/demo figure/demo
