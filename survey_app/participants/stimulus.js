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
  const buttons = [...root.querySelectorAll(".answers button")];
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
    for (const button of buttons) button.setAttribute("aria-disabled", String(next !== "answer"));
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
    buttons.forEach((button, side) => {
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
    Object.assign(find("progress"), { max: of, value: number - 1, ariaLabel: count });
  }

  // What is said before the question, until the participant goes on: a start, or practice's feedback.
  function announce(previous) {
    const { title, text, button, photograph } = question.before;
    if (photograph !== null && previous !== null) {
      paint((side) => previous.decoded[side]);
      photograph.forEach((real, side) => {
        slots[side].classList.toggle("photograph", real);
        slots[side].lastElementChild.textContent = real ? question.texts.photograph : question.texts.synthesized;
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

  // Everything that takes time is done before the clock starts.
  function prepare() {
    question.scale = fit();
    // Base64 of RGB bytes, row by row: no format, hence no size or header that could tell one from another.
    question.decoded = question.pictures.map(atob).map((rgb) =>
      makePicture(question.width, question.height, (index) => rgb.charCodeAt(index)),
    );
    slots.forEach((slot, side) => {
      slot.hidden = side >= question.pictures.length;
      slot.classList.remove("photograph");
      const [canvas, tag] = slot.children;
      canvas.width = question.width * question.scale;
      canvas.height = question.height * question.scale;
      canvas.style.width = `${canvas.width / (window.devicePixelRatio || 1)}px`;
      tag.textContent = "";
    });
    clear();
  }

  // Each picture's pixel as scale by scale of the screen's.
  function paint(choose) {
    question.pictures.forEach((_, side) => {
      const canvas = slots[side].firstElementChild;
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(choose(side), 0, 0, canvas.width, canvas.height);
    });
  }

  function clear() {
    paint(() => makePicture(1, 1, () => 0x6a));
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
      paint((side) => question.decoded[side]);
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
    paint(() => makePicture(question.width, question.height, () => 48 + 160 * Math.random()));
    requestAnimationFrame((offset) => {
      question.exposure_measured_ms = offset - question.onset;
      const current = question;
      later(() => current === question && clear(), MASK_MS);
      ask();
    });
  }

  function ask() {
    enter("answer");
    prompt.textContent = question.texts.ask;
  }

  function answer(side, input, event) {
    if (phase !== "answer") return;
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
    buttons[side].classList.add("chosen");
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
  buttons.forEach((button, side) => {
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

// An opaque picture; byte: its value at an index into red, green, blue of the first pixel, of the next, row by row.
function makePicture(width, height, byte) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const image = new ImageData(width, height);
  for (let to = 0, from = 0; to < image.data.length; to++) image.data[to] = to % 4 === 3 ? 255 : byte(from++);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
