"""IEF-VAD, one file per section of the paper (arXiv 2505.02393).

| section | file | content |
|---|---|---|
| 3.1 | temporal_encoder.py | temporal self-attention of each stream |
| 3.1 – 3.2, Eq. 1 – 4, App. B | uncertainty.py | mean and log-variance, noise model, precision |
| 3.3, App. C | fusion.py | inverse-variance fusion of any number of streams |
| 3.4, Eq. 5 | kalman.py | sequential update |
| 3.4, Eq. 5 | kalman_kernels.py | fast kernels of the update: a loop for CPUs, a scan for GPUs |
| 3.5, App. D | refinement.py | iterative refinement |
| 3, Figure 1 | ief_vad.py | the complete network, its configuration and its output |
| 3.6, Eq. 6, App. E | losses.py | classification, KL and regularisation losses |
| — | checkpoint.py | reading and writing of checkpoints and pretrained folders |
| — | export.py | ONNX files and PyTorch programs, for deployment |
"""

from model.checkpoint import (
    CheckpointError,
    build_model,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    save_pretrained,
)
from model.ief_vad import IEFVAD, MODALITIES, STREAMS, ConfigError, IEFVADConfig, IEFVADOutput
from model.losses import LossTerms, Objective

__all__ = [
    "IEFVAD",
    "MODALITIES",
    "STREAMS",
    "CheckpointError",
    "ConfigError",
    "IEFVADConfig",
    "IEFVADOutput",
    "LossTerms",
    "Objective",
    "build_model",
    "load_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
    "save_pretrained",
]
