# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The looks of the page: light, dark and on paper. PRIVATE to the collection."""

from __future__ import annotations

_LIGHT = """
  --paper: #ffffff; --ground: #f3f5f7; --soft: #f6f8fa; --ink: #18212b; --muted: #566270; --rule: #dde2e8;
  --grid: #e9edf1; --frame: #b3bdc8;
  --good: #1d6b43; --good-soft: #e8f4ed; --warn: #8a5300; --warn-soft: #fdf3e1; --bad: #a8281f; --bad-soft: #fcebe9;
  --calm: #3d5a76; --calm-soft: #ebf1f7; --link: #1d5c91;
  --arm: #4f7096; --critical: #b9501a; --critical-soft: #fbeee5; --verify: #23796e; --finish: #6d5c9c;
  --other: #66717d;
  --on-bar: #ffffff; --curve-0: #1d5c91; --curve-1: #23796e; --curve-2: #6d5c9c; --curve-3: #8a6a12;
  --stall: #f6dfa8; --stall-ink: #76500a;
"""

_DARK = """
  --paper: #161b21; --ground: #0f1317; --soft: #1c232a; --ink: #e7ebef; --muted: #a2adb9; --rule: #303a44;
  --grid: #252d35; --frame: #55616d;
  --good: #7fd0a3; --good-soft: #17301f; --warn: #f0bd6b; --warn-soft: #33260f; --bad: #f59a90; --bad-soft: #3a1a17;
  --calm: #a5c3e0; --calm-soft: #1b2a38; --link: #8fc1ec;
  --arm: #87a9d0; --critical: #f0935a; --critical-soft: #34221a; --verify: #69bfb2; --finish: #b2a2de;
  --other: #9aa5b1;
  --on-bar: #10151a; --curve-0: #7db9ec; --curve-1: #69c5b6; --curve-2: #b9a8ea; --curve-3: #d9b85a;
  --stall: #4a3a12; --stall-ink: #f0cf86;
"""

_PAGE = """
* { box-sizing: border-box; }
html { background: var(--ground); }
body { margin: 0 auto; max-width: 1080px; padding: 44px 52px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.6 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
    "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
h1 { margin: 18px 0 0; max-width: 28em; font-size: 29px; line-height: 1.32; font-weight: 600;
  letter-spacing: -0.01em; text-wrap: pretty; }
h1.long { max-width: 36em; font-size: 23px; line-height: 1.4; }
h2 { margin: 0 0 6px; font-size: 19px; line-height: 1.35; font-weight: 600; }
h3 { margin: 28px 0 6px; font-size: 15px; font-weight: 600; }
p { margin: 0 0 10px; max-width: 46em; }
section { margin-top: 52px; }
code, .mono { font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "Liberation Mono",
  monospace; font-size: 0.88em; }
code { overflow-wrap: anywhere; white-space: pre-wrap; }
.muted { color: var(--muted); }
.small { font-size: 13px; }
.masthead { display: flex; flex-wrap: wrap; gap: 4px 24px; justify-content: space-between; padding-bottom: 14px;
  border-bottom: 1px solid var(--rule); color: var(--muted); font-size: 13px; }
.masthead strong { color: var(--ink); font-weight: 600; }
.status { display: inline-flex; align-items: center; gap: 8px; margin-top: 34px; padding: 3px 14px 3px 10px;
  border-radius: 99px; font-size: 14px; font-weight: 600; }
.lead { margin-top: 14px; font-size: 16px; color: var(--muted); }
.good { color: var(--good); }
.warn { color: var(--warn); }
.bad { color: var(--bad); }
.calm { color: var(--calm); }
.status.good { background: var(--good-soft); }
.status.warn { background: var(--warn-soft); }
.status.bad { background: var(--bad-soft); }
.status.calm { background: var(--calm-soft); }
"""

_PARTS = """
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 1px; margin: 34px 0 0;
  background: var(--rule);
  border: 1px solid var(--rule); border-radius: 10px; overflow: hidden; }
.figures > div { padding: 16px 20px 18px; background: var(--paper); }
.figures dt { font-size: 13px; color: var(--muted); }
.figures dd { margin: 0; }
.figures .value { margin-top: 2px; font-size: 26px; line-height: 1.3; font-weight: 600; letter-spacing: -0.01em; }
.figures .note { font-size: 13px; line-height: 1.45; color: var(--muted); }
.figures .note b { font-weight: 600; }
.figures.few { max-width: 560px; }
.meter { height: 6px; margin: 9px 0 8px; border-radius: 3px; background: var(--grid); overflow: hidden; }
.meter i { display: block; height: 100%; background: currentColor; }
.meter i.some { min-width: 3px; }
.callout { margin-top: 30px; padding: 18px 24px 12px; border-left: 4px solid var(--calm);
  border-radius: 0 8px 8px 0; background: var(--soft); }
.callout.warn { border-color: var(--warn); }
.callout.bad { border-color: var(--bad); }
.callout.good { border-color: var(--good); }
.callout, .callout.warn, .callout.bad, .callout.calm { color: var(--ink); }
.callout ol, .callout ul { margin: 4px 0 8px; padding-left: 22px; }
.callout li { margin: 4px 0; max-width: 58em; overflow-wrap: anywhere; }
.rule { color: var(--muted); font-size: 13px; }
figure { margin: 22px 0 0; }
figure .frame { overflow-x: auto; }
h2 + figure { margin-top: 6px; }
figcaption { margin-bottom: 10px; font-size: 13.5px; color: var(--muted); }
figcaption b { color: var(--ink); font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 10px 0 0; padding: 0; list-style: none;
  font-size: 13px; color: var(--muted); }
.legend svg { width: 22px; min-width: 0; height: 12px; margin-right: 7px; vertical-align: -1px;
  display: inline-block; }
figure + .frame { margin-top: 30px; }
.frame + .frame { margin-top: 26px; }
table { width: 100%; margin-top: 14px; border-collapse: collapse; font-size: 13.5px; line-height: 1.5; }
caption { padding-bottom: 4px; text-align: left; font-size: 13.5px; color: var(--muted); }
th { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--rule); text-align: left; font-size: 12.5px;
  font-weight: 600; color: var(--muted); vertical-align: bottom; }
td.n + td:not(.n) { padding-left: 10px; }
th.n + th:not(.n) { padding-left: 10px; }
td { padding: 8px 14px 8px 0; border-bottom: 1px solid var(--grid); vertical-align: top;
  overflow-wrap: break-word; }
th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; white-space: nowrap; }
.nowrap { white-space: nowrap; }
tbody th { border-bottom-color: var(--grid); font-size: 13.5px; color: var(--ink); vertical-align: top;
  padding-top: 8px; padding-bottom: 8px; }
tbody.pair tr:first-child td { border-bottom: 0; padding-bottom: 2px; }
tbody.pair tr:last-child td { padding-top: 2px; }
tr.group th { padding-top: 20px; color: var(--ink); font-size: 13px; }
.detail { color: var(--muted); overflow-wrap: anywhere; }
.evidence { display: flex; flex-wrap: wrap; gap: 0 18px; margin: 3px 0 0; padding: 0; list-style: none;
  font-size: 12.5px; color: var(--muted); }
.evidence li { overflow-wrap: anywhere; min-width: 0; }
.at { display: inline-block; margin-right: 1.2em; }
.proofs { margin: 14px 0 0; padding: 0; list-style: none; }
.proofs li { position: relative; margin: 0; padding: 10px 0 10px 30px; border-bottom: 1px solid var(--grid); }
.proofs .sign { position: absolute; left: 4px; font-weight: 600; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 5px 28px; margin: 14px 0 0;
  font-size: 13.5px; }
.facts dt { color: var(--muted); }
.facts dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
"""

_DRAWINGS = """
svg { display: block; width: 100%; min-width: 720px; height: auto; font-size: 12px; fill: var(--ink);
  overflow: visible; }
svg.patterns { position: absolute; width: 0; min-width: 0; height: 0; }
.grid { stroke: var(--grid); stroke-width: 1; }
.lane-rule { stroke: var(--grid); stroke-width: 1; }
.tick { fill: var(--muted); font-size: 11.5px; }
text.muted { fill: var(--muted); }
.lane { font-size: 13px; font-weight: 600; }
.lane-small { font-size: 12.5px; font-weight: 600; }
.row { font-size: 12.5px; }
.on-bar { fill: var(--on-bar); font-size: 11.5px; font-weight: 500; }
.beside { font-size: 11.5px; paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
.took { fill: var(--muted); font-size: 12px; }
.phase-arm { fill: var(--arm); }
.phase-critical { fill: var(--critical); }
.phase-verify { fill: var(--verify); }
.phase-finish { fill: var(--finish); }
.phase-other { fill: var(--other); }
.phase-ochre { fill: var(--curve-3); }
.phase-calm { fill: var(--calm); }
.phase-rollback { fill: var(--warn); }
.bar-failed { fill: var(--bad-soft); stroke: var(--bad); stroke-width: 1.2; }
.bar-open { fill: url(#hatch-open); stroke: var(--ink); stroke-width: 1; stroke-dasharray: 4 3; }
.bar-skipped { fill: none; stroke: var(--muted); stroke-width: 1; stroke-dasharray: 2 2; }
.hatch-open { stroke: var(--frame); stroke-width: 2; }
.critical-band { fill: var(--critical-soft); }
.critical-name { fill: var(--critical); font-size: 13px; font-weight: 600; }
.stall-band { fill: var(--stall); }
.stall-edge { stroke: var(--stall-ink); stroke-width: 1.2; }
.stall-name { fill: var(--stall-ink); font-size: 12.5px; font-weight: 600; }
.stall-shade { fill: var(--stall); opacity: 0.45; }
.curve { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.curve-0 { stroke: var(--curve-0); }
.curve-1 { stroke: var(--curve-1); stroke-dasharray: 6 3; }
.curve-2 { stroke: var(--curve-2); stroke-dasharray: 2 2.5; }
.curve-3 { stroke: var(--curve-3); stroke-dasharray: 9 3 2 3; }
.fail { fill: none; stroke: var(--bad); stroke-width: 1.8; }
.fail-name { fill: var(--bad); font-size: 11.5px; font-weight: 600; }
.panel-name { font-size: 14px; font-weight: 600; }
.host { fill: var(--soft); stroke: var(--frame); stroke-width: 1.2; }
.host-primary { fill: var(--calm-soft); stroke: var(--calm); stroke-width: 2.4; }
.host-pooler { fill: var(--paper); }
.host-away { fill: none; stroke: var(--muted); stroke-dasharray: 5 4; }
.host-name { font-size: 13.5px; font-weight: 600; }
.host-line { font-size: 11px; fill: var(--muted); }
.edge { fill: none; stroke: var(--muted); stroke-width: 1.3; }
.edge-stream { stroke: var(--calm); stroke-dasharray: 6 3; }
.edge-paused { stroke-dasharray: 1.5 3; }
.arrow { fill: var(--muted); }
"""

_MEDIA = """
@media (max-width: 700px) {
  body { padding: 24px 18px 40px; }
  h1 { font-size: 23px; }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: 8px; }
  .frame { overflow-x: auto; }
}
@page {
  size: A4;
  margin: 15mm 14mm 16mm;
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt sans-serif; color: #566270; }
}
@media print {
  html { background: none; }
  body { max-width: none; padding: 0; font-size: 10pt; line-height: 1.5; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  h1, h1.long { font-size: 19pt; margin-top: 10px; }
  h1.long { font-size: 15pt; }
  h2 { font-size: 13pt; }
  h2, h2 + p, h3, caption, figcaption { break-after: avoid; }
  section { margin-top: 26px; }
  figure, .frame, .callout, .figures, .facts, .proofs li, tr { break-inside: avoid; }
  thead { display: table-header-group; }
  .status { margin-top: 16px; }
  .figures { margin-top: 20px; grid-template-columns: repeat(4, 1fr); }
  .figures > div { padding: 10px 12px; }
  .figures .value { font-size: 15pt; }
  table { font-size: 8.5pt; }
  .evidence { font-size: 7.5pt; }
  th { font-size: 8pt; }
  svg { min-width: 0; }
  figure .frame { overflow: visible; }
}
"""

STYLE = (
    f":root {{ color-scheme: light dark; {_LIGHT} }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}\n" + _PAGE + _PARTS + _DRAWINGS + _MEDIA
)
