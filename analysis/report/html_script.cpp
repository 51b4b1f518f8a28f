// The page's script: plain, small, and nothing that can be read needs it.
#include "analysis/report/page.h"

namespace moe::drawing {

std::string_view page_script() {
  return R"js(
'use strict';
// Tables: a click on a heading sorts, a second one turns the order. "∞" is large,)js"
         R"js( no value comes last.
const key = cell => {
  const text = (cell?.firstChild?.data ?? '').trim(), n = Number(text.replace(/[,<>]| ≈/g,)js"
         R"js( '').replace('∞', 'Infinity'));
  return text === '–' || text === '' ? null : Number.isNaN(n) ? text : n;
};
const compare = (a, b, up) => {
  if (a === null || b === null) return (a === null) - (b === null);
  const d = typeof a === 'number' && typeof b === 'number' ? (a < b ? -1 : a > b ? 1 : 0) : )js"
         R"js(String(a).localeCompare(String(b));
  return up ? d : -d;
};
for (const button of document.querySelectorAll('.data thead button')) button.onclick = () => {
  const th = button.parentNode, body = th.closest('table').tBodies[0],)js"
         R"js( up = th.getAttribute('aria-sort') !== 'ascending';
  for (const other of th.parentNode.children) other.removeAttribute('aria-sort');
  th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const rows = [...body.rows].map(row => [key(row.cells[th.cellIndex]), row]);
  rows.sort((a, b) => compare(a[0], b[0], up));
  body.append(...rows.map(r => r[1]));
};
// Large maps are pictures: the value under the pointer is read from the table of their data.
const tip = document.getElementById('tip');
for (const svg of document.querySelectorAll('svg[data-map]')) {
  const table = document.getElementById(svg.dataset.map), image = svg.querySelector('image');
  const first = +svg.dataset.first, rows = +svg.dataset.rows, cols = +svg.dataset.cols;
  image.onpointerleave = () => { tip.hidden = true; };
  image.onpointermove = event => {
    const box = image.getBoundingClientRect();
    const r = Math.min(rows - 1, Math.floor((event.clientY - box.top) / box.height * rows));
    const c = Math.min(cols - 1, Math.floor((event.clientX - box.left) / box.width * cols));
    const row = table.tBodies[0].rows[first + r], keys = row.cells.length - cols;
    tip.textContent = [...row.cells].slice(0, keys).map(x => x.textContent).join(' / ') + ' / ' +
      table.tHead.rows[0].cells[keys + c].textContent + ': ' + row.cells[keys + c].textContent;
    tip.hidden = false;
    tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6) + 'px';
    tip.style.top = event.clientY + 16 + 'px';
  };
}
// Figures are saved as they stand, with their styles inside.
const kept = ['fill', 'stroke', 'stroke-width', 'stroke-dasharray', 'opacity', 'font-size',)js"
         R"js( 'font-weight', 'font-family', 'text-anchor'];
const alone = svg => {
  const copy = svg.cloneNode(true), box = svg.viewBox.baseVal;
  const from = [svg, ...svg.querySelectorAll('*')], to = [copy, ...copy.querySelectorAll('*')];
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of kept) to[i].style.setProperty(name, style.getPropertyValue(name));
  });
  copy.setAttribute('width', box.width);
  copy.setAttribute('height', box.height);
  copy.style.background = getComputedStyle(document.body).backgroundColor;
  return 'data:image/svg+xml;charset=utf-8,' +
    encodeURIComponent(new XMLSerializer().serializeToString(copy));
};
const save = (href, name) => {
  const link = document.createElement('a');
  link.href = href;
  link.download = name;
  link.click();
};
const savePng = (svg, name) => {
  const image = new Image(), box = svg.viewBox.baseVal, canvas = document.createElement('canvas');
  image.onload = () => {
    canvas.width = 3 * box.width;
    canvas.height = 3 * box.height;
    canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
    save(canvas.toDataURL('image/png'), name + '.png');
  };
  image.src = alone(svg);
};
document.querySelectorAll('article svg.chart').forEach((svg, i) => {
  const name = svg.closest('article').id + '-' + i, box = document.createElement('span');
  box.className = 'saves';
  for (const kind of ['SVG', 'PNG']) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = kind;
    button.title = 'save this figure as ' + kind;
    button.onclick = () => kind === 'SVG' ? save(alone(svg), name + '.svg') : savePng(svg, name);
    box.append(button);
  }
  svg.after(box);
});
// The text: two base-36 letters a token and layer.
const select = document.getElementById('layer'),)js"
         R"js( buttons = [...document.querySelectorAll('.experts button')];
let only = null;
const paint = () => {
  for (const text of document.querySelectorAll('.tokens')) {
    const codes = text.dataset.layers.split(' ')[+select.value] ?? '';
    let token = 0;
    for (const span of text.children) {
      const ids = [];
      for (let n = +(span.dataset.n ?? 1); n > 0; --n, ++token) {
        const code = codes.substr(2 * token, 2);
        ids.push(code === '' || code === '--' ? -1 : parseInt(code, 36));
      }
      const colour = ids[0] < 0 ? -1 : ids[0] % 64;
      span.className = (colour < 0 ? 'no' : 'e' + colour) + (only !== null && colour !== only )js"
         R"js(? ' off' : '');
      span.title = (ids.length > 1 ? 'experts ' : 'expert ') + ids.map(e => e < 0 ? 'none' : )js"
         R"js(e).join(', ');
    }
  }
  for (const b of buttons) b.setAttribute('aria-pressed', +b.dataset.e === only);
};
if (select) {
  select.onchange = paint;
  for (const b of buttons) b.onclick = () => { only = +b.dataset.e === only ? null : )js"
         R"js(+b.dataset.e; paint(); };
  paint();
}
)js";
}

}  // namespace moe::drawing
