// The filter of the page of theorems: shows the claims of a paper, of a kind, or whose text has all the words.
(() => {
  const form = document.getElementById("claim-filter");
  if (!form) return;
  const claims = [...document.querySelectorAll("span.claim")].map((mark) => {
    const section = mark.closest("section");
    return { section, ...mark.dataset, text: section.textContent.toLowerCase() };
  });
  const parents = new Set(claims.map((claim) => claim.section.parentElement.closest("section")));

  function apply() {
    const source = form.elements.source.value;
    const kind = form.elements.kind.value;
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const claim of claims) {
      const fits =
        (!source || claim.source === source) && (!kind || claim.kind === kind) && words.every((word) => claim.text.includes(word));
      claim.section.classList.toggle("claim-hidden", !fits);
      shown += fits;
    }
    for (const parent of parents) {
      parent.classList.toggle("claim-hidden", !parent.querySelector("section:not(.claim-hidden)"));
    }
    form.querySelector("output").textContent = `${shown} of ${claims.length}`;
  }

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
})();
