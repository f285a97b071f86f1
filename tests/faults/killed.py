"""python -m tests.faults.killed FOLDER KILLS LORA SEED: a run that is killed KILLS times and
resumed each time, held against one that is not.

The interpreter with torch is started once; every run is a fork of it and is killed by SIGKILL, at a
moment drawn uniformly from the time that resuming and some steps take. Each step ends with a save,
so that many of the moments lie in one. Prints what it found as one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch
from transformers import AutoTokenizer

import sdpo_lab as lab
from sdpo_lab.models.loading import add_adapter, lora_config
from sdpo_lab.runs.folder import RunFolder
from small_models.make import new_model
from tests.shared.models import TINY, TOKENIZER
from tests.shared.tasks import SMALL, Vowels


def begin(lora: int) -> lab.SDPOTrainer:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    model = new_model(TINY, tokenizer)
    model = add_adapter(model, lora_config(lora)) if lora else model
    return lab.SDPOTrainer(
        model,
        tokenizer,
        Vowels(),
        lab.SDPOConfig.preset("laptop", **SMALL, teacher_update_rate=0.1),
    )


def go_on(folder: Path, lora: int) -> lab.SDPOTrainer:
    saved = (folder / "latest.json").exists() and RunFolder(folder).pointer()["checkpoint"]
    trainer = lab.SDPOTrainer.resume(folder, task=Vowels()) if saved else begin(lora)
    trainer.autosave(folder, seconds=0)
    return trainer


def fork(work) -> int:
    """work() in a fork, which ends with 0, or with 1 when it raised."""
    if child := os.fork():
        return child
    try:
        work()
    except BaseException:  # the fork must never go on as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def trace(folder: Path) -> str:
    """What the kill cut short: "a checkpoint", "the history", "the switch", or "" where no save was
    under way."""
    run = RunFolder(folder)
    pointer = run.pointer() if folder.exists() else None
    names = {p.name for p in folder.glob("checkpoint-*")}
    if any(n.endswith(".partial") for n in names):
        return "a checkpoint"
    if pointer and names - {*pointer["kept"]}:
        return "the switch"
    if pointer and pointer["checkpoint"]:
        known = json.loads((folder / pointer["checkpoint"] / "state.json").read_text())["history"][
            "bytes"
        ]
        return "the history" if (folder / "history.jsonl").stat().st_size != known else ""
    return "the history" if folder.exists() else ""


def main() -> None:
    folder, kills, lora, seed = (
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
    )
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng, cut, killed = random.Random(seed), {}, 0
    began = time.monotonic()
    first = fork(lambda: go_on(folder / "timing", lora).train(2, progress=False))
    assert os.waitpid(first, 0)[1] == 0
    long = 3 * (time.monotonic() - began)
    run = folder / "run"
    while killed < kills:
        child = fork(lambda: [None for _ in go_on(run, lora)])
        time.sleep(rng.uniform(0, long))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, (
            "it ended before it was killed"
        )
        killed += 1
        cut[trace(run)] = cut.get(trace(run), 0) + 1
    last = fork(lambda: go_on(run, lora).train(1, progress=False))
    assert os.waitpid(last, 0)[1] == 0
    survivor = lab.SDPOTrainer.resume(run, task=Vowels())
    whole = begin(lora)
    whole.train(len(survivor.history), progress=False)
    print(
        json.dumps(
            {
                "killed": killed,
                "cut short": cut,
                "steps": len(whole.history),
                "different": different(survivor, whole),
            }
        )
    )


def different(one: lab.SDPOTrainer, two: lab.SDPOTrainer) -> list[str]:
    """The names of everything in which the two differ; the times of the steps are not compared."""
    from sdpo_lab.runs import checkpoints

    sides = []
    for t in (one, two):
        tensors = {f"student {k}": v for k, v in t.model.state_dict().items()} | {
            f"teacher {k}": v for k, v in t.teacher.copies().items()
        }
        tensors |= {f"optimizer {k}": v for k, v in checkpoints.moments(t).items()}
        records = {
            f"step {r.step}": repr((r.reward, r.loss, r.metrics, r.rollouts)) for r in t.history
        }
        sides.append(
            (
                tensors,
                records
                | {
                    "counters": repr((t.skipped_steps, t.bad_steps, t.optimizer_steps)),
                    "config": repr(t.config),
                },
            )
        )
    (tensors, facts), (other_tensors, other_facts) = sides
    assert tensors.keys() == other_tensors.keys() and len(tensors) > 20
    return [k for k, v in tensors.items() if not torch.equal(v, other_tensors[k])] + sorted(
        k for k in {*facts, *other_facts} if facts.get(k) != other_facts.get(k)
    )


if __name__ == "__main__":
    main()
