"use strict";
// Everything shown here is untrusted text: it enters the page through textContent and in no other way.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("pairs");
  const further = document.getElementById("further");
  const count = document.getElementById("count");
  const task = document.getElementById("task");
  const change = document.getElementById("change");
  const search = document.getElementById("search");
  // Cards that come into view at a time.
  const PAGE = 8;
  // A compressor that was held against nothing has one side, and no verdict on a change.
  const compared = data.pairs.some((pair) => pair.before !== null);
  if (!compared) change.closest("label").remove();
  let matches = [];
  let shown = 0;

  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  const figure = (value) => (Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2)).replace("-", "−");

  const summary = (side) => {
    const parts = [side.message_tokens + (side.message_tokens === 1 ? " token" : " tokens")];
    if (side.bits !== null) {
      parts.push(figure(side.bits) + " bits");
      if (side.message_tokens > 0) parts.push(figure(side.bits / side.message_tokens) + " a token");
    }
    return parts.join(" · ");
  };

  const token = (text, bits, readout) => {
    const node = element("span", bits < 0 ? "down" : "up", text);
    if (text === "" || /^<[|\w/｜▁-]+>$/.test(text)) {
      node.className += " end";
      node.textContent = text === "" ? "end" : text;
    }
    const shade = 0.6 * Math.min(1, Math.abs(bits) / data.scale);
    node.style.setProperty("--shade", shade.toFixed(3));
    node.title = figure(bits) + " bits";
    const show = () => { readout.textContent = "“" + node.textContent.trim() + "” " + figure(bits) + " bits"; };
    node.addEventListener("pointerenter", show);
    node.addEventListener("click", show);
    return node;
  };

  const message = (side, readout) => {
    const node = element("p", "message");
    node.dir = "auto";
    if (side.tokens.length === 0) {
      if (side.message === "") node.append(element("span", "nothing", "an empty message"));
      else node.textContent = side.message;
      return node;
    }
    side.tokens.forEach((text, index) => {
      // A space before a word stays outside its shade, or it would colour the end of the line above.
      const space = text.trim() === "" ? "" : text.match(/^\s*/)[0];
      node.append(index === 0 ? "" : space, token(text.slice(space.length), side.token_bits[index], readout));
    });
    node.addEventListener("pointerleave", () => { readout.textContent = summary(side); });
    return node;
  };

  const mark = ({ accuracy, verdict, perplexity }) => {
    if (verdict === "refusal") return element("span", "partly", "∅ refused");
    if (accuracy === null && perplexity !== null) return element("span", "nothing", "gold perplexity " + figure(perplexity));
    if (accuracy === null) return element("span", "nothing", "not scored");
    if (accuracy >= 1) return element("span", "right", "✓ right");
    if (accuracy <= 0) return element("span", "wrong", "✗ wrong");
    return element("span", "partly", "◐ scores " + accuracy.toFixed(2));
  };

  const column = (name, className, side) => {
    const node = element("div", "side " + className);
    const head = element("h4");
    head.append(element("b", "", name));
    node.append(head);
    if (side === null) {
      node.append(element("p", "nothing", "not evaluated"));
      return node;
    }
    const readout = element("span", "", summary(side));
    head.append(readout);
    const answer = element("p", "answer");
    answer.dir = "auto";
    answer.append(mark(side), " ");
    answer.append(side.prediction === "" ? element("span", "nothing", "no answer") : side.prediction);
    node.append(message(side, readout), answer);
    return node;
  };

  const line = (label, text) => {
    const node = element("p", "gold", label + " ");
    node.dir = "auto";
    node.append(element("b", "", text));
    return node;
  };

  const context = (index) => {
    const { text, characters } = data.contexts[index];
    const node = element("details");
    const length = characters.toLocaleString("en");
    const cut = text.length < characters ? ", the first " + text.length.toLocaleString("en") + " shown" : "";
    node.append(element("summary", "", "Context, " + length + " characters" + cut));
    node.addEventListener("toggle", () => {
      if (node.childElementCount > 1) return;
      const body = element("div", "context", text);
      body.dir = "auto";
      body.tabIndex = 0;
      node.append(body);
    });
    return node;
  };

  const CHANGES = { better: "got better", worse: "got worse", same: "", unscored: "not scored twice" };

  const card = (pair) => {
    const node = element("article", "pair-card");
    const where = element("p", "where");
    where.append(element("span", "", pair.task), element("span", "", "document " + pair.document));
    if (pair.kind) where.append(element("span", "", pair.kind));
    if (compared && CHANGES[pair.change]) where.append(element("span", pair.change, CHANGES[pair.change]));
    const question = element("h3", "", pair.question);
    question.dir = "auto";
    node.append(where, question);
    if (pair.options.length) node.append(line("Options", pair.options.join(" · ")));
    node.append(line("Gold", pair.answers.join(" · ")));
    const sides = element("div", "sides");
    if (compared) sides.append(column("before", "", pair.before));
    sides.append(column(compared ? "after" : "message", "now", pair.after));
    node.append(sides, context(pair.context));
    return node;
  };

  const searched = (pair) =>
    [pair.task, pair.document, pair.question, ...pair.options, ...pair.answers]
      .concat([pair.before, pair.after].filter(Boolean).flatMap((side) => [side.message, side.prediction]))
      .join("\n")
      .toLowerCase();

  const showMore = () => {
    matches.slice(shown, shown + PAGE).forEach((pair) => list.append(card(pair)));
    shown = Math.min(matches.length, shown + PAGE);
    further.hidden = shown >= matches.length;
  };

  const hasVerdict = (verdict) =>
    change.value === "" || verdict === change.value || (change.value === "changed" && ["better", "worse"].includes(verdict));

  const filter = () => {
    const query = search.value.trim().toLowerCase();
    matches = data.pairs.filter((pair, index) =>
      (task.value === "" || pair.task === data.tasks[Number(task.value)]) &&
      hasVerdict(pair.change) &&
      (query === "" || texts[index].includes(query)));
    list.replaceChildren();
    shown = 0;
    count.textContent = matches.length + " of " + data.pairs.length;
    if (matches.length === 0) list.append(element("p", "nothing", "No message fits this filter."));
    showMore();
  };

  const texts = data.pairs.map(searched);
  data.tasks.forEach((name, index) => {
    const option = element("option", "", name);
    option.value = String(index);
    task.append(option);
  });
  const filters = document.getElementById("filters");
  filters.hidden = false;
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  further.addEventListener("click", showMore);
  filter();
})();
