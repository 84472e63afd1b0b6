// The one script of the report: hides the rows of a table that do not contain every word that was
// typed. Every page is complete without it. It reads text and sets only `hidden` and textContent,
// so nothing a client sent can become markup. The page's policy allows it by its hash.

export const FILTER = `
'use strict';
for (const form of document.querySelectorAll('form[role=search]')) {
  const input = form.querySelector('input');
  const count = form.querySelector('output');
  const table = document.getElementById(form.dataset.table);
  const rows = Array.from(table.tBodies[0].rows, (row) => [row, row.textContent.toLowerCase()]);
  const show = () => {
    const words = input.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) shown++;
    }
    count.textContent = shown === rows.length ? rows.length + ' rows' : shown + ' of ' + rows.length + ' rows';
  };
  form.addEventListener('submit', (event) => event.preventDefault());
  input.addEventListener('input', show);
  form.hidden = false;
  show();
}
`;
