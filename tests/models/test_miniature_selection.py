"""The acceptance tests of the embedded family: who may be the untrained compressor, and who the scorer."""

import pytest

from eval.baselines import writers
from eval.config import BaselineConfig
from models.compressor import Compressor
from models.loading import load_model
from models.miniature.passages import GAP
from models.miniature.quality import ALL, draw_cases
from models.miniature.scorer_quality import check_scorer, measure_scorer
from models.miniature.selection import BRIEF, check_selection, measure_selection
from models.predictor import LocalPredictor

pytestmark = pytest.mark.command


def test_the_default_compressor_does_not_select_and_one_that_does_is_refused() -> None:
    predictor = LocalPredictor(*load_model("miniature/llama-medium"), max_answer_tokens=16)
    cases = draw_cases(documents=5, questions=4, seed=2)
    leading = Compressor(*load_model("miniature/qwen2-leading"), 64)
    rules = measure_selection(leading, predictor, cases, seed=0)
    check_selection(rules)
    assert rules["rule/first"][ALL].value <= rules["rule/greedy"][ALL].value + 0.05
    selecting = Compressor(*load_model("miniature/qwen2-small"), 64)
    with pytest.raises(ValueError, match="right without training, more than 40%"):
        check_selection(measure_selection(selecting, predictor, cases[:20], seed=0))


def test_what_the_family_is_tested_with_is_what_the_evaluation_uses() -> None:
    assert BaselineConfig.model_fields["instruction"].default == BRIEF and GAP == writers.GAP


def test_the_scorer_knows_quotations_and_documents_and_one_that_does_not_is_refused() -> None:
    seen = measure_scorer(*load_model("miniature/qwen2-scorer"), documents=5, questions=1)
    # A tenth of the ceiling is the standard error of so few texts.
    assert seen["ceiling/document"][ALL].value > 0.6 and seen["ceiling/quoted"][ALL].value > 0.5
    assert seen["ceiling/lacking"][ALL].value < 0.45 < seen["ceiling/message"][ALL].value
    with pytest.raises(ValueError, match="the whole document gets"):
        check_scorer(measure_scorer(*load_model("miniature/qwen2-small"), documents=5, questions=1))
