"""The whole command on tiny settings: what it leaves, how it resumes, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from peft import PeftModel

from configs.run_folder import owned
from configs.tree import PROJECT
from models.loading import load_model
from train.run import main

pytestmark = pytest.mark.command

TINY = [
    "tasks=[{name: miniature/notes, facts: 6}, {name: miniature/papers, facts: 6}]",
    "train.steps=3",
    "train.contexts_per_step=2",
    "train.group_size=4",
    "train.save_every=1",
    "information.negatives.batch=1",
    "compressor.budget_tokens=24",
    "eval.documents=2",
    "eval.questions_per_document=2",
]

BINARIES = Path(sys.executable).parent
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(PROJECT),
    "DS_ACCELERATOR": "cpu",
    "PATH": f"{BINARIES}:{os.environ['PATH']}",
}


def deepspeed(processes: int) -> list[str]:
    return [str(BINARIES / "deepspeed"), "--num_accelerators", str(processes)]


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--config", "mi_rl.yaml", f"run_folder={folder}", *TINY, *more]


def test_a_run_leaves_a_folder_that_holds_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(arguments(folder, "eval.greedy=true")) == 0
    printed = capsys.readouterr().out
    assert "Accuracy" in printed and str(folder / "report.html") in printed
    results = json.loads((folder / "results.json").read_text())
    assert results["overall"]["before"]["n"] == results["overall"]["after"]["n"] == 8
    assert set(results["tasks"]) == {"miniature/notes", "miniature/papers"}
    greedy = [json.loads(line) for line in (folder / "samples.greedy.jsonl").read_text().splitlines()]
    sampled = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(r["id"], r["stage"]) for r in greedy] == [(r["id"], r["stage"]) for r in sampled]
    assert {r["temperature"] for r in greedy} == {0.0} and {r["temperature"] for r in sampled} == {1.0}
    assert results["greedy"]["overall"]["after"]["n"] == 8 and "Greedy messages" in printed
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert {"rewards/accuracy/mean", "rewards/information/std", "rewards/length/mean", "saturated_share"} <= metrics[
        0
    ].keys()
    assert "<html" in (folder / "report.html").read_text().lower()
    assert list(folder.glob("wandb/offline-run-*"))
    base, _ = load_model("miniature/qwen2-leading")
    assert "default" in PeftModel.from_pretrained(base, str(folder / "compressor")).peft_config
    adapter = json.loads((folder / "compressor" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "miniature/qwen2-leading" and adapter["r"] == 16
    assert main(arguments(folder, "eval.greedy=true")) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[sys.executable], deepspeed(1)], ids=["python", "deepspeed"])
def test_an_interrupted_run_resumes_with_the_same_command(launcher: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [*launcher, "train/run.py", *arguments(folder, "train.steps=12")]
    process = subprocess.Popen(
        command, cwd=PROJECT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 400
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the launcher and to all that it started
    _, output = process.communicate(timeout=400)
    # DeepSpeed's launcher answers 1 where its process is gone before it has ended it itself.
    statuses = (130, -signal.SIGINT, 1) if launcher != [sys.executable] else (130, -signal.SIGINT)
    assert process.returncode in statuses and "the same command goes on from" in output
    done = len((folder / "metrics.jsonl").read_text().splitlines())
    assert 1 <= done < 12 and (folder / "checkpoints" / f"checkpoint-{done}").is_dir()
    finished = subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-2000:]
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))


@pytest.mark.slow
def test_two_processes_give_the_rewards_of_one(tmp_path: Path) -> None:
    first_lines = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        one_step = arguments(folder, "train.steps=1", "tracking.wandb=disabled")
        command = [*deepspeed(processes), "train/run.py", *one_step]
        finished = subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
        assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
        assert "Warning" not in finished.stderr
        assert f"evaluating before:   0%|          | 0/{8 // processes}" in finished.stderr
        first_lines.append(json.loads((folder / "metrics.jsonl").read_text().splitlines()[0]))
    for name in ("reward", "rewards/accuracy/mean", "rewards/information/mean", "message_tokens", "information_bits"):
        assert first_lines[0][name] == pytest.approx(first_lines[1][name], rel=1e-3), name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("train.stepz=3", "train.stepz: unknown key; did you mean train.steps?"),
        ("tasks=[miniature/note]", "did you mean 'miniature/notes'"),
        ("compressor.model=./no/such/folder", "no such folder"),
        ("train.micro_batch_messages=3", "train.micro_batch_messages = 3"),
        ("information.negatives={counterfactual: 0, batch: 0}", "ask for at least one"),
        ("tasks=[{name: qasper, source: no-such.json}]", "no such file or folder"),
    ],
)
def test_bad_input_is_one_line_and_a_status(
    wrong: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "run", wrong)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("error: ")
    assert not (tmp_path / "run").exists()


def test_fresh_leaves_a_folder_that_is_no_run_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(arguments(tmp_path, "--fresh")) == 2
    assert "so it is not taken for a run's" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_folder_of_another_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with owned(tmp_path, "train", "name: other\n", "other"):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert main(arguments(tmp_path)) == 2
    assert "holds a run of another configuration" in capsys.readouterr().err


def long_papers(path: Path) -> str:
    """Three papers in QASPER's layout, each several windows long."""
    answer = {"unanswerable": False, "extractive_spans": ["12 books"], "yes_no": None, "free_form_answer": ""}
    annotations = [{"answer": answer | {"evidence": [], "highlighted_evidence": []}, "annotation_id": "a"}]
    papers = {
        str(number): {
            "title": f"On Parsing {number}",
            "abstract": "We study it.",
            "full_text": [
                {"section_name": "Method", "paragraphs": [f"Paper {number}. " + "We rank the words. " * 900]}
            ],
            "qas": [{"question": "What is it?", "question_id": f"q{number}", "answers": annotations}],
        }
        for number in range(3)
    }
    path.write_text(json.dumps(papers))
    return str(path)


def full_window(tmp_path: Path, *more: str) -> list[str]:
    """The arguments of a run of one step whose contexts fill the window."""
    tasks = f"tasks=[{{name: qasper, source: {long_papers(tmp_path / 'papers.json')}}}]"
    negatives = "information.negatives={counterfactual: 0, batch: 1}"
    return arguments(tmp_path / "run", tasks, negatives, "train.steps=1", "tracking.wandb=disabled", *more)


def test_contexts_that_fill_the_window_are_cut_to_it_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(full_window(tmp_path)) == 0
    assert "3 of 3 contexts to train on are longer than the room for them" in capsys.readouterr().out


def test_a_context_limit_without_room_for_the_question_is_one_line_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(full_window(tmp_path, "compressor.max_context_tokens=2023")) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and "takes 2048 tokens" in last and "lower max_context_tokens" in last


def test_a_scorer_of_another_vocabulary_is_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = load_model("miniature/llama-medium")
    tokenizer.add_tokens(["<|other|>"])
    model.save_pretrained(tmp_path / "scorer")
    tokenizer.save_pretrained(tmp_path / "scorer")
    scorer = [f"scorer.model={tmp_path / 'scorer'}", "train.steps=1", "tracking.wandb=disabled"]
    assert main(arguments(tmp_path / "run", *scorer)) == 0
    assert capsys.readouterr().out.count("messages are scored as re-tokenised text") == 1
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["retokenised_share"] == 1
