# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A training run in your hands
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sdpo-lab/sdpo_lab/blob/main/notebooks/05_live_training.ipynb)
#
# > **What you will see.** A full SDPO run that you start, pause, take step by step and steer while it runs, with the reward and the newest attempts
# > in front of you. Afterwards: what your hand did, as data, and the same run again from that data, to the digit.
# >
# > **Time.** About a minute and a half on 2 CPU cores if you only watch; less than a minute on a T4 (estimated).
# >
# > **You need** a PyTorch training loop. What SDPO does in one step is in `00_quickstart`.
#
# No cell below needs a click. *Run All* gives the same run as watching it without touching anything.

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
# ## 1. A model, a task, a trainer
#
# The small model writes calls of an API whose argument names were changed. It fails nearly always, and the API says why. Each step of the
# trainer lets it try, reads the error messages, and moves it towards what it would have written had it known them.

# %%
model, tokenizer = lab.load_model()
task = lab.load_task("toolcall", seed=1)
config = lab.SDPOConfig.preset("laptop")
trainer = lab.SDPOTrainer(model, tokenizer, task, config)
requests = config.generation_batch_size // config.num_generations
print(f"{config.generation_batch_size} attempts a step: {requests} requests, {config.num_generations} attempts each")
print(f"learning rate {config.learning_rate:g}, teacher rate {config.teacher_update_rate:g}")

# %% [markdown]
# How good is it before? The test split shares no request with the training split.

# %%
before = trainer.evaluate(n=256, split="test")
print(before)

# %% [markdown]
# ## 2. The run under your hands
#
# The next cell returns at once: a thread does the training, the page asks it for news. Press **Start**, or **Single step** and read.
#
# * The blue dots are the mean reward of each step's 64 attempts, sampled *before* that step's update. The line smooths them.
# * The active fraction is the share of attempts that could be learned from: shown an error message, or a sibling's success.
# * On the right are eight attempts at one request, with what the API said.
# * A knob takes effect at the next step and leaves a mark on the chart.
# * Pause before you use the model in another cell: while it trains, its weights change under you.
#
# Before you start, predict: after how many steps does half of all attempts succeed?

# %%
dash = lab.views.Dashboard(trainer, steps=60)
dash

# %% [markdown]
# **Three things to try.** Say what you expect first. To begin anew, run the cells from section 1 again.
#
# 1. *Pause around step 5 and take single steps.* Do all tools get a little better, or one tool after the other? Which error message stays longest?
# 2. *Pull the learning rate up tenfold at step 5.* Does the model learn faster? Watch the attempts, not only the curve.
# 3. *Pull the teacher rate to 1 at step 5.* Then the teacher is the student of one step ago, with the message in its prompt. Watch to the end.
#
# <details><summary>What we saw</summary>
#
# (One run each on 2 CPU cores, to the end of the 60 steps.)
#
# 1. One after the other. By step 10 `convert`, `flight` and `order` are right in nearly all attempts and `message` in half; at step 15 `remind` is
#    still
#    wrong in most.
# 2. The reward drops to nothing within a step and never comes back. The attempts show why: names, values, even words of other tasks are thrown
#    together, which no
#    message had asked for. Such a step moves far more than the message was about.
# 3. For five steps the reward stays near six tenths, then it falls, and within six steps all is lost: the model ends in writing the same two signs
#    for ever. A
#    teacher that follows at once learns the student's slips and teaches them back. At the default rate it averages over about a hundred steps, and a
# slip is outvoted.
#    This is the collapse of the paper's live teacher.
#
# </details>
#
# ## 3. Wait for the end
#
# `result()` waits until the run is over. A run that nobody has started is started, so *Run All* ends with 60 steps too. If the training thread
# stops with an error, the error is raised here. Interrupting the kernel pauses the run; nothing is lost, and running the cell again goes on.

# %%
history = dash.result()
assert len(history) == 60 or dash.run.state == "stopped", f"only {len(history)} steps"
print(f"{len(history)} steps, {sum(r.seconds for r in history):.0f} s of training")

# %% [markdown]
# The same curve as a picture that needs no kernel to be seen again:

# %%
dash.summary()

# %% [markdown]
# So much for the prediction:

# %%
half = next((r.step for r in history if r.reward >= 0.5), None)
print(f"the first step in which half of the attempts succeeded: {half}")

# %% [markdown]
# ## 4. Read the attempts
#
# Every record keeps what was tried. The first request of the first step, then of the last:

# %%
for record in history.records[:1] + history.records[-1:]:
    print(f"step {record.step}: {record.rollouts[0].problem.messages[-1]['content']!r}")
    for attempt in record.rollouts[:4]:
        print("  ", "✓" if attempt.reward >= 1 else "✗", attempt.text, "  #", attempt.feedback or "accepted")

# %% [markdown]
# ## 5. Read the table
#
# Curves show that something happens, the other columns say what. `entropy` falls as the model becomes sure of its names. `grad_norm` is the length of
# the gradient before clipping. An `active_fraction` of 0 would mean a step without anything to learn from.

# %%
columns = ["reward", "loss", "active_fraction", "entropy", "completion_length", "grad_norm", "seconds"]
table = history.to_frame()[columns].round(3)
table.iloc[:: max(1, len(table) // 6)]

# %% [markdown]
# ## 6. What the hand did
#
# Every change is kept with the step at which it took effect. After *Run All* there is none.

# %%
print(history.changes or "nothing was changed by hand")

# %% [markdown]
# So a run that was steered by hand can be repeated without one. A fresh model, the same task and configuration, and the changes as an argument:

# %%
steps = min(8, len(history))
fresh = lab.SDPOTrainer(*lab.load_model(), task, config)
again = fresh.train(steps=steps, changes=history.changes, progress=False)
print([round(r.reward, 3) for r in history][:steps])
print([round(r.reward, 3) for r in again])
assert [r.reward for r in again] == [r.reward for r in history][:steps]

# %% [markdown]
# Equal to the digit: the noise of every sampled token depends on the seed, the step and the request, not on the clock or on who pressed what.
#
# ## 7. How good is it now?

# %%
after = trainer.evaluate(n=256, split="test")
print("before:", before)
print("after: ", after)

# %% [markdown]
# A run that nobody disturbed should have learned nearly all of it. One that was steered into a wall has not, and that is a result too.

# %%
if not history.changes and len(history) == 60:
    assert float(after) > float(before) + 0.5
print(f"accuracy {float(before):.2f} -> {float(after):.2f}")

# %% [markdown]
# ## What to take along
#
# 1. `Dashboard(trainer)` works with any trainer and any task; everything on it is a keyword argument somewhere, or a method of `dash.run`:
#    `start()`, `pause()`, `step()`, `stop()`, `set(learning_rate=1e-3)`.
# 2. The reward alone would not have told you *which* names were learned when. The attempts do.
# 3. A hand is allowed in an experiment when it is written down. `history.changes` is.

# %%
print(f"this notebook took {time.perf_counter() - began:.0f} s")
