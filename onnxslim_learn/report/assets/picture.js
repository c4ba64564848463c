// The network as a picture: layers as boxes as wide as they have units, blocks folded; a click tells of a group.
document.querySelectorAll(".picture").forEach((place) => {
  "use strict";
  const data = JSON.parse(place.querySelector("script").textContent);
  const { words, groups, hues: HUES } = data;
  const pair = (told) => (Array.isArray(told) ? told : [told, told]);
  const nodes = data.nodes.map(([name, op, module, width, macs, params, group, inputs, ms]) => ({
    name, op_type: words[op], module: words[module], width: width ? pair(width) : null, macs: pair(macs), params: pair(params),
    group: groups[group]?.name ?? null, inputs, ms: ms === undefined ? null : pair(ms) }));
  const MOST = 36, BAR = 14, LONGEST = 180, LINE = 18, PAD = 10, LETTER = 6.9, LAYERS = 8, RUN = 40, HEAD = 18;
  const SVG = "http://www.w3.org/2000/svg";
  const make = (tag, about = {}, ...inside) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(about)) element.setAttribute(name, value);
    element.append(...inside);
    return element;
  };
  const html = (tag, about = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), about);
    element.append(...inside);
    return element;
  };
  const ofName = new Map(groups.map((group, number) => [group.name, { ...group, number }]));
  const colour = (name) => {
    const group = ofName.get(name);
    return group && group.prunable !== false ? `hsl(${HUES[group.number % HUES.length]} 48% ${52 - 9 * (Math.floor(group.number / HUES.length) % 3)}%)` : "var(--still)";
  };
  const widest = Math.max(1, ...nodes.map((node) => Math.max(...(node.width ?? [0]))));
  const length = (units) => Math.max(4, LONGEST * Math.sqrt(units / widest));

  // --- blocks: a tree by modules, or runs of so many where the file has none ------------------------------------------
  const root = { path: "", children: new Map(), leaves: [], count: 0 };
  const nameless = nodes.filter((node) => !node.module).length > RUN;
  const runs = Math.max(RUN, Math.ceil(nodes.length / MOST));
  nodes.forEach((node, number) => {
    const module = node.module || (nameless ? `nodes ${Math.floor(number / runs) * runs + 1} to ${Math.min((Math.floor(number / runs) + 1) * runs, nodes.length)}` : "");
    let at = root;
    at.count += 1;
    for (const word of module ? (node.module ? module.split(".") : [module]) : []) {
      const path = at.path ? `${at.path}.${word}` : word;
      if (!at.children.has(word)) at.children.set(word, { path, children: new Map(), leaves: [], count: 0, above: at });
      at = at.children.get(word);
      at.count += 1;
    }
    at.leaves.push(number);
    node.at = at;
  });
  // Of very many blocks beside each other, runs are folded together.
  const bundle = (block) => {
    block.children.forEach(bundle);
    const inner = [...block.children], size = Math.ceil(inner.length / (MOST - 6));
    if (inner.length <= MOST) return;
    block.children = new Map();
    for (let first = 0; first < inner.length; first += size) {
      const some = inner.slice(first, first + size), path = `${some[0][1].path} to ${some.at(-1)[0]}`;
      const run = { path, children: new Map(some), leaves: [], count: some.reduce((sum, [, one]) => sum + one.count, 0), above: block };
      some.forEach(([, one]) => { one.above = run; });
      block.children.set(path, run);
    }
  };
  bundle(root);
  const simple = (block) => block.children.size === 0 && block.leaves.length === 1;
  const parts = (block) => block.leaves.length + [...block.children.values()].length;
  const open = new Set([root]);
  const unfold = (block) => {
    open.add(block);
    for (let at = block; parts(at) === 1 && at.children.size === 1;) { at = [...at.children.values()][0]; open.add(at); }
  };
  const fold = () => {
    open.clear();
    unfold(root);
    for (let shown = visible().length; ;) {
      const candidates = visible().filter((one) => one.children && shown - 1 + parts(one) <= MOST).sort((a, b) => b.count - a.count);
      if (!candidates.length) return;
      unfold(candidates[0]);
      shown = visible().length;
    }
  };
  // A box for every node: itself, or the outermost block around it that is folded.
  const box = (number) => {
    let shown = number;
    for (let at = nodes[number].at; at; at = at.above) if (!open.has(at) && !simple(at)) shown = at;
    return shown;
  };
  const visible = () => [...new Set(nodes.map((_, number) => box(number)))];
  const inside = (item) => (typeof item === "number" ? [item] : nodes.map((_, number) => number).filter((number) => {
    for (let at = nodes[number].at; at; at = at.above) if (at === item) return true;
    return false;
  }));

  // --- drawing ------------------------------------------------------------------------------------------------------
  const text = (node) => {
    if (node.op_type === "input") return node.name;
    const words = node.module.split(".");
    if (words.length > 1 && words.at(-1).toLowerCase() === node.op_type.toLowerCase()) words.pop();
    return `${node.op_type}${node.module ? ` · ${short(words.slice(-2).join("."), 24)}` : ""}`;
  };
  const units = (width) => (!width ? "" : width[0] === width[1] ? `${width[0]}` : `${width[0]} → ${width[1]}`);
  const changes = (node) => node.width && document.querySelector(".chooser") && ofName.get(node.group)?.prunable !== false && ofName.has(node.group);
  const count = (number) => {
    for (const [scale, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) if (number >= scale) return `${+(number / scale).toPrecision(3)}${unit}`;
    return `${number}`;
  };
  const short = (label, most = 34) => (label.length > most ? `…${label.slice(1 - most)}` : label);
  // A block by what its name adds to that of the block around it.
  const inner = (block, around) => short(around && around !== root && block.path.startsWith(`${around.path}.`) ? block.path.slice(around.path.length + 1) : block.path);
  const drawnAround = (block) => {
    let at = block.above;
    while (at && at !== root && parts(at) < 2) at = at.above;
    return at;
  };
  const look = (item) => {
    if (typeof item === "number") {
      const node = nodes[item];
      const label = text(node);
      const told = units(node.width);
      const longest = changes(node) ? units([node.width[0], 10 * node.width[0] - 1]) : told; // what widths to try may say
      const bar = node.width ? length(Math.max(...node.width)) : 0;
      const wide = Math.max(label.length * LETTER, bar + (told ? longest.length * LETTER + 6 : 0)) + 2 * PAD;
      return { label, told, width: wide, height: node.width ? LINE + BAR + 14 : LINE + 10 };
    }
    const members = inside(item).filter((number) => nodes[number].width && nodes[number].macs[0] + nodes[number].params[0] > 0);
    const step = Math.max(1, Math.ceil(members.length / LAYERS));
    const bars = members.filter((_, k) => k % step === 0);
    const label = inner(item, drawnAround(item)), told = `${item.count} nodes`;
    const wide = Math.max((label.length + 2) * LETTER + 8, told.length * LETTER, ...bars.map((number) => length(Math.max(...nodes[number].width)))) + 2 * PAD;
    return { label, told, bars, width: wide, height: LINE * 2 + bars.length * 6 + 10 };
  };
  const bar = (width, x, y, height, fill) => {
    const [before, after] = width.map(length);
    const drawn = width[1] > 0 ? [make("rect", { x, y, width: after, height, rx: 2, fill, class: "units" })] : [];
    if (before !== after) drawn.push(make("rect", { x, y, width: before, height, rx: 2, class: "units before", stroke: before < after ? "var(--ink)" : fill }));
    return drawn;
  };
  let scale = 1, chosen = null, sought = "";
  const stage = html("div", { className: "stage", tabIndex: 0, ariaLabel: "The network; arrows move it" });
  const panel = html("div", { className: "panel", ariaLive: "polite" });
  const draw = () => {
    const shown = visible();
    const key = new Map(shown.map((item, k) => [item, `n${k}`]));
    const graph = new dagre.graphlib.Graph({ compound: true });
    graph.setGraph({ rankdir: "TB", nodesep: 18, ranksep: 34, marginx: 16, marginy: 24 });
    graph.setDefaultEdgeLabel(() => ({}));
    const looks = new Map(shown.map((item) => [item, look(item)]));
    for (const item of shown) graph.setNode(key.get(item), { ...looks.get(item) });
    const around = new Map();
    for (const item of shown) {
      let at = typeof item === "number" ? nodes[item].at : item.above;
      while (at && at !== root && (simple(at) || parts(at) < 2)) at = at.above;
      let child = key.get(item);
      for (; at && at !== root; ) {
        const id = `b:${at.path}`;
        const known = around.has(at);
        if (!known) { around.set(at, id); graph.setNode(id, {}); }
        graph.setParent(child, id);
        if (known) break;
        child = id;
        at = at.above;
        while (at && at !== root && parts(at) < 2) at = at.above;
      }
    }
    const edges = new Set();
    nodes.forEach((node, number) => node.inputs.forEach((from) => {
      const [a, b] = [key.get(box(from)), key.get(box(number))];
      if (a !== b) edges.add(`${a} ${b}`);
    }));
    for (const edge of edges) graph.setEdge(...edge.split(" "));
    dagre.layout(graph);
    const { width, height } = graph.graph();
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width: width * scale, height: height * scale });
    if (scale < 0.9) svg.setAttribute("class", "far");
    for (const [block, id] of [...around].sort((a, b) => a[0].path.length - b[0].path.length)) {
      const at = graph.node(id);
      const top = at.y - at.height / 2 - HEAD;
      const header = make("text", { x: at.x - at.width / 2 + 8, y: top + 15, class: "fold" }, `▾ ${inner(block, drawnAround(block))}`);
      const group = make("g", { class: "around", tabindex: 0, role: "button", "aria-label": `fold ${block.path}` },
        make("rect", { x: at.x - at.width / 2, y: top, width: Math.max(at.width, (header.textContent.length + 1) * LETTER), height: at.height + HEAD, rx: 8 }), header);
      act(group, () => { open.delete(block); draw(); });
      svg.append(group);
    }
    for (const edge of graph.edges()) {
      const points = graph.edge(edge).points.map((point) => `${point.x.toFixed(1)} ${point.y.toFixed(1)}`);
      svg.append(make("path", { d: `M${points.join("L")}`, class: "edge" }));
    }
    for (const item of shown) svg.append(boxed(item, graph.node(key.get(item)), looks.get(item)));
    stage.replaceChildren(svg);
    mark();
  };
  const boxed = (item, at, told) => {
    const x = at.x - at.width / 2, y = at.y - at.height / 2;
    const folded = typeof item !== "number";
    const group = make("g", { class: folded ? "block" : "node", tabindex: 0, role: "button", "aria-label": folded ? `unfold ${item.path}` : nodes[item].name },
      make("rect", { x, y, width: at.width, height: at.height, rx: 6, class: "frame" }),
      make("text", { x: x + PAD, y: y + LINE }, folded ? `▸ ${told.label}` : told.label));
    if (folded) {
      group.append(make("text", { x: x + PAD, y: y + LINE * 2 - 2, class: "soft" }, told.told));
      group.fill = () => told.bars.flatMap((number, k) => bar(nodes[number].width, x + PAD, y + LINE * 2 + 4 + 6 * k, 4, colour(nodes[number].group)));
      act(group, () => { unfold(item); draw(); });
    } else {
      const node = nodes[item];
      if (node.width) {
        const label = make("text", { x: x + PAD + length(Math.max(...node.width)) + 6, y: y + LINE + 17, class: "soft" });
        group.append(label);
        group.fill = () => { label.textContent = units(node.width); return bar(node.width, x + PAD, y + LINE + 6, BAR, colour(node.group)); };
      }
      act(group, () => { chosen = item; tell(); mark(); });
    }
    group.append(...(group.fill?.() ?? []));
    group.item = item;
    return group;
  };
  const act = (element, what) => {
    element.addEventListener("click", (event) => { event.stopPropagation(); what(); });
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); what(); }
    });
  };
  // --- widths to try ------------------------------------------------------------------------------------------------
  const whole = new Set();
  document.addEventListener("widths", ({ detail }) => {
    for (const node of nodes) {
      const tried = node.width && detail.get(node.group);
      if (tried) node.width = [node.width[0], Math.round(node.width[0] * tried.share)];
    }
    for (const [name, tried] of detail) whole[tried.kept ? "add" : "delete"](name);
    for (const group of stage.querySelectorAll(".node, .block")) {
      group.querySelectorAll(".units").forEach((one) => one.remove());
      group.append(...(group.fill?.() ?? []));
    }
    mark();
    tried();
  });
  // What moves the width of the group that is clicked, and keeps it whole.
  let tried = () => {};
  const mover = (group) => {
    const place = window.chooser?.places.get(group.name);
    tried = () => {};
    if (place === undefined) return [];
    const slider = html("input", { type: "range", min: chooser.floors[place], max: chooser.tops[place], step: chooser.steps[place], ariaLabel: "units that stay" });
    const told = html("output"), keep = html("button", { type: "button", className: "keep" });
    slider.oninput = () => chooser.set(place, +slider.value);
    keep.onclick = () => chooser.protect(place, !chooser.kept[place]);
    tried = () => {
      slider.value = chooser.chosen[place];
      slider.disabled = chooser.kept[place];
      told.textContent = `${chooser.chosen[place]} of ${chooser.units[place]}`;
      keep.textContent = chooser.kept[place] ? "Let it be cut" : "Keep it whole";
      keep.setAttribute("aria-pressed", chooser.kept[place]);
    };
    tried();
    return [html("div", { className: "mover" }, slider, told, keep)];
  };
  // --- what is chosen, and what is sought -----------------------------------------------------------------------------
  const mark = () => {
    const tied = chosen === null ? null : nodes[chosen].group;
    for (const group of stage.querySelectorAll(".node, .block")) {
      const members = inside(group.item);
      group.classList.toggle("tied", tied !== null && members.some((number) => nodes[number].group === tied));
      group.classList.toggle("chosen", group.item === chosen);
      group.classList.toggle("whole", members.some((number) => whole.has(nodes[number].group)));
      group.classList.toggle("hit", sought.length > 0 && members.some((number) => matches(nodes[number])));
    }
  };
  const matches = (node) => {
    const told = `${node.name} ${node.module} ${ofName.get(node.group)?.members?.join(" ") ?? node.group ?? ""}`.toLowerCase();
    return told.replaceAll("/", ".").includes(sought);
  };
  document.addEventListener("find", (event) => {
    sought = event.detail;
    if (sought.length) {
      const hits = nodes.map((_, number) => number).filter((number) => matches(nodes[number]));
      if (hits.length && hits.length <= 12) for (const number of hits) for (let at = nodes[number].at; at; at = at.above) open.add(at);
    }
    draw();
    stage.querySelector(".hit")?.scrollIntoView?.({ block: "nearest", inline: "center" });
  });
  const share = (part) => `${(100 * part).toFixed(1)} %`;
  const row = (label, value) => (value ? [html("dt", {}, label), html("dd", {}, value)] : []);
  const tell = () => {
    const node = nodes[chosen], group = ofName.get(node.group);
    const list = html("dl", {},
      ...row("node", `${node.name} (${node.op_type})`), ...row("module", node.module), ...row("units", units(node.width)),
      ...row("MACs", node.macs[0] ? (node.macs[0] === node.macs[1] ? count(node.macs[0]) : `${count(node.macs[0])} → ${count(node.macs[1])}`) : ""),
      ...row("parameters", node.params[0] ? (node.params[0] === node.params[1] ? count(node.params[0]) : `${count(node.params[0])} → ${count(node.params[1])}`) : ""));
    const took = (ms) => `${+ms.toPrecision(3)}`;
    if (node.ms) list.append(...row("time", `${node.ms[0] === node.ms[1] ? took(node.ms[0]) : `${took(node.ms[0])} → ${took(node.ms[1])}`} ms`));
    const told = [html("h4", {}, "This layer"), list];
    if (group) {
      const kept = group.kept ?? group.after;
      const members = group.members ?? [];
      told.push(html("h4", {}, "Its units go together"), html("dl", {},
        ...row("group", group.title), ...row("named", group.name),
        ...row("units", kept === undefined ? `${group.width}` : `${group.width} → ${kept}`),
        ...row("tied", members.length ? `${members.join("\n")}${group.more ? `\nand ${group.more} more` : ""}` : ""),
        ...row("why", group.because ? `cannot be cut: ${group.because}` : members.length > 1 ? "each position of these axes is read with the same position of the others" : "nothing else reads these units"),
        ...row("saves", group.macs_share === undefined ? "" : `${share(group.macs_share)} of the MACs and ${share(group.params_share)} of the parameters with all of its units`),
        ...row("loses", group.lost ?? "")), ...mover(group));
    } else told.push(html("p", {}, "No group of units: what it puts out is not cut."));
    const close = html("button", { type: "button", textContent: "Close" });
    close.onclick = () => { chosen = null; panel.replaceChildren(); mark(); };
    panel.replaceChildren(...told, close);
  };

  // --- zoom ---------------------------------------------------------------------------------------------------------
  const zoom = (factor) => {
    const svg = stage.firstElementChild, box = svg.viewBox.baseVal;
    scale = Math.min(3, Math.max(0.1, factor));
    svg.setAttribute("width", box.width * scale);
    svg.setAttribute("height", box.height * scale);
    svg.setAttribute("class", scale < 0.9 ? "far" : "");
  };
  const button = (label, what, title) => {
    const one = html("button", { type: "button", textContent: label, title: title ?? label });
    one.onclick = what;
    return one;
  };
  const tools = html("div", { className: "bar" },
    button("+", () => zoom(scale * 1.25), "larger"), button("−", () => zoom(scale / 1.25), "smaller"),
    button("Fit", () => { const box = stage.firstElementChild.viewBox.baseVal; zoom(Math.min(stage.clientWidth / box.width, Math.max(stage.clientHeight, 300) / box.height)); }, "see all of it"),
    button("1:1", () => zoom(1)), button("Fold", () => { fold(); draw(); }, "fold blocks"));
  if (nodes.length <= 400) tools.append(button("Unfold all", () => { const add = (block) => { open.add(block); block.children.forEach(add); }; add(root); draw(); }));
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoom(scale * (event.deltaY < 0 ? 1.1 : 1 / 1.1));
  }, { passive: false });
  let from = null;
  stage.addEventListener("pointerdown", (event) => { if (event.pointerType === "mouse" && !event.target.closest(".node, .block, .around")) from = [event.clientX + stage.scrollLeft, event.clientY + stage.scrollTop]; });
  addEventListener("pointermove", (event) => { if (from) stage.scrollTo(from[0] - event.clientX, from[1] - event.clientY); });
  addEventListener("pointerup", () => { from = null; });
  fold();
  place.append(tools, html("div", { className: "frame" }, stage, panel));
  draw();
  const first = stage.querySelector(".node, .block").getBoundingClientRect(), frame = stage.getBoundingClientRect();
  stage.scrollLeft += first.left + first.width / 2 - frame.left - frame.width / 2;
});
