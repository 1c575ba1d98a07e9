// The credit of one response: lines of columns (tokens or words) as wide as the page, under each a row a method.

const SUM_WIDTH = 64, COLUMN_GAP = 2, COLUMN_PAD = 8;
const pen = document.createElement("canvas").getContext("2d");

function make(tag, settings = {}, children = []) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(settings)) {
    if (key === "class") node.className = value;
    else if (key in node && typeof value !== "string") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function textWidth(text, font) {
  pen.font = `${font} system-ui, "Segoe UI", "DejaVu Sans", sans-serif`;
  return Math.ceil(pen.measureText(text).width);
}

// As scar/report/credit.py writes numbers: two digits, a sign but for zero, a real minus.
function shown(value) {
  return Math.abs(value) < 0.005 ? "0.00" : (value > 0 ? "+" : "\u2212") + Math.abs(value).toFixed(2);
}

function valueOf(method, [start, end]) {
  return method.credit.slice(start, end).reduce((sum, value) => sum + value, 0);
}

function headingOf(sample, [start, end]) {
  if (sample.finished && start === sample.tokens.length - 1) return "<EOS>";
  return sample.tokens.slice(start, end).join("");
}

function visible(text) {
  return text === "" ? "\u2205" : text.replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5");
}

// Fewest lines of columns within `room`, the last of which leaves `behind` free; a column wider than the room is cut to it.
function linesOf(widths, room, behind) {
  const lines = [];
  let used = Infinity;
  const put = (column, width) => {
    if (used + width > room) { lines.push([]); used = 0; }
    lines.at(-1).push({ column, width });
    used += width + COLUMN_GAP;
  };
  widths.forEach((width, column) => put(column, Math.min(width, room - behind)));
  if (used + behind > room && lines.at(-1).length > 1) lines.push([lines.at(-1).pop()]);
  return lines;
}

function largestOf(sample, labels, kind) {
  return Math.max(0, ...labels.flatMap((label) => {
    const method = sample.methods[label];
    return method.pieces[kind].map((piece) => Math.abs(valueOf(method, piece)));
  }));
}

function paint(node, value, largest) {
  if (value === 0 || largest === 0) return;
  node.classList.add(value > 0 ? "positive" : "negative");
  node.style.setProperty("--strength", (0.8 * Math.sqrt(Math.min(Math.abs(value) / largest, 1))).toFixed(3));
}

function describe(sample, info, method, piece, value) {
  const inUnit = method.units && piece[0] < sample.tokens.length - (sample.finished ? 1 : 0);
  const count = inUnit ? method.units.filter(([start]) => start >= piece[0] && start < piece[1]).length : 0;
  const what = count === 1 ? "unit" : count > 1 ? `${count} units` : piece[1] - piece[0] === 1 ? "token" : "tokens";
  const share = sample.credited === 0 ? "" : `, ${(100 * value / sample.credited).toFixed(1)} % of ${shown(sample.credited)}`;
  const places = piece[1] - piece[0] === 1 ? `${piece[0]}` : `${piece[0]} to ${piece[1] - 1}`;
  const paid = count === 1 && piece[1] - piece[0] > 1 ? `, paid at its last token (${piece[1] - 1})` : "";
  return `${info.name}: ${what} "${headingOf(sample, piece)}" (token ${places})${paid}: ${value.toFixed(4)}${share}`;
}

function rowOf(sample, info, kind, columns, line, largest, last) {
  const method = sample.methods[info.label];
  const first = line[0].column, after = line.at(-1).column + 1;
  const row = make("tr", {}, [make("th", { scope: "row" }, [info.name])]);
  const limit = sample.tokens.length - (sample.finished ? 1 : 0);
  for (const piece of method.pieces[kind]) {
    const held = [...columns.keys()].filter((c) => c >= first && c < after && columns[c][0] >= piece[0] && columns[c][1] <= piece[1]);
    if (!held.length) continue;
    const value = valueOf(method, piece);
    const ends = columns[held.at(-1)][1] === piece[1];
    const cell = make("td", { colSpan: held.length, tabIndex: -1 }, [ends ? shown(value) : "\u2026"]);
    cell.title = describe(sample, info, method, piece, value);
    if (method.units && piece[1] <= limit) cell.classList.add("unit");
    if (columns[held[0]][0] !== piece[0]) cell.classList.add("from-before");
    if (!ends) cell.classList.add("goes-on");
    paint(cell, value, largest);
    row.append(cell);
  }
  if (last) row.append(make("td", { class: "total", title: `${info.name}: sum over all tokens ${method.sum}` }, [`= ${shown(method.sum)}`]));
  return row;
}

// Pixels within the padding of an element.
function roomIn(target) {
  const style = getComputedStyle(target);
  return target.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 3 * COLUMN_GAP;
}

function drawCredit(target, sample, methods, kind, ownScale) {
  const columns = kind === "words" ? sample.words : sample.tokens.map((_, place) => [place, place + 1]);
  const headings = columns.map((column) => headingOf(sample, column));
  const numbers = columns.map((column) => Math.max(...methods.map(({ label }) => textWidth(shown(valueOf(sample.methods[label], column)), "11px"))));
  const widths = headings.map((text, c) => Math.max(textWidth(visible(text), "13px"), numbers[c]) + COLUMN_PAD);
  const space = roomIn(target), labelWidth = space > 700 ? 152 : 98;
  const lines = linesOf(widths, Math.max(space - labelWidth, 160), SUM_WIDTH);
  const shared = largestOf(sample, methods.map(({ label }) => label), kind);
  target.replaceChildren(...lines.map((line, number) => {
    const last = number === lines.length - 1;
    const heads = line.map(({ column }) => {
      const eos = sample.finished && columns[column][0] === sample.tokens.length - 1;
      const kindOf = eos ? "eos" : headings[column] === "" ? "none" : "";
      const head = make("th", { scope: "col", class: kindOf, dir: "auto" }, [visible(headings[column])]);
      head.title = headings[column] === "" ? "completes no character" : headings[column];
      return head;
    });
    const widthsOf = [labelWidth, ...line.map(({ width }) => width), ...(last ? [SUM_WIDTH] : [])];
    const table = make("table", {}, [
      make("colgroup", {}, widthsOf.map((width) => make("col", { style: `width:${width}px` }))),
      make("thead", {}, [make("tr", {}, [make("th"), ...heads])]),
      make("tbody", {}, methods.map((info) => {
        const largest = ownScale ? largestOf(sample, [info.label], kind) : shared;
        return rowOf(sample, info, kind, columns, line, largest, last);
      })),
    ]);
    table.style.width = `${widthsOf.reduce((sum, width) => sum + width + COLUMN_GAP, COLUMN_GAP)}px`;
    table.setAttribute("aria-label", `Credit, line ${number + 1} of ${lines.length}`);
    return table;
  }));
  const start = target.querySelector("td");
  if (start) start.tabIndex = 0;
}

// Arrow keys move between the numbers of all lines; one of them can be reached with Tab.
function moveInTable(target, event) {
  const cell = event.target.closest("td");
  if (!cell) return false;
  const row = cell.parentElement, rows = [...target.querySelectorAll("tbody tr")];
  const cells = [...row.querySelectorAll("td")];
  const place = cells.indexOf(cell), line = rows.indexOf(row);
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step) return false;
  const beside = rows[line + step[0]];
  const next = step[1] ? cells[place + step[1]] : beside && [...beside.querySelectorAll("td")][Math.min(place, beside.querySelectorAll("td").length - 1)];
  if (next) {
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
  event.preventDefault();
  return true;
}
