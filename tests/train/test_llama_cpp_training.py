"""A whole training with llama.cpp's own server as the predictor, killed and started again in the middle."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from models.export.gguf_file import write_model
from models.loading import load_model
from models.prompts import ChatFormat
from tests.train.test_survival import arguments
from train.run import main

pytestmark = pytest.mark.command

MEMBER = "llama-medium"

SERVER = """
import signal, sys, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.port = sys.argv[1], int(sys.argv[2])
settings.n_ctx, settings.n_parallel, settings.warmup = 4096, 2, False
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(settings)
print("ready", flush=True)
signal.pause()
"""


def serve(file: Path, port: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(file), str(port)],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_a_training_goes_on_when_llama_cpp_comes_back_and_answers_as_the_local_predictor_does(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model, tokenizer = load_model(f"miniature/{MEMBER}")
    end, template = ChatFormat(tokenizer).end_token_id, str(tokenizer.chat_template)
    file, port = tmp_path / "predictor.gguf", free_port()
    write_model(file, model, tokenizer, "f32", end, template, MEMBER)
    more = ("train.steps=4", "train.log_every=1", "train.group_size=8", "eval.documents=20")
    local, remote = tmp_path / "local", tmp_path / "remote"
    assert main(arguments(local, f"predictor={{model: miniature/{MEMBER}, max_answer_tokens: 12}}", *more)) == 0

    processes, stopped = [serve(file, port)], threading.Event()

    def restart() -> None:
        while not (remote / "metrics.jsonl").exists() and not stopped.wait(0.05):
            pass
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        time.sleep(3)
        processes.append(serve(file, port))

    killer = threading.Thread(target=restart)
    killer.start()
    try:
        url = f"http://127.0.0.1:{port}/v1"
        asked = f"predictor={{endpoint: '{url}', model: m, max_answer_tokens: 12, retries: 8}}"
        assert main(arguments(remote, asked, *more)) == 0
    finally:
        stopped.set()
        killer.join()
        for process in processes:
            process.kill()
    assert len(processes) == 2
    ours, theirs = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (local, remote)
    )
    assert [line["step"] for line in theirs] == [1, 2, 3, 4]
    assert all(line["missing/accuracy"] == 0 for line in theirs)
    # The first messages are the same, and so are the answers to them.
    assert theirs[0]["message_tokens"] == ours[0]["message_tokens"]
    assert abs(theirs[0]["accuracy"] - ours[0]["accuracy"]) <= 0.05
    kept = [json.loads(line)["key"] for line in (remote / "predictor.jsonl").read_text().splitlines()]
    assert len(set(kept)) == len(kept)
    pairs = [
        (one["prediction"], other["prediction"])
        for one, other in zip(*(samples(folder) for folder in (local, remote)), strict=True)
        if one["message"] == other["message"]
    ]
    assert len(pairs) >= 20 and sum(one == other for one, other in pairs) >= 0.95 * len(pairs)
