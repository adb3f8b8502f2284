"""Trains on several processes in every way the tests ask about, and prints what happened as one JSON object.

python tests/vad/share_training.py FOLDER     processes are copies of this one, so that they start at once
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch._dynamo  # DistributedDataParallel imports it, which takes each process a second
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from model import read_checkpoint
from tests.conftest import Tiny
from tests.vad.training_runs import CPU, continued, make_run
from vad.computing import Computing
from vad.distributed import Ranks, join
from vad.errors import InputError, run_door
from vad.run import Run
from vad.training import step, train

# three of each side a batch: two processes get two and one, three get one each; videos differ in length
FLAGS = ("--batch_size", "3", "--max_epoch", "3", "--dropout", "0", "--test_crops", "5")
DROPPING = (*FLAGS, "--dropout", "0.5")
Work = Callable[[Computing], object]


def start(world: int, work: Work, errors: Path) -> list[int]:
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
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(f"{errors}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        _be(work)
    return processes


def _be(work: Work) -> None:
    def door() -> int:
        with join(CPU.device) as ranks:
            work(replace(CPU, ranks=ranks))
        return 0

    code = 1
    try:
        run_door(door)
    except SystemExit as end:
        code = int(end.code)
    except Exception as error:
        print(repr(error), file=sys.stderr, flush=True)
    os._exit(code)


def codes(processes: list[int]) -> list[int]:
    """Exit codes; negative for a signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


class Shared:
    """The questions, each answered by processes of their own below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tiny = folder, Tiny.make(folder)
        self.errors = folder / "errors"

    def run(self, world: int, work: Work) -> list[int]:
        return codes(start(world, work, self.errors))

    def said(self, rank: int) -> str:
        return Path(f"{self.errors}.{rank}").read_text()

    def gradients(self, world: int, *flags: str) -> dict[str, Tensor]:
        """Gradients and losses of the first step."""
        place = self.folder / "gradients.pt"

        def work(computing: Computing) -> None:
            run = make_run(self.tiny, self.folder / "unused", *FLAGS, *flags, computing=computing)
            values, _ = step(run, next(iter(run.batches.epoch(0))))
            if computing.ranks.leads:
                grads = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
                torch.save({**grads, **{f"loss {name}": torch.tensor(v) for name, v in values.items()}}, place)

        assert self.run(world, work) == [0] * world, self.said(0)
        return torch.load(place, weights_only=True)

    def worst(self, world: int, *flags: str) -> float:
        """Largest difference of a gradient or loss from one process's, relative to the largest gradient."""
        alone, shared = self.gradients(1, *flags), self.gradients(world, *flags)
        assert alone.keys() == shared.keys()
        scale = max(float(g.abs().max()) for name, g in alone.items() if not name.startswith("loss "))
        return max(float((shared[n] - g).abs().max()) for n, g in alone.items()) / scale

    def trained(self, world: int, name: str, *flags: str, prepare: Callable[[Run], None] | None = None) -> list[int]:
        """Train, or go on training, what is in a folder of this name."""

        def work(computing: Computing) -> None:
            run = continued(self.tiny, self.folder / name, *(flags or FLAGS), computing=computing)
            if prepare:
                prepare(run)
            train(run)

        return self.run(world, work)

    def state(self, name: str, which: str = "run.pth") -> dict[str, object]:
        return read_checkpoint(self.folder / name / which)

    def curve(self, name: str) -> list[list[float]]:
        lines = (self.folder / name / "run.csv").read_text().splitlines()[1:]
        return [[float(cell) for cell in line.split(",")] for line in lines]


def disturbing(rank: int, at: int, deed: Callable[[Run], object]) -> Callable[[Run], None]:
    """Makes one rank do something in the forward pass of one step."""

    def prepare(run: Run) -> None:
        forward = run.forward

        def disturbed(*given: object) -> object:
            output = forward(*given)
            if run.step == at and run.computing.ranks.rank == rank:
                deed(output)
            return output

        run.forward = disturbed

    return prepare


def spoil(output: object) -> None:
    output.logits.data[0] = float("nan")


def refuse(ranks: Ranks) -> None:
    """Work that fails on all but the leader."""
    if not ranks.leads:
        raise InputError(f"rank {ranks.rank} cannot")


def answers(folder: Path) -> dict[str, object]:
    """Every question and its answer."""
    shared = Shared(folder)
    found: dict[str, object] = {
        "gradients, 2": shared.worst(2),
        "gradients, 3": shared.worst(3),
        "gradients, released": shared.worst(2, "--profile", "released", "--batch_size", "3"),
        "gradients, paper": shared.worst(2, "--profile", "paper", "--batch_size", "3", "--test_crops", "5"),
    }
    for name, world in (("one", 1), ("two", 2)):
        assert shared.trained(world, name) == [0] * world, shared.said(0)
        found[f"curve, {name}"] = shared.curve(name)
    found["files"] = sorted(path.name for path in (folder / "two").iterdir())
    stop = disturbing(1, 3, lambda output: signal.raise_signal(signal.SIGINT))
    found["stopped"] = shared.trained(2, "other N", prepare=stop)
    found["stopped at"] = shared.state("other N")["step"]
    found["other N"] = shared.trained(3, "other N")
    found["curve, other N"] = shared.curve("other N")
    for name, prepare in (("whole", None), ("parts", disturbing(1, 3, lambda o: signal.raise_signal(signal.SIGINT)))):
        shared.trained(2, name, *DROPPING, prepare=prepare)
    shared.trained(2, "parts", *DROPPING)
    whole, parts = shared.state("whole"), shared.state("parts")
    found["equal"] = all(torch.equal(tensor, parts["model"][n]) for n, tensor in whole["model"].items())
    found["nan"] = shared.trained(2, "nan", prepare=disturbing(1, 3, spoil))
    found["nan said"] = [shared.said(0), shared.said(1)]
    found["nan kept"] = shared.state("nan")["step"]
    found["dead"] = shared.trained(2, "dead", prepare=disturbing(1, 3, lambda o: os.kill(os.getpid(), signal.SIGKILL)))
    found["dead said"] = shared.said(0)
    found["failed"] = shared.run(3, lambda computing: computing.ranks.together(lambda: refuse(computing.ranks)))
    found["failed said"] = [shared.said(rank) for rank in range(3)]
    found["too many"] = shared.trained(4, "many")
    found["too many said"] = shared.said(0)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)  # a copy of a process has none of its other threads
    print(json.dumps(answers(Path(sys.argv[1]))))
