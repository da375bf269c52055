"""The configuration tree: what it reads, what it refuses, and how it says so."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from configs.sections import TASK_NAMES
from configs.tree import CONFIGS, ConfigError, describe, find_config, to_yaml
from data.miniature.documents import SHAPES
from models import naming
from train.config import Config, load_config

ON_A_CPU = (
    "compressor.model=miniature/qwen2-small",
    "compressor.dtype=float32",
    "compressor.max_context_tokens=null",
    "predictor.model=miniature/llama-medium",
    "predictor.dtype=float32",
    "scorer.model=null",
)


@pytest.fixture(autouse=True)
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An embedded family of the members that recipes name, with a window of 2,048 tokens."""
    weights = tmp_path / "weights"
    for member in ("qwen2-leading", "qwen2-scorer", "qwen2-small", "llama-medium"):
        make_model(weights / member, window=2048)
    monkeypatch.setattr(naming, "MINIATURE_WEIGHTS", weights)
    return weights


def make_model(folder: Path, window: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": window}))
    (folder / "model.safetensors").touch()
    return folder


def refusal(*overrides: str, path: str = "mi_rl.yaml") -> str:
    """What the refusal of these overrides says."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "written.yaml"
    file.write_text(text)
    return str(file)


def test_the_embedded_default_trains_on_all_five_shapes() -> None:
    config = load_config("mi_rl.yaml")
    assert config.name == "mi_rl"
    assert config.folder == Path("runs/mi_rl")
    assert [task.name for task in config.tasks] == list(SHAPES)
    assert all(task.embedded for task in config.tasks)
    assert config.train.messages_per_step == config.train.contexts_per_step * config.train.group_size


def test_the_qasper_recipe_names_two_model_families() -> None:
    config = load_config("qasper.yaml")
    assert config.compressor.model.split("/")[0] != config.predictor.model.split("/")[0]
    assert config.scorer.model == config.predictor.model
    assert [task.name for task in config.tasks] == ["qasper"]


def test_the_qasper_recipe_takes_embedded_models_and_a_local_file(tmp_path: Path) -> None:
    papers = tmp_path / "papers.json"
    papers.write_text("{}")
    config = load_config("qasper.yaml", [*ON_A_CPU, f"tasks.0.source={papers}", "train.steps=3"])
    assert config.tasks[0].source == str(papers)
    assert config.train.steps == 3
    assert config.scorer.model is None


def test_both_recipes_work_with_two_processes() -> None:
    for recipe in ("mi_rl.yaml", "qasper.yaml"):
        load_config(recipe).check_world_size(2)


def test_a_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load_config("mi_rl.yaml", ["compressor.lora.target_modules=[q_proj, v_proj]", "train.beta=1e-3"])
    assert load_config(written(tmp_path, to_yaml(config))) == config


def test_a_config_is_looked_up_as_given_before_the_configs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("mi_rl.yaml") == CONFIGS / "mi_rl.yaml"
    (tmp_path / "mi_rl.yaml").write_text("seed: 1")
    assert find_config("mi_rl.yaml").resolve() == tmp_path / "mi_rl.yaml"


def test_a_config_that_is_nowhere_is_refused_with_those_there_are() -> None:
    assert "mi_rl.yaml, qasper.yaml" in refusal(path="mi-rl.yaml")


def test_a_run_without_a_name_takes_that_of_its_file(tmp_path: Path) -> None:
    tree = yaml.safe_load((CONFIGS / "mi_rl.yaml").read_text())
    del tree["name"]
    assert load_config(written(tmp_path, yaml.safe_dump(tree))).name == "written"


def test_an_override_is_read_as_yaml() -> None:
    config = load_config(
        "mi_rl.yaml",
        ["train.learning_rate=3e-5", "compressor.max_context_tokens=900", "scorer.model=null", "tasks.1.facts=7"],
    )
    assert config.train.learning_rate == 3e-5
    assert config.compressor.max_context_tokens == 900
    assert config.scorer.model is None
    assert [task.facts for task in config.tasks] == [None, 7, None, None, None]


def test_an_override_may_open_a_section_the_file_leaves_out(tmp_path: Path) -> None:
    tree = yaml.safe_load((CONFIGS / "mi_rl.yaml").read_text())
    del tree["reward"]
    config = load_config(written(tmp_path, yaml.safe_dump(tree)), ["reward.length=0"])
    assert (config.reward.accuracy, config.reward.length) == (1.0, 0.0)


def test_the_tree_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_config("mi_rl.yaml").train.steps = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_every_key_is_described_with_a_meaning() -> None:
    page = describe(Config, first=("train", "compressor"), width=80)
    assert all(len(line) <= 80 for line in page.splitlines())
    groups = page.split("\n\n")
    assert [group.partition(":")[0] for group in groups[:4]] == [
        "--- train",
        "--- compressor",
        "--- the run",
        "--- predictor",
    ]
    assert groups[1].startswith(
        "--- compressor: The model that writes messages, with the adapter that is\n    trained.\n"
    )
    lines = [line for group in groups for line in group.splitlines()[1:]]
    heads = [line for line in lines if not line.startswith("    ")]
    assert all(lines[lines.index(head) + 1].startswith("    ") for head in heads)
    keys = [head.partition(":")[0] for head in heads]
    expected = {"train.steps", "compressor.lora.rank", "tasks.N.source", "information.negatives.counterfactual"}
    assert expected <= set(keys) and len(keys) == len(set(keys))
    assert {"compressor.model: str (required)", "train.beta: float = 0.0"} <= set(heads)
    sections_in_order = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    assert sections_in_order[:3] == ["train", "compressor", "name"]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.stepz=3", ["train.stepz", "unknown key", "train.steps?"]),
        ("steps=3", ["steps", "unknown key", "train.steps?"]),
        ("compressor.lora.rang=3", ["compressor.lora.rang", "compressor.lora.rank?"]),
        ("tasks.0.fact=3", ["tasks.0.fact:", "tasks.0.facts?"]),
        ("train.zzz=3", ["train.zzz", "learning_rate", "steps"]),
    ],
)
def test_an_unknown_key_is_refused_with_the_likeliest(override: str, parts: list[str]) -> None:
    assert all(part in refusal(override) for part in parts)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=ten", "train.steps = 'ten': should be a valid integer"),
        ("train.steps=yes", "train.steps = true: should be a valid integer"),
        ("train.steps=1.5", "train.steps = 1.5: should be a valid integer"),
        ("train.steps=-1", "train.steps = -1: should be greater than or equal to 0"),
        ("train.steps=0", "train.steps = 0: nothing is trained; ask for a warm start, or for steps"),
        ("train.group_size=1", "train.group_size = 1: should be greater than or equal to 2"),
        ("train.learning_rate=1e-4x", "train.learning_rate = '1e-4x': should be a valid number"),
        ("reward.accuracy=.nan", "reward.accuracy = nan: should be a finite number"),
        ("reward.length=-1", "reward.length = -1: should be greater than or equal to 0"),
        ("compressor=3", "compressor = 3: should be a section with keys of its own"),
        ("compressor.model=null", "compressor.model = null: should be a valid string"),
        ("compressor.lora.target_modules=[1]", "compressor.lora.target_modules = [1]: should be a valid string"),
        ("tasks=miniature/notes", "tasks = 'miniature/notes': should be a list"),
        ("tasks=[]", "tasks = []: should have at least one item"),
        ("tasks=[3]", "tasks.0 = 3: should be a section with keys of its own"),
    ],
)
def test_a_value_of_the_wrong_type_or_size_is_named_with_its_key(override: str, expected: str) -> None:
    assert refusal(override) == expected


def test_a_misspelt_choice_is_refused_with_the_nearest() -> None:
    assert refusal("tracking.wandb=ofline").endswith("did you mean 'offline'?")
    assert "did you mean 'miniature/notes'?" in refusal("tasks=[miniature/note]")
    assert all(name in refusal("tasks=[longhelth]") for name in TASK_NAMES)
    assert "should be 'all-linear' or a list" in refusal("compressor.lora.target_modules=all")


def test_all_mistakes_are_told_at_once_unknown_keys_first() -> None:
    text = refusal("train.stepz=3", "train.group_size=1", "seed=-1")
    assert text.startswith("3 mistakes: (1) train.stepz: unknown key; did you mean train.steps? (2) ")
    assert "seed = -1: should be" in text and "train.group_size = 1: should be" in text


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert refusal(path=written(tmp_path, "predictor: {model: a/b}\ntasks: [qasper]")).startswith(
        "compressor: is missing"
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seed: 1\ntrain:\n  steps: [", ["written.yaml", "line 3"]),
        ("seed: 1\nseed: 2", ["written.yaml", "line 2", "'seed' occurs twice"]),
        ("just words", ["written.yaml", "should hold keys and values", "'just words'"]),
        ("", ["written.yaml", "should hold keys and values", "null"]),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    assert all(part in refusal(path=written(tmp_path, text)) for part in parts)


@pytest.mark.parametrize("override", ["train.steps", "=3", "train..steps=3", "train.steps=[", "train.steps.x=3"])
def test_a_broken_override_is_refused(override: str) -> None:
    assert override.split("=")[0].removesuffix(".x") in refusal(override)


def test_an_override_of_an_item_that_is_not_there_is_refused() -> None:
    assert refusal("tasks.9.facts=3") == "tasks.9: '9' should be the number of an item, from 0 to 4"


def test_a_missing_model_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    assert "did you mean 'miniature/qwen2-small'?" in refusal("compressor.model=miniature/qwen2-smal")
    absent = tmp_path / "absent"
    assert refusal(f"predictor.model={absent}").startswith(f"predictor.model = '{absent}': no such folder")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in refusal(f"scorer.model={tmp_path / 'empty'}")


def test_a_relative_folder_that_is_missing_is_not_taken_for_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("mi_rl.yaml", ["predictor.model=exports/mine"]).predictor.model == "exports/mine"
    (tmp_path / "exports").mkdir()
    assert "no such folder" in refusal("predictor.model=exports/mine")


def test_a_window_too_small_for_context_and_message_is_refused(tmp_path: Path) -> None:
    small = make_model(tmp_path / "small", window=512)
    assert load_config("mi_rl.yaml", [f"compressor.model={small}", "compressor.max_context_tokens=300"])
    text = refusal(f"compressor.model={small}", "compressor.max_context_tokens=500")
    assert all(part in text for part in ("compressor.max_context_tokens = 500", "budget_tokens = 64", "window of 512"))
    assert "predictor.max_answer_tokens = 500" in refusal(f"predictor.model={small}", "predictor.max_answer_tokens=500")
    assert "scorer.model" in refusal(f"scorer.model={small}", "compressor.max_context_tokens=500")


def test_a_source_that_is_missing_is_refused_with_its_key(tmp_path: Path) -> None:
    absent = tmp_path / "absent.json"
    assert refusal(f"tasks=[{{name: qasper, source: {absent}}}]").startswith(f"tasks.0.source = '{absent}'")
    assert refusal(f"tasks=[{{name: qasper, eval_source: {absent}}}]").startswith(f"tasks.0.eval_source = '{absent}'")


def test_a_task_refuses_what_it_has_no_use_for(tmp_path: Path) -> None:
    assert "is generated and reads nothing" in refusal(f"tasks.0.source={tmp_path}")
    assert "tasks.0.facts = 3" in refusal("tasks=[{name: qasper, facts: 3}]")
    assert "is there twice" in refusal("tasks=[qasper, qasper]")


def test_the_contrastive_bound_needs_a_negative() -> None:
    assert load_config("mi_rl.yaml", ["information.negatives.counterfactual=0", "information.negatives.batch=1"])
    text = refusal("information.negatives.counterfactual=0", "information.negatives.batch=0")
    assert text.startswith("information.negatives = {'counterfactual': 0,")


def test_published_tasks_need_negatives_that_every_document_has() -> None:
    refused = refusal("tasks=[qasper]", "information.negatives.batch=0")
    assert "qasper has no counterfactual versions" in refused and "ask for twins, same_document or batch" in refused


def test_a_reward_of_nothing_is_refused() -> None:
    assert "at least one weight should be positive" in refusal(
        "reward.accuracy=0", "reward.information=0", "reward.length=0"
    )


def test_the_run_folder_takes_the_name_alone() -> None:
    assert load_config("mi_rl.yaml", ["run_folder=/tmp/{name}/a", "name=b"]).folder == Path("/tmp/b/a")
    assert "{name} alone" in refusal("run_folder=runs/{nam}")
    assert "name = '../b'" in refusal("name=../b")


def test_micro_batches_that_do_not_divide_are_refused() -> None:
    assert "should divide contexts_per_step * group_size = 64" in refusal("train.micro_batch_messages=7")
    text = refusal("train.group_size=6", "train.micro_batch_messages=16")
    assert "multiple or a divisor of group_size = 6" in text


@pytest.mark.parametrize(("world_size", "micro", "size", "passes"), [(1, None, 64, 1), (2, None, 32, 1), (2, 8, 8, 4)])
def test_a_step_is_shared_among_processes(world_size: int, micro: int | None, size: int, passes: int) -> None:
    config = load_config("mi_rl.yaml", [f"train.micro_batch_messages={micro or 'null'}"])
    config.check_world_size(world_size)
    assert config.train.micro_batch_size(world_size) == size
    assert config.train.gradient_accumulation_steps(world_size) == passes
    assert size * passes * world_size == config.train.messages_per_step


def refused_world_size(config: Config, world_size: int) -> str:
    with pytest.raises(ConfigError) as caught:
        config.check_world_size(world_size)
    return str(caught.value)


def test_processes_that_cannot_share_the_batch_are_refused() -> None:
    assert "choose a multiple of 3" in refused_world_size(load_config("mi_rl.yaml"), 3)
    config = load_config("mi_rl.yaml", ["train.micro_batch_messages=32"])
    assert "choose a divisor of 16" in refused_world_size(config, 4)


@pytest.mark.parametrize(("steps", "warmup"), [(40, 4), (100, 5), (9, 0)])
def test_the_warm_up_is_a_tenth_of_the_steps_at_most_five_unless_it_is_given(steps: int, warmup: int) -> None:
    assert load_config("mi_rl.yaml", [f"train.steps={steps}"]).train.warmup == warmup
    assert load_config("mi_rl.yaml", [f"train.steps={steps}", "train.warmup_steps=7"]).train.warmup == 7


VLLM = "train.sampler=vllm"


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a package called vllm and a CUDA GPU, as far as the configuration looks."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


def test_messages_are_sampled_by_the_policy_itself_unless_vllm_is_asked_for() -> None:
    for recipe in ("mi_rl.yaml", "qasper.yaml"):
        assert load_config(recipe).train.sampler == "transformers"


@pytest.mark.usefixtures("gpu")
def test_vllm_takes_its_settings_and_they_read_back(tmp_path: Path) -> None:
    overrides = ["mode=server", "server_host=gpu7", "server_port=9000", "gpu_memory_utilization=0.5"]
    config = load_config("mi_rl.yaml", [VLLM, *(f"train.vllm.{item}" for item in overrides)])
    assert (config.train.vllm.mode, config.train.vllm.server_port) == ("server", 9000)
    assert config.train.vllm.importance_sampling
    assert load_config(written(tmp_path, to_yaml(config))) == config


def test_vllm_without_its_package_is_refused() -> None:
    assert refusal(VLLM) == (
        "train.sampler = 'vllm': the package vllm is not installed; pip install 'trl[vllm]', or choose transformers"
    )


def test_vllm_without_a_gpu_is_refused(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert refusal(VLLM) == "train.sampler = 'vllm': torch finds no CUDA GPU here; choose transformers"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.sampler=vlm", "train.sampler = 'vlm'"),
        ("train.sampler=vlm", "did you mean 'vllm'?"),
        ("train.vllm.mode=remote", "train.vllm.mode = 'remote': should be 'colocate' or 'server'"),
        ("train.vllm.gpu_memory_utilization=1", "train.vllm.gpu_memory_utilization = 1: should be less than 1"),
        ("train.vllm.gpu_memory_utilization=0", "train.vllm.gpu_memory_utilization = 0: should be greater than 0"),
        ("train.vllm.server_port=70000", "train.vllm.server_port = 70000: should be less than or equal to 65535"),
        ("train.vllm.max_model_tokens=0", "train.vllm.max_model_tokens = 0: should be greater than 0"),
        ("train.vllm.importance_sampling=1", "train.vllm.importance_sampling = 1: should be a valid boolean"),
        ("train.vllm.server_prt=9000", "train.vllm.server_prt: unknown key; did you mean train.vllm.server_port?"),
        ("compressor.revision=main", "compressor.revision = 'main': TRL has vLLM load a model's default branch"),
    ],
)
def test_what_vllm_cannot_take_is_named_with_its_key(override: str, expected: str) -> None:
    assert expected in refusal(VLLM, override)


def test_settings_of_vllm_without_vllm_are_refused() -> None:
    assert refusal("train.vllm.mode=server") == (
        "train.vllm.mode = 'server': is read with train.sampler = vllm alone; set that, or drop this"
    )


@pytest.mark.usefixtures("gpu")
def test_vllms_room_has_to_hold_a_context_and_its_message() -> None:
    limits = ["compressor.max_context_tokens=900", "compressor.budget_tokens=100"]
    assert load_config("mi_rl.yaml", [VLLM, *limits, "train.vllm.max_model_tokens=1001"])
    text = refusal(VLLM, *limits, "train.vllm.max_model_tokens=1000")
    assert text.startswith("train.vllm.max_model_tokens = 1000: a context and its message take 1000 tokens")
