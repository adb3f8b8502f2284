"""Train on several processes in all tested cases and print the results as one JSON object.

Usage: `python tests/tools/share_training.py FOLDER`. The processes are forked to avoid import times.
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
import torch._dynamo  # imported here, because DistributedDataParallel would import it in every process (1 s)
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import vad.train
from model import IEFVAD, read_checkpoint
from tests.conftest import Tiny
from tests.vad.runs import options_of
from vad.files import run_command
from vad.options import Options
from vad.train import train_run

# 3 normal and 3 anomalous videos per batch: unequal shares on 2 processes, equal shares on 3
CHANGES = {"batch_size": 3, "max_epoch": 3, "dropout": 0.0}
DROPPING = {**CHANGES, "dropout": 0.5}


def start(world: int, work: Callable[[], object], errors: Path) -> list[int]:
    """Start a process group with torchrun's variables; stderr of rank k goes to <errors>.k."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
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


class SharedTraining:
    """The tested cases, each run by its own processes in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tiny = folder, Tiny.make(folder)
        self.errors = folder / "errors"

    def options(self, name: str, changes: dict[str, object]) -> Options:
        return options_of(self.tiny, self.folder / name, **changes)

    def run(self, world: int, work: Callable[[], object]) -> list[int]:
        """Return the exit codes, negative for a signal."""
        return [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in start(world, work, self.errors)]

    def stderr(self, rank: int) -> str:
        return Path(f"{self.errors}.{rank}").read_text()

    def gradients(self, world: int, **changes: object) -> dict[str, Tensor]:
        """Return gradients and losses of the first step."""
        path, train_step = self.folder / "gradients.pt", vad.train.train_step

        def recorded_step(model: IEFVAD, *arguments: object) -> list[float]:
            values = train_step(model, *arguments)
            if os.environ["RANK"] == "0":
                grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
                torch.save({**grads, **{f"loss {k}": torch.tensor(v) for k, v in enumerate(values)}}, path)
            return values

        def work() -> None:
            vad.train.train_step = recorded_step
            train_run(self.options(f"gradients{world}{len(changes)}", {**CHANGES, "max_epoch": 1, **changes}))

        for file in self.folder.glob("gradients*/*"):
            file.unlink()
        assert self.run(world, work) == [0] * world, self.stderr(0)
        return torch.load(path, weights_only=True)

    def max_difference(self, world: int, **changes: object) -> float:
        """Return the largest difference from one process's gradients and losses, relative to the largest gradient."""
        # one batch per epoch, because rounding in the first step changes the gradients of a second
        changes = {"batch_size": 6 if world == 2 else 5, **changes}
        single, shared = self.gradients(1, **changes), self.gradients(world, **changes)
        assert single.keys() == shared.keys()
        scale = max(float(g.abs().max()) for name, g in single.items() if not name.startswith("loss "))
        return max(float((shared[n] - g).abs().max()) for n, g in single.items()) / scale

    def train(
        self, world: int, name: str, changes: dict[str, object] = CHANGES, fault: Callable[[], object] | None = None
    ) -> list[int]:
        """Train or resume the run of a folder; rank 1 calls `fault` in the fourth step's forward pass."""

        def work() -> None:
            vad.train.SAVE_SECONDS = 0
            if fault and os.environ["RANK"] == "1":
                count, forward = iter(range(1000)), IEFVAD.forward

                def disturbed(model: IEFVAD, **streams: object) -> object:
                    output = forward(model, **streams)
                    if model.training and next(count) == 3:
                        fault(output)
                    return output

                IEFVAD.forward = disturbed
            train_run(self.options(name, changes))

        return self.run(world, work)

    def state(self, name: str) -> dict[str, object]:
        return read_checkpoint(self.folder / name / "run.pth")

    def curve(self, name: str) -> list[list[float]]:
        lines = (self.folder / name / "run.csv").read_text().splitlines()[1:]
        return [[float(cell) for cell in line.split(",")] for line in lines]


def set_nan(output: object) -> None:
    """Set the first logits of this process to NaN."""
    output.logits.data[0] = float("nan")


def kill(output: object) -> None:
    """Kill this process as the out-of-memory killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


def results(folder: Path) -> dict[str, object]:
    """Run all cases and return their results by name."""
    shared = SharedTraining(folder)
    cases: dict[str, object] = {
        "gradients, 2": shared.max_difference(2),
        "gradients, 3": shared.max_difference(3),
        "gradients, released": shared.max_difference(2, profile="released", nan="refuse", print_steps=1),
        "gradients, paper": shared.max_difference(2, profile="paper"),
    }
    for name, world in (("one", 1), ("two", 2)):
        assert shared.train(world, name) == [0] * world, shared.stderr(0)
        cases[f"curve, {name}"] = shared.curve(name)
    cases["files"] = sorted(path.name for path in (folder / "two").iterdir())
    cases["killed"] = shared.train(2, "resumed", fault=kill)
    cases["killed, stderr"] = shared.stderr(0)
    cases["resumed on 3"] = shared.train(3, "resumed")
    cases["curve, resumed on 3"] = shared.curve("resumed")
    shared.train(2, "whole", DROPPING)
    shared.train(2, "parts", DROPPING, fault=kill)
    cases["step at kill"] = shared.state("parts")["step"]
    shared.train(2, "parts", DROPPING)
    whole, parts = shared.state("whole"), shared.state("parts")
    cases["equal"] = all(torch.equal(tensor, parts["model"][n]) for n, tensor in whole["model"].items())
    cases["nan"] = shared.train(2, "nan", fault=set_nan)
    cases["nan, stderr"] = [shared.stderr(0), shared.stderr(1)]
    cases["nan, step"] = shared.state("nan")["step"]
    cases["too many"] = shared.train(4, "many")
    cases["too many, stderr"] = shared.stderr(0)
    return cases


if __name__ == "__main__":
    torch.set_num_threads(1)  # a forked process has no other threads
    print(json.dumps(results(Path(sys.argv[1]))))
