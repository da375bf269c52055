"""A study: what it consists of, what its figures and tables are, and what is stale."""

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from safetensors.torch import load_file, save_file

from configs.run_folder import owned
from configs.tree import ConfigError
from data.errors import DataError
from eval.analysis.curves import lead
from eval.analysis.significance import clustered_mean, interval
from models.naming import WEIGHTS_FILE
from tests.eval.small_evaluation import write_adapter
from tests.train.small_study import DOCUMENTS, STUDY, configured, messages, plant, plant_all, written
from train.config import Config, load_config
from train.study.__main__ import main
from train.study.config import StudyConfig
from train.study.figures import read_figures
from train.study.identity import Depends, depends_on, hash_of
from train.study.job import given
from train.study.members import planned
from train.study.page import tables_of, write_pages
from train.study.processes import in_use, share_of_cores
from train.study.results import SetFigures, lines_of, results_of, sets_of
from train.study.stand import stand_of
from train.study.time_left import Times, duration


def set_of(config: StudyConfig) -> SetFigures:
    members = planned(config)
    return sets_of(config, members, stand_of(config.pages_folder, config.folder, members))[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variants": {"full": {"train.stepz": 1}}}, "variants.full: train.stepz: unknown key; did you mean"),
        ({"variants": {"bm25": {}}}, "variants.bm25: results have another line of that name"),
        ({"variants": {}}, "variants = {}: should have at least one item"),
        ({"seeds": [1, 1]}, "seeds = [1, 1]: has the same twice"),
        ({"articles": ["papers"]}, "articles = 'papers': is no set; there are notes"),
        ({"transfer": ["papers"]}, "transfer = 'papers': is no set; there are notes"),
        ({"sets": {"notes": {"eval.documents": -1}}}, "sets.notes: eval.documents = -1"),
        ({"sets": {"notes": {"eval.greedy": True, "eval.temperature": 1}}}, "sets.notes: eval.greedy = true"),
        ({"sets": {"notes": {"reference.model": "a"}}}, "sets.notes: reference.model: what is held against what"),
        ({"warm_start": {"train.warm_start": None, "train.steps": 0}}, "warm_start: train.steps = 0"),
        ({"recipe": "none.yaml"}, "recipe: config 'none.yaml': no such file"),
    ],
)
def test_a_study_that_cannot_be_run_is_one_line_that_names_the_key(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, **change)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_members_come_seed_by_seed_and_what_is_shared_comes_once(tmp_path: Path) -> None:
    config = configured(tmp_path, sets={"notes": {}, "a/b": {"eval.documents": 1}})
    members = planned(config)
    names = [member.name for member in members]
    assert names[:6] == ["train warm-start", "notes warm-start", "a/b warm-start", *names[3:6]]
    assert names[3:9] == [
        *("train full/0", "notes full/0", "a/b full/0"),
        *("train without-information/0", "notes without-information/0", "a/b without-information/0"),
    ]
    assert len(names) == 3 + 3 * 4 and all("/1" in name for name in names[9:])
    by_name = {member.name: member for member in members}
    trained: Any = by_name["train full/1"].config
    assert (trained.seed, trained.train.warm_start, trained.train.steps) == (1, None, 2)
    warmed: Any = by_name["train warm-start"].config
    assert (warmed.seed, warmed.train.steps) == (0, 0) and warmed.train.warm_start is not None
    evaluation: Any = by_name["notes full/1"].config
    assert evaluation.alone and evaluation.seed == 0 and evaluation.baselines == ()
    assert [one.name for one in by_name["notes warm-start"].config.baselines] == ["bm25"]  # type: ignore[union-attr]
    assert [member.name for member in planned(config, ["full/1"])] == ["train warm-start", *names[9:12]]
    with pytest.raises(ConfigError, match="--only 'ful': there are warm-start, full, without-information, with the"):
        planned(config, ["ful"])


def test_trainings_share_a_store_of_warm_starts_and_evaluations_have_their_adapters(tmp_path: Path) -> None:
    config = configured(tmp_path, warm_start=None)
    by_name = {member.name: member for member in planned(config)}
    store = {"train.warm_start_store": str(config.folder / "warm_starts")}
    for name in ("full/0", "full/1", "without-information/0"):
        assert given(config.folder, by_name[f"train {name}"]) == store
    trained = by_name["train full/1"]
    assert given(config.folder, by_name["notes full/1"]) == {"compressor.adapter": str(trained.folder / "compressor")}
    # The store changes no figure, and so makes nothing stale.
    assert trained.depends.differences(depends_on(warm_start=None, training=load_config("mi_rl.yaml")).keys)
    assert isinstance(trained.config, Config)
    keeping = trained.config.train.model_copy(update={"warm_start_store": "x"})
    stored = trained.config.model_copy(update={"train": keeping})
    assert not trained.depends.differences(depends_on(warm_start=None, training=stored).keys)


def test_a_set_of_transfer_is_for_the_start_and_the_first_variant(tmp_path: Path) -> None:
    sets = {"notes": {}, "far": {"eval.documents": 3}}
    config = configured(tmp_path, sets=sets, transfer=["far"])
    names = [member.name for member in planned(config) if member.set_name == "far"]
    assert names == ["far warm-start", "far full/0", "far full/1"]
    members = planned(config)
    results = results_of(config, sets_of(config, members, stand_of(config.pages_folder, config.folder, members)))
    assert list(results["far"]) == ["warm-start", "full"] and "without-information" in results["notes"]


def test_the_untrained_model_is_not_written_twice(tmp_path: Path) -> None:
    def alone(*baselines: dict[str, Any], temperature: float = 0) -> bool:
        config = configured(tmp_path, evaluation={"eval.temperature": temperature, "baselines": list(baselines)})
        return config.measured("notes", "warm-start", 0).alone

    assert alone({"name": "untrained"}) and alone({"name": "untrained", "decoding": "sampled"}, temperature=1)
    assert not alone() and not alone({"name": "untrained", "budgets": [8]})
    assert not alone({"name": "untrained"}, temperature=1)


def test_results_have_their_shape_and_hold_nulls_for_what_is_missing(tmp_path: Path) -> None:
    config = configured(tmp_path, pages=str(tmp_path / "pages"))
    plant_all(config)["notes full/1"].unlink()
    assert main(["--config", str(written(tmp_path, pages=str(tmp_path / "pages"))), "--table"]) == 0
    results = json.loads((tmp_path / "pages" / "results.json").read_text())
    one = ["warm-start", "untrained", "bm25 8", "bm25 32", "head 8", "head 32"]
    seeds = {name: list(found) for name, found in results["notes"].items()}
    assert list(results) == ["notes"]
    assert seeds == {name: ["0"] for name in one} | {name: ["0", "1"] for name in STUDY["variants"]}
    figures = {"f1": 0.625, "tokens": 20, "information_bits": 2.0, "bits_per_token": 0.1}
    figures |= {"just_the_answer": 0.5, "holds_an_answer": 0.75, "n": 4, "information_n": 4}
    kinds = results["notes"]["full"]["0"].pop("kinds")
    assert results["notes"]["full"] == {"0": pytest.approx(figures), "1": dict.fromkeys(figures)}
    assert {kind: (found["f1"], found["n"]) for kind, found in kinds.items()} == {
        "computed": (0.75, 2),
        "read": (0.5, 2),
    }
    page = (tmp_path / "pages" / "results.md").read_text()
    assert "![F1 against message tokens on notes](curves/notes.svg)" in page
    picture = ElementTree.parse(tmp_path / "pages" / "curves" / "notes.svg").getroot()
    texts = {text for element in picture.iter() if (text := (element.text or "").strip())}
    assert {"full", "warm-start", "bm25", "head", "message tokens"} <= texts and "var(" not in str(texts)
    assert "4 questions of 4 documents. Not there yet: full/1." in page and "- `full`: the recipe as it is" in page


def test_the_table_is_what_the_questions_say(tmp_path: Path) -> None:
    config = configured(tmp_path)
    plant_all(config)
    one = set_of(config)
    lines = {line.name: line for line in lines_of(config, one)}
    assert list(lines)[:3] == ["warm-start", "full", "without-information"]
    full, ablated = lines["full"], lines["without-information"]
    pooled = [1.0, 0.5, 0.0, 1.0, 1.0, 1.0, 0.5, 1.0]
    assert full.figures["accuracy"]["value"] == pytest.approx(statistics.fmean(pooled))
    assert full.by_seed == pytest.approx([0.625, 0.875]) and statistics.stdev(full.by_seed) == pytest.approx(
        0.1768, 1e-3
    )
    warm = [0.5, 0.5, 0.0, 1.0] * 2
    differences = [own - other for own, other in zip(pooled, warm, strict=True)]
    expected = interval(clustered_mean(differences, DOCUMENTS * 2))
    assert full.against_start is not None and ablated.against_first is not None
    change = full.against_start["accuracy"]
    assert change["value"] == pytest.approx(expected.value) == pytest.approx(0.25)
    assert (change["low"], change["high"]) == pytest.approx((expected.low, expected.high))
    assert full.against_start["message_tokens_ratio"]["value"] == pytest.approx(45 / 20)
    assert ablated.against_first["accuracy"]["value"] == pytest.approx(
        statistics.fmean([0.5, 0, 0, 1, 0, 1, 0.5, 0]) * -1
    )
    # At 20 tokens, halfway from 8 to 32, BM25 has half of its 0.5, and the head 0.0625.
    assert full.strongest is not None and full.strongest.name == "bm25"
    assert full.strongest.lead["value"] == pytest.approx(0.75 - 0.25)
    points = one.baselines["bm25"]
    found = lead([[record for records in one.lines["full"].values() for record in records]], points)
    assert found is not None and found["accuracy"] == full.strongest.lead
    table, over_seeds, by_kind = tables_of(config, one, list(lines.values()))
    cells = dict(zip(table.columns, table.lines[1], strict=True))
    assert cells["F1"].startswith("75.0% [") and cells["Tokens of warm-start to own"].startswith("2.25 [")
    assert cells["F1 between seeds"] == "17.7 points (62.5% to 87.5%)"
    assert cells["F1 against the strongest baseline at equal tokens, points"].startswith("+50.0 [")
    assert lines["warm-start"].strongest is None and table.lines[0][-1] == "no baseline at this length"
    assert cells["Just the answer"] == "62.5%"
    assert by_kind.columns == ("Messages", "F1, computed", "F1, read") and by_kind.lines[1][0] == "full"
    # Over two seeds: 0.25 less 0.625 and 0.5 less 0.875, the same tokens.
    assert over_seeds.lines[0][0] == "without-information" and over_seeds.lines[0][1].startswith("-37.5 [")
    assert over_seeds.lines[0][2].startswith("+0.00") and over_seeds.lines[0][4] == "2"
    # In both seeds the second and the fourth question are computed: 0.5, 1, 1 and 1.
    assert by_kind.lines[1][1].startswith("87.5% [")


def test_questions_of_one_kind_have_one_table(tmp_path: Path) -> None:
    config = configured(tmp_path)
    plant_all(config)
    one = set_of(config)
    for records in (records for seeds in one.lines.values() for seed in seeds.values() for records in seed):
        records["kind"] = "read"
    assert [table.name for table in tables_of(config, one, lines_of(config, one))] == ["notes", "notes-seeds"]


def test_what_is_not_scored_by_f1_alone_is_not_called_so_and_without_baselines_none_is_missed(tmp_path: Path) -> None:
    config = configured(tmp_path, evaluation={"eval.temperature": 0})
    for member in planned(config):
        if member.set_name:
            plant(config, member, messages(member.variant, [1.0, 0.5, 0.0, 1.0], [8] * 4), metric="exact")
    write_pages(config)
    results = json.loads((config.pages_folder / "results.json").read_text())
    assert results["notes"]["full"]["0"]["accuracy"] == 0.625 and "f1" not in results["notes"]["full"]["0"]
    page = (config.pages_folder / "results.md").read_text()
    assert "Accuracy against full, points" in page and "F1" not in page and "baseline" not in page
    assert "from others: 1 counterfactual and 1 batch a question" in page


def test_parts_of_an_article_are_resampled_together(tmp_path: Path) -> None:
    config = configured(tmp_path, articles=["notes"])
    plant_all(config)
    [line] = [line for line in lines_of(config, set_of(config)) if line.name == "full"]
    pooled = [1.0, 0.5, 0.0, 1.0, 1.0, 1.0, 0.5, 1.0]
    expected = interval(clustered_mean(pooled, ["page", "page", "other", "other"] * 2, limits=(0, 1)))
    figure = line.figures["accuracy"]
    assert (figure["low"], figure["high"]) == pytest.approx((expected.low, expected.high))
    assert line.figures["documents"] == 2


def test_stale_and_damaged_figures_are_named_and_not_used(tmp_path: Path) -> None:
    config = configured(tmp_path)
    paths = plant_all(config)
    damaged = paths["notes without-information/1"]
    damaged.write_text(damaged.read_text().replace("[1.0, 0.0", "[1.0"))
    changed = configured(
        tmp_path,
        variants={"full": {"reward.length": 0.125}, "without-information": STUDY["variants"]["without-information"]},
    )
    members = planned(changed)
    stand = stand_of(changed.pages_folder, changed.folder, members)
    assert set(stand.figures) == {"notes warm-start", "notes without-information/0"}
    reason = stand.stale["notes full/0"]
    assert "is stale, for training.reward.length = " in reason and reason.endswith(" then, 0.125 now; it is not used")
    assert f"{damaged}: is no file" in stand.stale["notes without-information/1"]
    with pytest.raises(DataError, match="is no file of a study's figures"):
        read_figures(damaged)


def test_the_figures_of_a_variant_may_be_moved_to_its_new_name(tmp_path: Path) -> None:
    plant_all(configured(tmp_path))
    variants = {"whole": {}, "without-information": {"reward.information": 0}}
    renamed = configured(tmp_path, variants=variants)
    pages = renamed.pages_folder / "members" / "notes"
    (pages / "full").rename(pages / "whole")
    write_pages(renamed)
    results = json.loads((renamed.pages_folder / "results.json").read_text(encoding="utf-8"))["notes"]
    assert "full" not in results and [name for name in results if name in variants] == list(variants)
    assert [one["n"] for one in results["whole"].values()] == [4, 4]


def test_a_key_that_is_new_and_at_its_default_makes_nothing_stale(tmp_path: Path) -> None:
    run = configured(tmp_path).trained("full", 0)
    depends = depends_on(training=run)
    stored = json.loads(json.dumps(depends.keys))
    assert depends.differences(stored) == []
    del stored["training"]["train"]["temperature"]
    assert depends.differences(stored) == []
    del stored["training"]["train"]["steps"]
    assert depends.differences(stored) == ["training.train.steps = 2 now, no such key then"]
    stored["training"]["train"]["removed"] = 1
    assert "training.train.removed = 1 then, no such key now" in depends.differences(stored)


def test_an_adapter_or_a_source_that_has_changed_under_its_name_makes_what_was_made_of_it_stale(tmp_path: Path) -> None:
    adapter, source = write_adapter(tmp_path / "adapter"), tmp_path / "questions.jsonl"
    record = {"context": "The zinc is 4.", "question": "What is the zinc?", "answers": ["4"]}
    source.write_text(json.dumps(record) + "\n")
    settings = {"compressor.adapter": str(adapter), "tasks": [{"name": "records", "source": str(source)}]}
    settings["information.negatives"] = {"counterfactual": 0, "batch": 1}

    def depends() -> Depends:
        return depends_on(training=configured(tmp_path, warm_start=None, settings=settings).trained("full", 0))

    stored = json.loads(json.dumps(depends().keys))
    assert depends().differences(stored) == []
    source.write_text(json.dumps(record) * 2)
    assert depends().differences(stored) == [f"{source} has changed since"]
    weights = adapter / WEIGHTS_FILE
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    assert f"{adapter} has changed since" in depends().differences(stored)
    # Tables can be written where the sources are not, and of figures made before files were looked at.
    source.unlink()
    assert depends().differences(stored) == [f"{adapter} has changed since"]
    del stored["files"]
    assert depends().differences(stored) == [] and depends().hash == hash_of(stored)


def test_members_with_other_questions_are_not_compared(tmp_path: Path) -> None:
    config = configured(tmp_path)
    plant_all(config)
    member = next(member for member in planned(config) if member.name == "notes full/0")
    plant(config, member, messages("full", [1.0, 1.0], [5, 5]), documents=["page-00", "another"])
    with pytest.raises(DataError, match=r"notes: notes full/0 and notes warm-start have other questions"):
        set_of(config)


def test_cores_are_shared_and_a_folder_at_work_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert [share_of_cores(jobs) for jobs in (1, 3, 20)] == [8, 2, 1]
    assert not in_use(tmp_path / "run")
    with owned(tmp_path / "run", "train"):
        assert in_use(tmp_path / "run")
    assert not in_use(tmp_path / "run")


def test_the_time_left_comes_from_members_of_the_same_kind(tmp_path: Path) -> None:
    config = configured(tmp_path)
    plant_all(config)
    members = planned(config)
    evaluations = [member for member in members if member.set_name]
    stand = stand_of(config.pages_folder, config.folder, evaluations)
    times = Times(evaluations, stand)
    assert times.left(evaluations[1:3], [(evaluations[3], 20.0)], jobs=2) == "about 80 s left"
    assert times.left(members[:1], [], 1) == "time left not known yet"
    times.add(members[2], 3600)
    assert times.left([members[0], members[2]], [], 1) == "about 60 min left, beside 1 of unknown time"
    assert [duration(value) for value in (40, 600, 11_100)] == ["40 s", "10 min", "3 h 05 min"]


def test_what_other_readers_scored_stands_in_results_and_page(tmp_path: Path) -> None:
    config = configured(tmp_path)
    plant_all(config)
    member = next(member for member in planned(config) if member.name == "notes full/0")
    own = replace(messages("full", [1.0, 0.5, 0.0, 1.0], [8, 8, 8, 8]), readers={"the start": [0.5, 0.5, None, 1.0]})
    plant(config, member, own)
    write_pages(config)
    results = json.loads((config.pages_folder / "results.json").read_text())
    assert results["notes"]["full"]["0"]["readers"] == {"the start": pytest.approx(2 / 3)}
    assert "readers" not in results["notes"]["full"]["1"]
    page = (config.pages_folder / "results.md").read_text()
    assert "notes read by others" in page and "Portability, the start" in page
