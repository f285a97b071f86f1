"""What the benchmarks share: measurements in processes of their own, peaks of memory, results with
machine and versions.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def in_a_process(script: str, *arguments: object) -> dict[str, Any]:
    """Run `script --one ARGUMENTS` and read the JSON of its last line of output. Raises
    RuntimeError with what it said when it fails.
    """
    environment = os.environ | {
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    run = subprocess.run(
        [sys.executable, script, "--one", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise RuntimeError(
            f"{Path(script).name} {' '.join(map(str, arguments))} failed:\n{run.stderr[-3000:]}"
        )
    return json.loads(run.stdout.splitlines()[-1])


def peak_memory(reset: bool = False) -> int:
    """Peak resident memory of this process in bytes (Linux); `reset` starts a new peak at what is
    resident now.
    """
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(
        x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


def matrix_speed(size: int = 1024) -> float:
    """Multiply-adds a second of a float32 matrix product in this process, the best of ten: what the
    floors are counted at.
    """
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - began)
    return size**3 / min(times)


def write(name: str, rows: list[dict[str, Any]], shown: str, **settings: Any) -> None:
    """`results/NAME.json`, with what decides the numbers; and the table `shown`, printed and put
    into README.md.
    """
    from sdpo_lab.runs.recorded import software

    versions = software()
    for package in ("trl", "peft"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            pass
    RESULTS.mkdir(exist_ok=True)
    result = {
        "benchmark": name,
        "cores": CORES,
        "processor": platform.machine(),
        "versions": versions,
        **settings,
        "rows": rows,
    }
    (RESULTS / f"{name}.json").write_text(
        json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    readme = Path(__file__).parent / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")
    after = rest.split(f"<!-- /{name} -->")[1]
    readme.write_text(
        f"{before}<!-- {name} -->\n{shown}\n<!-- /{name} -->{after}", encoding="utf-8"
    )
    print(shown)


def table(columns: dict[str, str], rows: list[dict[str, Any]]) -> str:
    """Markdown; `columns` maps a heading to a format string over a row's fields."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join(
        lines + [f"| {' | '.join(f.format(**row) for f in columns.values())} |" for row in rows]
    )
