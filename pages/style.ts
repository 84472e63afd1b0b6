// The style of every page. The report has it in each page, so that a page can be copied anywhere,
// and allows it by its hash; the view serves it as a file.

export const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #fafaf8; --paper: #ffffff; --text: #1c2226; --muted: #57606a; --line: #dcdfdd; --link: #0a5685;
  --good: #1b6636; --bad: #a3231c; --warn: #7a4f00; --bar: #3f7399; --bar-bad: #b8493f; --code: #f3f4f1; --mark: #e9ecea; --edge: #848d94; --found: #ffe08a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #13171a; --paper: #1a1f23; --text: #e3e7e9; --muted: #a3acb4; --line: #333b41; --link: #85c4f0;
    --good: #7fcb9a; --bad: #f29a91; --warn: #e2b968; --bar: #5c9ac7; --bar-bad: #d9776d; --code: #101417; --mark: #272e33; --edge: #6b757d; --found: #6b5200;
  }
}
*, ::before, ::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { overflow-wrap: break-word; margin: 0; background: var(--ground); color: var(--text); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; font-size: 1rem; }
a { color: var(--link); text-underline-offset: 0.15em; text-decoration-thickness: 1px; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -99rem; top: 0; padding: 0.5rem 1rem; background: var(--paper); z-index: 1; }
.skip:focus { left: 0; }
.wide { max-width: 78rem; margin: 0 auto; padding-left: 1.25rem; padding-right: 1.25rem; }
.top { background: var(--paper); border-bottom: 1px solid var(--line); }
.top .wide { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0.25rem 2rem; padding-top: 0.75rem; padding-bottom: 0.75rem; }
.brand { font-weight: 650; letter-spacing: -0.01em; }
.brand span { color: var(--muted); font-weight: 400; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 0; padding: 0; list-style: none; }
nav a { display: inline-block; padding: 0.2rem 0; color: var(--text); text-decoration: none; border-bottom: 2px solid transparent; }
nav a:hover { border-color: var(--line); }
nav a[aria-current] { border-color: var(--link); }
main { padding-top: 2rem; padding-bottom: 3rem; }
h1 { margin: 0 0 0.25rem; font-size: 1.75rem; line-height: 1.2; letter-spacing: -0.02em; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 0.75rem; font-size: 1.2rem; line-height: 1.3; letter-spacing: -0.01em; font-weight: 650; }
h3 { margin: 0; font-size: 1rem; font-weight: 600; }
p { margin: 0 0 1rem; max-width: 46rem; }
.lead, .note, figcaption, caption, .foot { color: var(--muted); }
.note { font-size: 0.9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); margin: 1.5rem 0 0; padding: 0;
  background: var(--paper); border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
.tiles div { display: flex; flex-direction: column-reverse; justify-content: flex-end; margin: 0 -1px -1px 0; padding: 0.9rem 1rem;
  border-right: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.tiles dt { color: var(--muted); font-size: 0.9rem; }
.tiles + .tiles { margin-top: 0.75rem; }
.tiles dd { margin: 0; font-size: 1.6rem; line-height: 1.2; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.25rem; }
.charts.three { grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.chart { margin: 0; min-width: 0; padding: 1rem 1.1rem 0.75rem; background: var(--paper); border: 1px solid var(--line); border-radius: 6px; }
.chart figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; font-size: 0.9rem; }
.chart h3 { color: var(--text); }
.plot { position: relative; height: 9rem; margin-top: 1.6rem; }
.plot svg { display: block; width: 100%; height: 100%; overflow: visible; }
.plot .most { position: absolute; left: 0; top: -1.35rem; color: var(--muted); font-size: 0.8rem; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.bar { fill: var(--bar); }
.bar-bad { fill: var(--bar-bad); }
.slot { fill: transparent; }
.slot:hover { fill: var(--mark); fill-opacity: 0.6; }
.axis { display: flex; justify-content: space-between; margin-top: 0.3rem; color: var(--muted); font-size: 0.8rem; font-variant-numeric: tabular-nums; }
details { margin-top: 0.5rem; font-size: 0.9rem; }
summary { width: fit-content; color: var(--link); cursor: pointer; }
.chart table { font-size: 0.875rem; }
.chart > .scroll { border: 0; border-radius: 0; max-height: none; margin-top: 0.9rem; }
.chart > .scroll th, .chart > .scroll td { padding-left: 0; padding-right: 0.9rem; }
section + section { margin-top: 1.5rem; }
section .note { margin-bottom: 0.5rem; }
.scroll + .note { margin-top: 0.6rem; }
.wide-cell { width: 40%; }
.meter { display: block; width: 100%; min-width: 4rem; height: 0.55rem; margin-top: 0.45rem; }
.scroll { position: relative; overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; background: var(--paper); }
.chart .scroll { margin-top: 0.5rem; max-height: 20rem; overflow-y: auto; }
table { width: 100%; border-collapse: collapse; font-size: 0.925rem; font-variant-numeric: tabular-nums; }
caption { padding: 0.6rem 0.9rem; text-align: left; font-size: 0.9rem; border-bottom: 1px solid var(--line); }
caption span { position: sticky; left: 0.9rem; display: inline-block; max-width: calc(100vw - 5rem); }
th, td { padding: 0.45rem 0.9rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { color: var(--muted); font-weight: 500; font-size: 0.85rem; white-space: nowrap; border-top: 0; }
tbody th { font-weight: 400; }
.number { text-align: right; white-space: nowrap; }
.time { white-space: nowrap; }
.client, .command, .job { overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.client { max-width: 12rem; }
.command { max-width: 14rem; }
.job { max-width: 16rem; }
.quiet { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.name { overflow-wrap: anywhere; min-width: 8rem; }
.hash, .path, code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; font-size: 0.85rem; }
.hash, .path { overflow-wrap: anywhere; }
.hash { min-width: 14rem; }
.facts th { width: 12rem; color: var(--muted); white-space: nowrap; }
.facts td { overflow-wrap: anywhere; }
.facts tr:first-child > * { border-top: 0; }
.state { white-space: nowrap; }
.state::before { content: ""; display: inline-block; width: 0.62rem; height: 0.62rem; margin-right: 0.45rem; border-radius: 50%; background: currentColor;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.state.failed::before, .state.removed::before { border-radius: 0; clip-path: polygon(20% 0, 50% 30%, 80% 0, 100% 20%, 70% 50%, 100% 80%, 80% 100%, 50% 70%, 20% 100%, 0 80%, 30% 50%, 0 20%); }
.state.refused::before { border-radius: 0; clip-path: polygon(0 32%, 100% 32%, 100% 68%, 0 68%); }
.state.incomplete::before { border-radius: 0; clip-path: polygon(0 0, 50% 0, 50% 100%, 0 100%); outline: 0; }
.state.missing::before { background: none; border: 2px dashed currentColor; border-radius: 0; }
.state.got::before, .state.silent::before { background: none; border: 2px solid currentColor; }
.state.orphan::before { border-radius: 0; transform: rotate(45deg) scale(0.8); }
.state.changed::before, .state.disk::before, .state.record::before { border-radius: 0; clip-path: polygon(50% 0, 100% 100%, 0 100%); }
.state.held::before { border-radius: 0; clip-path: polygon(0 0, 35% 0, 35% 100%, 0 100%, 0 0, 65% 0, 100% 0, 100% 100%, 65% 100%, 65% 0); }
.state.same::before { border-radius: 0; clip-path: polygon(0 15%, 100% 15%, 100% 40%, 0 40%, 0 60%, 100% 60%, 100% 85%, 0 85%); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.warn { color: var(--warn); }
.plain { color: var(--muted); }
pre { margin: 0; padding: 0.9rem 1rem; overflow: auto; max-height: 36rem; line-height: 1.45; tab-size: 8;
  background: var(--code); border: 1px solid var(--line); border-radius: 6px; }
pre.text { white-space: pre; }
.shown { color: var(--warn); }
.search { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0.5rem 0.75rem; margin: 1.25rem 0 0.75rem; }
.search[hidden] { display: none; }
.search input { flex: 0 1 22rem; min-width: 0; padding: 0.45rem 0.7rem; font: inherit; color: var(--text); background: var(--paper);
  border: 1px solid var(--muted); border-radius: 6px; }
.search output { color: var(--muted); font-size: 0.9rem; }
.ways { font-size: 0.925rem; max-width: none; margin: 0.75rem 0; }
.button { display: inline-block; padding: 0.15rem 0.6rem; border: 1px solid var(--line); border-radius: 6px; background: var(--paper); text-decoration: none; }
.filter { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.6rem, 1fr)); gap: 0.6rem 0.75rem; align-items: end; margin: 1rem 0 0.75rem; }
.filter .long { grid-column: span 2; }
.filter div { min-width: 0; }
.filter .act { white-space: nowrap; }
.filter label { display: block; margin-bottom: 0.15rem; color: var(--muted); font-size: 0.85rem; }
.filter input, .filter select, .act-form input, .act-form select, .quick input, button { width: 100%; min-width: 0; height: 2.2rem; padding: 0.3rem 0.6rem; font: inherit; font-size: 0.925rem;
  color: var(--text); background: var(--paper); border: 1px solid var(--edge); border-radius: 6px; }
::placeholder { color: var(--muted); opacity: 1; }
.filter select { padding-left: 0.4rem; padding-right: 0.1rem; }
button { width: auto; padding: 0.3rem 0.8rem; color: var(--paper); background: var(--link); border-color: var(--link); font-weight: 600; cursor: pointer; }
.filter .act a { margin-left: 0.35rem; font-size: 0.925rem; }
.quick { margin-left: auto; flex: 0 1 14rem; }
.acts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; margin: 1.5rem 0; }
.acts section { margin: 0; padding: 0.9rem 1rem 1rem; background: var(--paper); border: 1px solid var(--line); border-radius: 6px; }
.acts h2 { margin: 0 0 0.25rem; font-size: 1rem; }
.act-form { display: flex; gap: 0.6rem; align-items: end; }
.act-form .text { flex: 1 1 10rem; min-width: 0; }
.act-form label { display: block; margin-bottom: 0.15rem; color: var(--muted); font-size: 0.85rem; }
.asked { margin: 0; padding: 0; list-style: none; }
.asked li { margin: 0.35rem 0; overflow-wrap: anywhere; }
.needs { margin: 0; padding: 0; list-style: none; background: var(--paper); border: 1px solid var(--line); border-radius: 6px; }
.needs li { display: flex; flex-wrap: wrap; gap: 0 1rem; padding: 0.5rem 0.9rem; border-top: 1px solid var(--line); }
.needs li:first-child { border-top: 0; }
.needs .state { flex: 0 0 12rem; font-weight: 600; }
.needs .state a { color: inherit; }
.needs .detail { flex: 1 1 16rem; color: var(--muted); }
p.needs { padding: 0.6rem 0.9rem; max-width: none; margin-top: 1rem; }
.tiles dd a { color: inherit; text-decoration-color: var(--line); }
.timeline { display: block; width: 100%; height: 3rem; margin-top: 0.75rem; }
.alike { margin-top: 1.25rem; }
.alike h3 { margin-bottom: 0.25rem; }
.alike h3 .state { font-weight: 600; margin-right: 0.5rem; }
.names { max-width: none; }
.sides { margin: 0 0 0.75rem; padding: 0; list-style: none; }
.sides li { margin: 0.25rem 0; overflow-wrap: anywhere; }
.diff .added { color: var(--good); }
.diff .removed { color: var(--bad); }
.diff .hunk { color: var(--muted); }
mark { color: inherit; background: var(--found); border-radius: 2px; }
.hits { margin: 1rem 0; padding: 0; list-style: none; }
.hits li { padding: 0.7rem 0.9rem; margin-bottom: 0.6rem; background: var(--paper); border: 1px solid var(--line); border-radius: 6px; }
.hits p { max-width: none; margin: 0; }
.hits .path { overflow-wrap: anywhere; }
.snippet { font-size: 0.875rem; overflow-wrap: anywhere; }
.snippet a { display: inline-block; min-width: 6rem; }
tr.chosen > *, li.chosen { background: var(--mark); }
.of { display: none; }
.foot { border-top: 1px solid var(--line); font-size: 0.85rem; }
.foot .wide { padding-top: 1rem; padding-bottom: 2rem; }
@media (max-width: 40rem) {
  .wide { padding-left: 1rem; padding-right: 1rem; }
  main { padding-top: 1.4rem; }
  h1 { font-size: 1.45rem; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
  .tiles div:last-child:nth-child(odd) { grid-column: span 2; }
  th, td { padding-left: 0.7rem; padding-right: 0.7rem; }
  .facts th { width: auto; white-space: normal; min-width: 6.5rem; }
  .filter { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  nav ul { gap: 0.25rem 0.8rem; font-size: 0.95rem; }
  .quick { flex: 1 1 100%; }
  .needs .state { flex-basis: 100%; }
  /* A row of a table becomes some lines, so that state and time are seen without scrolling. */
  .stack, .stack caption, .stack tbody { display: block; }
  .stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .stack tr { display: flex; flex-wrap: wrap; gap: 0.1rem 0.9rem; padding: 0.5rem 0.7rem; border-top: 1px solid var(--line); }
  .stack th, .stack td { padding: 0; border: 0; max-width: 100%; }
  .stack td:empty { display: none; }
  .stack .of { display: inline; color: var(--muted); }
  .stack .job { flex: 1 0 100%; font-size: 0.85rem; }
  .jobs .state-cell { order: -2; }
  .jobs .time { order: -1; }
  .jobs .end { order: 0; }
}
@media print {
  :root { --ground: #fff; --paper: #fff; --code: #fff; --text: #000; --muted: #444; --line: #bbb; --link: #000; --good: #000; --bad: #000; --warn: #000; }
  nav, .skip, .search, details { display: none; }
  pre, .scroll { overflow: visible; max-height: none; }
  .client, .command, .job { max-width: none; white-space: normal; overflow-wrap: anywhere; }
  pre.text { white-space: pre-wrap; overflow-wrap: anywhere; }
  .chart, tr { break-inside: avoid; }
}
`;
