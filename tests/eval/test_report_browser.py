"""The report in a real browser: drawn, filtered, searched, safe with hostile text, readable on a phone and at night."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.analysis.density import summarise
from eval.report.page import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.command,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: `make browser` installs it"),
]

HOSTILE = '<img src="https://evil.example/x.png" onerror="window.hostile=1"><script>window.hostile=1;alert(1)</script>'
WORDS = "The record of the ward names the dose of metoprolol as 50 mg in the morning and none at night".split()
TASKS = ("notes", "filings", HOSTILE)
DOCUMENTS, QUESTIONS = 6, 3
PHONE = {"width": 390, "height": 844}


def evaluated() -> Any:
    """Records of three tasks at both stages: longer before than after, some answers gained and some lost."""
    return [
        evaluated_record(task, document, question, stage)
        for task in TASKS
        for document in range(DOCUMENTS)
        for question in range(QUESTIONS)
        for stage in ("before", "after")
    ]


def evaluated_record(task: str, document: int, question: int, stage: str) -> Any:
    before, turn = stage == "before", TASKS.index(task) + document + question
    tokens = [f" {word}" for word in (WORDS if before else WORDS[6:11])] + ["<end>"]
    bits = [round(((turn + place) % 5) ** 2 / 8 - 0.1, 3) for place in range(len(tokens))]
    right = turn % 3 != 0 if before else turn % 4 != 1
    hostile = HOSTILE if document == 0 else ""
    return {
        "id": f"{TASKS.index(task)}/{document}/{question}",
        "task": task,
        "document_id": f"patient {document}",
        "stage": stage,
        "context": f"{hostile} Ward round of patient {document}. "
        + "The patient slept well and asked for tea. " * 30
        + f"The dose was {50 + document} mg.",
        "question": f"Which dose was given on day {question}? {hostile}",
        "kind": "numeric",
        "options": [],
        "answers": [f"{50 + document} mg"],
        "message": "".join(tokens[:-1]).strip() + hostile,
        "message_tokens": len(tokens) + document % 2,
        "tokens": [*tokens[:-1], hostile, tokens[-1]] if hostile else tokens,
        "token_bits": [*bits, 0.5] if hostile else bits,
        "prediction": f"{50 + document} mg {hostile}" if right else "not stated",
        "accuracy": float(right),
        "information_nats": 1.2 + 0.1 * document + (0.2 if before else 0.0),
        "information_upper_nats": 3.0,
        "information_ceiling_nats": 2.08,
        "saturated": turn % 4 == 0,
        "task_information_nats": 0.5 + 0.1 * question,
        "answer_nll_nats": 1.0,
        "answer_tokens": 2,
    }


def figure(value: float, spread: float) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def baselines() -> Any:
    budgeted: list[dict[str, Any]] = [
        {"name": name, "budget_tokens": budget, "accuracy": figure(accuracy, 0.06), "message_tokens": figure(budget, 1)}
        for name, best in (("first tokens", 0.5), ("random sentences", 0.6), (HOSTILE, 0.7))
        for budget, accuracy in ((8, best - 0.25), (32, best - 0.1), (128, best))
    ]
    whole = {"name": "full context", "accuracy": figure(0.86, 0.05), "message_tokens": figure(1330, 40)}
    nothing = {"name": "no context", "accuracy": figure(0.12, 0.05), "message_tokens": figure(1, 0)}
    return [*budgeted, whole, nothing]


def correlation(x: str, y: str, coefficient: float) -> Any:
    named = {"x": x, "y": y, "method": "spearman", "over": "samples"}
    return named | {"coefficient": figure(coefficient, 0.1), "n": 54, "missing": 0, "documents": 18}


def write_run(folder: Path) -> Path:
    """A run folder with everything a report can show."""
    records = evaluated()
    pairs = (("information_bits", "perplexity", -0.84), ("information_bits", "accuracy", 0.51))
    extra = {
        "baselines": baselines(),
        "correlations": [correlation(x, y, r) for x, y, r in pairs],
        "flops": [
            {"name": f"compressor, {stage}", "prefill_flops": 2.1e12, "generation_flops": flops, "prompt_tokens": 1330}
            for stage, flops in (("before", 6.4e10), ("after", 2.2e10))
        ],
        "greedy": summarise(records),
        "meta": {"seed": 0, "note": HOSTILE, "config": {"tasks": list(TASKS), "train": {"steps": 60}}},
    }
    metrics = [
        {
            "step": step,
            "reward": 1 - 0.95**step + 0.1 * (step % 3),
            "rewards/accuracy/mean": 0.4 + step / 200,
            "rewards/information/mean": 0.2 + step / 150,
            "rewards/length/mean": 0.9 - step / 300,
            "message_tokens": 30 - step / 3,
            "bits_per_token": 0.1 + step / 400,
        }
        for step in range(1, 61)
    ]
    (folder / "results.json").write_text(json.dumps(summarise(records) | extra), encoding="utf-8")
    greedy = [
        record | {"tokens": ["greedily", *record["tokens"]], "token_bits": [0.0, *record["token_bits"]]}
        for record in records
    ]
    for name, lines in (("samples", records), ("samples.greedy", greedy), ("metrics", metrics)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return write_report(folder)


class Watched:
    """A page that notes whatever it must not do: requests, dialogs, errors on the console."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(5000)
        page.route("**/*", self._refuse)
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda line: self.complaints.append(line.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.address = address
        page.goto(address)

    def _refuse(self, route: Any) -> None:
        if route.request.url == self.address:
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

    def count(self) -> tuple[int, str]:
        """Cards on the page, and the number of matches that the page states."""
        return self.page.locator(".pair-card").count(), self.page.locator("#count").inner_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # For this module only: while it is open, asyncio cannot run in another test.
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_run(tmp_path_factory.mktemp("run")).as_uri()


@pytest.fixture
def report(browser: Any, address: str) -> Iterator[Watched]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield Watched(page, address)
    page.close()


def test_every_figure_is_drawn_with_a_size_and_its_title(report: Watched) -> None:
    figures = report.page.locator("figure")
    boxes = report.page.eval_on_selector_all(
        "figure svg", "all => all.map(svg => [svg.getBoundingClientRect().width, svg.getBoundingClientRect().height])"
    )
    assert len(boxes) == figures.count() == 7
    assert all(width > 200 and height > 80 for width, height in boxes)
    assert report.page.locator("img, image").count() == 0
    titles = report.page.locator("figcaption").all_inner_texts()
    assert any("Accuracy against message tokens" in title for title in titles)


def test_no_text_of_a_figure_leaves_it_or_covers_another(report: Watched) -> None:
    overlaps = report.page.evaluate(
        """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
            const frame = svg.getBoundingClientRect();
            const texts = [...svg.querySelectorAll("text")];
            const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
            const before = (a, b) => a.right <= b.left || a.bottom - 2 <= b.top;
            const apart = (a, b) => before(a, b) || before(b, a);
            const outside = boxes.filter(([, box]) => box.right > frame.right + 8 || box.left < frame.left - 8);
            const covered = boxes.filter(([, a], i) => boxes.some(([, b], j) => j < i && !apart(a, b)));
            return [...outside, ...covered].map(([name]) => name);
        })"""
    )
    assert overlaps == []


def test_the_answer_stands_first_with_its_intervals(report: Watched) -> None:
    heading = report.page.locator("h1")
    assert heading.bounding_box()["y"] < 300
    assert heading.inner_text().startswith("Greedy messages raise accuracy from 66.7% to 75.9%")
    assert heading.locator("small").count() == 3


def test_the_task_filter_leaves_the_questions_of_that_task(report: Watched) -> None:
    everything = len(TASKS) * DOCUMENTS * QUESTIONS
    assert report.count() == (8, f"{everything} of {everything}")
    report.page.locator("#task").select_option(label="filings (18)")
    assert report.count() == (8, f"18 of {everything}")
    while report.page.locator("#further").is_visible():
        report.page.locator("#further").click()
    assert report.page.locator(".pair-card .where span:first-child").all_inner_texts() == ["filings"] * 18


def test_the_verdict_filter_leaves_gained_lost_or_changed_answers(report: Watched) -> None:
    counts = {}
    for choice in ("better", "worse", "changed", "same", ""):
        report.page.locator("#change").select_option(choice)
        counts[choice] = int(report.count()[1].split()[0])
    assert counts["better"] > 0 and counts["worse"] > 0
    assert counts["changed"] == counts["better"] + counts["worse"]
    assert counts["same"] + counts["changed"] == counts[""] == 54
    report.page.locator("#change").select_option("better")
    first = report.page.locator(".pair-card").first
    assert first.locator(".side .wrong").count() == 1
    assert first.locator(".side.now .right").count() == 1


def test_the_search_finds_words_of_questions_and_documents_whatever_their_case(report: Watched) -> None:
    report.page.locator("#search").fill("DAY 2")
    assert report.count()[1] == "18 of 54"
    report.page.locator("#task").select_option(label="notes (6)")
    assert report.count() == (6, "6 of 54")
    report.page.locator("#search").fill("no such words")
    assert report.count() == (0, "0 of 54")
    assert "No message fits this filter" in report.page.locator("#pairs").inner_text()


def test_a_choice_tells_how_many_questions_it_leaves_given_the_others(report: Watched) -> None:
    report.page.locator("#search").fill("day 2")
    assert report.page.locator("#task option").all_inner_texts()[:2] == ["all tasks (18)", f"{HOSTILE} (6)"]
    report.page.locator("#change").select_option("better")
    left = report.page.locator("#task option").first.inner_text()
    assert left == f"all tasks ({report.count()[1].split()[0]})"


def test_greedy_messages_are_shown_first_and_sampled_ones_at_a_choice(report: Watched) -> None:
    message = report.page.locator(".pair-card .message").first
    assert message.inner_text().startswith("greedily ")
    report.page.locator("#decoding").select_option("sampled")
    assert "greedily" not in message.inner_text()


@pytest.mark.parametrize(
    ("order", "figure", "sign"), [("most-bits", "bits", -1), ("fewest-bits", "bits", 1), ("most-tokens", "token", -1)]
)
def test_questions_are_ordered_by_the_message_after(report: Watched, order: str, figure: str, sign: int) -> None:
    report.page.locator("#order").select_option(order)
    heads = report.page.locator(".side.now h4 span").all_inner_texts()
    place = 0 if figure == "token" else 1
    values = [sign * float(head.split(" · ")[place].split()[0]) for head in heads]
    assert values == sorted(values)


def test_what_is_chosen_stands_in_the_address_and_comes_back_with_it(report: Watched) -> None:
    page = report.page
    page.locator("#decoding").select_option("sampled")
    page.locator("#task").select_option(label="filings (18)")
    page.locator("#order").select_option("most-bits")
    page.locator("#search").fill("day 2")
    address = page.url
    assert address.endswith("#show=sampled&task=filings&order=most-bits&search=day+2")
    page.goto("about:blank")
    page.unroute("**/*")
    page.goto(address)
    assert report.count() == (6, "6 of 54")
    assert page.locator("#decoding").input_value() == "sampled"
    assert page.locator("#search").input_value() == "day 2"


def test_the_link_of_a_message_shows_it_alone(report: Watched) -> None:
    page = report.page
    page.locator("#task").select_option(label="filings (18)")
    card = page.locator(".pair-card").nth(2)
    question = card.locator("h3").inner_text()
    card.locator(".where a").click()
    # The address changes first, and the page follows it.
    sync_api.expect(page.locator(".pair-card:visible")).to_have_count(1)
    assert report.count() == (1, "1 of 54") and page.locator(".pair-card h3").inner_text() == question
    page.locator("#everything").click()
    sync_api.expect(page.locator(".pair-card:visible")).to_have_count(8)
    # The question at the top of the page is among those drawn.
    page.locator(".example a").click()
    sync_api.expect(page.locator(".pair-card:visible")).to_have_count(1)


def test_the_answer_is_marked_where_it_stands_in_the_context(report: Watched) -> None:
    details = report.page.locator(".pair-card details").first
    details.locator("summary").click()
    gold = report.page.locator(".pair-card .gold b").first.inner_text()
    marks = details.locator("mark").all_inner_texts()
    assert marks and set(marks) == {gold}


def test_before_and_after_stand_side_by_side_and_below_each_other_on_a_phone(report: Watched) -> None:
    sides = report.page.locator(".pair-card").first.locator(".side")
    before, after = (sides.nth(place).bounding_box() for place in (0, 1))
    assert before["y"] == after["y"] and before["x"] + before["width"] <= after["x"]
    report.page.set_viewport_size(PHONE)
    before, after = (sides.nth(place).bounding_box() for place in (0, 1))
    assert before["x"] == after["x"] and before["y"] + before["height"] <= after["y"]


def test_a_token_with_more_bits_has_a_deeper_shade_and_tells_its_bits(report: Watched) -> None:
    shades = report.page.eval_on_selector_all(
        ".message .up",
        "all => all.map(token => [parseFloat(token.title), getComputedStyle(token).backgroundColor])",
    )
    alphas = {
        bits: float(colour.rpartition("/")[2].strip(" )") if "/" in colour else colour.split(",")[-1].strip(" )"))
        for bits, colour in shades
    }
    ordered = [alphas[bits] for bits in sorted(alphas)]
    assert ordered == sorted(ordered) and ordered[0] < ordered[-1]
    token = report.page.locator(".message .up").first
    token.click()
    assert token.get_attribute("title") in report.page.locator(".side h4").first.inner_text()


def test_a_context_opens_at_a_click(report: Watched) -> None:
    details = report.page.locator(".pair-card details").first
    details.locator("summary").click()
    assert "Ward round" in details.locator(".context").inner_text()


def test_hostile_text_in_documents_messages_and_names_stays_text(report: Watched) -> None:
    report.page.locator("#task").select_option(index=1)
    report.page.locator("#search").fill("onerror")
    for summary in report.page.locator("summary").all():
        summary.click()
    assert "<script>window.hostile" in report.page.locator(".pair-card").first.inner_text()
    assert HOSTILE in report.page.locator("main").inner_text()
    assert report.page.evaluate("typeof window.hostile") == "undefined"
    assert report.page.locator("img, iframe, main script").count() == 0


def test_nothing_is_requested_and_nothing_complained_of(report: Watched) -> None:
    report.page.locator("#search").fill("dose")
    report.page.locator(".pair-card summary").first.click()
    report.page.wait_for_load_state("networkidle")
    assert report.requests == []
    assert report.complaints == []


def test_on_a_phone_nothing_scrolls_sideways_and_text_is_no_smaller_than_eleven_pixels(report: Watched) -> None:
    report.page.set_viewport_size(PHONE)
    for summary in report.page.locator("summary").all():
        summary.click()
    width = report.page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
    assert max(width) <= PHONE["width"]
    sizes = report.page.eval_on_selector_all(
        "main *:not(svg *)",
        "all => all.filter(e => e.innerText && !e.children.length).map(e => parseFloat(getComputedStyle(e).fontSize))",
    )
    assert min(sizes) >= 11


def test_dark_mode_turns_the_page_and_the_figures(report: Watched) -> None:
    page = report.page
    look = """() => ["body", "h1", "figure svg text"].map(
        (name, place) => getComputedStyle(document.querySelector(name))[["backgroundColor", "color", "fill"][place]])"""
    page.emulate_media(color_scheme="light")
    light = page.evaluate(look)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(look)
    assert all(day != night for day, night in zip(light, dark, strict=True))
    assert brightness(dark[0]) < 60 < 200 < brightness(light[0])
    assert brightness(dark[1]) > 200


def brightness(colour: str) -> float:
    """The mean of the three channels of a CSS colour, 0 to 255."""
    channels = [float(channel) for channel in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    return sum(channels) / len(channels)
