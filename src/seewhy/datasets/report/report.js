"use strict";
(() => {
  const GAP = 10, LABEL = 46; // pixels between cards, and of the label below a picture
  const WIDE = 140; // pixels that a label needs
  const KEPT = 16; // blocks of pictures that stay split into lines
  const byId = (id) => document.getElementById(id);
  const text = (element) => element.textContent;
  const natural = new Intl.Collator("en", {numeric: true}).compare;
  const number = (value) => value.toLocaleString("en");

  /** An element; texts among the children become text nodes, so no name is ever read as HTML. */
  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // ---- what the file holds

  const data = JSON.parse(text(byId("data")));
  const blocks = [...document.querySelectorAll("script.pictures")];
  const said = [...document.querySelectorAll("script.said")].map((script) => JSON.parse(text(script)));
  const methods = new Map(said.flatMap((some) => some.methods)); // name: whether signed
  const cards = said.flatMap((some, block) =>
    some.cards.map(([number, path, truth, prediction, probability, words, correct], line) =>
      ({block, line, number, path, truth, prediction, probability, words, correct})));
  const lines = new Map(); // by block, the latest used last

  /** The photo and, by method, its maps. Read when asked for, as thousands take long. */
  function picturesOf(card) {
    const found = lines.get(card.block) ?? text(blocks[card.block]).split("\n");
    lines.delete(card.block);
    lines.set(card.block, found);
    if (lines.size > KEPT) lines.delete(lines.keys().next().value);
    const [photo, maps] = JSON.parse(found[card.line]);
    return {photo, maps: new Map(maps)};
  }

  // ---- the controls of the images

  const state = {shown: [], method: null};
  const truths = names("truth", data.confusion?.true), predictions = names("prediction", data.confusion?.predicted);

  function names(key, others = []) {
    const found = new Set([...others, ...cards.map((card) => card[key]).filter((name) => name !== null)]);
    return [...found].sort(natural);
  }

  function offer(select, known, key) {
    const counts = new Map();
    for (const card of cards) counts.set(card[key], (counts.get(card[key]) ?? 0) + 1);
    const option = (name, value) => make("option", {value}, `${name ?? "not known"} (${number(counts.get(name) ?? 0)})`);
    select.replaceChildren(make("option", {value: ""}, "all"), ...known.map((name, i) => option(name, String(i))));
    if (counts.has(null)) select.append(option(null, "none"));
  }

  /** Whether a card's name is the one picked; by place, for a class may be called "all". */
  function fits(select, known) {
    if (select.value === "") return () => true;
    const wanted = select.value === "none" ? null : known[Number(select.value)];
    return (name) => name === wanted;
  }

  const ANSWERS = {right: true, wrong: false, unknown: null};

  function choose() {
    const truth = fits(byId("truth"), truths), prediction = fits(byId("prediction"), predictions);
    const answer = byId("answer").value, part = byId("path").value.toLowerCase();
    state.shown = cards.filter((card) =>
      truth(card.truth) && prediction(card.prediction) && (answer === "" || card.correct === ANSWERS[answer]) &&
      (part === "" || (card.path ?? "").toLowerCase().includes(part)));
    const sign = {number: 0, most: -1, least: 1}[byId("order").value];
    const last = (card) => card.probability === null;
    state.shown.sort((a, b) =>
      (sign && (last(a) - last(b) || sign * (a.probability - b.probability))) || a.number - b.number);
    const all = number(cards.length), some = number(state.shown.length);
    byId("count").textContent = cards.length === 0 ? "This report has no images."
      : some !== all ? `${some} of ${all} images` : all === "1" ? "1 image" : `All ${all} images`;
    redraw();
  }

  /** Show the images of one true class, or of one that was taken for another. */
  function filter(truth, prediction = null) {
    clear();
    byId("truth").value = String(truths.indexOf(truth));
    if (prediction !== null) byId("prediction").value = String(predictions.indexOf(prediction));
    choose();
    byId("gallery").scrollIntoView();
    byId("gallery").focus({preventScroll: true});
  }

  function clear() {
    for (const id of ["truth", "prediction", "answer", "path"]) byId(id).value = "";
  }

  function setOpacity(percent) {
    document.documentElement.style.setProperty("--opacity", String(percent / 100));
    for (const slider of document.querySelectorAll(".opacity")) slider.value = percent;
    for (const output of document.querySelectorAll(".percent")) output.value = `${percent} %`;
  }

  function prepareMaps() {
    const known = [...methods.keys()];
    byId("method").replaceChildren(...known.map((method, i) => make("option", {value: String(i)}, method)));
    byId("method-label").hidden = known.length < 2;
    document.body.classList.toggle("without-maps", known.length === 0);
    const pick = () => {
      state.method = known[Number(byId("method").value)] ?? null;
      legend(methods.get(state.method));
      redraw();
    };
    byId("method").addEventListener("change", pick);
    pick();
  }

  function legend(signed) {
    const strip = make("img", {className: "scale", alt: "", src: data.scales[Number(Boolean(signed))]});
    const [low, high] = signed ? ["against", "for"] : ["0", "strongest in the image"];
    byId("legend").replaceChildren(low, strip, high);
  }

  // ---- the cards: those near the screen, and no others, are in the page

  const list = byId("cards");
  const drawn = new Map(); // place among the shown: element

  function grid() {
    const width = list.clientWidth;
    const columns = Math.max(1, Math.round((width + GAP) / (Math.max(data.side, WIDE) + GAP)));
    const side = (width - GAP * (columns - 1)) / columns;
    return {columns, side, across: side + GAP, down: side + LABEL + GAP};
  }

  function redraw() {
    for (const element of drawn.values()) element.remove();
    drawn.clear();
    draw();
  }

  function draw() {
    const {columns, side, across, down} = grid();
    list.style.height = `${Math.ceil(state.shown.length / columns) * down}px`;
    list.style.setProperty("--side", `${side}px`);
    const top = list.getBoundingClientRect().top, spare = window.innerHeight;
    const first = Math.max(0, Math.floor((-top - spare) / down) * columns);
    const end = Math.min(state.shown.length, Math.ceil((2 * spare - top) / down) * columns);
    for (const [place, element] of drawn) {
      const leaves = place < first || place >= end;
      if (leaves && !element.contains(document.activeElement)) { element.remove(); drawn.delete(place); }
    }
    for (let place = first; place < end; place++) if (!drawn.has(place)) drawn.set(place, cardOf(place));
    let after = null; // in order, for the Tab key; what is in place is not moved, or it would lose the focus
    for (const place of [...drawn.keys()].sort((a, b) => b - a)) {
      const element = drawn.get(place);
      element.style.left = `${(place % columns) * across}px`;
      element.style.top = `${Math.floor(place / columns) * down}px`;
      if (element.parentNode !== list || element.nextSibling !== after) list.insertBefore(element, after);
      after = element;
    }
  }

  function verdict(card) {
    return card.correct === null ? "unknown" : card.correct ? "right" : "wrong";
  }

  function label(card) {
    const mark = {right: "✓", wrong: "✗", unknown: "?"}[verdict(card)];
    const answer = make("span", {className: "answer"}, make("span", {className: "mark"}, mark),
      make("bdi", {className: "name"}, card.prediction ?? "no prediction"),
      make("span", {className: "probability"}, card.words));
    const truth = make("span", {className: "truth"});
    if (card.truth === null) truth.append("true class unknown");
    else truth.append("true: ", make("bdi", {}, card.truth));
    return make("span", {className: `label ${verdict(card)}`}, answer, truth);
  }

  function stack(photo, map) {
    const layer = (className, src) => make("img", {className, src, alt: "", decoding: "async", draggable: false});
    const box = make("span", {className: "picture"}, layer("photo", photo));
    if (map) box.append(layer("map", map));
    const image = box.firstChild;
    image.addEventListener("load", () =>
      box.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 64));
    return box;
  }

  function cardOf(place) {
    const card = state.shown[place], {photo, maps} = picturesOf(card);
    const button = make("button", {type: "button", title: card.path ?? `image ${card.number}`, className: "card"},
      stack(photo, maps.get(state.method)), label(card));
    button.setAttribute("aria-label", `image ${card.number}: ${inWords(card)}`);
    button.addEventListener("click", () => enlarge(place));
    const item = make("li", {}, button);
    item.setAttribute("aria-setsize", state.shown.length);
    item.setAttribute("aria-posinset", place + 1);
    return item;
  }

  function inWords(card) {
    const answer = `${card.prediction ?? "no prediction"} ${card.words}`.trim();
    const truth = card.truth === null ? "true class unknown" : `true: ${card.truth}`;
    return `${answer}, ${truth}${card.correct === null ? "" : `, ${verdict(card)}`}`;
  }

  // ---- one image, large

  const dialog = byId("large");
  let open = 0; // place among the shown

  function enlarge(place) {
    if (place < 0 || place >= state.shown.length) return;
    open = place;
    const card = state.shown[place], {photo, maps} = picturesOf(card);
    byId("large-title").textContent = `Image ${card.number}`;
    byId("large-path").textContent = card.path ?? "";
    byId("large-verdict").replaceChildren(label(card));
    const view = (title, map) => make("figure", {}, stack(photo, map), make("figcaption", {}, title));
    byId("views").replaceChildren(view("What the model saw"), ...[...maps].map(([name, map]) => view(name, map)));
    byId("views").style.setProperty("--views", byId("views").childElementCount);
    byId("previous").disabled = place === 0;
    byId("next").disabled = place === state.shown.length - 1;
    if (dialog.open) return;
    dialog.showModal();
    dialog.focus(); // not a button: the arrow keys go on
  }

  /** Back to the card of the image that was shown last. */
  function goBack() {
    const {columns, down} = grid();
    const top = list.getBoundingClientRect().top + Math.floor(open / columns) * down;
    if (top < 0 || top + down > window.innerHeight) window.scrollBy(0, top - (window.innerHeight - down) / 2);
    draw();
    drawn.get(open)?.firstChild.focus({preventScroll: true});
  }

  function prepareDialog() {
    byId("previous").addEventListener("click", () => enlarge(open - 1));
    byId("next").addEventListener("click", () => enlarge(open + 1));
    byId("close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", goBack);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (step && event.target.type !== "range") enlarge(open + step);
    });
  }

  // ---- the tables

  function heading(name, scope) {
    return make("th", {scope, title: name}, make("bdi", {}, name));
  }

  function classesTable({columns, counts, rows}) {
    const body = make("tbody");
    const cell = (value, column) => {
      const td = make("td", {}, value === null ? "–" : counts[column] ? number(value) : value.toFixed(3));
      if (!counts[column] && value !== null) td.style.setProperty("--share", `${100 * Math.min(1, Math.max(0, value))}%`);
      td.className = counts[column] ? "" : "share";
      return td;
    };
    const title = (name) => truths.includes(name) // an average has no images
      ? make("button", {type: "button", onclick: () => filter(name)}, make("bdi", {}, name)) : make("bdi", {}, name);
    const built = rows.map(([name, ...values], place) => ({place, values,
      row: make("tr", {}, make("th", {scope: "row", title: name}, title(name)), ...values.map(cell))}));
    body.append(...built.map(({row}) => row));
    const headings = ["class", ...columns].map((name, i) =>
      make("th", {scope: "col"}, make("button", {type: "button", onclick: () => sort(i - 1)}, name)));
    function sort(column) {
      const down = headings[column + 1].getAttribute("aria-sort") === "ascending";
      headings.forEach((th) => th.removeAttribute("aria-sort"));
      headings[column + 1].setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = ({place, values}) => column < 0 ? place : values[column];
      const missing = (one) => value(one) === null;
      built.sort((a, b) => missing(a) - missing(b) || (value(a) - value(b)) * (down ? -1 : 1) || a.place - b.place);
      body.append(...built.map(({row}) => row));
    }
    return make("table", {className: "classes"}, make("thead", {}, make("tr", {}, ...headings)), body);
  }

  /** A count as a button; the stronger its colour, the larger its share of the true class. */
  function countCell(table, i, j, count) {
    const td = make("td", {});
    if (count === 0) return td;
    const truth = table.true[i], predicted = table.predicted[j], share = Math.sqrt(count / table.totals[i]);
    const button = make("button", {type: "button", onclick: () => filter(truth, predicted)}, number(count));
    button.setAttribute("aria-label", `${number(count)} of ${truth} predicted as ${predicted}`);
    button.title = button.getAttribute("aria-label");
    td.className = truth === predicted ? "hit" : "miss";
    td.classList.toggle("strong", share > 0.8);
    td.style.setProperty("--share", share);
    td.append(button);
    return td;
  }

  function matrix(table) {
    const head = make("tr", {}, make("td", {className: "corner"}, "true ↓  predicted →"),
      ...table.predicted.map((name) => heading(name, "col")));
    const rows = table.counts.map((counts, i) => make("tr", {}, heading(table.true[i], "row"),
      ...counts.map((count, j) => countCell(table, i, j, count))));
    const built = make("table", {className: "matrix"}, make("thead", {}, head), make("tbody", {}, ...rows));
    built.classList.toggle("upright", table.predicted.length > 6 || table.predicted.some((name) => name.length > 12));
    built.classList.toggle("many", Math.max(rows.length, table.predicted.length) > 16);
    rove(built, rows);
    return built;
  }

  /** The matrix is one stop of the Tab key; arrows go from count to count. */
  function rove(built, rows) {
    const buttons = [...built.querySelectorAll("button")];
    buttons.forEach((button, i) => { button.tabIndex = i ? -1 : 0; });
    built.addEventListener("focusin", (event) => {
      for (const button of buttons) button.tabIndex = button === event.target ? 0 : -1;
    });
    built.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
      if (!step) return;
      event.preventDefault();
      let row = rows.indexOf(event.target.closest("tr")), column = event.target.closest("td").cellIndex, found = null;
      do {
        row += step[0]; column += step[1];
        found = column > 0 ? rows[row]?.cells[column] : null;
      } while (found && !found.firstChild);
      found?.firstChild.focus();
    });
  }

  function pairsTable(table) {
    const head = ["true class", "predicted class", "images", "of the true class"].map((name) => heading(name, "col"));
    const rows = table.pairs.map(([i, j, count]) => make("tr", {},
      make("th", {scope: "row"}, make("bdi", {}, table.true[i])), make("td", {}, make("bdi", {}, table.predicted[j])),
      countCell(table, i, j, count), make("td", {}, `${(100 * count / table.totals[i]).toFixed(1)} %`)));
    return make("table", {className: "pairs"}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  }

  function prepareTables() {
    if (data.classes) {
      byId("classes-table").append(classesTable(data.classes));
      byId("classes").hidden = false;
    }
    if (!data.confusion) return;
    const {pairs} = data.confusion;
    byId("confusion-title").textContent = pairs ? "Most confused classes" : "Confusion matrix";
    byId("confusion-hint").textContent = pairs?.length === 0 ? "No class was taken for another."
      : "Click a count to see its images.";
    if (pairs?.length !== 0) byId("confusion-table").append(pairs ? pairsTable(data.confusion) : matrix(data.confusion));
    byId("confusion").hidden = false;
  }

  // ---- start

  offer(byId("truth"), truths, "truth");
  offer(byId("prediction"), predictions, "prediction");
  prepareTables();
  prepareDialog();
  prepareMaps();
  setOpacity(Number(document.querySelector(".opacity").defaultValue));
  choose();
  document.body.classList.toggle("without-cards", cards.length === 0);
  for (const id of ["truth", "prediction", "answer", "order"]) byId(id).addEventListener("change", choose);
  byId("path").addEventListener("input", choose);
  byId("reset").addEventListener("click", () => { clear(); choose(); });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("grey").addEventListener("change", (event) => document.body.classList.toggle("grey", event.target.checked));
  for (const slider of document.querySelectorAll(".opacity"))
    slider.addEventListener("input", () => setOpacity(Number(slider.value)));
  let asked = false;
  const later = () => {
    if (!asked) requestAnimationFrame(() => { asked = false; draw(); });
    asked = true;
  };
  addEventListener("scroll", later, {passive: true});
  new ResizeObserver(later).observe(document.body);
  document.body.classList.add("ready");
})();
