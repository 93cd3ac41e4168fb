// One photograph, coloured, and what a reader tries on it. See photograph.py for `data`.
//
// What is tried lives here; the server is sent all of it with every question, one at a time, and the newest settings
// once it has answered: a slider that moves faster than pictures come skips some.

const LONGEST_ANSWER_MS = 8000; // then a question counts as lost
const LIKELIEST = 12;
const STEP = 0.02; // of the picture's side, by which a key moves the cross

const easels = new WeakMap();

export default function ({ data, parentElement, setStateValue }) {
  let easel = easels.get(parentElement);
  if (!easel) {
    easel = makeEasel(parentElement);
    easels.set(parentElement, easel);
  }
  easel.show(data, (asked) => setStateValue("asked", asked));
  return () => easels.delete(parentElement);
}

function makeEasel(root) {
  const find = (selector) => root.querySelector(selector);
  const [stage, coloured, other, cross, divider] = [".stage", ".coloured", ".other", ".cross", ".divider"].map(find);
  const [undo, reset, said] = [".undo", ".reset", ".said"].map(find);
  const sliders = { tilt: find(".tilt"), temperature: find(".temperature") };
  let data = null;
  let send = null;
  let look = null; // tilt, temperature, hints, and the place that is asked about
  let settled = null; // the look before the change that is under way
  let past = [];
  let turn = 0;
  let asking = 0; // since when an answer is awaited
  let newer = false; // the look has changed since

  function show(next, sender) {
    send = sender;
    const first = data === null;
    data = next;
    if (first) {
      turn = data.turn ?? 0;
      look = settled = data.look;
      divider.dispatchEvent(new Event("input"));
      stage.style.aspectRatio = `${data.width} / ${data.height}`;
      stage.setAttribute("aria-label", `${data.name}. Arrow keys move the cross, Enter shows the colours there.`);
      find(".settings").hidden = look === null;
      find(".compare").hidden = data.true === null;
      sliders.temperature.disabled = !data.annealed;
      said.textContent = look === null ? "This model gives one colour per place: there is nothing to choose from." : "";
      left();
    }
    coloured.alt = data.name;
    coloured.src = data.coloured;
    const shown = data.turn ?? 0;
    coloured.decode().then(
      () => {
        stage.dataset.turn = shown;
        stage.ariaBusy = String(shown !== turn);
      },
      () => {}, // a newer picture has taken its place
    );
    if (look === null) return;
    if (shown === turn) asking = 0;
    if (!asking && newer) ask();
    drawSwatches();
    drawSettings();
  }

  function ask() {
    newer = Boolean(asking) && performance.now() - asking < LONGEST_ANSWER_MS;
    if (newer) return;
    asking = performance.now();
    turn += 1;
    stage.ariaBusy = "true";
    send({ turn, look });
  }

  function drawSettings() {
    for (const [name, slider] of Object.entries(sliders)) {
      slider.value = look[name];
      slider.parentElement.querySelector("output").textContent = Number(look[name]).toFixed(2);
    }
    undo.disabled = past.length === 0;
    reset.disabled = JSON.stringify({ ...look, place: null }) === JSON.stringify({ ...data.start, place: null });
    cross.hidden = look.place === null;
    if (look.place) cross.style.cssText = `left: ${100 * look.place.x}%; top: ${100 * look.place.y}%`;
  }

  function drawSwatches() {
    const there = data.swatches;
    find(".swatches").hidden = !there;
    if (!there) return;
    const { x, y } = data.look.place;
    const chosen = data.look.hints.findLast((hint) => hint.x === x && hint.y === y)?.entry;
    const buttons = there.map(({ entry, colour, share }) => {
      const button = document.createElement("button");
      const percent = share < 0.0995 ? `${(100 * share).toFixed(1)} %` : `${Math.round(100 * share)} %`;
      button.type = "button";
      button.className = "swatch";
      button.dataset.entry = entry;
      button.setAttribute("aria-label", `Colour ${colour}, ${percent}`);
      button.ariaPressed = String(entry === chosen);
      button.append(Object.assign(document.createElement("i"), { style: `background: ${colour}` }));
      return { button, percent };
    });
    buttons.slice(0, LIKELIEST).forEach(({ button, percent }) => button.append(percent));
    const focused = root.activeElement ?? root.getRootNode().activeElement;
    const entry = focused?.closest?.(".swatch")?.dataset.entry;
    find(".likeliest").replaceChildren(...buttons.slice(0, LIKELIEST).map(({ button }) => button));
    find(".others").replaceChildren(...buttons.slice(LIKELIEST).map(({ button }) => button));
    if (entry) find(`.swatch[data-entry="${entry}"]`)?.focus({ preventScroll: true }); // it was drawn anew
  }

  // What is changed from here on can be undone.
  function settle(next) {
    past.push(settled);
    look = settled = next;
    drawSettings();
  }

  function change(next) {
    settle(next);
    ask();
  }

  function pointAt(x, y) {
    const inside = (share) => Math.min(Math.max(share, 0), 0.9999);
    look = { ...look, place: { x: inside(x), y: inside(y) } };
    drawSettings();
  }

  function left() {
    other.src = find(".compare input:checked").value === "true" && data.true ? data.true : data.grey;
  }

  stage.addEventListener("click", (event) => {
    if (look === null) return;
    const box = stage.getBoundingClientRect();
    pointAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    ask();
  });
  stage.addEventListener("keydown", (event) => {
    if (look === null || event.ctrlKey || event.metaKey || event.altKey) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const { x, y } = look.place ?? { x: 0.5, y: 0.5 };
    if (way) pointAt(x + STEP * way[0], y + STEP * way[1]);
    else if (event.key === "Enter" || event.key === " ") {
      pointAt(x, y);
      ask();
    } else return;
    event.preventDefault();
  });
  for (const [name, slider] of Object.entries(sliders)) {
    slider.addEventListener("input", () => {
      look = { ...look, [name]: Number(slider.value) };
      drawSettings();
      ask();
    });
    slider.addEventListener("change", () => settle(look));
  }
  find(".swatches").addEventListener("click", (event) => {
    const swatch = event.target.closest(".swatch");
    if (!swatch) return;
    const hint = { ...data.look.place, entry: Number(swatch.dataset.entry) };
    change({ ...look, hints: [...look.hints, hint] });
  });
  undo.addEventListener("click", () => {
    look = settled = { ...past.pop(), place: look.place };
    drawSettings();
    ask();
  });
  reset.addEventListener("click", () => change({ ...data.start, place: look.place }));
  divider.addEventListener("input", () => stage.style.setProperty("--divider", `${divider.value}%`));
  find(".compare").addEventListener("change", left);

  return { show };
}
