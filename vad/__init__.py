"""The benchmark around the model: data, training, evaluation, tables. A module imports only modules above it.

| module | holds |
|---|---|
| files | input errors, exit codes, atomic file writes |
| datasets | dataset.toml and annotations.csv: classes, splits and anomalous intervals |
| options | every option: flags, profiles, fingerprint of a run |
| runtime | device, precision, random seeds, distributed processes |
| data | lists, embeddings, training windows and their cache, batches |
| scoring | the only inference loop, and causal scoring of a stream |
| prepare/ | lists, ground truth and audit, used by the scripts in list/ |
| metrics, statistics | metrics of scored videos; bootstrap intervals and paired tests |
| localisation | events touched, event F1 and delay at a rate of false alarms |
| evaluation | test sets, checkpoints, and the protocol line above every table |
| avadclip/ | AVadCLIP: labels, loss and text tower of a run; average precision of class segments |
| train | training loop, files of a run, exact resume |
| experiments | multiple seeds and sweeps, <exp_name>_runs.csv |
| report/ | tables, figures, timelines, masking probe, comparison of runs, pages about own videos |
"""
