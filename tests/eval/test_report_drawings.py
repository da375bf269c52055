"""The report's pictures: what is drawn, that it follows the page's colours, and that names stay text."""

import re
from xml.etree import ElementTree

from eval.analysis.rate_distortion import Curve, Fit
from eval.report.drawing import Drawing
from eval.report.rate_distortion import OperatingPoint, rate_distortion_drawing
from eval.report.training_curves import training_curves
from tests.records import summary

NO_CURVE = Fit(None, "No curve.")


def parsed(drawing: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(drawing.svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))


def texts(drawing: Drawing) -> list[str]:
    return [(element.text or "").strip() for element in parsed(drawing).iter("text")]


def test_only_panels_with_data_are_drawn() -> None:
    drawings = training_curves([{"step": step, "reward": 0.1 * step, "accuracy": None} for step in range(5)])
    assert [drawing.title for drawing in drawings] == ["Reward"]
    assert drawings[0].description == "Over steps 0 to 4: from 0 to 0.4."


def test_no_metrics_make_no_curves() -> None:
    assert training_curves([]) == []


def test_a_repeated_step_counts_once_with_its_last_values() -> None:
    drawings = training_curves([{"step": 1, "reward": 9.0}, {"step": 2, "reward": 9.0}, {"step": 1, "reward": 0.5}])
    assert drawings[0].description == "Over steps 1 to 2: from 0.5 to 9."


def test_a_step_without_a_finite_value_is_left_out() -> None:
    drawings = training_curves([{"step": 1, "reward": 1.0}, {"step": 2, "reward": float("nan")}, {"step": 3}])
    assert drawings[0].description == "Over steps 1 to 1: from 1 to 1."


def test_several_lines_of_a_panel_are_named_in_its_legend() -> None:
    drawings = training_curves([{"step": 1, "rewards/accuracy/mean": 1.0, "rewards/length/mean": 2.0}])
    assert [name for name, _ in drawings[0].legend] == ["accuracy", "length"]


def test_the_lower_bound_stands_alone_under_its_ceiling() -> None:
    bits = {"information_bits": 2.5, "information_ceiling_bits": 3.0, "information_upper_bits": 20.0}
    lower, upper = training_curves([{"step": step, **bits} for step in range(1, 30)])
    assert lower.title == "Information a message, lower bound, bits" and upper.title == "Leave-one-out value, bits"
    assert [name for name, _ in lower.legend] == ["ceiling, dashed"] and upper.legend == ()
    assert lower.svg.count("stroke-dasharray") == 1
    assert not [text for text in texts(lower) if text.startswith(("15", "20"))]


def test_the_axis_of_steps_is_named_and_ends_with_the_last_step_and_the_line_with_its_value() -> None:
    [drawing] = training_curves([{"step": step, "accuracy": 0.5 + step / 100} for step in range(1, 41)])
    assert {"step", "40"} <= set(texts(drawing))
    # The running mean over two steps ends between 0.89 and 0.90.
    assert "89.5%" in texts(drawing)


def test_held_out_figures_are_rings_at_both_ends() -> None:
    metrics = [{"step": step, "reward": 1.0, "message_tokens": 10.0} for step in range(1, 9)]
    held_out = summary((0.5, 0.6), (0.1, 0.0, 0.2), (2.0, 1.9, 2.1), (2.0, 1.9, 2.1))["overall"]
    reward, tokens = training_curves(metrics, held_out)
    assert "var(--before)" in tokens.svg and "var(--before)" not in reward.svg


def test_what_is_watched_is_drawn_beside_what_is_sampled_with_the_step_that_is_kept() -> None:
    steps = [{"step": step, "reward": 1.0, "message_tokens": 9.0, "learning_rate": 0.1} for step in range(1, 9)]
    watched = [{"step": step, "held_out/message_tokens": 12.0 - step} for step in (0, 4, 8)]
    plain = training_curves(steps)
    reward, tokens = training_curves([watched[0], *steps, *watched[1:]], kept=4)
    # A line of its own leaves the line of the same step, and the window of the running mean, as they were.
    assert reward == plain[0] and reward.legend == ()
    assert [name for name, _ in tokens.legend] == ["sampled, trained on", "greedy, held out"]
    told = "Greedy and held out, steps 0 to 8: from 12 to 4. The adapter of step 4 is kept."
    assert tokens.description == f"Over steps 1 to 8: from 9 to 9. {told}"
    assert "var(--second)" in tokens.svg and "var(--second)" not in plain[1].svg


def test_a_long_run_makes_a_small_figure() -> None:
    drawings = training_curves([{"step": step, "reward": step % 7} for step in range(20_000)])
    assert len(drawings[0].svg) < 30_000


def test_the_same_metrics_give_the_same_bytes() -> None:
    metrics = [{"step": step, "reward": step} for step in range(30)]
    assert training_curves(metrics) == training_curves(metrics)


def test_colours_come_from_the_page() -> None:
    drawing = rate_distortion_drawing([OperatingPoint("notes", (0.1, 0.4), (0.5, 0.3))], NO_CURVE)
    assert "var(--before)" in drawing.svg and "var(--after)" in drawing.svg
    assert re.findall(r"#[0-9a-f]{6}\b", drawing.svg) == []


def test_every_reference_inside_a_figure_meets_its_own_id_and_no_other_figures() -> None:
    drawings = training_curves([{"step": step, "reward": step, "message_tokens": step} for step in range(3)])
    ids = [set(re.findall(r'\bid="([^"]+)"', drawing.svg)) for drawing in drawings]
    assert not ids[0] & ids[1]
    for drawing, own_ids in zip(drawings, ids, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', drawing.svg)) <= own_ids


def test_a_task_name_with_markup_or_mathematics_is_drawn_as_text() -> None:
    drawing = rate_distortion_drawing([OperatingPoint("<script>$x^2$</script>", (0.1, 0.4), (0.5, 0.3))], NO_CURVE)
    assert "<script>$x^2$</script>" in texts(drawing)
    assert "<script" not in drawing.svg


def test_a_long_task_name_is_cut_in_the_picture_and_whole_in_its_description() -> None:
    drawing = rate_distortion_drawing([OperatingPoint("n" * 200, (0.1, 0.4), (0.5, 0.3))], NO_CURVE)
    assert "n" * 23 + "…" in texts(drawing)
    assert "n" * 200 in drawing.description


def test_a_fitted_curve_is_drawn_and_named() -> None:
    points = [OperatingPoint("notes", (0.1, 0.4), (0.5, 0.3)), OperatingPoint("pages", None, (0.6, 0.2))]
    without, curved = (
        rate_distortion_drawing(points, fit) for fit in (NO_CURVE, Fit(Curve(0.5, 2.0, 0.1, 0.01), "Fitted."))
    )
    assert curved.svg.count("stroke-dasharray") == without.svg.count("stroke-dasharray") + 1
    assert len(curved.legend) == len(without.legend) + 1
    assert "pages: not measured before, (0.6, 0.2) after" in curved.description
