"""What a dashboard costs the run it shows: `python benchmarks/dashboard.py`, in a real JupyterLab
and a real browser.

Pairs in turns: the same steps of the same run (`toolcall`, the laptop preset, one thread) in a
kernel nobody looks at, and in a kernel whose dashboard, with its timeline and its snapshots, is
open in Chromium on this machine. Both measure accuracies every ten steps, which is no cost of the
dashboard. "other threads" is processor time of every thread of the kernel but the one that trains,
over the seconds of training. A click is timed in the page, from the event to the next painted
frame; "answer" is from a question to the picture after its answer. Memory is the kernel's resident
set, in the middle of a run and at its end; attempts are kept for 50 steps here (500 by default), so
that the middle lies behind everything that fills up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import table, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BEFORE = """
import os, threading
os.environ["OMP_NUM_THREADS"] = "1"
import torch
torch.set_num_threads(1)
import sdpo_lab as lab
from sdpo_lab.timeline import Timeline
from sdpo_lab.views import Dashboard, LiveRun
model, tokenizer = lab.load_model()
task = lab.load_task("toolcall", seed=100)
trainer = lab.SDPOTrainer(model, tokenizer, task, lab.SDPOConfig.preset("laptop"))
trainer.history.keep_attempts = 50
trainer.train(2, progress=False)

memory = []

def other_threads():
    '''Seconds of processor time of all threads but the one that trains.'''
    total, tick = 0.0, os.sysconf("SC_CLK_TCK")
    mine = {t.native_id for t in threading.enumerate() if t.name == "sdpo_lab-live-run"}
    for task in os.listdir("/proc/self/task"):
        try:
            fields = open(f"/proc/self/task/{task}/stat").read().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(task) not in mine:
            total += (int(fields[11]) + int(fields[12])) / tick
    return total

def watch(record):
    pages = int(open("/proc/self/statm").read().split()[1])
    memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
""".strip()
BARE = "run = LiveRun(trainer, {steps}, evaluate_every=10, watchers=(watch,))\ndash = None"
SHOWN = """timeline = Timeline(trainer, max_megabytes=100)
dash = Dashboard(trainer, {steps}, evaluate_every=10, timeline=timeline)
run = dash.run
run.watchers = (*run.watchers, watch)
dash"""
START = "cpu = other_threads()\nrun.start()"
END = """
run.wait()
import time
time.sleep(1)  # until the thread that trained is really gone: its time is not one of the others
import json
others = other_threads() - cpu
found = {"state": run.state, "training": run.seconds, "steps": run.done, "others": others}
print("FOUND", json.dumps(found | {"memory": memory}))
""".strip()
# Clicks on the fold of further knobs while the run goes on, each timed to the next painted frame.
CLICK = """() => new Promise((done) => {
    const began = performance.now();
    document.querySelector('.sdpo-dash summary, .sdpo-dash [data-testid=more]').click();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
})"""


def arm(page, address: str, folder: Path, name: str, steps: int, shown: bool) -> dict:
    """One run in a kernel of its own."""
    from tests.browser.jupyterlab import Notebook
    from tests.browser.jupyterlab import write as write_notebook

    cells = [BEFORE, (SHOWN if shown else BARE).format(steps=steps), START, END]
    book = Notebook(page, address, name, write_notebook(folder, name, *cells))
    book.run_to(1)
    clicks = []
    if shown:
        page.locator(".sdpo-dash").wait_for(timeout=60_000)
    book.run(2)
    book.idle()
    if shown:
        page.locator('.sdpo-dash[data-state="running"]').wait_for(timeout=60_000)
        while page.locator(".sdpo-dash").get_attribute("data-state") == "running":
            clicks.append(page.evaluate(CLICK))
            page.wait_for_timeout(700)
    book.run(3)
    book.idle(3600)
    found = json.loads(book.output(3).split("FOUND ", 1)[1])
    if found["state"] != "finished":
        raise RuntimeError(f"the run ended as {found['state']}")
    found["clicks"] = clicks
    book.command("kernelmenu:shutdown")
    return found


def measure(pairs: int, steps: int, chromium: str) -> dict:
    from playwright.sync_api import sync_playwright

    from tests.browser.jupyterlab import CHROMIUM_ARGUMENTS, server

    found: dict[bool, list[dict]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        with server(folder, ROOT) as address:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
            for pair in range(pairs):
                for shown in (False, True) if pair % 2 == 0 else (True, False):
                    page = browser.new_page(viewport={"width": 1400, "height": 1400})
                    found[shown].append(
                        arm(page, address, folder, f"run-{pair}-{shown}.ipynb", steps, shown)
                    )
                    page.close()
                print(
                    json.dumps({k: [round(x["training"], 1) for x in v] for k, v in found.items()}),
                    flush=True,
                )
            browser.close()
    return found


def summary(found: dict[bool, list[dict]]) -> dict:
    bare, shown = found[False], found[True]
    ratios = [s["training"] / b["training"] for b, s in zip(bare, shown)]
    clicks = [c for s in shown for c in s["clicks"]]
    grown = [s["memory"][-1] - s["memory"][len(s["memory"]) // 2] for s in shown]
    return {
        "pairs": len(ratios),
        "steps": shown[0]["steps"],
        "minutes shown": sum(s["training"] for s in shown) / 60,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "others": max(s["others"] / s["training"] for s in shown),
        "others bare": max(b["others"] / b["training"] for b in bare),
        "click": statistics.quantiles(clicks, n=20)[-1],
        "clicks": len(clicks),
        "grown": max(grown),
        "memory": max(s["memory"][-1] for s in shown),
    }


COLUMNS = {
    "pairs": "{pairs}",
    "steps a run": "{steps}",
    "minutes with it open": "{minutes shown:.1f}",
    "training time with / without, median": "{ratio:.3f}",
    "other threads, most": "{others:.1%}",
    "click, 95th percentile, ms": "{click:.0f}",
    "clicks": "{clicks}",
    "memory, second half, MiB more": "{grown:.1f}",
}


def main() -> None:
    from tests.conftest import find_chromium

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument(
        "--write", action="store_true", help="into results/ and README.md; else only printed"
    )
    arguments = parser.parse_args()
    began = time.perf_counter()
    row = summary(measure(arguments.pairs, arguments.steps, find_chromium()))
    shown = table(COLUMNS, [row])
    if arguments.write:
        write("dashboard", [row], shown)
    print(shown, json.dumps(row), f"{time.perf_counter() - began:.0f} s", sep="\n")


if __name__ == "__main__":
    main()
