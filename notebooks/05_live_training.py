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
# > two each if you press *Stop* when you have seen enough, each with recorded runs to hold yours against. At the end: what your hand did, as data, and the same run again from that
# > data, to the digit.
# >
# > **Time.** About two minutes on 2 CPU cores if you only watch, ten more with the experiments; the same on a T4 (estimated: the notebook keeps to the CPU,
# > where a run can be repeated to the digit).
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
model, tokenizer = lab.load_model(model_name, device="cpu")
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
# ([How it looks](https://github.com/sdpo-lab/sdpo_lab/blob/main/docs/images/05_live_training.png), where no kernel runs.)
#
# * The blue dots are the mean reward of each step's 64 attempts, sampled *before* that step's update. The line smooths them.
# * The teacher's line: every ten steps it writes 32 fresh answers to requests of the *test* split, with a message or a success in its prompt. Of 32, a share near 0.9 is
#   known to about 0.05 (one standard error). It hardly moves in 60 steps; the student may pass it. *Held-out accuracy*, under *More charts* and in the picture
#   further down, is the student's, on 32 such requests from the bare question.
# * The knob, *Learning rate*, takes effect at the next step and leaves a mark on the chart. *More knobs* and *More charts* unfold the others.
# * The newest attempts are eight tries at one request, with what the API said. Click one, and it is drawn token by token: what the teacher would raise
#   (blue) and lower (orange).
# * *Rewind*, below the charts, has a slider that goes back in time: one failed attempt of the first step, as student and teacher of any later step saw it.
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
print(f"{len(history)} steps, {sum(r.seconds for r in history):.0f} s in steps; the rest went into measuring and saving")

# %% [markdown]
# The same curve as a picture that needs no kernel to be seen again:

# %%
dash.summary()

# %% [markdown]
# So much for the prediction:

# %%
rewards = history.to_frame()["reward"]
for name, curve in {"single steps": rewards, "the mean of the last five steps": rewards.rolling(5, min_periods=1).mean()}.items():
    half = next((step for step, value in curve.items() if value >= 0.5), None)
    print(f"half of the attempts succeed, by {name}: first at step {half}")

# %% [markdown]
# ## 3. Back in time
#
# One failed attempt of the first step was set aside, the one the student was surest of, with what its teacher was shown: a sibling's success or the error
# message (the live view has it above the tokens). After every step student and teacher read it again. Each of its
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
# Not only the picture is kept. Every ten steps the whole trainer was saved, and `timeline.at(step)` is the whole trainer as it was after any step: it takes the
# last save before and does the missing steps again, exactly.

# %%
past = max(0, len(history) - 5)
then = timeline.at(past)
print(f"saved after steps {timeline.snapshots}; after step {past}: {then.evaluate(n=64)}")
assert [(r.reward, repr(r.loss)) for r in then.history] == [(r.reward, repr(r.loss)) for r in history][:past]

# %% [markdown]
# ## 4. Five experiments
#
# Three are one knob, two a changed line of section 1. For each: undo the last change of a line, make the new one if there is one, and run the cells of section 1 and that of the dashboard again,
# **not** the one with `dash.result()`, which would start the run. Turn the knob there, press *Start*, and *Stop* once you have seen enough. Then
# run `dash.result()`: `history` and `trainer` are this run's now, here and in sections 5 to 8.
#
# Each has been done before, on three conventions (a convention is one way of naming the arguments, chosen by `seed`: 0, 1 and 2, yours is the second), and
# recorded. The cell under a question is its answer, folded until it runs (*Run All* opens it): predict first. It draws the recorded runs beside those that nobody touched and your last one: the line
# is the mean of three runs, the band reaches from the lowest to the highest. Each point is the mean of the last five steps, so a fall to 0 takes
# five steps in the picture; steps named in the text are single ones, unless it says otherwise. What is printed is accuracy on 256 test requests, before and after.

# %%
def beside_hands_off(name):
    runs = {"hands off": recorded("by-hand", name="hands off"), name: recorded("by-hand", name=name)}
    for label, group in runs.items():
        print(f"{label}: accuracy on test problems " + ", ".join(f"{r.evaluations[0]['accuracy']:.2f} -> {r.evaluations[-1]['accuracy']:.2f}" for r in group))
    return lab.views.compare({**runs, "yours": trainer}, note="mean over the last 5 steps; recorded: three conventions each")


# %% [markdown]
# **A teacher that follows at once.** Under *More knobs*, pull *Teacher rate* to 1 before the first step. Then the teacher
# has exactly the student's present weights at every step; only its prompt shows more. Is that faster? Does it hold?

# %% jupyter={"outputs_hidden": true}
beside_hands_off("teacher rate 1")

# %% [markdown]
# <details><summary>What the records show</summary>
#
# For three steps it learns as the untouched runs do, no faster. By step seven the reward is 0 in each of the three runs. On the way the entropy rises above
# one nat; a few steps later nearly every attempt runs to the limit of 64 tokens with hardly any entropy: the model writes one thing for ever and is sure
# of it. A teacher that follows at once learns the student's slips and teaches them back. At the default rate of 0.01 it is still 93 % the model you began
# with after seven steps, and 55 % after sixty: a slip hardly reaches it. (Rate 1 is the same as `teacher_model_kind="live"`: no weights of its own at all. In the paper, too, that run diverges.)
#
# </details>
#
# **Feedback off.** Under *More knobs*, untick *Show feedback* before the first step. Then the teacher is shown siblings' successes alone. What can it learn from in step 1?

# %% jupyter={"outputs_hidden": true}
beside_hands_off("feedback off")

# %% [markdown]
# <details><summary>What the records show</summary>
#
# In step 1 only groups with a lucky success have something to show: 11 to 36 % of the attempts are active, instead of nearly all. The curve
# passes one half at steps 15, 15 and 20, six to eleven later than with feedback (9, 8 and 9). As successes become common it follows: after 60 steps it is 2 points behind
# on the first convention, 12 on yours, and about 2 ahead on the third (each accuracy is known to some 2 points). The message buys
# the beginning, when there is little else to learn from.
#
# </details>
#
# **Ten times the learning rate.** Press *Single step* five times, pull *Learning rate* up from 0.0005 to 0.005, then *Continue*. Does it learn faster? Watch the attempts, not only the curve.

# %% jupyter={"outputs_hidden": true}
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

# %% jupyter={"outputs_hidden": true}
beside_hands_off("GRPO")

# %% [markdown]
# <details><summary>What the records show</summary>
#
# It learns only from groups that hold both successes and failures: in step 1 an eighth to three eighths of the attempts. Its curve passes
# one half at steps 23, 16 and 23, SDPO's at 9, 8 and 9. After 60 steps it is 11 and 13 points behind on two of the conventions and about 2 ahead on the third. The quickstart's recorded
# runs count the attempts: SDPO needs about a third as many for four of five right.
#
# </details>
#
# **A weak model.** `model_name = "lab-1m-at-2000"` is the same model after a sixth of its pre-training. Shown a message, or even a correct call, it is right about one
# time in five ([its card](https://github.com/sdpo-lab/sdpo_lab/blob/main/small_models/lab-1m-at-2000/README.md)). It is its own teacher. What will it make of itself?

# %% jupyter={"outputs_hidden": true}
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
# `entropy` rises for a few steps in most runs, then falls as the model becomes sure of its names; `loss` goes down as student and teacher come to agree.
# Single steps scatter. `grad_norm` is the length of the gradient before clipping. `active_fraction` stays near 1 when
# all is learned, since successes with a successful sibling are active too; 0 would mean a step without anything to learn from.

# %%
columns = ["reward", "loss", "active_fraction", "entropy", "completion_length", "grad_norm", "seconds"]
table = history.to_frame()[columns].round(3)
table.iloc[[i for i in (0, 1, 2, 3, 5, 10, 20, 30, 40, 59) if i < len(table)]]

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
fresh = lab.SDPOTrainer(*lab.load_model(model_name, device="cpu"), task, config)
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

# %% [markdown]
# ## What to take along
#
# 1. `Dashboard(trainer)` works with any trainer and any task; each knob is a field of `SDPOConfig` that may change during a run, each button a method of `dash.run`:
#    `start()`, `pause()`, `step()`, `stop()`, `set(learning_rate=1e-3)`.
# 2. The reward alone would not have told you *which* names were learned when. The attempts do, and the time slider.
# 3. A hand is allowed in an experiment when it is written down. `history.changes` is.
#
# Next: [a task of your own](https://github.com/sdpo-lab/sdpo_lab/blob/main/docs/your_own_task.md), in ten lines, under the same dashboard.

# %%
print(f"this notebook took {time.perf_counter() - began:.0f} s")
