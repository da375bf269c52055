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
  const decoding = document.getElementById("decoding");
  const order = document.getElementById("order");
  const alone = document.getElementById("alone");
  // Cards that come into view at a time.
  const PAGE = 8;
  // A compressor that was held against nothing has one side, and no verdict on a change.
  const compared = data.pairs.some((pair) => pair.before !== null);
  if (!compared) {
    change.closest("label").remove();
    order.querySelector("option[value=most-lost]").remove();
  }
  const hasGreedy = data.pairs.some((pair) => pair.greedy);
  if (!hasGreedy) decoding.closest("label").remove();
  // What is shown of a question: its greedy messages or its sampled ones.
  const view = (pair) => (hasGreedy && decoding.value === "greedy" && pair.greedy) || pair;
  // The id of the one question that is shown alone.
  let only = null;
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

  // Where an answer stands in the context as a word.
  const places = (text, answers) => {
    const found = [];
    const inWord = (character) => character !== undefined && /[\p{L}\p{N}_]/u.test(character);
    for (const answer of answers.filter((one) => one.trim())) {
      for (let at = text.indexOf(answer); at >= 0; at = text.indexOf(answer, at + answer.length)) {
        if (!inWord(text[at - 1]) && !inWord(text[at + answer.length])) found.push([at, at + answer.length]);
      }
    }
    return found.sort((one, other) => one[0] - other[0]);
  };

  const marked = (text, answers) => {
    const node = element("div", "context");
    let end = 0;
    for (const [from, to] of places(text, answers)) {
      if (from < end) continue;
      node.append(text.slice(end, from), element("mark", "", text.slice(from, to)));
      end = to;
    }
    node.append(text.slice(end));
    return node;
  };

  const context = (index, answers) => {
    const { text, characters } = data.contexts[index];
    const node = element("details");
    const length = characters.toLocaleString("en");
    const cut = text.length < characters ? ", the first " + text.length.toLocaleString("en") + " shown" : "";
    node.append(element("summary", "", "Context, " + length + " characters" + cut));
    node.addEventListener("toggle", () => {
      if (node.childElementCount > 1) return;
      const body = marked(text, answers);
      body.dir = "auto";
      body.tabIndex = 0;
      node.append(body);
    });
    return node;
  };

  const CHANGES = { better: "got better", worse: "got worse", same: "", unscored: "without a score on both sides" };

  const card = (pair) => {
    const node = element("article", "pair-card");
    const where = element("p", "where");
    where.append(element("span", "", pair.task), element("span", "", "document " + pair.document));
    if (pair.kind) where.append(element("span", "", "kind: " + pair.kind));
    const { before, after, change: verdict } = view(pair);
    if (compared && CHANGES[verdict]) where.append(element("span", verdict, CHANGES[verdict]));
    const link = element("a", "", "link");
    link.href = "#" + state({ message: pair.id });
    where.append(link);
    const question = element("h3", "", pair.question);
    question.dir = "auto";
    node.append(where, question);
    if (pair.options.length) node.append(line("Options", pair.options.join(" · ")));
    node.append(line("Gold", pair.answers.join(" · ")));
    const sides = element("div", "sides");
    if (compared) sides.append(column("before", "", before));
    sides.append(column(compared ? "after" : "message", "now", after));
    node.append(sides, context(pair.context, pair.answers));
    return node;
  };

  const searched = (pair) =>
    [pair.task, pair.document, pair.question, ...pair.options, ...pair.answers]
      .concat([view(pair).before, view(pair).after].filter(Boolean).flatMap((side) => [side.message, side.prediction]))
      .join("\n")
      .toLowerCase();

  const showMore = () => {
    matches.slice(shown, shown + PAGE).forEach((pair) => list.append(card(pair)));
    shown = Math.min(matches.length, shown + PAGE);
    further.hidden = shown >= matches.length;
  };

  const hasVerdict = (verdict, wanted) =>
    wanted === "" || verdict === wanted || (wanted === "changed" && ["better", "worse"].includes(verdict));
  const ofTask = (pair, wanted) => wanted === "" || pair.task === data.tasks[Number(wanted)];

  const bits = (side) => (side === null ? null : side.bits);
  const lost = (pair) => {
    const { before, after } = view(pair);
    return bits(before) === null || bits(after) === null ? null : before.bits - after.bits;
  };
  // What a question is ordered by, largest first; questions without it come last.
  const ORDERS = {
    "fewest-bits": (pair) => (bits(view(pair).after) === null ? null : -view(pair).after.bits),
    "most-bits": (pair) => bits(view(pair).after),
    "most-tokens": (pair) => (view(pair).after === null ? null : view(pair).after.message_tokens),
    "most-lost": lost,
  };

  const ordered = (pairs) => {
    const key = ORDERS[order.value];
    if (key === undefined) return pairs;
    const known = pairs.filter((pair) => key(pair) !== null).sort((one, other) => key(other) - key(one));
    return known.concat(pairs.filter((pair) => key(pair) === null));
  };

  // Beside every choice of a filter: how many questions it leaves, given the other filters.
  const countChoices = (select, fits, others) => {
    for (const option of select.options) {
      option.dataset.name ??= option.textContent;
      option.textContent = option.dataset.name + " (" + others.filter((pair) => fits(pair, option.value)).length + ")";
    }
  };

  const filter = () => {
    const query = search.value.trim().toLowerCase();
    const found = data.pairs.filter((pair) => query === "" || searched(pair).includes(query));
    const verdict = (pair, wanted) => hasVerdict(view(pair).change, wanted);
    countChoices(task, ofTask, found.filter((pair) => verdict(pair, change.value)));
    countChoices(change, verdict, found.filter((pair) => ofTask(pair, task.value)));
    const fitting = found.filter((pair) => ofTask(pair, task.value) && verdict(pair, change.value));
    matches = only === null ? ordered(fitting) : data.pairs.filter((pair) => pair.id === only);
    alone.hidden = only === null;
    list.replaceChildren();
    shown = 0;
    count.textContent = matches.length + " of " + data.pairs.length;
    if (matches.length === 0) list.append(element("p", "nothing", "No message fits this filter."));
    showMore();
  };

  // The state of the browser is in the address, so that what is seen can be sent to somebody.
  const controls = { show: decoding, task, verdict: change, order, search };

  const state = (more) => {
    const parameters = new URLSearchParams();
    for (const [name, control] of Object.entries(controls)) {
      const value = name === "task" && control.value !== "" ? data.tasks[Number(control.value)] : control.value;
      const isDefault = value === "" || (name === "show" && (!hasGreedy || value === "greedy"));
      if (!isDefault && (more === undefined || name === "show")) parameters.set(name, value);
    }
    for (const [name, value] of Object.entries(more ?? {})) parameters.set(name, value);
    return parameters.toString();
  };

  const restore = () => {
    // An address without a name and a value is a section of the page, which the browser goes to by itself.
    if (!location.hash.includes("=")) return false;
    const parameters = new URLSearchParams(location.hash.slice(1));
    for (const [name, control] of Object.entries(controls)) {
      const value = parameters.get(name) ?? (name === "show" ? "greedy" : "");
      const place = data.tasks.indexOf(value);
      const chosen = name === "task" ? (place < 0 ? "" : String(place)) : value;
      if (control.options && ![...control.options].some((option) => option.value === chosen)) continue;
      control.value = chosen;
    }
    const wanted = parameters.get("message");
    only = data.pairs.some((pair) => pair.id === wanted) ? wanted : null;
    return true;
  };

  data.tasks.forEach((name, index) => {
    const option = element("option", "", name);
    option.value = String(index);
    task.append(option);
  });
  const filters = document.getElementById("filters");
  filters.hidden = false;
  filters.addEventListener("input", () => {
    only = null;
    history.replaceState(null, "", "#" + (state() || "messages"));
    filter();
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("everything").addEventListener("click", () => {
    only = null;
    filter();
  });
  window.addEventListener("hashchange", () => {
    if (!restore()) return;
    filter();
    document.getElementById("browser").scrollIntoView();
  });
  further.addEventListener("click", showMore);
  const restored = restore();
  filter();
  if (restored) document.getElementById("browser").scrollIntoView();
})();
