"""Train on several processes in every way the tests ask about, and print what happened as one JSON object.

`python tests/tools/share_training.py FOLDER`; processes are copies of this one, so that they start at once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # DistributedDataParallel imports it, which takes each process a second
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import vad.train
from model import IEFVAD, read_checkpoint
from tests.conftest import Tiny
from tests.vad.runs import options_of
from vad.files import run_command
from vad.options import Options
from vad.train import train_run

# three of each side a batch: two processes get two and one, three get one each; videos differ in length
CHANGES = {"batch_size": 3, "max_epoch": 3, "dropout": 0.0}
DROPPING = {**CHANGES, "dropout": 0.5}


def start(world: int, work: Callable[[], object], errors: Path) -> list[int]:
    """Processes that do the work together, as torchrun starts them; rank k's stderr goes to <errors>.k."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world):
        process = os.fork()
        if process:
            processes.append(process)
            continue
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(f"{errors}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        code = 1
        try:
            run_command(lambda: work() and 0)
        except SystemExit as end:
            code = int(end.code)
        except Exception as error:
            print(repr(error), file=sys.stderr, flush=True)
        os._exit(code)
    return processes


class Shared:
    """The questions, each answered by processes of their own below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tiny = folder, Tiny.make(folder)
        self.errors = folder / "errors"

    def options(self, name: str, changes: dict[str, object]) -> Options:
        return options_of(self.tiny, self.folder / name, **changes)

    def run(self, world: int, work: Callable[[], object]) -> list[int]:
        """Exit codes; negative for a signal."""
        return [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in start(world, work, self.errors)]

    def said(self, rank: int) -> str:
        return Path(f"{self.errors}.{rank}").read_text()

    def gradients(self, world: int, **changes: object) -> dict[str, Tensor]:
        """Gradients and losses of the first step."""
        place, plain = self.folder / "gradients.pt", vad.train.train_step

        def caught(model: IEFVAD, *given: object) -> list[float]:
            values = plain(model, *given)
            if os.environ["RANK"] == "0":
                grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
                torch.save({**grads, **{f"loss {k}": torch.tensor(v) for k, v in enumerate(values)}}, place)
            return values

        def work() -> None:
            vad.train.train_step = caught
            train_run(self.options(f"gradients{world}{len(changes)}", {**CHANGES, "max_epoch": 1, **changes}))

        for path in self.folder.glob("gradients*/*"):
            path.unlink()
        # two batches an epoch: the second step's gradients differ by what the first one's rounding did
        assert self.run(world, work) == [0] * world, self.said(0)
        return torch.load(place, weights_only=True)

    def worst(self, world: int, **changes: object) -> float:
        """Largest difference of a gradient or loss from one process's, relative to the largest gradient."""
        changes = {"batch_size": 6 if world == 2 else 5, **changes}  # one batch an epoch
        alone, shared = self.gradients(1, **changes), self.gradients(world, **changes)
        assert alone.keys() == shared.keys()
        scale = max(float(g.abs().max()) for name, g in alone.items() if not name.startswith("loss "))
        return max(float((shared[n] - g).abs().max()) for n, g in alone.items()) / scale

    def trained(
        self, world: int, name: str, changes: dict[str, object] = CHANGES, deed: Callable[[], object] | None = None
    ) -> list[int]:
        """Train, or resume, what is in a folder; `deed` is done by rank 1 in the fourth step's forward pass."""

        def work() -> None:
            vad.train.SAVE_SECONDS = 0
            if deed and os.environ["RANK"] == "1":
                count, forward = iter(range(1000)), IEFVAD.forward

                def disturbed(model: IEFVAD, *given: object) -> object:
                    output = forward(model, *given)
                    if model.training and next(count) == 3:
                        deed(output)
                    return output

                IEFVAD.forward = disturbed
            train_run(self.options(name, changes))

        return self.run(world, work)

    def state(self, name: str) -> dict[str, object]:
        return read_checkpoint(self.folder / name / "run.pth")

    def curve(self, name: str) -> list[list[float]]:
        lines = (self.folder / name / "run.csv").read_text().splitlines()[1:]
        return [[float(cell) for cell in line.split(",")] for line in lines]


def spoil(output: object) -> None:
    """Make the first logits of this process no numbers."""
    output.logits.data[0] = float("nan")


def kill(output: object) -> None:
    """Die as the out-of-memory killer has it."""
    os.kill(os.getpid(), signal.SIGKILL)


def answers(folder: Path) -> dict[str, object]:
    """Every question and its answer."""
    shared = Shared(folder)
    found: dict[str, object] = {
        "gradients, 2": shared.worst(2),
        "gradients, 3": shared.worst(3),
        "gradients, released": shared.worst(2, profile="released", nan="refuse", print_steps=1),
        "gradients, paper": shared.worst(2, profile="paper"),
    }
    for name, world in (("one", 1), ("two", 2)):
        assert shared.trained(world, name) == [0] * world, shared.said(0)
        found[f"curve, {name}"] = shared.curve(name)
    found["files"] = sorted(path.name for path in (folder / "two").iterdir())
    found["dead"] = shared.trained(2, "other N", deed=kill)
    found["dead said"] = shared.said(0)
    found["other N"] = shared.trained(3, "other N")
    found["curve, other N"] = shared.curve("other N")
    shared.trained(2, "whole", DROPPING)
    shared.trained(2, "parts", DROPPING, deed=kill)
    found["stopped at"] = shared.state("parts")["step"]
    shared.trained(2, "parts", DROPPING)
    whole, parts = shared.state("whole"), shared.state("parts")
    found["equal"] = all(torch.equal(tensor, parts["model"][n]) for n, tensor in whole["model"].items())
    found["nan"] = shared.trained(2, "nan", deed=spoil)
    found["nan said"] = [shared.said(0), shared.said(1)]
    found["nan kept"] = shared.state("nan")["step"]
    found["too many"] = shared.trained(4, "many")
    found["too many said"] = shared.said(0)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)  # a copy of a process has none of its other threads
    print(json.dumps(answers(Path(sys.argv[1]))))
