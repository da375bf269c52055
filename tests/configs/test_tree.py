"""Malformed YAML, odd values and values of any size: each is one readable line at load, and all of them are told."""

from pathlib import Path

import pytest

from configs.errors import MOST_MISTAKES, ConfigError, check_all, shown
from configs.tree import find_config
from configs.yaml_values import read_yaml
from eval.config import load_config as load_evaluation
from train.config import load_config


def refusal(*overrides: str, path: str = "mi_rl.yaml") -> str:
    """The one line that these overrides are refused with."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    text = str(caught.value)
    assert text and text.isprintable() and len(text) < 8000
    return text


NINES = "9" * 5000

MALFORMED = {
    "nested lists": ("seed=" + "[" * 2000 + "]" * 2000, "nested too deeply"),
    "nested sections": ("train=" + "{a: " * 2000 + "}" * 2000, "nested too deeply"),
    "an endless list": ("seed=" + "[" * 100, "value is not YAML: line 1"),
    "a number of 5,000 digits": (f"seed={NINES}", "line 1: is no int"),
    "a hexadecimal one": (f"seed=0x{NINES}", "the number is too long"),
    "a negative one": (f"tasks.0.facts=-0x{NINES}", "the number is too long"),
    "a word as a number": ("seed='!!int abc'", "seed = '!!int abc': should be a valid integer"),
    "an int that is none": ("seed=!!int abc", "line 1: is no int"),
    "an int without digits": ("seed=!!int ''", "line 1: is no int"),
    "a float that is none": ("train.beta=!!float abc", "line 1: is no float"),
    "a bool that is none": ("eval.greedy=!!bool abc", "line 1: is no bool"),
    "a date that is none": ("name=!!timestamp abc", "line 1: is no timestamp"),
    "a date beyond the calendar": ("name=!!timestamp 2020-13-45", "line 1: is no timestamp"),
    "bytes": ("name=!!binary aGk=", "name = b'hi': should be a valid string"),
    "a set": ("name=!!set {a, b}", "name = "),
    "a Python object": ("name=!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    "an unknown alias": ("name=*nothing", "found undefined alias"),
    "a list in itself": ("tasks=&a [*a]", "tasks.0 = [[[[...]]]]: should be a section"),
    "a section in itself": ("train=&a {b: *a}", "train.b: unknown key"),
    "a control character": ("name=a\x07b", "special characters are not allowed"),
    "half a character": ("name=a\udc80", "special characters are not allowed"),
    "a null": ("tasks.0=null", "tasks.0 = null: should be a section"),
    "infinity": ("train.beta=.inf", "train.beta = inf: should be a finite number"),
    "no number": ("reward.length=.nan", "reward.length = nan: should be a finite number"),
    "a float beyond all floats": ("train.beta=1e999", "train.beta = inf: should be a finite number"),
    "a key that is a list": ("train={[a]: 1}", "found unhashable key"),
    "a key that is a number": ("train={1: 1}", "train"),
    "a key without an end": ("x" * 5000 + "=1", "...: unknown key"),
    "a key of a number": ("seed.a=1", "seed = 0: has no keys below it"),
    "a key of nothing": (".=1", "should be key=value"),
    "no key": ("=1", "should be key=value"),
    "no value": ("seed", "should be key=value"),
    "an item beyond the list": ("tasks.9=a", "tasks.9: '9' should be the number of an item, from 0 to 4"),
    "an item of 5,000 digits": (f"tasks.{NINES}.name=a", "should be the number of an item"),
    "another script's digit": ("tasks.\u0663.name=a", "should be the number of an item"),
}
"""A wrong override, and what its refusal says."""


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_value_is_one_line(kind: str) -> None:
    override, said = MALFORMED[kind]
    assert said in refusal(override)


def test_a_malformed_file_is_one_line_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    for content, said in {
        "a: " + "[" * 3000: "nested too deeply",
        "name: a\nseed: !!int abc\n": "line 2: is no int",
        "name: a\nname: b\n": "line 2: key 'name' occurs twice",
        "": "should hold keys and values, it holds null",
        "- 1": "should hold keys and values, it holds [1]",
        "a: 1\n---\nb: 1\n": "found another document",
        "\ta: 1": "found character",
    }.items():
        file.write_text(content)
        assert said in refusal(path=str(file)), content[:20]
    file.write_bytes("name: ü".encode("utf-16"))
    assert "cannot be read: 'utf-8' codec" in refusal(path=str(file))


def test_aliases_that_multiply_are_shown_shortly() -> None:
    lines = ["{z0: &z0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"z{n}: &z{n} [{', '.join([f'*z{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "unknown key" in refusal(f"train={', '.join(lines)}}}")
    assert len(shown(read_yaml(", ".join(lines) + "}", ""))) < 200


def test_overrides_in_an_item_that_is_no_section_are_refused() -> None:
    assert "tasks.0 = 3: has no keys below it" in refusal("tasks=[3]", "tasks.0.facts=8")
    assert "tasks.0: '0' should be left out, for the list is empty" in refusal("tasks=[]", "tasks.0.facts=8")


def test_a_date_is_a_name() -> None:
    assert load_config("mi_rl.yaml", ["name=2020-12-24"]).name == "2020-12-24"
    assert load_config("mi_rl.yaml", ["name=2020-13-45"]).name == "2020-13-45"


def test_a_path_that_no_disk_takes_is_a_path_that_is_not_there() -> None:
    for path in ("x" * 5000, "a\0b", "~nouser/x", "/dev/null", "."):
        with pytest.raises(ConfigError, match="no such file here"):
            find_config(path)
    for source in ("x" * 5000, "~nouser/x", '"a\\0b"'):
        tasks = f"tasks=[{{name: qasper, source: {source}, eval_source: {source}}}]"
        text = refusal(tasks, "information.negatives.batch=1")
        assert text.count("no such file or folder") == 2
        for key in ("compressor.model", "predictor.model", "scorer.model"):
            assert f"{key} = " in refusal(f"{key}={source}")
            assert "no such folder" in refusal(f"{key}={source}")


@pytest.mark.parametrize(
    ("override", "most"),
    [
        ("seed=9223372036854775808", "4,294,967,295"),
        ("compressor.lora.rank=1000000000000", "16,384"),
        ("compressor.lora.alpha=1000000000000", "1,000,000"),
        (f"train.steps=1{'0' * 30}", "1,000,000"),
        ("train.group_size=1000000000000", "65,536"),
        ("train.contexts_per_step=1000000000000", "65,536"),
        ("eval.documents=1000000000", "1,000,000"),
        ("eval.batch_size=1000000000", "65,536"),
        ("tasks.0.documents=1000000000", "1,000,000"),
        ("tasks.0.facts=1000000000", "1,000,000"),
        ("information.negatives.counterfactual=1000000000", "4,096"),
        ("compressor.max_context_tokens=1000000000000", "100,000,000"),
        ("reward.length=1e300", "1,000,000"),
    ],
)
def test_what_no_machine_holds_is_refused_with_the_most_and_a_reason(override: str, most: str) -> None:
    key, _, _ = override.partition("=")
    text = refusal(override)
    assert text.startswith(f"{key} = ") and f"should be at most {most}: " in text


def test_a_temperature_is_neither_nothing_nor_noise() -> None:
    for value in ("1e-300", "0.001", "1e300"):
        assert "should be between 0.01 and 100" in refusal(f"train.temperature={value}")
        assert "should be between 0.01 and 100" in refusal(f"eval.temperature={value}")
    assert load_config("mi_rl.yaml", ["eval.temperature=0"]).eval.temperature == 0


def test_a_step_and_the_documents_of_all_steps_fit_the_memory() -> None:
    assert "their product should be at most" in refusal("train.group_size=4096", "train.contexts_per_step=4096")
    text = refusal("train.steps=1000000")
    assert "8,000,000 documents would be generated" in text and "set tasks.0.documents" in text
    limited = [f"tasks.{number}.documents=10" for number in range(5)]
    assert load_config("mi_rl.yaml", ["train.steps=1000000", *limited]).train.steps == 1_000_000


@pytest.mark.parametrize("name", ["x" * 201, "a/b", "..", "-a", "a b", "a\nb", "ü", "", "a\\b", "~"])
def test_a_name_is_one_folder_on_every_disk(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^name = "):
        load_config("mi_rl.yaml", [f"name={name!r}"])
    assert load_config("mi_rl.yaml", [f"name={'x' * 200}"]).name == "x" * 200


def test_a_tilde_in_the_run_folder_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config("mi_rl.yaml", ["run_folder=~/x/{name}"]).folder == tmp_path / "x" / "mi_rl"
    assert load_evaluation("evaluation.yaml", ["compressor.adapter=null", "run_folder=~/x"]).folder == tmp_path / "x"


def test_everything_wrong_in_a_configuration_is_told_at_once() -> None:
    text = refusal("train.stps=1", "seed=-1", "eval.greedy=3", "tasks.0.name=nope")
    assert text.startswith("4 mistakes: (1) train.stps: unknown key") and "(4) " in text
    text = refusal("tasks=[qasper, miniature/notes, miniature/notes]", "tasks.0.facts=3", "tasks.0.variant=a")
    assert "(1) tasks.2.name = 'miniature/notes': is there twice" in text and "(2) tasks.0.facts = 3" in text
    text = refusal("compressor.model=miniature/nope", "predictor.model=miniature/none", "scorer.model=nowhere")
    assert text.startswith("3 mistakes: ") and text.count("no such") == 3


def test_a_wrong_list_and_its_wrong_items_are_one_mistake_each() -> None:
    text = refusal("compressor.lora.target_modules=[3, 4]", "tasks=[3, qasper, x]")
    assert text.startswith("3 mistakes: ") and text.count("target_modules") == 1
    assert "tasks.0 = 3: " in text and "tasks.2.name = 'x': " in text


def test_a_module_that_the_model_lacks_is_refused_at_load() -> None:
    text = refusal("compressor.lora.target_modules=[nope, q_proj, k_pro, self_attn.v_proj, lm_head]")
    assert text.startswith(
        "2 mistakes: (1) compressor.lora.target_modules: 'miniature/qwen2-leading' has no module 'nope'"
    )
    assert text.endswith("has no module 'k_pro'; did you mean 'k_proj'?")


def test_more_mistakes_than_anybody_reads_are_counted() -> None:
    text = refusal(*(f"train.a{number}=1" for number in range(30)))
    assert text.startswith("30 mistakes: ") and text.endswith(f"... and {30 - MOST_MISTAKES} more")
    # The keys that the section has are told once.
    assert text.count("unknown key") == MOST_MISTAKES and text.count("batch_negatives") == 1


def test_checks_that_pass_say_nothing_and_those_that_fail_are_gathered() -> None:
    def fail(*mistakes: str) -> None:
        raise ConfigError(*mistakes)

    check_all(lambda: None)
    with pytest.raises(ConfigError, match=r"^3 mistakes: \(1\) a \(2\) b \(3\) c$") as caught:
        check_all(lambda: fail("a", "b"), lambda: None, lambda: fail("c\n"), lambda: fail("a"))
    assert caught.value.mistakes == ("a", "b", "c")
    with pytest.raises(ConfigError, match="^a$"):
        check_all(lambda: fail("a"))
