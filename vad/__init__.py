"""The benchmark around the model: data, training, evaluation, tables. Imports go down this list only.

| module | holds |
|---|---|
| files | input errors, exit codes, files written whole or not at all |
| datasets | dataset.toml and annotations.csv: classes, splits, intervals of the data sets |
| options | every option: flags, profiles, fingerprint |
| runtime | device, precision, random numbers, processes of one run |
| data | lists, embeddings, training windows and their cache, batches |
| scoring | the only inference loop |
| prepare/ | lists, ground truth and audit: what the scripts of list/ do |
| metrics, statistics | numbers of scored videos; bootstrap and paired tests |
| evaluation | test sets and checkpoints opened, the protocol line above every table |
| train | the training loop, what a run leaves on disk, exact resume |
| experiments | seeds and sweeps, runs.csv |
| report/ | tables, pictures, timelines, the masking probe, comparison of runs |
"""
