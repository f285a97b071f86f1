"""A checkpoint that somebody else made, every checksum right: nothing in it is run, nothing outside
it is opened, and what is wrong is said."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import sdpo_lab as lab
from sdpo_lab.models import loading as models
from sdpo_lab.models import memory
from sdpo_lab.runs import checkpoints
from sdpo_lab.runs import files as run_files
from sdpo_lab.runs.files import checksum, entry
from sdpo_lab.tasks import Problem
from tests.shared.runs import same, trainer
from tests.shared.tasks import Vowels


@pytest.fixture
def saved(tiny, tmp_path):
    """saved(lora): the folder of a run of one step, and of its checkpoint."""

    def make(lora=None, name="run"):
        t = trainer(tiny, lora=lora)
        t.step()
        return tmp_path / name, t.save(tmp_path / name)

    return make


def seal(at: Path, **changes) -> None:
    """The checksums of what lies there now: what an attacker does last."""
    state = json.loads((at / "state.json").read_text())
    state["files"] = {name: entry(at / name) for name in state["files"] if (at / name).is_file()}
    for key, value in changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = (
                {**state[key], **value}
                if isinstance(value, dict) and isinstance(state.get(key), dict)
                else value
            )
    (at / "state.json").write_text(json.dumps(state))
    (at.parent / "latest.json").write_text(
        json.dumps(
            {"format": 2, "checkpoint": at.name, "kept": {at.name: checksum(at / "state.json")}}
        )
    )


def resume(folder):
    return lab.SDPOTrainer.resume(folder, task=Vowels())


def edit(file: Path, **fields) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(megatron_config={"x": 1}, megatron_core="megatron.evil"), "megatron_config"),
        (dict(megatron_core="evil"), "megatron_core"),
        (dict(eva_config={"rho": 2}), "eva_config"),
        (
            dict(peft_type="PROMPT_TUNING", tokenizer_name_or_path="evil"),
            "is not the config of a LoRA adapter",
        ),
        (
            dict(
                peft_type="MULTITASK_PROMPT_TUNING", prompt_tuning_init_state_dict_path="evil.bin"
            ),
            "is not the config of a LoRA adapter",
        ),
    ],
)
def test_an_adapter_brings_no_module_and_no_file(saved, monkeypatch, fields, words):
    folder, at = saved(lora=2)
    edit(at / "model" / "adapter.json", **fields)
    seal(at)
    (folder / "megatron").mkdir()
    for place in (folder / "evil.py", folder / "megatron" / "evil.py"):
        place.write_text(f"open({str(folder / 'HACKED')!r}, 'w').close()\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with pytest.raises(ValueError, match=words):
        resume(folder)
    assert not (folder / "HACKED").exists()


def test_attention_is_never_fetched(saved, tmp_path, monkeypatch):
    folder, at = saved()
    asked = []
    for name in ("transformers.integrations.hub_kernels", "transformers.modeling_utils"):
        module = sys.modules.get(name)
        for function in ("get_kernel", "load_and_register_attn_kernel", "load_and_register_kernel"):
            if hasattr(module, function):
                monkeypatch.setattr(module, function, lambda *a, **k: asked.append(a))
    seal(at, model={"attention": "evil/repo"})
    with pytest.raises(
        ValueError, match=r"state.json asks for attention of the kind 'evil/repo'.*never run here"
    ):
        resume(folder)
    model = tmp_path / "model"
    shipped = models.model_folders()["lab-100k"]
    model.mkdir()
    for file in shipped.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    for field in ("_attn_implementation", "attn_implementation"):
        edit(model / "config.json", **{field: "evil/repo"})
        for use in (lab.load_model, memory.training_memory):
            with pytest.raises(ValueError, match="asks for attention of the kind 'evil/repo'"):
                use(str(model))
        (model / "config.json").write_bytes((shipped / "config.json").read_bytes())
    assert asked == []


@pytest.mark.parametrize(
    "name, text",
    [
        ("model/special_tokens_map.json", '{"eos_token": "a"}'),
        ("model/adapter.json", "{}"),
        ("model/additional_chat_templates/x.jinja", "x"),
        ("notes\x1b[2J.txt", ""),
    ],
)
def test_a_file_that_was_added_is_not_read(saved, name, text):
    folder, at = saved()
    (at / name).parent.mkdir(exist_ok=True)
    (at / name).write_text(text)
    with pytest.raises(
        ValueError,
        match=re.escape(Path(name).name.partition("\x1b")[0])
        + ".*was not there when the checkpoint was written; remove it to go on",
    ) as refused:
        resume(folder)
    assert "\x1b" not in str(refused.value)
    (at / name).unlink()
    (at / ".DS_Store").write_text("left by a file manager")
    resume(folder)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "\x1b]0;x\x07y"])
def test_a_name_is_no_path(saved, monkeypatch, name):
    folder, at = saved()
    opened = []
    (folder.parent / "secret").write_text("?")
    seal(at, files={name: {"bytes": 1, "sha256": ""}})
    original = run_files.checksum
    monkeypatch.setattr(
        run_files, "checksum", lambda file: opened.append(Path(file)) or original(file)
    )
    with pytest.raises(ValueError, match="is missing") as refused:
        resume(folder)
    assert str(refused.value).isprintable() and all(at in [*p.parents] for p in opened)


def test_weights_that_are_not_listed_are_not_loaded(saved):
    folder, at = saved()
    state = json.loads((at / "state.json").read_text())
    del state["files"]["student.safetensors"]
    (at / "state.json").write_text(json.dumps(state))
    edit(folder / "latest.json", kept={at.name: checksum(at / "state.json")})
    with pytest.raises(ValueError, match=r"'files\.student\.safetensors\.bytes' is None"):
        resume(folder)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(files=None), "'files' is None"),
        (dict(counters=None), r"'counters\.skipped_steps' is None"),
        (dict(history=None), r"'history\.steps' is None"),
        (dict(versions=[]), r"'versions' is \[\]"),
        (dict(task=[1]), r"'task\.name'|'task\.dials' is None"),
        (dict(counters={"halved": "1"}), r"'counters\.halved' is '1'"),
        (dict(config=3), "'config' is 3"),
        (dict(format="\x1b[2J"), r"has format '\\x1b\[2J'"),
    ],
)
def test_a_state_of_another_shape_is_refused(saved, changes, words):
    folder, at = saved()
    seal(at, **changes)
    with pytest.raises(ValueError, match=words) as refused:
        resume(folder)
    assert "\x1b" not in str(refused.value)


def test_a_state_nested_too_deep_is_refused(saved):
    folder, at = saved()
    (at / "state.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"state.json cannot be read \(RecursionError"):
        resume(folder)


def test_counters_and_optimiser_settings_can_set_nothing_else(saved):
    folder, at = saved()
    seal(at, counters={"step": 3, "lock": 3}, optimizer={"params": [], "evil": 1})
    t = resume(folder)
    assert (
        callable(t.step)
        and not isinstance(t.lock, int)
        and t.optimizer.param_groups[0]["params"]
        and "evil" not in t.optimizer.param_groups[0]
    )


def test_weak_isolation_is_not_switched_on_by_a_checkpoint(tmp_path):
    t = lab.SDPOTrainer(
        *lab.load_model("lab-100k"),
        lab.load_task("toolcall", seed=0),
        lab.SDPOConfig.preset("laptop"),
    )
    at = t.save(tmp_path / "run")
    seal(at, task={"name": "tinycode", "class": "TinyCode", "dials": {"allow_weak": True}})
    with pytest.raises(
        ValueError, match="allow_weak=True, which lets programs run that can do harm; pass the task"
    ):
        lab.SDPOTrainer.resume(tmp_path / "run")


# what JSON does not keep, and who else writes


class Numbers(Vowels):
    def __init__(self, data):
        self.given = data

    def problems(self, n, split="train", seed=0):
        return [
            Problem(p.id, p.messages, {**p.data, **self.given})
            for p in super().problems(n, split, seed)
        ]


@pytest.mark.parametrize(
    "data", [{"answer": (1, 2)}, {"of": {1: "a"}}, {"of": [{"x": (1,)}]}, {3: 1}]
)
def test_data_that_would_come_back_as_something_else_is_refused_before_a_step(tiny, tmp_path, data):
    t = trainer(tiny, task=Numbers(data))
    with pytest.raises(
        ValueError, match=r"data\[.*\] of the problem .* would come back from it as .* instead of"
    ):
        t.train(1, folder=tmp_path / "run", progress=False)
    assert len(t.history) == 0
    t.step()
    with pytest.raises(ValueError, match="would come back"):
        t.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_of_numpy_are_numbers(tiny, tmp_path):
    data = {
        "answer": np.int64(3),
        "share": np.float32(0.5),
        "nan": float("nan"),
        "yes": np.bool_(True),
        "list": [np.int8(1)],
    }
    t = trainer(tiny, task=Numbers(data))
    t.train(1, folder=tmp_path / "run", progress=False)
    back = lab.SDPOTrainer.resume(tmp_path / "run", task=Numbers(data))
    assert back.history[0].rollouts[0].problem.data["answer"] == 3 and back.history[0].rollouts[
        0
    ].problem.data["list"] == [1]


def test_two_that_save_at_once_lose_nothing(tiny, tmp_path, monkeypatch):
    """The other one saves between this one's look at the folder and its first byte."""
    folder = tmp_path / "run"
    trainer(tiny).save(folder)
    one, two = resume(folder), resume(folder)
    one.step()
    two.step()
    original = checkpoints.alone

    def late(path, *rest):
        monkeypatch.setattr(checkpoints, "alone", original)
        one.save(folder)
        return original(path, *rest)

    monkeypatch.setattr(checkpoints, "alone", late)
    with pytest.raises(ValueError, match="has gone on without this trainer, to checkpoint-000001"):
        two.save(folder)
    same(resume(folder), one)
    two.save(tmp_path / "other")


def test_a_folder_that_another_process_keeps_is_waited_for_and_then_named(
    tiny, tmp_path, monkeypatch
):
    pytest.importorskip("fcntl")
    t = trainer(tiny)
    t.save(tmp_path / "run")
    t.step()
    with run_files.alone(tmp_path / "run"):
        original = run_files.alone
        monkeypatch.setattr(checkpoints, "alone", lambda path: original(path, 0.1))
        with pytest.raises(
            OSError,
            match="another process has been saving there for too long.*What was saved there "
            "before is whole",
        ):
            t.save(tmp_path / "run")
    t.save(tmp_path / "run")


def test_a_disk_that_is_full_for_the_tokenizer_is_named_and_the_run_goes_on(
    tiny, tmp_path, monkeypatch
):
    """tokenizers raises a bare Exception."""
    t = trainer(tiny)
    t.autosave(tmp_path / "run", seconds=0)

    def full(*_, **__):
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr(type(t.tokenizer), "save_pretrained", full)
    with pytest.warns(
        RuntimeWarning, match=r"step 1 could not be saved, the run goes on.*Errno 28.*make room"
    ):
        t.step()
    monkeypatch.undo()
    t.step()
    same(resume(tmp_path / "run"), t)


def test_an_export_does_not_vanish_into_a_file(tiny, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        trainer(tiny).save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"
