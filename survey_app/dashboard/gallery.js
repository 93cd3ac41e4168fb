// Shows the rows that pictures_view.py has written; a click on a picture, or on its row's button, enlarges the row.
export default function ({ data, parentElement }) {
  const gallery = parentElement.querySelector(".gallery");
  if (gallery.written !== data.html) {
    // Only then, so that rows stay enlarged when the page runs again.
    gallery.innerHTML = gallery.written = data.html;
  }
  gallery.onclick = (event) => {
    const row = event.target.closest("img, button")?.closest("section");
    if (!row) return;
    const large = row.classList.toggle("large");
    row.querySelector("button").ariaPressed = large;
  };
}
