// A formula within a line that is longer than the line scrolls by itself, as those between lines do: no browser breaks it.
window.addEventListener("load", async () => {
  if (!window.MathJax || !MathJax.startup) return;
  await MathJax.startup.promise;
  const formulas = [...document.querySelectorAll("article span.math")].filter((formula) => !formula.closest("table"));
  const fit = () => {
    formulas.forEach((formula) => formula.classList.remove("wide"));
    const wide = formulas.filter((formula) => {
      const line = formula.closest("p, dt, dd, li, h1, h2, h3");
      return line && formula.getBoundingClientRect().right > line.getBoundingClientRect().right + 1;
    });
    wide.forEach((formula) => formula.classList.add("wide"));
  };
  fit();
  window.addEventListener("resize", fit);
});
