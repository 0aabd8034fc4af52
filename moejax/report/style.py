"""The page's style sheet: system fonts, light and dark, readable from 380 pixels on, the same in print."""

from moejax.report.colours import levels

SHEET = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1a1c20;--quiet:#5b6068;--rule:#dcdfe4;--soft:#f4f5f7;
--line:#0072b2;--most:55%;--lift:0%}
@media(prefers-color-scheme:dark){:root{--ground:#131519;--ink:#e7e9ec;--quiet:#a0a6af;--rule:#343840;--soft:#1d2026;
--line:#56b4e9;--most:38%;--lift:25%}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:1160px;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere;print-color-adjust:exact;-webkit-print-color-adjust:exact}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .4rem}
h2{font-size:1.3rem;line-height:1.3;margin:3rem 0 .6rem;padding-top:.8rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:0 0 .3rem}
p{margin:.4rem 0 .8rem;max-width:72ch}
a{color:inherit;text-decoration-color:var(--quiet);text-underline-offset:.2em}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.8rem 0 0}
code,pre{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--soft);padding:.7rem .9rem;margin:.4rem 0;white-space:pre-wrap;border-radius:4px}
.quiet,.note,.missing,.legend,figcaption{color:var(--quiet)}
.note,.legend,small,figcaption{font-size:.8125rem}
h3 .quiet{font-size:.875rem;font-weight:400}
.box{overflow-x:auto;margin:.4rem 0 1rem;max-width:100%}
table{border-collapse:collapse;font-size:.8125rem;line-height:1.35;overflow-wrap:normal}
th{font-weight:400;text-align:left}
.methods,.sights{width:100%}
.methods td,.methods th,.sights td,.sights th{padding:.3rem .6rem .3rem 0;vertical-align:top;
border-bottom:1px solid var(--rule)}
.methods thead th,.sights thead th{color:var(--quiet);vertical-align:bottom}
.methods td{white-space:nowrap}
.methods td small{display:block;color:var(--quiet);font-size:.6875rem}
.methods .why{white-space:normal;color:var(--quiet)}
.methods tbody th[scope=row]{font-weight:600;padding-right:1rem;min-width:7.5rem;max-width:20rem;overflow-wrap:anywhere}
.methods tbody th[scope=row],.heat tbody th,.heat .corner{position:sticky;left:0;background:var(--ground)}
.methods .sight th{padding-top:1.1rem;color:var(--quiet);font-style:italic}
.sights tbody th{font-weight:600}
.sights td{min-width:12rem}
.heat td{min-width:2.1rem;height:1.5rem;padding:0 .2rem;text-align:center;font-size:.6875rem;
border:1px solid var(--ground)}
.heat tbody th{white-space:nowrap;padding-right:.5rem;max-width:16rem;overflow:hidden;text-overflow:ellipsis}
.heat .names th{vertical-align:bottom;padding:.3rem 0 .25rem}
.heat .names th span{display:block;margin:0 auto;writing-mode:vertical-rl;transform:rotate(180deg);white-space:nowrap;
max-height:9rem;overflow:hidden;text-overflow:ellipsis}
.heat .axis,.heat .part{color:var(--quiet);font-size:.75rem}
.heat .corner{vertical-align:bottom}
.heat .part{border-bottom:1px solid var(--rule);padding:0 .3rem;border-left:3px solid var(--ground)}
.heat .plain{padding-left:.6rem}
.heat .none{color:var(--quiet)}
.heat .ring{outline:2px solid var(--ink);outline-offset:-2px}
.heat.narrow td{min-width:.8rem;width:.8rem;padding:0}
.key{white-space:nowrap;margin-left:.6rem}
.ramp{display:inline-block;width:4.5rem;height:.65rem;margin:0 .35rem;border-radius:2px}
.method{margin:1.4rem 0 2.2rem}
.maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:0 2rem;align-items:start}
.maps.wide{grid-template-columns:minmax(0,1fr)}
.maps>*{min-width:0}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:1.2rem 2rem}
.panels.two{grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),27rem))}
figure{margin:0;min-width:0}
svg{display:block;width:100%;height:auto;font-size:11px;fill:var(--quiet)}
svg line{stroke:var(--rule);stroke-width:1}
svg .zero{stroke:var(--quiet)}
svg .middle{text-anchor:middle}
svg .end{text-anchor:end}
svg .whisker{stroke:var(--line);stroke-width:2}
svg .dot,svg .bar{fill:var(--line)}
svg .own{fill:color-mix(in oklab,var(--c),#fff var(--lift))}
svg .curve{fill:none;stroke:color-mix(in oklab,var(--c),#fff var(--lift));stroke-width:1.6;stroke-linejoin:round}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;max-width:none;align-items:center}
.legend span{display:inline-flex;align-items:center;gap:.35rem}
.dash{width:26px;height:10px}
.mark,.token{--full:color-mix(in oklab,var(--c),#fff var(--lift));border-radius:3px;
background:color-mix(in srgb,var(--full) calc(var(--w)*var(--most)),transparent);
box-shadow:inset 0 -.17em color-mix(in srgb,var(--full) calc(var(--w)*100%),transparent)}
.mark{min-width:1.3rem;padding-bottom:.15em;text-align:center;color:var(--ink);font-size:.75rem}
.token{padding:.08em .12em .2em}
.token sup{font-size:.6em;margin-right:.15em;color:var(--quiet)}
.tokens{line-height:2;max-width:none;margin:.1rem 0 .9rem}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.3rem 1.2rem;margin:.6rem 0}
dt{color:var(--quiet)}
dd{margin:0;min-width:0}
dd>p,dd>pre{margin:0}
summary{cursor:pointer;color:var(--quiet);font-size:.875rem}
@media(max-width:640px){
dl{grid-template-columns:minmax(0,1fr);gap:0}
dd{margin-bottom:.6rem}
.sights,.sights tbody,.sights tr,.sights th,.sights td{display:block;border:0;padding:0;min-width:0}
.sights thead{display:none}
.sights tr{border-bottom:1px solid var(--rule);padding:.6rem 0}
.sights td::before{content:attr(data-head) ": ";color:var(--quiet)}
.heat tbody th{max-width:8.5rem}
.methods tbody th[scope=row]{max-width:9rem}
}
@media print{body{max-width:none}.box{overflow:visible}h2{break-after:avoid}.method,figure{break-inside:avoid}}
"""


def sheet() -> str:
    """The whole of it, with the colours of heat maps."""
    return SHEET + levels()
