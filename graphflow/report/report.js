"use strict";
for (const box of document.querySelectorAll(".compare")) {
  const range = box.querySelector("input");
  if (range) range.addEventListener("input", () => box.style.setProperty("--at", range.value + "%"));
}
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent.trim());
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code); // a page opened from disk may not write to the clipboard
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
}
function openTarget() {
  const target = location.hash.startsWith("#node-") && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();
