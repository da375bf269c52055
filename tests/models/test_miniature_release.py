"""The release of an embedded member: its weights, its card, and the size of the family."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from data.miniature.documents import SHAPES
from models.loading import load_model
from models.miniature import quality, releasing
from models.miniature.architecture import build_member
from models.miniature.card import LOOKUPS, MEASURES, family_table
from models.miniature.members import MEMBERS
from models.miniature.quality import ALL, QUALIFIED_LOOKUP, MeasuredMean
from models.miniature.releasing import check_size, release_member
from models.miniature.selection import RULES
from models.miniature.training import Progress, save_checkpoint
from models.naming import MINIATURE_WEIGHTS, miniature_members
from models.prompts import ChatFormat

pytestmark = pytest.mark.command

TINY = replace(MEMBERS["qwen2-small"], width=64, layers=1, heads=4, feed_forward=64)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MINIATURE_WEIGHTS / "tokenizer")


def tiny_model(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return build_member(TINY, len(tokenizer), tokenizer.get_vocab()["<|pad|>"], ChatFormat(tokenizer).end_token_id)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A family of one untrained member, released with figures that were not measured."""
    folder = tmp_path_factory.mktemp("family")
    model = tiny_model(tokenizer)
    save_checkpoint(model, torch.optim.AdamW(model.parameters()), Progress(3, 2e6, 6, 1800.0), folder / "runs" / "tiny")
    lines = [{"step": s, "tokens": s * 1e5, "facts": 4, "loss": 9.0 / s, "value_accuracy": s / 9} for s in (1, 2, 3)]
    (folder / "runs" / "tiny" / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    tokenizer.save_pretrained(folder / "weights" / "tokenizer")
    figures = {group: MeasuredMean(0.25, 0.125, 0.5, 8, 4) for group in (ALL, *SHAPES)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MEMBERS, "tiny", replace(TINY, qualified=True))
        patch.setattr(
            releasing, "measure", lambda *_: dict.fromkeys((*MEASURES, *LOOKUPS, *RULES, QUALIFIED_LOOKUP), figures)
        )
        release_member("tiny", folder / "runs" / "tiny", folder / "weights", documents=1)
    return folder


def test_a_release_is_the_checkpoint_rounded_to_bfloat16(released: Path) -> None:
    text = "日本語の文章。한국어 ภาษาไทย हिन्दी العربية עברית"
    state = torch.load(released / "runs" / "tiny" / "checkpoint.pt", weights_only=True)["model"]
    stored = load_file(released / "weights" / "tiny" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    model, tokenizer = load_model(str(released / "weights" / "tiny"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name].to(torch.bfloat16).float()), name
    assert model.generation_config is not None
    assert model.generation_config.eos_token_id == ChatFormat(tokenizer).end_token_id
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_card_states_the_size_the_training_and_the_figures_with_their_intervals(released: Path) -> None:
    folder = released / "weights" / "tiny"
    text = (folder / "README.md").read_text()
    parameters = load_model(str(folder))[0].num_parameters()
    for part in (f"{parameters:,} parameters", "2.0 million", "0.50 on one", "3.000 nats", "25.0% [12.5, 50.0]"):
        assert part in text
    assert "24 facts a document: 25.0% [12.5, 50.0]." in text
    assert (folder / "loss.svg").read_text().startswith("<?xml")
    record = json.loads((folder / "quality.json").read_text())
    assert record["quality"]["sampled/kept"]["all"] == {
        "value": 0.25,
        "low": 0.125,
        "high": 0.5,
        "n": 8,
        "documents": 4,
    }
    table = family_table(released / "weights").splitlines()
    assert len(table) == 3
    assert table[2].startswith(f"| tiny | {parameters / 1e6:.2f} M | 25.0% [12.5, 50.0] |")


def test_a_family_too_heavy_to_ship_is_refused(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_size(released / "weights")
    monkeypatch.setattr(releasing, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="weigh"):
        check_size(released / "weights")
    with pytest.raises(FileNotFoundError, match="release a member first"):
        family_table(released / "runs")


def test_measuring_covers_every_row_of_the_card(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "MAX_MESSAGE_TOKENS", 8)
    monkeypatch.setattr(quality, "MAX_ANSWER_TOKENS", 4)
    # No test of acceptance is asked of a member that may follow the question.
    member = replace(TINY, qualified=True)
    measured = releasing.measure(member, tiny_model(tokenizer).eval(), tokenizer, documents=1)
    rows = {*MEASURES, *LOOKUPS, QUALIFIED_LOOKUP}
    # An untrained model restates no fact, so that there is none to be honest about.
    assert rows - set(measured) <= {"sampled/honest", "greedy/honest"}
    assert measured["lookup/4"][ALL].value == 0.0


@pytest.mark.skipif(not miniature_members(), reason="no member of the family has been released")
def test_the_family_is_small_enough_and_every_member_has_its_card() -> None:
    check_size(MINIATURE_WEIGHTS)
    family_tokenizer = (MINIATURE_WEIGHTS / "tokenizer" / "tokenizer.json").read_bytes()
    for member in miniature_members():
        folder = MINIATURE_WEIGHTS / member
        record = json.loads((folder / "quality.json").read_text())
        model, _ = load_model(f"miniature/{member}")
        assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
        assert record["member"]["parameters"] == model.num_parameters()
        assert f"{model.num_parameters():,} parameters" in (folder / "README.md").read_text()
        assert (folder / "loss.svg").is_file()
        assert (folder / "tokenizer.json").read_bytes() == family_tokenizer


@pytest.mark.command
@pytest.mark.parametrize("module", ["models.miniature.train", "models.miniature.release"])
def test_help_and_an_unknown_member_answer_without_loading_what_takes_seconds(module: str) -> None:
    script = (
        f"import runpy, sys\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        f"finally: print('heavy:', sorted({{'torch', 'transformers', 'numpy', 'matplotlib'}} & set(sys.modules)))"
    )
    for argument, exit_status in (("--help", 0), ("no-member", 2)):
        ended = subprocess.run([sys.executable, "-c", script, argument], capture_output=True, text=True)
        assert ended.returncode == exit_status
        assert "heavy: []" in ended.stdout
