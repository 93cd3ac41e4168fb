// Watches over a participant's page. Browsers' translators and extensions edit the page under Streamlit, which then
// fails with a stack trace: they are asked not to, what they did is remembered (window.huejuryEdited), and what failed
// is covered by an apology whose button loads the page anew. The server knows where its participant was.

// Streamlit's box for what failed in Python, and that for what failed in the browser.
const FAILED = ["stException", "stErrorElementStack", "stErrorCodeBlock"].map((id) => `[data-testid="${id}"]`).join();
// The survey has no dialogs: this is Streamlit's on a connection that is lost.
const DIALOG = '[data-testid="stDialog"]';
const OURS = ["lang", "class", "translate", "style", "dir"]; // attributes of <html> and <body>

let watching = false;
let drawn = null; // the element in which React has drawn the page
let lost = false;

export default function ({ data }) {
  if (!watching) {
    watching = true;
    const look = () => check(data.apology);
    new MutationObserver(look).observe(document, {
      childList: true,
      subtree: true,
      attributes: true,
    });
    // An editor that takes the page's elements away makes React throw before anything is drawn.
    window.addEventListener("error", look);
  }
  check(data.apology);
}

function check(apology) {
  const html = document.documentElement;
  if (html.translate || !html.classList.contains("notranslate")) {
    html.translate = false;
    html.classList.add("notranslate");
  }
  if (!window.huejuryEdited && isEdited()) window.huejuryEdited = true;
  const root = document.getElementById("root");
  if (root?.childElementCount) drawn ??= root;
  const gone = drawn !== null && (drawn !== root || !root.childElementCount || isCopied(root));
  const failed = gone || document.querySelector(FAILED) !== null;
  if (failed) window.huejuryEdited = true;
  const dialog = document.querySelector(DIALOG);
  lost = Boolean(dialog) || (lost && document.querySelector('[data-test-connection-state="CONNECTED"]') === null);
  dialog?.querySelector("button")?.click(); // its closing one: it would keep the focus from ours
  if (failed || lost) apologise(apology);
  else endApology(); // the connection is back
}

// An editor that writes the page's HTML anew leaves a picture of it, of which React knows nothing: no button works.
function isCopied(root) {
  return [...root.querySelectorAll('[data-testid^="st"]')].some(
    (element) => !Object.keys(element).some((key) => key.startsWith("__react")),
  );
}

// What editors leave: translators <font>, another language and their classes, extensions attributes and elements of their
// own (grammarly-…, ya-tr-span), dark modes attributes and filters.
function isEdited() {
  const html = document.documentElement;
  return (
    document.querySelector("body font") !== null ||
    html.lang !== "en" ||
    /\btranslated-(ltr|rtl)\b/.test(html.className) ||
    [...html.children].some((element) => !["HEAD", "BODY"].includes(element.tagName)) ||
    [...document.body.getElementsByTagName("*")].some((element) => element.tagName.includes("-")) ||
    [html, document.body].some((element) => [...element.attributes].some(({ name }) => !OURS.includes(name))) ||
    [html, document.body].some((element) => getComputedStyle(element).filter !== "none")
  );
}

function apologise({ title, text, button }) {
  if (document.querySelector(".huejury-apology")) return;
  const cover = document.createElement("div");
  cover.className = "huejury-apology notranslate";
  cover.setAttribute("role", "alertdialog");
  cover.style.cssText =
    "position: fixed; inset: 0; z-index: 2147483647; overflow: auto; padding: 3rem 1rem; text-align: center;" +
    "background: Canvas; color: CanvasText; color-scheme: light dark; font: 1.1rem/1.5 system-ui, sans-serif;";
  const [heading, paragraph, again] = ["h1", "p", "button"].map((tag) => document.createElement(tag));
  heading.textContent = title;
  paragraph.textContent = text;
  again.textContent = button;
  again.style.cssText =
    "font: inherit; padding: 0.6rem 1.6rem; border: 0; border-radius: 8px; background: #1d4ed8; color: #fff;";
  again.addEventListener("click", () => {
    try {
      // The page that comes is a new one, but its answers are still of somebody whose page is edited.
      if (window.huejuryEdited) sessionStorage.setItem("huejuryEdited", "1");
    } finally {
      location.reload();
    }
  });
  cover.append(heading, paragraph, again);
  document.body.append(cover);
  document.getElementById("root")?.style.setProperty("display", "none");
  again.focus();
}

function endApology() {
  const cover = document.querySelector(".huejury-apology");
  if (!cover) return;
  cover.remove();
  document.getElementById("root")?.style.removeProperty("display");
}

try {
  if (sessionStorage.getItem("huejuryEdited")) window.huejuryEdited = true;
} catch {
  // No storage in this browser: then only what is seen now counts.
}
