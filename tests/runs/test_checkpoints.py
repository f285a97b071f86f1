"""Save, a new process, resume: bit for bit as if nothing had happened."""

import copy
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sdpo_lab as lab
from sdpo_lab.runs import checkpoints
from tests.shared.runs import same, trainer
from tests.shared.tasks import Vowels

GO_ON = """
import sys, torch
import sdpo_lab as lab
from tests.shared.tasks import Vowels
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    trainer = lab.SDPOTrainer.resume(folder, task=Vowels())
    trainer.train(2, changes=CHANGES, progress=False)
    trainer.save(folder)
"""
CHANGES = {3: {"learning_rate": 3e-3, "temperature": 0.9}}
RUNS = {
    "ema": dict(teacher_update_rate=0.1),
    "frozen": dict(teacher_model_kind="frozen"),
    "trust_region": dict(teacher_model_kind="trust_region", teacher_update_rate=0.3),
    "live": dict(teacher_model_kind="live"),
    "grpo": dict(distillation_weight=0.0),
    "several steps": dict(
        steps_per_generation=2,
        num_iterations=2,
        teacher_sync="optimizer_step",
        teacher_update_rate=0.1,
        warmup_steps=5,
    ),
}


def test_a_new_process_goes_on_bit_for_bit(tiny, tmp_path, root):
    """Every teacher, full weights and LoRA: 2 + 2 steps with a process between them are 4 steps."""
    whole = {}
    for name, fields in RUNS.items():
        for lora in (None, 4):
            whole[name, lora] = trainer(tiny, lora, **fields)
            whole[name, lora].train(4, changes=CHANGES, progress=False)
            half = trainer(tiny, lora, **fields)
            half.train(2, progress=False)
            half.save(tmp_path / f"{name} {lora}")
    folders = [str(tmp_path / f"{name} {lora}") for name, lora in whole]
    run = subprocess.run(
        [sys.executable, "-c", GO_ON.replace("CHANGES", repr(CHANGES)), *folders],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    for folder, expected in zip(folders, whole.values()):
        same(lab.SDPOTrainer.resume(folder, task=Vowels()), expected)
        before = copy.deepcopy(checkpoints.trainable(expected.model))
        expected.step()  # the runs do go on
        assert (
            any(
                not torch.equal(before[n], p)
                for n, p in checkpoints.trainable(expected.model).items()
            )
            or expected.history[-1].metrics["skipped"]
        )


def test_a_checkpoint_holds_safetensors_and_json_and_nothing_else(tiny, tmp_path):
    t = trainer(tiny, lora=2)
    t.step()
    at = t.save(tmp_path / "run")
    files = {p.relative_to(at).as_posix() for p in at.rglob("*") if p.is_file()}
    assert {Path(f).suffix for f in files} <= {
        ".safetensors",
        ".json",
        ".jsonl",
        ".jinja",
    }  # the chat template is a .jinja, in a sandbox of transformers
    assert {
        "student.safetensors",
        "teacher.safetensors",
        "optimizer.safetensors",
        "base.safetensors",
        "state.json",
    } <= files
    assert sorted(p.name for p in at.parent.iterdir()) == [
        "checkpoint-000001",
        "history.jsonl",
        "latest.json",
    ]
    for file in [*at.glob("*.json"), at.parent / "latest.json"]:
        json.loads(file.read_text(), parse_constant=pytest.fail)  # no NaN that only Python can read
    base = at / "base.safetensors"
    number = base.stat().st_ino
    t.step()
    assert (
        t.save(tmp_path / "run") / "base.safetensors"
    ).stat().st_ino == number  # what does not train is written once


def test_what_is_resumed_can_be_saved_where_it_was_and_elsewhere(tiny, tmp_path):
    t = trainer(tiny, lora=2)
    t.step()
    t.save(tmp_path / "run")
    t.save(tmp_path / "run")  # the same step again
    again = lab.SDPOTrainer.resume(tmp_path / "run", task=Vowels())
    again.step()
    again.save(tmp_path / "run")
    again.save(tmp_path / "other")
    same(
        lab.SDPOTrainer.resume(tmp_path / "run", task=Vowels()),
        lab.SDPOTrainer.resume(tmp_path / "other", task=Vowels()),
    )
    assert len([*(tmp_path / "run").glob("checkpoint-*")]) == 1


@pytest.mark.parametrize("at", ["student", "optimizer", "base", "rename"])
def test_a_save_that_fails_leaves_the_last_one(tiny, tmp_path, monkeypatch, at):
    t = trainer(tiny)
    t.step()
    t.save(tmp_path / "run")
    monkeypatch.setattr(
        checkpoints, "bases", lambda *_: iter(())
    )  # so that the base is written as well
    t.step()

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    def save_file(tensors, path):
        return full() if Path(path).stem == at else original(tensors, path)

    original = checkpoints.save_file
    monkeypatch.setattr(checkpoints, "save_file", save_file)
    if at == "rename":
        monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        t.save(tmp_path / "run", overwrite=True)
    monkeypatch.undo()
    assert len(lab.SDPOTrainer.resume(tmp_path / "run", task=Vowels()).history) == 1
    t.save(tmp_path / "run", overwrite=True)
    assert len(lab.SDPOTrainer.resume(tmp_path / "run", task=Vowels()).history) == 2
    assert not [*(tmp_path / "run").glob("*.partial*")]


def test_numbers_that_json_lacks_and_task_state_survive(tiny, tmp_path):
    class Counting(Vowels):
        seen = 0

        def judge(self, problem, completion):
            self.seen += 1
            return 0.0, ""  # nobody is active: loss and gradient norm are nan

        def state_dict(self):
            return {"seen": self.seen}

        def load_state_dict(self, state):
            self.seen = state["seen"]

    t = trainer(tiny, task=Counting())
    t.step()
    t.save(tmp_path / "run")
    again = lab.SDPOTrainer.resume(tmp_path / "run", task=Counting())
    assert (
        again.task.seen == 8
        and again.history[0].loss != again.history[0].loss
        and again.skipped_steps == 1
    )


def test_what_cannot_be_saved_or_resumed_is_refused_by_name(tiny, tmp_path):
    t = trainer(tiny)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="holds 'thesis.txt', which no run of sdpo_lab wrote"):
        t.save(tmp_path / "mine")
    others = tmp_path / "outputs" / "checkpoint-500"  # as transformers' Trainer names them
    others.mkdir(parents=True)
    with pytest.raises(ValueError, match="holds 'checkpoint-500', which no run of sdpo_lab wrote"):
        t.save(tmp_path / "outputs")
    assert others.exists()
    with pytest.raises(ValueError, match="is a file"):
        t.save(tmp_path / "mine" / "thesis.txt")
    t.save(tmp_path / "run")
    other = trainer(tiny)
    with pytest.raises(
        ValueError, match="holds another run, at checkpoint-000000; .*overwrite=True"
    ):
        other.save(tmp_path / "run")
    other.save(tmp_path / "run", overwrite=True)
    with pytest.raises(ValueError, match=r"no saved run \(no latest.json\)"):
        lab.SDPOTrainer.resume(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"a task of your own \('Vowels'\); pass it"):
        lab.SDPOTrainer.resume(tmp_path / "run")
    with pytest.raises(ValueError, match="made on the task None.*given is 'toolcall'"):
        lab.SDPOTrainer.resume(tmp_path / "run", task=lab.load_task("toolcall"))
    (state,) = (tmp_path / "run").glob("checkpoint-*/state.json")
    state.write_text(state.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(ValueError, match="has format 99; this version reads format 2"):
        lab.SDPOTrainer.resume(tmp_path / "run", task=Vowels())
    other.optimizer = torch.optim.SGD(other.model.parameters())
    with pytest.raises(ValueError, match=r"(?s)AdamW.*SGD"):
        other.save(tmp_path / "new")
    odd = trainer(tiny)
    record = odd.step()
    record.rollouts[0].problem.data["x"] = object()
    with pytest.raises(ValueError, match="Problem.data.*JSON-able"):
        odd.save(tmp_path / "odd")
    assert (
        not (tmp_path / "odd").exists() and not (tmp_path / "new").exists()
    )  # refused before anything was written


def test_a_shipped_task_comes_back_by_its_name(tmp_path):
    model, tokenizer = lab.load_model(lora=2)
    t = lab.SDPOTrainer(
        model,
        tokenizer,
        lab.load_task("toolcall", seed=3, feedback=3),
        lab.SDPOConfig.preset("laptop", generation_batch_size=8, num_generations=4),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t.save(tmp_path / "run")
        again = lab.SDPOTrainer.resume(tmp_path / "run")
    assert again.task.dials == t.task.dials
    same(t, again)


@pytest.mark.parametrize("lora, merge", [(None, False), (4, False), (4, True)])
def test_the_student_is_exported_as_a_plain_model(tiny, tmp_path, lora, merge):
    t = trainer(tiny, lora)
    t.train(2, progress=False)
    before = copy.deepcopy(t.model.state_dict())
    t.save_pretrained(tmp_path / "out", merge=merge)
    assert t.model.state_dict().keys() == before.keys() and all(
        torch.equal(v, before[k]) for k, v in t.model.state_dict().items()
    )
    if lora and not merge:
        from peft import PeftModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
            read = PeftModel.from_pretrained(copy.deepcopy(tiny[0]), tmp_path / "out")
    else:
        read = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.allclose(read.eval()(ids).logits, t.model.eval()(ids).logits, atol=1e-5)
        assert not torch.allclose(
            tiny[0](ids).logits, t.model(ids).logits, atol=1e-3
        )  # it had learned something
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    if not lora:
        with pytest.raises(ValueError, match="merge=True is for a model with an adapter"):
            t.save_pretrained(tmp_path / "out", merge=True)
