// Watches over a participant's page, which fails with a stack trace where translators and extensions edit it: they are
// asked not to, that they did is remembered (window.huejuryEdited), and what failed, or a connection that is lost, is
// covered by an apology whose button loads the page anew. The server knows where its participant was.

const FAILED = "#root:empty, [data-testid=stException], [data-testid=stErrorElementStack], [data-testid=stErrorCodeBlock]";
const LOST = "[data-testid=stDialog]"; // Streamlit's, on a connection that is lost: the survey has no dialogs
// Translators set another language and wrap texts, other extensions leave elements and attributes around the page.
const EDITED = "html:not([lang=en]), font, ya-tr-span, html > :not(head, body)";
const OURS = ["lang", "class", "translate", "style", "dir"]; // attributes of <html> and <body>

const html = document.documentElement;
const root = document.getElementById("root");
const apology = document.createElement("dialog");
const REMEMBERED = "edited"; // as the window's name: it outlives the reload of a page that failed, whose editor may be unseen

export default function ({ data }) {
  if (apology.innerHTML) return;
  html.translate = false;
  html.classList.add("notranslate");
  apology.className = "huejury-apology";
  apology.innerHTML = data.apology;
  apology.querySelector("button").addEventListener("click", () => {
    if (window.huejuryEdited) window.name = REMEMBERED;
    location.reload();
  });
  window.huejuryEdited = window.name === REMEMBERED;
  new MutationObserver(check).observe(document, { childList: true, subtree: true, attributes: true });
  check();
}

function check() {
  const failed = !root.isConnected || document.querySelector(FAILED) !== null;
  const marked = [html, document.body].some((element) => element.getAttributeNames().some((name) => !OURS.includes(name)));
  if (failed || marked || document.querySelector(EDITED)) window.huejuryEdited = true;
  if (!failed && !document.querySelector(LOST)) {
    apology.close();
  } else if (!apology.open) {
    document.body.append(apology);
    apology.showModal();
  }
}
