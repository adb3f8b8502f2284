"""Commands that embed sound: parse the flags, join the videos with their image embeddings, start the run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from extracting.audio.job import AUDIO, embed_sounds, join_images
from extracting.audio.tracks import require_av
from extracting.audio.wav2clip import NORMS, TOWERS, load_audio_encoder
from extracting.clip.weights import UNTRAINED
from extracting.job.cli import embed, read_shard
from extracting.job.run import Output
from extracting.job.videos import find_videos
from extracting.video.config import Config
from extracting.video.frames import check_opencv
from vad.datasets import IMAGE_FOLDER, Dataset, load_dataset
from vad.files import InputError, run_command
from vad.options import DATASET_HELP, advanced, command_parser

NAMES = 3  # of the videos without image embeddings that are printed


def main(name: str | None = None) -> None:
    """Run a command and exit as `job.cli.main` does. name: of a data set, fixed by a script; None reads the flag."""
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    run_command(lambda: extract(load_dataset(name) if name else None))


def extract(fixed: Dataset | None = None) -> int:
    """Parse the flags and run the extraction. Return 0, or 1 if a video has no embedding or is damaged.

    Raises InputError for invalid input, before any sound is read where possible.
    """
    check_opencv()
    flags = parser(fixed).parse_args()
    record = fixed or load_dataset(flags.dataset)
    config = Config(crops=(None,), fps=flags.fps or record.fps, strict=flags.strict)
    video_dir = flags.video_dir or record.video_root
    if video_dir is None:
        raise InputError(f"--video_dir is missing. Give the folder of the {record.title} videos.")
    image_dir = (flags.image_dir or record.data_root / IMAGE_FOLDER).absolute()
    save_dir = (flags.save_dir or image_dir.parent / AUDIO).absolute()
    jobs, missing = join_images(find_videos(video_dir), image_dir, record)
    jobs = jobs[read_shard(flags.shard)]
    require_av(jobs)
    checkpoint = flags.wav2clip_ckpt or (UNTRAINED if record.synthetic else None)
    tower = flags.encoder or ("tiny" if record.synthetic else "wav2clip")
    encoder = load_audio_encoder(
        checkpoint, tower=tower, device=flags.device, norm=flags.audio_norm, pass_size=flags.batch_size
    )
    settings = {"modality": AUDIO, "folder_fps": config.fps, **encoder.provenance()}
    out = Output(AUDIO, save_dir, settings, encoder.hash, encoder.note)
    print(f"{len(jobs)} videos in {video_dir} with image embeddings in {image_dir}")
    if missing:
        more = " …" if len(missing) > NAMES else ""
        print(f"{len(missing)} videos have no image embeddings and are left out: {', '.join(missing[:NAMES])}{more}")
    return embed(flags, jobs, {AUDIO: out}, config, missing, lambda todo: embed_sounds(todo, out, encoder, config))


def parser(fixed: Dataset | None) -> argparse.ArgumentParser:
    """Return the parser of a command. fixed: data set of the script; None adds the flag."""
    title = f"{fixed.title} videos" if fixed else "videos"
    dataset = "" if fixed else " --dataset xd"
    example = f"python extracting/{Path(sys.argv[0]).name}{dataset} --video_dir VIDEOS --image_dir FEATURES/rgb \\\n"
    example += "    --save_dir FEATURES/audio --wav2clip_ckpt Wav2CLIP.pt"
    flags = command_parser(f"Embed the sound of {title}: one .npy (S, D) per video, one row per 16 frames.", example)
    add = flags.add_argument
    if fixed is None:
        add("--dataset", required=True, metavar="NAME", help=DATASET_HELP)
    add("--video_dir", type=Path, metavar="DIR", help="videos; a .wav of the same name beside one replaces its sound")
    add("--image_dir", type=Path, metavar="DIR", help="their image embeddings, which give S (default: the data set's)")
    add("--save_dir", type=Path, metavar="DIR", help="folder for the embeddings (default: audio/ beside --image_dir)")
    add("--wav2clip_ckpt", metavar="FILE", help=f"weights of Wav2CLIP ({UNTRAINED}: try without weights)")
    add("--encoder", choices=TOWERS, metavar="NAME", help="wav2clip, or tiny: a small network for tests")
    add("--audio_norm", choices=NORMS, default=NORMS[0], metavar="NAME",
        help="mean and deviation of each video or segment (default: video)")  # fmt: skip
    add("--fps", type=float, metavar="X", help="frame rate of frame folders (default: the data set's)")
    add("--overwrite", action="store_true", help="make finished embeddings again")
    add("--dry_run", action="store_true", help="print what would be done and write nothing")
    add("--help_all", action="help", help="show every flag and exit")
    more = flags.add_argument_group("machine")
    more.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 (default: auto)")
    more.add_argument("--batch_size", type=int, metavar="N",
                      help=advanced("segments in a forward pass (default: 8 on a CPU, 256 on a GPU)"))  # fmt: skip
    more.add_argument("--shard", default="0/1", metavar="K/N", help="every N-th video from the K-th, for N commands")
    more.add_argument("--strict", action="store_true", help=advanced("stop at the first video that is not ok"))
    return flags
