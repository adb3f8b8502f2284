"""The GPU benchmark of training runs, tested on a CPU."""

from __future__ import annotations

import pytest

from tests.benchmarks import gpu
from tests.benchmarks.timing import Machine


def test_gpu_benchmark_measures_all_cases_on_a_cpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It covers both kernels, both precisions and all four data sets; its numbers mean nothing on a CPU."""
    monkeypatch.setattr(gpu, "T", 16)
    monkeypatch.setattr(gpu, "D", 32)
    gpu.bench(Machine("cpu", product=64, repeats=1), batches=(2, 4))
    printed = capsys.readouterr().out
    for part in ("KalmanScan, batch 4", "KalmanLoop, batch 4", "fp32, batch 2", "bf16, batch 4"):
        assert part in printed
    assert printed.count("h in fp32") == printed.count("h in bf16") == 4
