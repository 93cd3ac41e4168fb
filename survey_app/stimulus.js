// One question: fixation mark, pictures for the set time, noise mask, answer. See stimulus.py for `data`.
//
// Streamlit calls the default function anew with every `data`, on the same elements; the stage outlives the question,
// so that neither the focus nor the layout moves between two questions.

const FIXATION_MS = 500;
const MASK_MS = 250;
// A second click that was meant for the last answer may not press what appears under it.
const DEAF_MS = 350;
// An answer that the server has not taken (a dropped connection) is sent again, later each time, and for ten minutes
// at most; the database takes it once.
const RESEND_MS = 4000;
const LONGEST_RESEND_MS = 60000;
const RESENDS = 13;

const stages = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  let stage = stages.get(parentElement);
  if (!stage) {
    stage = makeStage(parentElement);
    stages.set(parentElement, stage);
  }
  stage.show(data, (vote) => setTriggerValue("vote", vote));
  return () => {
    stage.leave();
    stages.delete(parentElement);
  };
}

function makeStage(root) {
  const find = (selector) => root.querySelector(selector);
  const trial = find(".trial");
  const slots = [...root.querySelectorAll(".slot")];
  const answers = [...root.querySelectorAll(".answers button")];
  const [before, go, prompt, fixation] = [".before", ".go", ".prompt", ".fixation"].map(find);
  let question = null; // what is on show: `data`, and what was measured
  let phase = ""; // before, fixation, exposure, answer, sent
  let send = null;
  let resend = 0;
  let fixatedAt = 0;
  let startedAt = 0;
  let pointer = "mouse";

  function enter(next) {
    phase = next;
    trial.dataset.phase = next;
    before.hidden = next !== "before";
    prompt.hidden = next === "before";
    root.querySelector(".answers").hidden = next === "before";
    fixation.hidden = !(next === "fixation" || next === "sent");
    for (const button of answers) button.setAttribute("aria-disabled", String(next !== "answer"));
  }

  function show(data, sender) {
    send = sender;
    if (question && data.question === question.question && data.asked_anew === question.asked_anew) {
      // The same question again, after a connection that was lost perhaps: it goes on as it is, and an answer that got
      // lost on the way is sent once more, sooner than by its timer. One that was refused is asked anew.
      if (phase === "sent" && question.sendings <= RESENDS) {
        clearTimeout(resend);
        resend = later(deliver, 250 * 2 ** question.sendings);
      }
      return;
    }
    clearTimeout(resend);
    const previous = question;
    question = { ...data, hidden: false };
    showProgress();
    answers.forEach((button, side) => {
      button.textContent = data.answers[side].label;
      button.classList.remove("chosen");
    });
    if (data.before) {
      announce(previous);
    } else {
      prepare();
      enter("fixation");
      prompt.textContent = data.texts.look;
      later(expose, Math.max(0, fixatedAt + FIXATION_MS - performance.now()));
    }
  }

  function showProgress() {
    const { number, of, count } = question;
    find(".count").textContent = count;
    const track = find(".track");
    track.setAttribute("aria-label", count);
    track.setAttribute("aria-valuemax", String(of));
    track.setAttribute("aria-valuenow", String(number - 1));
    find(".done").style.width = `${(100 * (number - 1)) / of}%`;
  }

  // What is said before the question, until the participant goes on: a start, or practice's feedback.
  function announce(previous) {
    const { title, text, button, photograph } = question.before;
    const feedback = photograph !== null && previous !== null;
    if (feedback) {
      slots.forEach((slot, side) => {
        if (slot.hidden) return;
        paint(slot.firstElementChild, previous, side);
        slot.classList.toggle("photograph", photograph[side]);
        slot.lastElementChild.textContent = photograph[side] ? question.texts.photograph : question.texts.synthesized;
      });
    } else {
      prepare();
    }
    find(".before h2").textContent = title;
    find(".before p").textContent = text;
    go.textContent = button;
    enter("before");
    startedAt = performance.now();
    go.focus({ preventScroll: true });
    trial.scrollIntoView({ block: "nearest" });
  }

  function start(event) {
    if (phase !== "before" || performance.now() - startedAt < DEAF_MS) return;
    event.preventDefault();
    prepare();
    enter("fixation");
    trial.focus({ preventScroll: true }); // its button is gone
    prompt.textContent = question.texts.look;
    fixatedAt = performance.now();
    later(expose, FIXATION_MS);
  }

  // Everything that takes time is done before the clock starts: the pictures' pixels at their final size.
  function prepare() {
    question.scale = fit();
    question.painted = question.pictures.map((_, side) => picture(question, side));
    slots.forEach((slot, side) => {
      slot.hidden = side >= question.pictures.length;
      slot.classList.remove("photograph");
      slot.lastElementChild.textContent = "";
      if (!slot.hidden) blank(slot.firstElementChild, question);
    });
  }

  // The largest whole number of screen pixels a picture's pixel at which the question fits into the window.
  function fit() {
    const pictures = question.pictures.length;
    const width = trial.clientWidth;
    const gap = width < 480 ? 8 : 32;
    trial.style.setProperty("--gap", `${gap}px`);
    const availableWidth = (width - (pictures + 1) * gap) / pictures;
    const others = trial.offsetHeight - find(".stage").offsetHeight + 2 * gap;
    const availableHeight = Math.max(96, Math.min(window.innerHeight - others - 48, 480));
    const ratio = window.devicePixelRatio || 1;
    return Math.max(
      1,
      Math.floor(Math.min((availableWidth * ratio) / question.width, (availableHeight * ratio) / question.height)),
    );
  }

  function expose() {
    if (fit() !== question.scale) prepare(); // the window has changed meanwhile
    requestAnimationFrame(() => {
      enter("exposure");
      slots.forEach((slot, side) => {
        if (!slot.hidden) put(slot.firstElementChild, question.painted[side]);
      });
      question.hidden = document.hidden;
      // What is drawn in one frame is seen from the next one on.
      requestAnimationFrame((onset) => {
        question.onset = onset;
        question.exposure_measured_ms = null;
        if (question.exposure_ms === null) ask();
        else requestAnimationFrame((now) => wait(now, now - onset));
      });
    });
  }

  function wait(now, frame) {
    // Whatever is drawn now is seen one frame later.
    if (now + frame - question.onset < question.exposure_ms - frame / 2) {
      requestAnimationFrame((next) => wait(next, Math.min(frame, next - now) || frame));
      return;
    }
    for (const slot of slots) if (!slot.hidden) put(slot.firstElementChild, noise(question));
    requestAnimationFrame((offset) => {
      question.exposure_measured_ms = offset - question.onset;
      const asked = question;
      later(() => asked === question && clear(), MASK_MS);
      ask();
    });
  }

  function ask() {
    enter("answer");
    prompt.textContent = question.texts.ask;
  }

  function clear() {
    for (const slot of slots) if (!slot.hidden) blank(slot.firstElementChild, question);
  }

  function answer(side, input, event) {
    if (phase !== "answer" || side >= answers.length) return;
    event.preventDefault();
    const now = performance.now();
    // The event's own time is when the key went down, not when this was called; some browsers count it otherwise.
    const at = event.timeStamp > question.onset && event.timeStamp <= now ? event.timeStamp : now;
    question.vote = {
      question: question.question,
      answer: question.answers[side].value,
      response_time_ms: at - question.onset,
      exposure_measured_ms: question.exposure_measured_ms,
      input,
      scale: question.scale,
      device_pixel_ratio: window.devicePixelRatio || 1,
      hidden: question.hidden,
      edited: Boolean(window.huejuryEdited),
    };
    question.sendings = 0;
    answers[side].classList.add("chosen");
    clear();
    enter("sent");
    prompt.textContent = question.texts.look;
    fixatedAt = performance.now();
    deliver();
  }

  function deliver() {
    if (phase !== "sent") return;
    clearTimeout(resend);
    if (question.sendings > RESENDS) {
      prompt.textContent = question.texts.unsent;
      return;
    }
    send(question.vote);
    resend = later(deliver, Math.min(RESEND_MS * 2 ** question.sendings, LONGEST_RESEND_MS));
    question.sendings += 1;
  }

  function later(what, ms) {
    return setTimeout(() => trial.isConnected && what(), ms);
  }

  function onKey(event) {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    // The key belongs to whatever else has the focus (the withdrawal's buttons, say).
    const focused = event.composedPath()[0];
    const ours = trial.contains(focused);
    if (!ours && focused instanceof Element && focused.closest("input, textarea, select, [role=radiogroup]")) return;
    const side = ["ArrowLeft", "ArrowRight"].indexOf(event.key);
    if (side >= 0) answer(side, "key", event);
    else if ((event.key === " " || event.key === "Enter") && [document.body, trial].includes(focused)) start(event);
  }

  function onHide() {
    const onShow = phase === "exposure" || (phase === "answer" && question.exposure_ms === null);
    if (document.hidden && onShow) question.hidden = true;
  }

  go.addEventListener("click", start);
  trial.addEventListener("pointerdown", (event) => (pointer = event.pointerType));
  const byPointer = (event) => (event.detail === 0 ? "key" : pointer === "mouse" ? "click" : "tap");
  answers.forEach((button, side) => {
    button.addEventListener("click", (event) => answer(side, byPointer(event), event));
  });
  slots.forEach((slot, side) => {
    // A single picture is no answer, one of a pair is.
    slot.addEventListener("click", (event) => question.pictures.length > 1 && answer(side, byPointer(event), event));
  });
  window.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", onHide);

  function leave() {
    clearTimeout(resend);
    window.removeEventListener("keydown", onKey);
    document.removeEventListener("visibilitychange", onHide);
  }

  return { show, leave };
}

// A canvas of exactly width * scale by height * scale screen pixels.
function size(canvas, { width, height, scale }) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${canvas.width / ratio}px`;
  canvas.style.height = `${canvas.height / ratio}px`;
}

function put(canvas, pixels) {
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function blank(canvas, question) {
  size(canvas, question);
  const context = canvas.getContext("2d");
  context.fillStyle = "#6a6a6a";
  context.fillRect(0, 0, canvas.width, canvas.height);
}

function paint(canvas, question, side) {
  size(canvas, question);
  put(canvas, question.painted[side]);
}

// data.pictures are base64 of RGB bytes, row by row: no format, hence no size or header that could tell one from another.
function picture(question, side) {
  const rgb = Uint8ClampedArray.from(atob(question.pictures[side]), (character) => character.charCodeAt(0));
  const enlarge = question.resampling === "lanczos" ? lanczos : nearest;
  return opaque(enlarge(rgb, question.width, question.height, question.scale), question);
}

function noise(question) {
  const { width, height, scale } = question;
  const rgb = Uint8ClampedArray.from({ length: 3 * width * height }, () => 48 + 160 * Math.random());
  return opaque(nearest(rgb, width, height, scale), question);
}

function opaque(rgb, { width, height, scale }) {
  const image = new ImageData(width * scale, height * scale);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    image.data[to] = rgb[from];
    image.data[to + 1] = rgb[from + 1];
    image.data[to + 2] = rgb[from + 2];
    image.data[to + 3] = 255;
  }
  return image;
}

export function nearest(rgb, width, height, scale) {
  const out = new Uint8ClampedArray(rgb.length * scale * scale);
  for (let y = 0, to = 0; y < height * scale; y++) {
    for (let x = 0; x < width * scale; x++) {
      const from = 3 * (Math.floor(y / scale) * width + Math.floor(x / scale));
      out[to++] = rgb[from];
      out[to++] = rgb[from + 1];
      out[to++] = rgb[from + 2];
    }
  }
  return out;
}

// Lanczos, a = 3, cut and normalised at the borders, rounded after each pass: what Pillow's resize does.
export function lanczos(rgb, width, height, scale) {
  const wide = enlargeAxis(rgb, scale, { length: width, step: 3 }, { length: height, step: 3 * width });
  const row = 3 * width * scale;
  return enlargeAxis(wide, scale, { length: height, step: row }, { length: width * scale, step: 3 });
}

// length: pixels along an axis; step: from one of them to the next, in values. The axis becomes `scale` times as long.
function enlargeAxis(values, scale, axis, other) {
  const out = new Uint8ClampedArray(values.length * scale);
  const otherStep = other.step > axis.step ? other.step * scale : other.step;
  for (let to = 0; to < axis.length * scale; to++) {
    const centre = (to + 0.5) / scale;
    const first = Math.max(0, Math.trunc(centre - 3 + 0.5));
    const last = Math.min(axis.length, Math.trunc(centre + 3 + 0.5));
    const weights = [];
    for (let from = first; from < last; from++) weights.push(lanczosWeight(from - centre + 0.5));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    for (let line = 0; line < other.length; line++) {
      for (let channel = 0; channel < 3; channel++) {
        let from = line * other.step + first * axis.step + channel;
        let value = 0;
        for (const weight of weights) {
          value += weight * values[from];
          from += axis.step;
        }
        out[line * otherStep + to * axis.step + channel] = value / sum;
      }
    }
  }
  return out;
}

function lanczosWeight(x) {
  if (x === 0) return 1;
  if (Math.abs(x) >= 3) return 0;
  const angle = Math.PI * x;
  return (3 * Math.sin(angle) * Math.sin(angle / 3)) / (angle * angle);
}
