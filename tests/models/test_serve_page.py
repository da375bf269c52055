"""The page of a server in a real browser: messages within the budget, hostile text that stays text, keys, phones."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from models.compressor import Compressor
from models.loading import load_model
from models.predictor import LocalPredictor, Query
from models.serve.backend import Choice, Task, Watch, Written
from models.serve.torch_backend import TorchBackend
from tests.models.serving import DOCUMENT, QUESTION, Running, Scripted, embedded_compressor, running, service_of

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.command,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: `make browser` installs it"),
]

HOSTILE = '<img src="https://evil.example/x.png" onerror="window.hostile=1"><script>window.hostile=1</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # For this module only: while it is open, asyncio cannot run in another test.
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def compressor() -> Compressor:
    return embedded_compressor()


@pytest.fixture(scope="module")
def server(compressor: Compressor) -> Iterator[Running]:
    predictor = LocalPredictor(*load_model("miniature/llama-medium"), max_answer_tokens=16)
    with running(service_of(TorchBackend(compressor), predictor=predictor)) as server:
        yield server


class Visit:
    """A page that was opened, everything it asked for and complained of."""

    def __init__(self, browser: Any, url: str, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page.goto(url)

    def compress(self, document: str, question: str, budget: int | None = None) -> None:
        self.page.fill("#document", document)
        self.page.fill("#question", question)
        if budget is not None:
            self.page.fill("#budget", str(budget))
        self.page.click("#send")
        self.page.wait_for_function("() => !document.getElementById('send').disabled")


def test_a_message_appears_with_its_bits_and_answers(browser: Any, server: Running, compressor: Compressor) -> None:
    visit = Visit(browser, server.url)
    page = visit.page
    page.wait_for_function("() => document.getElementById('shown').textContent === '24'")
    visit.compress(DOCUMENT, QUESTION)
    assert server.service.predictor is not None
    (message,) = compressor.write([DOCUMENT], [QUESTION])
    spans = page.locator("#message span")
    assert spans.count() == message.tokens
    assert page.locator("#message").inner_text().startswith(message.text)
    told = page.locator("#readout").inner_text()
    assert told.startswith(f"{message.tokens} of 24 tokens · ") and told.endswith(" bits")
    answers = server.service.predictor.answer([Query(message.text, QUESTION), Query("", QUESTION)])
    assert [page.locator(name).inner_text() for name in ("#with", "#without")] == answers
    shades = [float(shade) for shade in page.eval_on_selector_all("#message span", SHADES)]
    assert max(shades) == 0.6 and min(shades) == 0
    spans.nth(shades.index(0.6)).hover()
    assert "52” " in page.locator("#readout").inner_text()
    assert visit.complaints == [] and all(url.startswith((server.url, "data:,")) for url in visit.asked)
    page.close()


SHADES = "all => all.map(span => span.style.getPropertyValue('--shade'))"


def test_the_slider_is_the_budget(browser: Any, server: Running) -> None:
    visit = Visit(browser, server.url)
    page = visit.page
    page.wait_for_function("() => document.getElementById('shown').textContent === '24'")
    for budget in (1, 2, 512):
        visit.compress(DOCUMENT, QUESTION, budget)
        assert page.locator("#shown").inner_text() == str(budget)
        assert page.locator("#message span").count() <= budget
        assert f" of {budget} tokens" in page.locator("#readout").inner_text()
        assert ("cut off" in page.locator("#readout").inner_text()) == (budget < 4)
    visit.compress("The zinc was 85 mg. " * 400, QUESTION)
    assert "were not read" in page.locator("#warning").inner_text()
    page.close()


def test_hostile_text_stays_text(browser: Any) -> None:
    class Hostile(Scripted):
        def write(self, task: Task, watch: Watch) -> Written:
            parts = ((HOSTILE, 3.0), ("</p>", -2.0), ("<|end|>", None))
            return Written((Choice(HOSTILE, 3, True, 1.0, parts),), 9, 0)

    class Repeats:
        def answer(self, queries: Any) -> list[str]:
            return [HOSTILE for _ in queries]

    with running(service_of(Hostile(), predictor=Repeats())) as server:
        visit = Visit(browser, server.url)
        visit.compress(HOSTILE, HOSTILE)
        page = visit.page
        assert page.locator("#message").inner_text().startswith(HOSTILE)
        assert page.locator("#with").inner_text() == HOSTILE == page.locator("#without").inner_text()
        assert page.evaluate("window.hostile") is None and page.locator("#message img, #message script").count() == 0
        assert not any("evil.example" in url for url in visit.asked) and visit.complaints == []
        # A script that got in all the same would not run.
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'hostile = 1'}))")
        assert page.evaluate("window.hostile") is None
        page.close()


def test_refusals_and_keys_are_told(browser: Any) -> None:
    with running(service_of(Scripted()), keys=("a-long-key",)) as server:
        visit = Visit(browser, server.url)
        page = visit.page
        page.wait_for_function("() => document.getElementById('problem').textContent.includes('key')")
        assert page.locator("#key").is_visible()
        page.fill("#key", "a-long-key")
        page.locator("#key").blur()
        page.wait_for_function("() => document.getElementById('model').textContent.includes('scripted')")
        visit.compress(DOCUMENT, QUESTION)
        assert page.locator("#message").inner_text() == "The zinc was 52."
        visit.compress("   ", QUESTION)
        assert "'document' should not be empty" in page.locator("#problem").inner_text()
        page.close()


def test_it_fits_a_phone_and_the_night(browser: Any, server: Running) -> None:
    visit = Visit(browser, server.url, width=390)
    page = visit.page
    paper = "getComputedStyle(document.body).backgroundColor"
    day = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(paper) != day
    visit.compress("a" * 3000, "b" * 300)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
