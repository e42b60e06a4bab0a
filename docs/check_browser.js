// Runs in a page of the documentation, for docs/check_browser.py; returns sentences on what does not fit or does not show.
async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))); // after a change of width
  const found = [];
  const name = (node) => (node.id ? "#" + node.id : node.tagName.toLowerCase()) + " " + node.textContent.trim().slice(0, 40);
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    const scrolls = (node) => node && (["auto", "scroll", "hidden"].includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
    const wide = [...document.querySelectorAll("article *")].filter(
      (node) => node.getBoundingClientRect().right > root.clientWidth + 1 && !scrolls(node.parentElement));
    found.push(`is ${root.scrollWidth} pixels wide: ${wide.length ? name(wide[0]) : "an element outside of the text"}`);
  }
  const text = document.querySelector(".content"); // the theme lets it scroll as a whole where the window is narrow
  if (text && text.scrollWidth > text.clientWidth + 1) {
    const edge = text.getBoundingClientRect().left + text.clientWidth;
    const wide = [...text.querySelectorAll("article *")].filter((node) => node.getBoundingClientRect().right > edge + 1);
    found.push(`has a text ${text.scrollWidth} pixels wide in a place of ${text.clientWidth}: ${wide.length ? name(wide[0]) : ""}`);
  }
  for (const node of document.querySelectorAll("mjx-merror, [data-mml-node=merror]")) {
    found.push("formula with an error: " + (node.getAttribute("data-mjx-error") || node.textContent));
  }
  for (const node of document.querySelectorAll(".math")) {
    if (node.closest("[hidden], details:not([open])")) continue;
    const set = node.querySelector("mjx-container");
    if (!set) {
      found.push("formula that is not set: " + name(node));
      continue;
    }
    // A formula may reach over the edge only inside of something that scrolls, which the page as a whole is not.
    const page = (node) => !node || node.matches("article, body");
    let box = set;
    while (!page(box) && !["auto", "scroll"].includes(getComputedStyle(box).overflowX)) box = box.parentElement;
    if (page(box) && set.getBoundingClientRect().right > root.clientWidth + 1) found.push("formula cut off: " + name(node));
    if (!page(box) && getComputedStyle(box).overflowY !== "visible") {
      const frame = box.getBoundingClientRect();  // the text for screen readers lies elsewhere, and is not looked at
      const drawn = [...set.querySelectorAll("mjx-math mjx-c, mjx-math mjx-mtd")].map((part) => part.getBoundingClientRect());
      if (drawn.some((part) => part.width && part.height && (part.bottom > frame.bottom + 3 || part.top < frame.top - 3))) found.push("formula cut off: " + name(node));
    }
  }
  for (const node of document.images) {
    if (!node.complete || !node.naturalWidth) found.push("picture that does not load: " + node.getAttribute("src"));
  }
  for (const node of document.querySelectorAll("a[href^='#']")) {
    const target = decodeURIComponent(node.getAttribute("href").slice(1));
    if (target && !document.getElementById(target) && !document.getElementsByName(target).length) found.push("link to no place: #" + target);
  }
  return found;
}
