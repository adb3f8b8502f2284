"""AVadCLIP, audio-visual anomaly detection with prompts, one file per section of the paper (arXiv 2504.04495).

| section | file | content |
|---|---|---|
| III-B | temporal.py | local transformer, two graphs, temporal convolutions of the audio |
| III-C | fusion.py | adaptive fusion of image and audio, and those of Table VII |
| III-D | prompt.py | learned prompts, prompt from the video, class embeddings |
| III-D | text.py | CLIP's frozen text transformer |
| III-D | branches.py | classification and alignment branch |
| III-E, III-F | losses.py | losses of both branches, and their weighted sum |
| III-F | distillation.py | features and variance of the student, losses of the distillation |
| III, Figure 2 | avadclip.py | teacher and student, their configuration and output, profiles |
| — | checkpoint.py | reading and writing of checkpoints, the released ones included |
"""

from model.avadclip.avadclip import PROFILES, AVadCLIP, AVadCLIPConfig, AVadCLIPOutput
from model.avadclip.checkpoint import (
    build_avadclip,
    is_avadclip,
    load_avadclip,
    parse_avadclip,
    read_avadclip,
    save_avadclip,
)
from model.avadclip.losses import AVadCLIPObjective, AVadCLIPTerms
from model.avadclip.text import TextTower

__all__ = [
    "PROFILES",
    "AVadCLIP",
    "AVadCLIPConfig",
    "AVadCLIPObjective",
    "AVadCLIPOutput",
    "AVadCLIPTerms",
    "TextTower",
    "build_avadclip",
    "is_avadclip",
    "load_avadclip",
    "parse_avadclip",
    "read_avadclip",
    "save_avadclip",
]
