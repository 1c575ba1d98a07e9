// Trees over the words or units of a response, drawn from left to right over their leaves.

const LEVEL = 30, LEAF_PAD = 14;

// A parse tree in nested lists: [label, ...children]; a word is a string.
function parseNode(tree) {
  if (typeof tree === "string") return { text: tree, children: [] };
  return { text: tree[0], inner: true, children: tree.slice(1).map(parseNode) };
}

// The binary tree over units; each node holds the credit of the units below it.
function unitNode(sample, method) {
  const nodes = method.units.map(([start, end, value]) => ({ text: visible(headingOf(sample, [start, end]).trim()), value, children: [] }));
  for (const [left, right] of method.hierarchy) {
    const value = nodes[left].value + nodes[right].value;
    nodes.push({ text: shown(value), inner: true, value, children: [nodes[left], nodes[right]] });
  }
  return nodes.at(-1);
}

function layOut(roots) {
  let right = 0, deepest = 0;
  const leaves = [], low = []; // low: labels of words, which stand right above them
  function visit(node, depth) {
    node.depth = depth;
    deepest = Math.max(deepest, depth);
    if (!node.children.length) {
      const width = Math.max(textWidth(node.text, "12px"), "value" in node ? textWidth(shown(node.value), "11px") : 0) + LEAF_PAD;
      Object.assign(node, { x: right + width / 2, width });
      right += width;
      leaves.push(node);
      return;
    }
    node.children.forEach((child) => visit(child, depth + 1));
    if (node.inner && node.children.every((child) => !child.children.length) && !("value" in node)) low.push(node);
    node.x = (node.children[0].x + node.children.at(-1).x) / 2;
  }
  roots.forEach((root) => visit(root, 0));
  leaves.forEach((leaf) => { leaf.depth = deepest; });
  low.forEach((node) => { node.depth = deepest - 1; });
  return { width: right, deepest };
}

function draw(tag, settings, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(settings)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function drawTree(target, roots, largest, name) {
  const { width, deepest } = layOut(roots);
  const height = (deepest + 1) * LEVEL + (largest ? 22 : 2);
  const svg = draw("svg", { width: width + 2, height, role: "img", "aria-label": name });
  const y = (node) => node.depth * LEVEL + 16;
  function visit(node) {
    for (const child of node.children) {
      svg.append(draw("path", { d: `M${node.x} ${y(node) + 6}v6H${child.x}V${y(child) - 10}` })); // corners: lines never cross
      visit(child);
    }
    const leafValue = !node.children.length && "value" in node;
    if (leafValue) {
      const box = draw("rect", { x: node.x - node.width / 2 + 2, y: y(node) - 12, width: node.width - 4, height: 36, rx: 3 });
      paint(box, node.value, largest);
      svg.append(box, draw("text", { x: node.x, y: y(node) + 19, class: "value" }, shown(node.value)));
    }
    svg.append(draw("text", { x: node.x, y: y(node) + 3, ...(node.inner ? { class: "inner" } : {}) }, node.text));
  }
  roots.forEach(visit);
  target.replaceChildren(svg);
}
