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
# > **What you will see.** A full SDPO run that you start, pause, take step by step and steer while it runs; then five experiments, a minute or
# > two each if you press *Stop* once a collapse is plain, with the recorded runs of the same experiments beside yours. At the end: what your hand did, as data, and the same run again from that
# > data, to the digit.
# >
# > **Time.** About two minutes on 2 CPU cores if you only watch, ten more with the experiments; a minute on a T4 (estimated).
# >
# > **You need** a PyTorch training loop. What SDPO does in one step is in `00_quickstart`, what the teacher is in `02_self_teacher`.
#
# No cell below needs a click. *Run All* gives the same run as watching it without touching anything.

# %%
# On Colab this installs sdpo_lab; elsewhere it does nothing.
import importlib.util
import os

if "COLAB_RELEASE_TAG" in os.environ and importlib.util.find_spec("sdpo_lab") is None:
    get_ipython().run_line_magic("pip", "install -q 'sdpo_lab[widgets] @ git+https://github.com/sdpo-lab/sdpo_lab'")

# %%
import time

import sdpo_lab as lab
from sdpo_lab.experiments import recorded

began = time.perf_counter()

# %% [markdown]
# ## 1. A model, a task, a trainer
#
# The small model writes calls of an API whose argument names were changed. Each step lets it, the *student*, try every request eight times: an
# accepted call has reward 1, any other 0 and an error message. Then the *teacher*, the same network with weights that follow slowly, reads each attempt
# again with more in its prompt: a success of a *sibling*, another attempt at the same request, or, where nobody succeeded, the message. The student
# moves towards the teacher's probabilities. An attempt is *active* when its teacher can be shown something.

# %%
seed = 1  # @param {type: "integer"}
model_name = "lab-1m"  # @param {type: "string"}
model, tokenizer = lab.load_model(model_name)
task = lab.load_task("toolcall", seed=seed)
config = lab.SDPOConfig.preset("laptop")
trainer = lab.SDPOTrainer(model, tokenizer, task, config)
requests = config.generation_batch_size // config.num_generations
print(f"{config.generation_batch_size} attempts a step: {requests} requests, {config.num_generations} attempts each")
print(f"learning rate {config.learning_rate:g}, teacher rate {config.teacher_update_rate:g}")

# %% [markdown]
# How good is it before? One attempt at temperature 1, at 0.6, and greedy; pass@8: at least one of eight right, on an eighth of the problems. Brackets are 95 %
# intervals. The test split shares no request with the training split.

# %%
before = trainer.evaluate(n=256, split="test")
print(before)

# %% [markdown]
# ## 2. The run under your hands
#
# The next cell returns at once: a thread does the training, the page asks it for news. Press **Start**, or **Single step** and read.
#
# * The blue dots are the mean reward of each step's 64 attempts, sampled *before* that step's update. The line smooths them.
# * The teacher's line is how often the teacher is right when it writes a fresh answer with a message or a success in its prompt, every ten steps, 32
#   answers. It hardly moves in 60 steps; the student may pass it.
# * The knob takes effect at the next step and leaves a mark on the chart. *More knobs* and *More charts* unfold the others.
# * The newest attempts are eight tries at one request, with what the API said. Click one, and it is drawn token by token: what the teacher would raise
#   and lower.
# * *Rewind* has a slider that goes back in time: one failed attempt of the first step, as student and teacher of any later step saw it.
# * Pause before you use the model in another cell: while it trains, its weights change under you.
#
# Before you start, predict: after how many steps does half of all attempts succeed?

# %%
timeline = lab.Timeline(trainer)
dash = lab.views.Dashboard(trainer, steps=60, timeline=timeline)
dash

# %% [markdown]
# `result()` waits until the run is over. A run that nobody has started, or that is paused, goes on, so *Run All* ends with 60 steps too: steer first, and
# run this cell last. If the training thread
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
# ## 3. Back in time
#
# One attempt was set aside in the first step: a failed one, with its error message. After every step student and teacher read it again. Each of its
# tokens has two log-probabilities, the student's and the teacher's; the sum of their absolute differences, in nats, says how far apart the two are about
# it. It need not end at 0: at first the teacher lowers the wrong names (orange below); at the end the student may have given them up further than its slower
# teacher (blue).

# %%
apart = {step: timeline.picture(step)["sum"] for step in timeline.steps}
shown = list(apart)[:: max(1, len(apart) // 6)]
print("  ".join(f"step {step}: {apart[step]:.1f} nats" for step in shown))

# %%
lab.views.Rewind(timeline)

# %% [markdown]
# Not only the picture is kept. `timeline.at(step)` is the whole trainer as it was after that step, made again from the nearest snapshot by exact replay:

# %%
middle = len(history) // 2
then = timeline.at(middle)
print(f"after step {middle}: {then.evaluate(n=64)}")
assert [r.reward for r in then.history] == [r.reward for r in history][:middle]

# %% [markdown]
# ## 4. Five experiments
#
# Three are one knob, two a changed line of section 1. Predict, then run the cells of sections 1 and 2 again with that change. Each has been done before, on
# three conventions (a convention is one way of naming the arguments, chosen by `seed`: 0, 1 and 2, yours is the second), and recorded; the cell shows
# the recorded runs beside those that nobody touched. The line is the mean of three runs, the band reaches from the lowest to the highest.

# %%
def beside_hands_off(name):
    runs = {"hands off": recorded("by-hand", name="hands off"), name: recorded("by-hand", name=name)}
    for label, group in runs.items():
        print(f"{label}: accuracy on test problems " + ", ".join(f"{r.evaluations[0]['accuracy']:.2f} -> {r.evaluations[-1]['accuracy']:.2f}" for r in group))
    return lab.views.compare(runs, note="recorded; three conventions each")


# %% [markdown]
# **A teacher that follows at once.** Under *More knobs*, pull the teacher rate to 1 before the first step. Then the teacher
# has exactly the student's present weights at every step; only its prompt shows more. Is that faster? Does it hold?

# %%
beside_hands_off("teacher rate 1")

# %% [markdown]
# <details><summary>What the records show</summary>
#
# For three steps it learns as the untouched runs do, no faster. By step seven the reward is 0 in each of the three runs. On the way the entropy rises above
# one nat; a few steps later nearly every attempt runs to the limit of 64 tokens with hardly any entropy: the model writes one thing for ever and is sure
# of it. A teacher that follows at once learns the student's slips and teaches them back. At the default rate of 0.01 it is still 93 % the model you began
# with after seven steps, and 55 % after sixty: a slip hardly reaches it. (Rate 1 is the teacher that the paper calls live.)
#
# </details>
#
# **Feedback off.** Under *More knobs*, switch the feedback off before the first step. Then the teacher is shown siblings' successes alone. What can it learn from in step 1?

# %%
beside_hands_off("feedback off")

# %% [markdown]
# <details><summary>What the records show</summary>
#
# In step 1 only groups with a lucky success have something to show: a tenth to a third of the attempts are active, instead of nearly all. It
# takes off some steps later, and as successes become common it follows: after 60 steps most of the way is made up. The message buys
# the beginning, when there is nothing else to learn from.
#
# </details>
#
# **Ten times the learning rate.** Pause after step 5, pull the learning rate up tenfold, go on. Does it learn faster? Watch the attempts, not only the curve.

# %%
beside_hands_off("learning rate x 10")

# %% [markdown]
# <details><summary>What the records show</summary>
#
# Step 6 still looks well: its attempts were sampled before the large update. At step 7 the reward is next to nothing. One run gets back to 0.09 by step 11
# and loses that too. The attempts show why: names, values, words of other tasks are thrown together, at first often very short, within about ten steps mostly
# up to the limit, with an entropy of several nats. It is the opposite of the first collapse: that one ended sure of one thing, this one in knowing nothing.
#
# </details>
#
# **GRPO.** The same loop without a teacher: `lab.SDPOConfig.preset("laptop", distillation_weight=0, learning_rate=2e-4)`, the best of five rates tried on other
# conventions.
# It sees right and wrong, and no message. How many steps later does it get off the ground?

# %%
beside_hands_off("GRPO")

# %% [markdown]
# <details><summary>What the records show</summary>
#
# It learns only from groups that hold both successes and failures: in step 1 an eighth to three eighths of the attempts. Half of its attempts succeed
# at step 14 or 15, SDPO's at step 6. After 60 steps it is 11 and 13 points behind on two of the conventions and 2 ahead on the third. The quickstart's recorded
# runs count the attempts: SDPO needs about a third as many for four of five right.
#
# </details>
#
# **A weak model.** `model_name = "lab-1m-at-2000"` is the same model after a sixth of its pre-training. Its card says how often it is right once it
# is shown a message, or even a correct call: about one time in five. It is its own teacher. What will it make of itself?

# %%
beside_hands_off("a weak model")

# %% [markdown]
# <details><summary>What the records show</summary>
#
# On two conventions it ends above its teacher, at three requests in ten (one in two when it answers greedily), on the third at one in ten. It never gets near
# nine in ten. Nearly all attempts are active all the time: what is missing is not something to learn from but somebody to read it.
#
# </details>
#
# ## 5. Read the attempts
#
# Every record keeps what was tried. The first request of the first step, then of the last:

# %%
for record in history.records[:1] + history.records[-1:]:
    print(f"step {record.step}: {record.rollouts[0].problem.messages[-1]['content']!r}")
    for attempt in record.rollouts[:4]:
        print("  ", "✓" if attempt.reward >= 1 else "✗", attempt.text, "  #", attempt.feedback or "accepted")

# %% [markdown]
# ## 6. Read the table
#
# `entropy` rises for a few steps in most runs, then falls as the model becomes sure of its names. `grad_norm` is the length of
# the gradient before clipping. `active_fraction` stays near 1 when
# all is learned, since successes with a successful sibling are active too; 0 would mean a step without anything to learn from.

# %%
columns = ["reward", "loss", "active_fraction", "entropy", "completion_length", "grad_norm", "seconds"]
table = history.to_frame()[columns].round(3)
table.iloc[:: max(1, len(table) // 6)]

# %% [markdown]
# ## 7. What the hand did
#
# Every change is kept with the step at which it took effect. After *Run All* there is none.

# %%
print(history.changes or "nothing was changed by hand")

# %% [markdown]
# So a run that was steered by hand can be repeated without one. A fresh copy of the model you trained, the same task and
# configuration, and the changes as an argument:

# %%
fresh = lab.SDPOTrainer(*lab.load_model(model_name), task, config)
again = fresh.train(steps=len(history), changes=history.changes, progress=False)
assert [r.reward for r in again] == [r.reward for r in history]
assert [repr(r.loss) for r in again] == [repr(r.loss) for r in history]  # a skipped step has none: nan
print(f"{len(again)} steps again, equal to the digit; the last reward {again[-1].reward:.3f}")

# %% [markdown]
# The noise of every sampled token depends on the seed, the step, the request, the number of the attempt and the position, not on the clock or on who pressed
# what.
#
# ## 8. How good is it now?

# %%
after = trainer.evaluate(n=256, split="test")
assert float(after) == float(fresh.evaluate(n=256, split="test"))
print("before:", before)
print("after: ", after)

# %% [markdown]
# A run of the default model that nobody disturbed should have learned nearly all of it. One that was steered into a wall has not, and that is a result too.

# %%
if not history.changes and len(history) == 60 and model_name == "lab-1m":
    assert float(after) > float(before) + 0.5
print(f"accuracy {float(before):.2f} -> {float(after):.2f}")

# %% [markdown]
# ## What to take along
#
# 1. `Dashboard(trainer)` works with any trainer and any task; everything on it is a keyword argument somewhere, or a method of `dash.run`:
#    `start()`, `pause()`, `step()`, `stop()`, `set(learning_rate=1e-3)`.
# 2. The reward alone would not have told you *which* names were learned when. The attempts do, and the time slider.
# 3. A hand is allowed in an experiment when it is written down. `history.changes` is.

# %%
print(f"this notebook took {time.perf_counter() - began:.0f} s")
