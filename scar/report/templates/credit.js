// What is looked at, and how to get around.

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const state = { chosen: 0, order: [], kind: "tokens", own: false, tree: null };

function snippet(text) {
  return text.replace(/\s+/g, " ").trim().slice(0, 80);
}

function list() {
  const wanted = at("search").value.toLowerCase();
  const order = at("order").value;
  const fits = (sample) => `${sample.prompt}\n${sample.tokens.join("")}`.toLowerCase().includes(wanted);
  state.order = [...data.samples.keys()].filter((place) => fits(data.samples[place]));
  const reward = (place) => data.samples[place].reward;
  if (order === "high") state.order.sort((a, b) => reward(b) - reward(a));
  if (order === "low") state.order.sort((a, b) => reward(a) - reward(b));
  at("found").textContent = `${state.order.length} of ${data.samples.length} responses; mean reward ${mean(state.order.map(reward))}`;
  at("list").replaceChildren(...state.order.map((place) => {
    const sample = data.samples[place];
    const button = make("button", { type: "button", "data-place": String(place) }, [
      make("span", { class: "reward" }, [shown(sample.reward)]),
      make("span", { class: "snippet" }, [snippet(sample.tokens.join(""))]),
    ]);
    button.addEventListener("click", () => choose(place));
    return make("li", {}, [button]);
  }));
}

function mean(values) {
  return values.length ? shown(values.reduce((sum, value) => sum + value, 0) / values.length) : "-";
}

function choose(place) {
  state.chosen = place;
  history.replaceState(null, "", `#${data.samples[place].number}`);
  show();
}

function step(by) {
  const here = state.order.indexOf(state.chosen);
  const next = here < 0 ? state.order[0] : state.order[here + by];
  if (next !== undefined) choose(next);
}

function show() {
  const sample = data.samples[state.chosen];
  const here = state.order.indexOf(state.chosen);
  for (const button of at("list").querySelectorAll("button")) {
    const current = Number(button.dataset.place) === state.chosen;
    button.setAttribute("aria-current", String(current));
    if (current) button.scrollIntoView({ block: "nearest" });
  }
  at("place").textContent = here < 0 ? "not in this list" : `${here + 1} of ${state.order.length} (number ${sample.number})`;
  at("previous").disabled = here === 0;
  at("next").disabled = here === state.order.length - 1;
  at("prompt").replaceChildren(make("span", { class: "label" }, ["Prompt  "]), make("span", { id: "prompt-text" }, [sample.prompt]));
  const rule = sample.credited === sample.reward ? "" : `; a rule of the task replaced it, so credit sums to ${shown(sample.credited)}`;
  at("reward").replaceChildren(make("span", { class: "label" }, ["Raw reward  "]), make("b", {}, [shown(sample.reward)]), rule);
  at("words").setAttribute("aria-pressed", String(state.kind === "words"));
  at("own").setAttribute("aria-pressed", String(state.own));
  drawCredit(at("credit"), sample, data.methods, state.kind, state.own);
  at("detail").textContent = "Point at a number, or move to one with Tab and the arrow keys, for its details.";
  showTrees(sample);
}

function showTrees(sample) {
  const options = data.methods.flatMap(({ label, name }) => {
    const method = sample.methods[label];
    const found = [];
    if (method.trees && method.trees.length) found.push({ key: `${label} parse`, name: `${name}: parse tree`, roots: () => method.trees.map(parseNode) });
    if (method.units && method.units.length) found.push({ key: `${label} units`, name: `${name}: tree over units`, roots: () => [unitNode(sample, method)], label });
    return found;
  });
  at("trees").hidden = !options.length;
  if (!options.length) return;
  const chosen = options.find(({ key }) => key === state.tree) ?? options.find(({ key }) => key.endsWith("parse")) ?? options[0];
  at("which").replaceChildren(...options.map(({ key, name }) => make("option", { value: key, selected: key === chosen.key }, [name])));
  const largest = chosen.label ? Math.max(...sample.methods[chosen.label].units.map(([, , value]) => Math.abs(value))) : 0;
  drawTree(at("canvas"), chosen.roots(), largest, chosen.name);
}

function toggle(key) {
  if (key === "w") state.kind = state.kind === "words" ? "tokens" : "words";
  else state.own = !state.own;
  show();
}

function legend() {
  const swatch = (kind, text) => {
    const box = make("span", { class: "swatch" });
    box.style.background = `rgb(var(--${kind}) / 0.8)`;
    return make("span", {}, [box, text]);
  };
  at("legend").replaceChildren(
    swatch("positive", "adds to the reward"), swatch("negative", "takes away"),
    make("span", {}, ["strength: square root of |credit| over the largest"]),
    make("span", {}, ["frame: a unit of SCAR (in words: the units of the word)"]),
  );
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) return;
  if (moveInTable(at("credit"), event)) return;
  if (event.target.id === "canvas") return;
  if (event.key === "ArrowLeft" || event.key === "k") step(-1);
  else if (event.key === "ArrowRight" || event.key === "j") step(1);
  else if (event.key === "w" || event.key === "s") toggle(event.key);
  else if (event.key === "/") { at("search").focus(); event.preventDefault(); }
}

function detail(event) {
  const cell = event.target.closest("td[title]");
  if (cell) at("detail").textContent = cell.title;
}

at("about").textContent = data.about;
at("notes").querySelector("ul").replaceChildren(...data.notes.map((note) => make("li", {}, [note])));
legend();
for (const [id, event, action] of [
  ["search", "input", () => { list(); show(); }], ["order", "change", () => { list(); show(); }],
  ["previous", "click", () => step(-1)], ["next", "click", () => step(1)],
  ["words", "click", () => toggle("w")], ["own", "click", () => toggle("s")],
  ["which", "change", () => { state.tree = at("which").value; show(); }],
  ["credit", "mouseover", detail], ["credit", "focusin", detail],
]) at(id).addEventListener(event, action);
document.addEventListener("keydown", onKey);
list();
const asked = data.samples.findIndex(({ number }) => `#${number}` === location.hash);
state.chosen = Math.max(asked, 0);
show();
let width = at("credit").clientWidth;
new ResizeObserver(() => {
  if (at("credit").clientWidth !== width) { width = at("credit").clientWidth; show(); }
}).observe(at("credit"));
