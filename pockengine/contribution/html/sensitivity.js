"use strict";
// What a column of a chart holds, told below it: by pointer, touch and arrow keys.
for (const area of document.querySelectorAll("svg.area")) {
  const hits = [...area.querySelectorAll(".hit")];
  const told = area.closest("section").querySelector(".told");
  if (!hits.length || !told) continue;
  const box = area.closest(".scroll");
  let now = Number(told.dataset.layer);
  const show = (place) => {
    hits[now].classList.remove("now");
    now = Math.max(0, Math.min(hits.length - 1, place));
    hits[now].classList.add("now");
    told.textContent = hits[now].querySelector("title").textContent;
  };
  const reveal = (place) => {
    const { left, right } = hits[place].getBoundingClientRect();
    const edge = box.getBoundingClientRect();
    if (left < edge.left + 70) box.scrollLeft -= edge.left + 70 - left;
    if (right > edge.right) box.scrollLeft += right - edge.right;
  };
  hits[now].classList.add("now");
  const first = hits[now].getBoundingClientRect();
  box.scrollLeft = first.left - box.getBoundingClientRect().left - box.clientWidth / 2;
  hits.forEach((hit, place) => hit.addEventListener("pointerenter", () => show(place)));
  hits.forEach((hit, place) => hit.addEventListener("click", () => show(place)));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(now + step);
    reveal(now);
  });
}
// A button to copy the command, where the browser lets one.
for (const button of document.querySelectorAll(".copy")) {
  const code = button.parentElement.querySelector("code");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  });
}
// On paper nothing can be opened.
const opened = [];
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details:not([open])")) {
    if (each.querySelectorAll("tr").length > 60) continue; // pages of figures: the CSV has them
    each.open = true;
    opened.push(each);
  }
});
addEventListener("afterprint", () => {
  while (opened.length) opened.pop().open = false;
});
