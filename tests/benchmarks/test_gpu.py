"""The training bench of a GPU, on a CPU that stands for one."""

from __future__ import annotations

import pytest

from tests.benchmarks import gpu
from tests.benchmarks.timing import Machine


def test_the_gpu_bench_runs_where_a_cpu_stands_for_the_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers mean nothing here; that it measures both forms, both precisions and all four data sets, does."""
    monkeypatch.setattr(gpu, "T", 16)
    monkeypatch.setattr(gpu, "D", 32)
    gpu.bench(Machine("cpu", product=64, repeats=1), batches=(2, 4))
    said = capsys.readouterr().out
    for part in ("KalmanScan, batch 4", "KalmanLoop, batch 4", "fp32, batch 2", "bf16, batch 4"):
        assert part in said
    assert said.count("h in fp32") == said.count("h in bf16") == 4
