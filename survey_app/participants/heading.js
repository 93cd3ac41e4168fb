// A page's heading. On a new page it brings the window to the top and the focus to itself, as a page load would.
// Where asked to (data.report), it tells what the page is shown on.

export default function ({ data, parentElement, setStateValue }) {
  const heading = parentElement.querySelector("h1");
  if (heading.textContent === data.text) return;
  const first = !heading.textContent && data.first;
  heading.textContent = data.text;
  if (!first) {
    heading.focus({ preventScroll: true });
    heading.scrollIntoView({ block: "start" });
  }
  if (data.report) {
    const is = (query) => window.matchMedia(query).matches;
    setStateValue("display", {
      width: window.innerWidth,
      height: window.innerHeight,
      screen_width: window.screen.width,
      screen_height: window.screen.height,
      device_pixel_ratio: window.devicePixelRatio,
      colour_depth: window.screen.colorDepth,
      wide_gamut: is("(color-gamut: p3)"),
      dark_mode: is("(prefers-color-scheme: dark)"),
      reduced_motion: is("(prefers-reduced-motion: reduce)"),
      inverted_colours: is("(inverted-colors: inverted)"),
      touch: is("(pointer: coarse)"),
      edited: Boolean(window.huejuryEdited),
    });
  }
}
