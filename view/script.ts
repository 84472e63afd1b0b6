// The one script of the view: shows times in the user's time zone, and handles the keys j, k, enter
// and /. Every page is complete without it. It reads and sets text only, never markup.

export const SCRIPT = `'use strict';
const two = (number) => String(number).padStart(2, '0');
for (const time of document.querySelectorAll('time[datetime]')) {
  const at = new Date(time.dateTime);
  if (Number.isNaN(at.getTime())) continue;
  const day = at.getFullYear() + '-' + two(at.getMonth() + 1) + '-' + two(at.getDate());
  time.textContent = day + ' ' + two(at.getHours()) + ':' + two(at.getMinutes()) + ':' + two(at.getSeconds());
  time.title = time.dateTime.slice(0, 19).replace('T', ' ') + ' UTC';
}
const rows = Array.from(document.querySelectorAll('tr[data-row], li[data-row]'));
let current = -1;
const choose = (next) => {
  if (rows.length === 0) return;
  rows[current]?.classList.remove('chosen');
  current = Math.max(0, Math.min(rows.length - 1, next));
  rows[current].classList.add('chosen');
  rows[current].scrollIntoView({ block: 'nearest' });
  rows[current].querySelector('a[data-main], .job a')?.focus({ preventScroll: true });
};
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.('input, select, textarea')) return;
  if (event.key === 'j') choose(current + 1);
  else if (event.key === 'k') choose(current - 1);
  else if (event.key === '/') {
    const field = document.querySelector('main input[type=search], main input[type=text]') ?? document.getElementById('quick');
    if (!field) return;
    event.preventDefault();
    field.focus();
  }
});
`;
