// Shows the rows that pictures.py has written, and tells it which one was opened.
export default function ({ data, parentElement, setTriggerValue }) {
  const gallery = parentElement.querySelector(".gallery");
  gallery.innerHTML = data.html;
  gallery.onclick = (event) => {
    const row = event.target.closest("img, button")?.closest("[data-image]");
    if (row) setTriggerValue("opened", Number(row.dataset.image));
  };
}
