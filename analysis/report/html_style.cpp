// The page's style: one column, one accent, colours as variables that change with the reader's
// scheme, and a form for paper.
#include <fmt/format.h>

#include "analysis/report/colour.h"
#include "analysis/report/page.h"

namespace moe::drawing {
namespace {

constexpr std::string_view layout =
    R"css(
*{box-sizing:border-box}
html{scroll-padding-top:3.6rem;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,)css"
    R"css("Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC",sans-serif}
header,main{max-width:1120px;margin:0 auto;padding:0 1.5rem}
header{padding-top:2.6rem;padding-bottom:1.4rem}
h1{font-size:1.9rem;line-height:1.2;letter-spacing:-.022em;font-weight:650;margin:0 0 1.2rem;)css"
    R"css(overflow-wrap:anywhere}
h2{font-size:1.32rem;line-height:1.3;letter-spacing:-.012em;font-weight:640;margin:0 0 1.1rem}
h3{font-size:1.02rem;line-height:1.35;font-weight:620;margin:0 0 .3rem}
section{padding:2.2rem 0 .6rem}
#findings{padding-bottom:2.2rem}
section+section{border-top:1px solid var(--line)}
article{margin:0 0 2.6rem}
a{color:var(--accent)}
code{font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;)css"
    R"css(color:var(--muted)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:3px}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));)css"
    R"css(gap:.75rem 1.6rem;margin:0}
.facts .long{grid-column:1/-1}
.facts dt{font-size:.74rem;color:var(--muted);letter-spacing:.02em}
.facts dd{margin:0;font-size:.92rem;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.facts .long dd{font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,)css"
    R"css("DejaVu Sans Mono",monospace}
nav{position:sticky;top:0;z-index:5;display:flex;flex-wrap:wrap;gap:.05rem;)css"
    R"css(background:var(--bar);border-block:1px solid var(--line);)css"
    R"css(padding:.45rem max(1rem,calc((100vw - 1120px)/2 + .9rem));scrollbar-width:none;)css"
    R"css(backdrop-filter:blur(8px)}
nav a{flex:none;font-size:.77rem;color:var(--muted);text-decoration:none;padding:.22rem .3rem;)css"
    R"css(border-radius:6px}
nav .warned{color:var(--yellow)}
nav a:hover,nav a:focus-visible{color:var(--ink);background:var(--wash)}
.subject{color:var(--muted);margin:-.7rem 0 0;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,13rem),1fr));)css"
    R"css(gap:1rem;)css"
    R"css(margin:0 0 1.4rem}
.tile{display:grid;grid-template-columns:minmax(0,1fr) auto;align-content:start;)css"
    R"css(align-items:baseline;)css"
    R"css(column-gap:.4rem;color:inherit;text-decoration:none;border:1px solid var(--line);)css"
    R"css(border-radius:10px;padding:.6rem .8rem .5rem;min-width:0}
a.tile:hover{border-color:var(--axis)}
.tile .what{font-size:.86rem;font-weight:560;overflow-wrap:anywhere}
.tile .lamp{font-size:.72rem}
.tile .value,.tile .spark,.tile .beside{grid-column:1/-1}
.tile .value,.tile .beside{font-size:.78rem;color:var(--muted);font-variant-numeric:tabular-nums}
.tile b{font-size:1.5rem;line-height:1.4;font-weight:620;letter-spacing:-.02em;)css"
    R"css(color:var(--ink);margin-right:.2rem}
.spark{margin:.1rem 0 .2rem}.worst{fill:var(--ink)}
.band{opacity:.2}
.over{paint-order:stroke;stroke:var(--bg);stroke-width:3px}
.ribbon{opacity:.5}.ribbon.faded{opacity:.09}.ribbon:hover{opacity:.85}
.saves{display:block;height:0;text-align:right;opacity:0}
*:hover>.saves,.saves:focus-within{opacity:1}
.saves button{font:inherit;font-size:.72rem;color:var(--muted);background:var(--bg);)css"
    R"css(border:1px solid var(--line);border-radius:5px;margin-left:.25rem;padding:0 .35rem;)css"
    R"css(cursor:pointer;position:relative;top:-1.4rem}
.findings{margin:0;padding:0;list-style:none;counter-reset:f;display:grid;)css"
    R"css(grid-template-columns:minmax(0,1fr);gap:.7rem;max-width:54rem}
.findings li{counter-increment:f;display:grid;grid-template-columns:1.9rem minmax(0,1fr);)css"
    R"css(overflow-wrap:anywhere}
.findings li::before{content:counter(f);color:var(--accent);font-weight:650;)css"
    R"css(font-variant-numeric:tabular-nums}
.reading{color:var(--muted);max-width:46rem;margin:0 0 1rem;font-size:.94rem}
.note{color:var(--muted);font-size:.82rem;margin:.45rem 0 0}
.warning{border-left:3px solid var(--warn);background:var(--wash);padding:.45rem .8rem;)css"
    R"css(margin:0 0 .9rem;font-size:.92rem;max-width:54rem;border-radius:0 5px 5px 0}
.scroll{overflow:auto hidden;max-width:100%;background:linear-gradient(var(--bg),var(--bg)) )css"
    R"css(right/2rem 100% no-repeat local,linear-gradient(to left,var(--shade),transparent) )css"
    R"css(right/1.1rem 100% no-repeat scroll}
.broad{min-width:620px}
svg text{font-weight:400}svg .name{font-weight:560}
.chart{display:block;width:100%;height:auto;overflow:visible;font-family:inherit}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));)css"
    R"css(gap:1.5rem 1.8rem}
.facets{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,230px),1fr));)css"
    R"css(gap:1.2rem 1.6rem}
figure{margin:0;min-width:0}
figcaption{font-size:.86rem;font-weight:560;margin:0 0 .35rem}
.keys{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-weight:400}
.keys i{display:inline-block;width:.72rem;height:.72rem;border-radius:2px;margin-right:.4rem;)css"
    R"css(vertical-align:-.04rem}
.tick,.row{font-size:11px;fill:var(--muted);font-variant-numeric:tabular-nums}
.row{font-size:11.5px;fill:var(--ink)}
.name{font-size:11px;fill:var(--muted);font-weight:560}
.grid,.base{stroke:var(--grid);stroke-width:1;fill:none}
.base{stroke:var(--axis)}
.chance{stroke:var(--chance);stroke-width:1.6;stroke-dasharray:4 3;fill:none}
.error{stroke:var(--ink);stroke-width:1.2;fill:none;opacity:.8}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.m:hover{filter:brightness(1.16)}
.inf{font-size:13px;font-weight:700;fill:var(--ink)}
.none{fill:var(--wash)}
.vd,.vl{font-size:9.6px;text-anchor:middle;pointer-events:none;font-variant-numeric:tabular-nums}
.vd{fill:#10131a}.vl{fill:#f4f5f7}
.map{image-rendering:pixelated;cursor:crosshair}
.mark{stroke:var(--ink);stroke-width:1.6}
.scalebox{display:flex;flex-wrap:wrap;align-items:center;gap:.2rem 1rem;font-size:.86rem;)css"
    R"css(font-weight:560;margin-bottom:.5rem}
.scale{display:block;overflow:visible}
.legend{margin:.9rem 0 0;font-size:.82rem;color:var(--muted);columns:22rem 3;column-gap:2rem}
.legend div{break-inside:avoid;margin-bottom:.22rem}
.legend dt{display:inline;color:var(--ink);font-weight:560}
.legend dt::after{content:" — ";color:var(--muted);font-weight:400}
.legend dd{display:inline;margin:0}
details{margin-top:.8rem}
summary{cursor:pointer;font-size:.88rem;color:var(--accent);width:max-content;padding:.15rem 0}
summary small{color:var(--muted)}
.scroll.tall,details .scroll{max-height:32rem;overflow:auto}
details .scroll{margin-top:.5rem}
.data{border-collapse:separate;border-spacing:0;font-size:.86rem;font-variant-numeric:tabular-nums}
.data th{position:sticky;top:0;background:var(--bg);text-align:left;font-weight:560;)css"
    R"css(white-space:nowrap;padding:0;border-bottom:1px solid var(--axis)}
.data thead th button,.pivot thead th{font:inherit;color:inherit;background:none;border:0;)css"
    R"css(padding:.34rem .8rem .34rem 0;text-align:inherit}
.data thead th button{cursor:pointer;width:100%}
.data th[aria-sort] button::after{content:" ↑";color:var(--accent)}
.data th[aria-sort=descending] button::after{content:" ↓"}
.data td{max-width:34rem;overflow-wrap:break-word;padding:.26rem .8rem .26rem 0;)css"
    R"css(border-bottom:1px solid var(--line);vertical-align:top}
.data tbody tr:hover td{background:var(--wash)}
.data .n,.data td{text-align:right;white-space:nowrap}
.data .n,.data td{padding-left:.6rem}
.data td.w{text-align:left;white-space:normal;padding-left:0}.pivot td{padding-left:0}
.data small{color:var(--muted);font-size:.82em;font-weight:400}
.findings .lamp{font-size:.74rem;margin-right:.25rem}
.more{font-size:.82rem;white-space:nowrap;text-decoration:none}
.more::before{content:"→ "}
.findings.rest{counter-reset:f 8;margin-top:.7rem}
summary h3{display:inline}.folded{margin-bottom:1rem}
.folded>details>summary{color:var(--ink);width:auto}
.folded>details[open]{margin-bottom:2rem}
.near{color:var(--muted)}
.lamp{display:inline-block;white-space:nowrap;padding:0 .55rem;border-radius:1rem;)css"
    R"css(font-weight:600;font-size:.92em;border:1px solid currentColor}
.lamp::before{content:"";display:inline-block;width:.6rem;height:.6rem;border-radius:50%;)css"
    R"css(background:currentColor;margin-right:.35rem}
.grey,.lamp.chance,.lamp.note{color:var(--muted)}.green{color:var(--green)})css"
    R"css(.yellow{color:var(--yellow)}.red{color:var(--red)}
.pivot tbody th{position:static;border-bottom:1px solid var(--line);)css"
    R"css(padding:.26rem .8rem .26rem 0;font-weight:500}
.bar{position:sticky;top:2.7rem;z-index:4;display:flex;flex-wrap:wrap;align-items:center;)css"
    R"css(gap:.5rem 1.2rem;background:var(--bg);padding:.6rem 0;margin-bottom:.8rem}
select{font:inherit;font-size:.92rem;color:inherit;background:var(--wash);)css"
    R"css(border:1px solid var(--axis);border-radius:6px;padding:.25rem .5rem;)css"
    R"css(margin-left:.35rem}
.experts{display:flex;flex-wrap:wrap;gap:3px;max-height:7.2rem;overflow-y:auto}
.experts button{font:inherit;font-size:.76rem;line-height:1;color:inherit;)css"
    R"css(border:1px solid transparent;border-radius:4px;min-width:1.75rem;)css"
    R"css(padding:.34rem .3rem;cursor:pointer;font-variant-numeric:tabular-nums}
.experts button[aria-pressed=true]{border-color:var(--ink);font-weight:700}
.tokens{white-space:pre-wrap;tab-size:4;overflow-wrap:anywhere;)css"
    R"css(font:.95rem/1.95 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",)css"
    R"css("Noto Sans Mono CJK SC",monospace;margin:.2rem 0 1.8rem;max-width:60rem}
.tokens span{padding:.16em 0;box-shadow:inset -1px 0 var(--bg)}
.tokens .off{background:none;opacity:.38}
.tokens s{text-decoration:none;opacity:.4}
#tip{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--bg);)css"
    R"css(font-size:.8rem;padding:.2rem .5rem;border-radius:5px;)css"
    R"css(font-variant-numeric:tabular-nums}
@media(max-width:560px){header,main{padding-left:1rem;padding-right:1rem})css"
    R"css(header{padding-top:1.5rem}h1{font-size:1.5rem})css"
    R"css(.facts{grid-template-columns:repeat(2,minmax(0,1fr));gap:.6rem 1rem})css"
    R"css(nav{flex-wrap:wrap;position:static}.tiles{grid-template-columns:1fr 1fr;gap:.6rem})css"
    R"css(.tile{padding:.5rem .6rem}.facets{grid-template-columns:1fr 1fr}.legend{columns:1})css"
    R"css(.bar{position:static}}
@media print{main,header{zoom:.62;max-width:none}.tokens{max-height:9rem;overflow:hidden}#made)css"
    R"css({break-inside:avoid}#words{display:none}article{margin-bottom:1.4rem})css"
    R"css(.tall tbody tr:nth-child(n+9),.wordy tbody tr:nth-child(n+5){display:none})css"
    R"css(.tall::after,.wordy::after{content:)css"
    R"css("more rows on the screen and in -o report.csv";font-size:7.5pt;color:var(--muted)})css"
    R"css(.saves{display:none}:root{--bg:#fff}h2,h3,.reading{break-after:avoid}nav,)css"
    R"css(.bar label,summary{display:none}body{font-size:10.5pt}section{padding:1rem 0}figure,)css"
    R"css(.chart,.scalebox,tr,.findings li,.warning,.legend div{break-inside:avoid}.scroll,)css"
    R"css(.scroll.tall,details .scroll{overflow:visible;max-height:none;background:none})css"
    R"css(.data{font-size:7.5pt}.data th{position:static}.data td,.data thead th button,)css"
    R"css(.pivot thead th{padding-right:.35rem}.data th,.data .n,.data td,)css"
    R"css(.data thead th button{white-space:normal;padding-left:0})css"
    R"css(.data th{vertical-align:bottom}.data td,.data th{overflow-wrap:anywhere})css"
    R"css(.data td:not(.w){overflow-wrap:normal}.data td small{display:inline-block})css"
    R"css(.lamp{padding:0 .2rem}.broad,.slim,.chart{min-width:0!important})css"
    R"css(*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
)css";

constexpr std::string_view light =
    "--bg:#fdfdfc;--bar:#fdfdfce6;--ink:#1b1d22;--muted:#676c76;--line:#e6e7e9;--grid:#eceded;--"
    "axis:#c3c6cb;--wash:#f2f3f3;--shade:#1b1d2230;--accent:#0b6b74;--warn:#c98a12;--chance:#"
    "8a5a00;--green:#17713c;--yellow:#8a6100;--red:#b3261e;";
constexpr std::string_view dark =
    "--bg:#15171b;--bar:#15171be6;--ink:#e7e8ea;--muted:#9a9fa9;--line:#2a2d33;--grid:#262930;--"
    "axis:#4a4e57;--wash:#20232a;--shade:#0008;--accent:#5cc3cc;--warn:#d9a441;--chance:#e3b04b;--"
    "green:#6fce94;--yellow:#e5c04f;--red:#ff8a7d;";

std::string colours(bool in_dark, const std::vector<Rgb>& experts) {
  std::string out(in_dark ? dark : light);
  for (int i = 0; i < 8; ++i)
    out += fmt::format("--s{}:{};", i, hex(series(i, in_dark)));
  for (std::size_t e = 0; e < experts.size(); ++e)
    out += fmt::format("--e{}:{};", e, hex(experts[e]));
  return out;
}

}  // namespace

std::string style_sheet(int experts) {
  const Backgrounds back = expert_backgrounds(experts);
  std::string out = fmt::format(
      "\n:root{{color-scheme:light "
      "dark;{}}}\n@media(prefers-color-scheme:dark){{:root{{{}}}}}\n@media "
      "print{{:root{{color-scheme:light;{}}}}}",
      colours(false, back.light), colours(true, back.dark), colours(false, back.light));
  out += layout;
  for (int i = 0; i < 8; ++i) {
    out += fmt::format(
        "rect.s{0},circle.s{0},path.band.s{0},path.ribbon.s{0}{{fill:var(--s{0})}}path.line.s{0}{{"
        "stroke:var(--s{0})"
        "}}i.s{0}{{"
        "background:var(--s{0})}}",
        i);
  }
  out += "\n";
  for (std::size_t e = 0; e < back.light.size(); ++e)
    out += fmt::format(".e{0}{{background:var(--e{0})}}", e);
  return out + "\n";
}

}  // namespace moe::drawing
