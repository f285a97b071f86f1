"""What the token view of a long attempt costs: `python benchmarks/token_view.py`.

An attempt of 512 tokens with the 8 likeliest of both roles at each. Random scores, so that no two
alternatives coincide: the worst case for the size. Prints bytes, and milliseconds: processor time
of making the data and the HTML, and of drawing it and moving to another token in a headless
Chromium.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import sdpo_lab as lab
from sdpo_lab.analysis.credit import Credit, byte_spans, split_text
from sdpo_lab.core import losses
from sdpo_lab.views.page import bundle, style
from sdpo_lab.views.token_data import view_data
from sdpo_lab.views.tokens import token_view

ROOT = Path(__file__).resolve().parent.parent
TOKENS, K, REPEATS = 512, 8, 7
MEASURE = """() => {
  const times = { draw: [], switch: [], move: [] };
  const timed = (name, f) => {
    const began = performance.now();
    f();
    document.body.offsetHeight;
    times[name].push(performance.now() - began);
  };
  for (let i = 0; i < %d; i++) {
    const root = document.createElement("div");
    let view;
    document.body.replaceChildren(root);
    timed("draw", () => { view = tokenView(root, data); });
    timed("switch", () => root.querySelector("input[value=student]").click());
    timed("move", () => view.select(0, 100 + i));
  }
  return times;
}"""


def random_credit(tokens: int = TOKENS, seed: int = 0) -> Credit:
    """An attempt of random tokens with random scores, over the vocabulary of the default model."""
    _, tokenizer = lab.load_model()
    generator = torch.Generator().manual_seed(seed)
    p, q = (
        (3 * torch.randn(tokens, len(tokenizer), generator=generator)).log_softmax(-1)
        for _ in range(2)
    )
    ids = torch.randint(10, len(tokenizer), (tokens,), generator=generator).tolist()
    at, texts = torch.tensor(ids)[:, None], split_text(tokenizer, ids)
    question = "<|im_start|>user\nQuestion?" + " word" * 100 + "<|im_end|>\n<|im_start|>assistant\n"
    return Credit(
        texts,
        byte_spans(tokenizer, ids, texts),
        ids,
        p.gather(1, at)[:, 0],
        q.gather(1, at)[:, 0],
        losses.divergence(p, q, 0.5),
        p,
        q,
        question,
        question.replace("<|im_end|>", "\nFeedback:" + " error" * 100 + "<|im_end|>"),
        {"feedback": " error" * 100},
        tokenizer,
    )


def milliseconds(function: Any) -> float:
    """Processor time of a call, median of `REPEATS` after a first one."""
    function()
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


def in_chromium(data: Any, executable: str) -> dict[str, float]:
    """Medians in milliseconds of drawing `data`, switching the quantity and moving to another
    token, layout included.
    """
    import json

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        (Path(folder) / "empty.html").write_text(
            "<!DOCTYPE html><title>empty</title>", encoding="utf-8"
        )
        page.goto((Path(folder) / "empty.html").as_uri())
        page.add_style_tag(content=style("token_view"))
        script = f"const {{ tokenView }} = {bundle('token_view')};"
        page.add_script_tag(content=f"{script}\nconst data = {json.dumps(data)};")
        times = page.evaluate(MEASURE % REPEATS)
        browser.close()
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.conftest import find_chromium

    credit = random_credit()
    view = token_view(credit, k=K)
    short = token_view(random_credit(20), k=K)
    print(
        f"HTML of {TOKENS} tokens with top-{K}: {len(view._repr_html_().encode()):,} bytes; "
        f"of 20 tokens: {len(short._repr_html_().encode()):,} bytes"
    )
    print(
        f"data: {milliseconds(lambda: view_data(credit, K)):.0f} ms, "
        f"HTML from it: {milliseconds(view._repr_html_):.0f} ms"
    )
    for name, value in in_chromium(view.data, find_chromium()).items():
        print(f"in Chromium, {name}: {value:.0f} ms")


if __name__ == "__main__":
    main()
