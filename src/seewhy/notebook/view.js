// Draws what Python computed. Maps come as their own float32 values, so that the opacity, the colours and the value
// under the pointer need no round trip.

const NEUTRAL = 128; // grey below the colour bar
const SMALLEST = 320; // pixels that the picture's longer side takes on the page, at least
const WIDEST = 640; // and at most

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function bytes(view) {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

// The map's values; a copy, as a message's bytes need not lie at a multiple of 4.
function floats(view) {
  return new Float32Array(bytes(view).slice().buffer);
}

// Three significant digits, as Python's .3g.
function inWords(value) {
  if (Number.isNaN(value)) return "no value";
  if (!Number.isFinite(value)) return value > 0 ? "infinite" : "−infinite";
  const [digits, power] = value.toExponential(2).split("e");
  if (value !== 0 && (power < -4 || power > 2)) return `${Number(digits)}e${power}`;
  return String(Number(value.toPrecision(3)));
}

// The same arithmetic as seewhy.render.overlay, pixel by pixel: rgba is changed in place.
function blend(rgba, values, heat, opacity, follow) {
  const { low, high } = heat;
  const table = bytes(heat.table);
  const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
  const range = high - low || 1;
  const empty = !values.some(Boolean); // NaN is nothing either
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (Number.isNaN(value) || empty) continue;
    const strength = follow ? (opacity * Math.min(Math.abs(value), most)) / most : opacity;
    const unit = (Math.min(Math.max(value, low), high) - low) / range;
    const entry = 3 * Math.min(255, Math.trunc(unit * 256));
    for (let c = 0; c < 3; c++) {
      const below = rgba[4 * i + c];
      rgba[4 * i + c] = below + strength * (table[entry + c] - below); // the clamped array rounds as NumPy does
    }
  }
}

// The picture: photo, map over it, colour bar, and the value under the pointer or at the cross.
function figure(model) {
  const picture = make("canvas", { className: "seewhy-picture", tabIndex: 0 });
  picture.setAttribute("role", "img");
  const cross = make("div", { className: "seewhy-cross", hidden: true });
  const bar = make("canvas", { className: "seewhy-bar", width: 256, height: 1 });
  bar.setAttribute("aria-hidden", "true");
  const ticks = make("div", { className: "seewhy-ticks" });
  const end = make("div", { className: "seewhy-end" });
  const readout = make("div", { className: "seewhy-readout" });
  readout.setAttribute("aria-live", "polite");
  const stage = make("div", { className: "seewhy-stage" }, picture, cross);
  const element = make("figure", { className: "seewhy-figure" }, stage, bar, ticks, end, readout);
  let photo = null; // pixels, RGBA
  let values = new Float32Array(0);
  let place = null; // [row, column] that is read
  let turn = 0;

  function draw() {
    if (!photo) return;
    const heat = model.get("_heat");
    const pixels = new ImageData(photo.data.slice(), photo.width, photo.height);
    blend(pixels.data, values, heat, model.get("opacity"), model.get("follow"));
    picture.getContext("2d").putImageData(pixels, 0, 0);
    drawBar(heat);
    read();
  }

  function drawBar(heat) {
    const pixels = new ImageData(new Uint8ClampedArray(4 * 256).fill(NEUTRAL), 256, 1);
    for (let i = 0; i < 256; i++) pixels.data[4 * i + 3] = 255;
    const steps = Float64Array.from({ length: 256 }, (_, i) => heat.low + ((heat.high - heat.low) * i) / 255);
    blend(pixels.data, steps, heat, 1, model.get("follow"));
    bar.getContext("2d").putImageData(pixels, 0, 0);
  }

  function read() {
    const { width, height } = model.get("_heat");
    cross.hidden = !place || document.activeElement !== picture;
    if (!place) {
      readout.textContent = "Point at a pixel to read its value.";
      return;
    }
    const [row, column] = (place = [Math.min(place[0], height - 1), Math.min(place[1], width - 1)]);
    readout.textContent = `(row ${row}, column ${column}): ${inWords(values[row * width + column])}`;
    cross.style.left = `${(100 * (column + 0.5)) / width}%`;
    cross.style.top = `${(100 * (row + 0.5)) / height}%`;
  }

  function size({ width, height }) {
    const longer = Math.max(width, height);
    const shown = Math.min(Math.max(longer, SMALLEST), WIDEST);
    element.style.width = `${Math.round((width * shown) / longer)}px`;
    picture.classList.toggle("seewhy-enlarged", shown >= 2 * longer);
  }

  async function load() {
    const mine = ++turn;
    const heat = model.get("_heat");
    const blob = new Blob([bytes(model.get("_photo"))], { type: "image/png" });
    const image = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    if (mine !== turn) return; // another one came meanwhile
    Object.assign(picture, { width: heat.width, height: heat.height });
    const context = picture.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, heat.width, heat.height);
    photo = context.getImageData(0, 0, heat.width, heat.height);
    values = floats(heat.map);
    picture.setAttribute("aria-label", `${heat.label} ${heat.title}. Arrow keys read the values.`.trim());
    size(heat);
    const texts = heat.ticks.length > 1 ? heat.ticks.map(([, text]) => text) : ["0 everywhere"];
    ticks.replaceChildren(...texts.map((text) => make("span", { textContent: text })));
    end.textContent = heat.end;
    draw();
  }

  function point(event) {
    const box = picture.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) * picture.height) / box.height);
    const column = Math.floor(((event.clientX - box.left) * picture.width) / box.width);
    place = [Math.max(0, row), Math.max(0, column)];
    read();
  }
  picture.addEventListener("pointermove", point);
  picture.addEventListener("pointerdown", point); // a finger's touch
  picture.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 1;
    const move = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] }[event.key];
    if (!move) return;
    event.preventDefault();
    const [row, column] = place ?? [picture.height >> 1, picture.width >> 1];
    place = [Math.max(0, row + move[0]), Math.max(0, column + move[1])];
    read();
  });
  picture.addEventListener("focus", read);
  picture.addEventListener("blur", read);
  return { element, load, draw };
}

// The pickers, the opacity, and what there is to say.
function side(model, ask) {
  const own = `seewhy-${Math.random().toString(36).slice(2)}`; // ids are unique on the page
  const controls = make("div", { className: "seewhy-controls" });
  const title = make("div", { className: "seewhy-title" });
  const subtitle = make("div", { className: "seewhy-subtitle" });
  const truth = make("div", { className: "seewhy-truth" });
  const status = make("div", { className: "seewhy-status" });
  status.setAttribute("role", "status");
  const messages = make("div", { className: "seewhy-messages" });
  messages.setAttribute("aria-live", "polite");
  const element = make("div", { className: "seewhy-side" }, title, subtitle, truth, controls, status, messages);
  const selects = {};

  function row(text, name, control, cell = control) {
    control.id = `${own}-${name}`;
    control.dataset.seewhy = name;
    const label = make("label", { htmlFor: control.id, textContent: text });
    controls.append(label, cell);
    return label;
  }

  function select(text, name) {
    const control = make("select");
    const label = row(text, name, control);
    control.addEventListener("change", () => {
      ask({ [name]: model.get("_pickers")[name].options[control.selectedIndex][0] });
    });
    selects[name] = { control, label };
  }

  select("Image", "image");
  select("Method", "method");
  select("Layer", "layer");
  select("Class", "target");

  const names = make("datalist", { id: `${own}-names` });
  names.append(...model.get("_names").map((value) => make("option", { value })));
  const typed = make("input", { type: "text", placeholder: "name or index, then Enter", spellcheck: false });
  typed.autocomplete = "off";
  typed.setAttribute("list", names.id);
  row("Another class", "typed", typed);
  let sent = ""; // so that leaving the field does not ask again
  const send = () => {
    if (!typed.value.trim() || typed.value === sent) return;
    sent = typed.value;
    ask({ typed: sent });
  };
  typed.addEventListener("change", send);
  typed.addEventListener("keydown", (event) => event.key === "Enter" && send());
  typed.addEventListener("input", (event) => {
    sent = "";
    typed.removeAttribute("aria-invalid");
    if (!event.inputType || event.inputType === "insertReplacementText") send(); // chosen from the list
  });

  const slider = make("input", { type: "range", min: 0, max: 1, step: "any" });
  const percent = make("output");
  row("Opacity", "opacity", slider, make("div", { className: "seewhy-opacity" }, slider, percent));
  slider.addEventListener("input", () => put("opacity", slider.valueAsNumber));
  slider.addEventListener("keydown", (event) => {
    const step = { ArrowUp: 0.05, ArrowRight: 0.05, ArrowDown: -0.05, ArrowLeft: -0.05 }[event.key];
    if (!step) return;
    event.preventDefault();
    put("opacity", Math.min(1, Math.max(0, Math.round(20 * (model.get("opacity") + step)) / 20)));
  });

  const follow = make("input", { type: "checkbox" });
  follow.dataset.seewhy = "follow";
  controls.append(make("label", { className: "seewhy-check" }, follow, "fade out where the map is weak"));
  follow.addEventListener("change", () => put("follow", follow.checked));
  controls.append(names);

  function put(name, value) {
    model.set(name, value);
    model.save_changes();
  }

  function showOpacity() {
    slider.value = model.get("opacity");
    percent.textContent = `${Math.round(100 * model.get("opacity"))} %`;
    follow.checked = model.get("follow");
  }

  function showPickers() {
    for (const [name, { options, selected, enabled }] of Object.entries(model.get("_pickers"))) {
      const { control, label } = selects[name];
      control.replaceChildren(...options.map(([, text]) => make("option", { textContent: text })));
      control.selectedIndex = selected;
      control.disabled = !enabled;
      label.hidden = control.hidden = name === "image" && options.length < 2;
    }
    const heat = model.get("_heat");
    title.textContent = heat.label;
    subtitle.textContent = heat.title;
    truth.textContent = heat.truth;
    truth.classList.toggle("seewhy-wrong", heat.right === false);
  }

  function showMessages() {
    const error = model.get("_error");
    const texts = [...(error ? [["seewhy-error", error]] : []), ...model.get("_warnings").map((w) => ["seewhy-warning", w])];
    messages.replaceChildren(...texts.map(([className, textContent]) => make("p", { className, textContent })));
  }

  // After an answer: the pickers say what is shown, and what was typed stays only where it could not be.
  function settle(wasTyped) {
    showPickers();
    if (!wasTyped) return;
    if (model.get("_error")) typed.setAttribute("aria-invalid", "true");
    else sent = typed.value = "";
  }

  function show() {
    showOpacity();
    showPickers();
    showMessages();
  }

  return { element, status, show, showOpacity, showPickers, showMessages, settle };
}

function render({ model, el }) {
  let asked = null; // what Python was asked for and has not answered
  let next = null; // what was picked meanwhile

  function ask(pick) {
    if (asked) {
      next = { ...next, ...pick };
    } else {
      asked = pick;
      model.send(pick);
    }
    showStatus();
  }

  function showStatus() {
    const busy = model.get("_busy");
    root.classList.toggle("seewhy-busy", busy || asked !== null);
    root.setAttribute("aria-busy", String(busy || asked !== null));
    controls.status.textContent = busy ? "Computing …" : asked ? "Waiting for Python …" : "";
  }

  function onBusy() {
    if (!model.get("_busy")) {
      controls.settle(asked !== null && "typed" in asked);
      asked = null;
      if (next) {
        const pick = next;
        next = null;
        ask(pick);
      }
    }
    showStatus();
  }

  const shown = figure(model);
  const controls = side(model, ask);
  const root = make("div", { className: "seewhy-view" }, shown.element, controls.element);
  for (const control of root.querySelectorAll("select, canvas, input:not([type=text])")) {
    control.dataset.lmSuppressShortcuts = "true"; // else the notebook's own keys act as well: arrows leave the cell
  }
  const listeners = {
    "change:_heat": shown.load,
    "change:_photo": shown.load,
    "change:_pickers": controls.showPickers,
    "change:_warnings": controls.showMessages,
    "change:_error": controls.showMessages,
    "change:_busy": onBusy,
    "change:opacity": () => (controls.showOpacity(), shown.draw()),
    "change:follow": () => (controls.showOpacity(), shown.draw()),
  };
  for (const [event, listener] of Object.entries(listeners)) model.on(event, listener);
  el.append(root);
  controls.show();
  showStatus();
  shown.load();
  return () => {
    for (const [event, listener] of Object.entries(listeners)) model.off(event, listener);
  };
}

export default { render };
