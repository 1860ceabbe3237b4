"use strict";
const results = document.querySelector(".results");
for (const button of results.querySelectorAll("button")) {
  button.addEventListener("click", () => {
    const at = Number(button.dataset.column);
    const head = button.parentElement;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of results.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...results.tBodies[0].rows];
    rows.sort((a, b) => compare(cellValue(a, at), cellValue(b, at), down ? -1 : 1));
    results.tBodies[0].append(...rows);
  });
}
function cellValue(row, at) {
  const text = row.cells[at].dataset.value;
  if (text === "") return null;
  return Number.isNaN(Number(text)) ? text : Number(text);
}
// What is missing stands last, whichever way the rest is sorted.
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
}
const form = document.querySelector(".controls");
const grid = document.querySelector(".edits");
const edits = [...grid.children].map((element) => ({
  element, type: element.dataset.type, text: element.querySelector("h3").textContent.toLowerCase(),
  values: JSON.parse(element.dataset.values),
}));
function update() {
  const type = form.elements.type ? form.elements.type.value : "";
  const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const edit of edits) {
    const shown = (!type || edit.type === type) && words.every((word) => edit.text.includes(word));
    edit.element.hidden = !shown;
    count += shown;
  }
  form.elements.count.textContent = `${count} of ${edits.length}`;
  const key = form.elements.sort.value;
  const sign = Number(form.elements.order.value);
  const sorted = key === "" ? edits : [...edits].sort((a, b) => compare(a.values[key], b.values[key], sign));
  grid.append(...sorted.map((edit) => edit.element));
  grid.style.setProperty("--size", form.elements.size.value + "px");
  for (const box of form.querySelectorAll("[name=column]")) {
    for (const shot of grid.querySelectorAll(`[data-shot="${box.value}"]`)) shot.hidden = !box.checked;
  }
}
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
update();
