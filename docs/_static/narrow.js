// For windows that are too narrow: a formula within a line that is longer than the line scrolls by itself, as those between lines
// do, and each row of a table of words becomes a paragraph, with the heads of the columns in front. Tables of numbers scroll,
// except those in a container "stacks".
window.addEventListener("load", async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  const formulas = [...document.querySelectorAll("article span.math")].filter((formula) => !formula.closest("table"));
  const tables = [...document.querySelectorAll("article div.table-wrapper > table")].filter(
    (table) =>
      table.tHead && table.tHead.rows[0].cells.length > 1 && (!table.querySelector("td.text-right") || table.closest(".stacks")),
  );
  for (const table of tables) {
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    for (const row of table.tBodies[0].rows) {
      [...row.cells].forEach((cell, column) => {
        if (column && heads[column] && cell.textContent.trim()) cell.dataset.head = `${heads[column]}: `;
      });
    }
  }
  const narrow = window.matchMedia("(max-width: 48em)");
  const fit = () => {
    [...formulas, ...tables].forEach((node) => node.classList.remove("wide"));
    const wide = formulas.filter((formula) => {
      const line = formula.closest("p, dt, dd, li, h1, h2, h3");
      return line && formula.getBoundingClientRect().right > line.getBoundingClientRect().right + 1;
    });
    const stacked = tables.filter((table) => narrow.matches && table.offsetWidth > table.parentElement.clientWidth);
    [...wide, ...stacked].forEach((node) => node.classList.add("wide"));
  };
  fit();
  window.addEventListener("resize", fit);
});
