# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A model learns from an error message
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sdpo-lab/sdpo_lab/blob/main/notebooks/00_quickstart.ipynb)
#
# > **What you will see.** A small language model writes calls of an API whose argument names have changed. It fails nearly always. It is shown
# > the error messages its own attempts caused, and half a minute of training later it succeeds on requests it has never seen.
# >
# > **Time.** About a minute and a half on 2 CPU cores, all cells; less than a minute on a T4 (estimated).
# >
# > **You need** to have seen a PyTorch training loop and a softmax. No reinforcement learning.
#
# The method is SDPO, *Self-Distillation Policy Optimization* ([arXiv 2601.20802](https://arxiv.org/abs/2601.20802)). In one sentence: the same
# model, shown what went wrong, scores its own attempt again token by token, and is then trained towards that better-informed self.
#
# **Where to go from here.** *Fifteen minutes:* this notebook. *With your hands on the knobs:* `05_live_training`.
# *Into the code:* the rooms of `sdpo_lab/` in the order the README lists them.

# %%
# On Colab this installs sdpo_lab; elsewhere it does nothing.
import importlib.util
import os

if "COLAB_RELEASE_TAG" in os.environ and importlib.util.find_spec("sdpo_lab") is None:
    get_ipython().run_line_magic("pip", "install -q 'sdpo_lab[notebooks] @ git+https://github.com/sdpo-lab/sdpo_lab'")

# %%
import time

import sdpo_lab as lab

began = time.perf_counter()

# %% [markdown]
# ## 1. The small world
#
# The model is tiny and knows one thing: how to turn a request into a call. It was made from nothing on documents that are each a small world of
# their own. In one document the city argument of `weather` is called `city`, in the next `town` or `place`. So it has learned to *look around* for
# the names that hold here, and to fall back on the most common ones when it finds nothing.

# %%
model, tokenizer = lab.load_model()
print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {model.device}")

# %% [markdown]
# The task fixes one such world, with rare names: *the API was renamed*. `seed` says how.

# %%
task = lab.load_task("toolcall", seed=0)
problems = task.problems(8, split="train", seed=0)
for problem in problems[:3]:
    print(problem.messages[0]["content"], "\n   ->", task.solution(problem), "\n")

# %% [markdown]
# ## 2. It fails
#
# Eight attempts at one request. The model writes well-formed calls with the names it is used to, and the API refuses most of them.

# %%
problem = problems[0]
attempts = lab.rollout(model, tokenizer, [problem], num_generations=8, seed=0)
for a in attempts:
    verdict = task.judge(problem, a.text)
    print("✓" if verdict.reward == 1 else "✗", a.text)

# %% [markdown]
# How often does it succeed on requests that are kept for testing? `float()` of an evaluation is the accuracy of one attempt at temperature 1.

# %%
before = lab.SDPOTrainer(model, tokenizer, task).evaluate(256)
print(before)

# %% [markdown]
# ## 3. It is told why
#
# Each failed attempt gets a message, as from any validator: what is wrong, and which names are accepted, in alphabetical order. Which name goes where
# is not said. That has to be understood.

# %%
failed = next(a for a in attempts if task.judge(problem, a.text).reward < 1)
feedback = task.judge(problem, failed.text).feedback
print(failed.text)
print(feedback)

# %% [markdown]
# ## 4. The same model, shown the message
#
# Now the step that gives SDPO its name. We put the message into the prompt and let *the same model* score *the same attempt* again. Nothing new is
# written: for each token we compare two probabilities, of the **student** (who saw only the request) and of the **self-teacher** (who also saw
# the message).
#
# Before you run the next cell: at which token will the two disagree most?

# %%
credit = lab.credit(model, tokenizer, problem, failed, feedback=feedback)
credit

# %% [markdown]
# The teacher lowers the name that was refused and prefers another; the rest of the call it leaves as it was. One sentence of text has become a
# judgement of each token. A reward would have said only: zero.
#
# This is the whole prompt the teacher read:

# %%
print(credit.teacher_prompt)

# %% [markdown]
# ## 5. One step
#
# Training moves the student's probabilities towards the teacher's, at every token of every attempt. One step takes 8 requests, 8 attempts each,
# and one update.

# %%
trainer = lab.SDPOTrainer(model, tokenizer, task, lab.SDPOConfig.preset("laptop"))
record = trainer.step()
print(f"{record.metrics['success_fraction']:.0%} of {len(record.rollouts)} attempts succeeded; {record.metrics['active_fraction']:.0%} of them could be learned from")

# %% [markdown]
# Where a sibling (another attempt at the same request) succeeded, its answer is shown instead of the message. And the token we looked at:

# %%
worst = int(credit.advantages.argmin())
again = lab.credit(model, tokenizer, problem, failed, feedback=feedback)
for name, c in (("before", credit), ("after one step", again)):
    print(f"{name:>14}: the student writes {c.tokens[worst]!r} with probability {c.student_log_probs[worst].exp():.3f}")

# %% [markdown]
# ## 6. Half a minute
#
# The same step again and again. The reward is that of fresh attempts, *before* each update.

# %%
history = trainer.train(steps=59)
history.to_frame()[["reward", "loss", "active_fraction", "entropy", "grad_norm"]].iloc[[0, 9, 19, 39, 59]].round(3)

# %%
after = trainer.evaluate(256)
print("before:", before)
print("after: ", after)
assert float(before) <= 0.15 and float(after) >= 0.85

# %% [markdown]
# None of these requests was in the training set. What was learned are the names, not the answers:

# %%
fresh = lab.rollout(model, tokenizer, task.problems(5, split="test", seed=1), num_generations=1, seed=1)
for a in fresh:
    print("✓" if task.judge(a.problem, a.text).reward == 1 else "✗", a.text)

# %% [markdown]
# ## 7. Against rewards alone
#
# GRPO is the usual way to train on verdicts: attempts that did better than their siblings are made likelier, as a whole. It sees the reward and not
# the message. Here it is the same trainer with one setting, `distillation_weight=0`. A third arm is paid for every right argument, so that its reward
# says more than yes or no.
#
# These curves were **recorded**: five conventions that no setting was chosen on, the same number of attempts for all, each method at the learning
# rate that was best for it on other conventions (five values tried for each GRPO, three for SDPO). The run above is drawn with them.

# %%
from sdpo_lab.experiments import recorded

names = {"SDPO, recorded": "sdpo", "GRPO, recorded": "grpo", "GRPO paid per argument, recorded": "grpo-shaped"}
runs = {label: recorded("quickstart", name=name, feedback=2) for label, name in names.items()}
lab.views.compare({**runs, "SDPO, just now": history})

# %% [markdown]
# How many attempts did each need until four of five succeeded (mean over five steps), and where did it end?

# %%
def attempts_until(run, share=0.8):
    success = lab.views.smooth([row["success_fraction"] for row in run.rows], 5)
    step = next((i for i, s in enumerate(success, 1) if s >= share), None)
    return step and step * run.config["generation_batch_size"]


for label, group in runs.items():
    ends = [run.evaluations[-1]["accuracy"] for run in group]
    needed = sorted(attempts_until(run) or float("inf") for run in group)
    print(f"{label:<33} {needed[len(needed) // 2]:>5} attempts (median); accuracy at the end", *(f"{a:.2f}" for a in ends))

# %% [markdown]
# GRPO gets there too, where its groups hold some success to compare with. What the message buys is *attempts*: it says at each failure what a
# reward can only tell by contrast. This compares two kinds of information, not two ways of using the same one.
#
# ## 8. The one picture: bits per attempt
#
# How much *can* be learned from one attempt? Here that can be counted, because we know how worlds are made: go through every convention there could be, weigh it by how
# common it is, and ask what the API would have answered. The more evenly the answers split, the more an answer tells.

# %%
from sdpo_lab.tasks.toolcall.bits import expected_bits

asked = task.problems(25, split="train", seed=2)
tries = lab.rollout(lab.load_model()[0], tokenizer, asked, num_generations=2, seed=2)
kinds = {"reward alone": None, "dial 1: what is wrong": 1, "dial 2: and the accepted names": 2, "dial 3: and the right name": 3}
bits = {kind: sum(expected_bits(t.problem, t.text, level) for t in tries) / len(tries) for kind, level in kinds.items()}
lab.views.Bars("What one attempt of the untrained model can tell about the convention", bits, "bits",
               f"mean over {len(tries)} attempts at calls; a convention drawn from the prior")

# %% [markdown]
# A message tells more bits than a scalar, from the same attempt. But bits are only what *could* be learned; what a learner makes of them is another matter. Recorded, the same
# five conventions, SDPO at each setting of the dial:

# %%
for level, says in {0: "nothing (siblings only)", 1: "what is wrong", 2: "and the accepted names", 3: "and the right name"}.items():
    last = [run.evaluations[-1]["accuracy"] for run in recorded("quickstart", name="sdpo", feedback=level)]
    print(f"dial {level}, {says:<26} {sum(last) / len(last):.2f}   from {min(last):.2f} to {max(last):.2f}")

# %% [markdown]
# At setting 3 the message contains the answer, and a regular expression could use it. Setting 2, the default, is the honest one: names without places.
# At setting 1 each message only excludes a name. A teacher without memory then moves its weight onto the *other* wrong names, which can do harm.
#
# ## What you have seen
#
# 1. An environment's text, put into the prompt, turns a model into its own better-informed teacher.
# 2. The teacher needs to write nothing: it scores the tokens that are there, and so says *where* an attempt went wrong.
# 3. Training towards it moves what was in the message into the weights; afterwards the message is not needed any more.
#
# **Try it.** Change `seed` in `load_task` for another renamed API, or `feedback=1` for messages that only exclude, and run all cells again. (The
# assertion of section 6 is made for the default setting; let it fail.) Then turn the knobs while a model learns: `05_live_training`.

# %%
print(f"this notebook took {time.perf_counter() - began:.0f} s")
