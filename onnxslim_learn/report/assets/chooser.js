// Widths to try: costs follow from a formula, losses from curves that are known; nothing is run.
(() => {
  "use strict";
  const place = document.querySelector(".chooser");
  if (!place) return;
  const { formula, groups, model, multiple, losses, options, plans } = JSON.parse(place.querySelector("script").textContent);
  const make = (tag, about = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), about);
    element.append(...inside);
    return element;
  };
  const COSTS = { macs: "MACs", params: "Parameters", ...(formula.latency ? { latency: "Latency" } : {}) };

  // --- what costs are, and what is lost ------------------------------------------------------------------------------
  const value = (cost, shares) => {
    const told = formula[cost], work = new Float64Array(told.sides?.length ?? 1);
    const sizes = told.sizes.map((size) => size.reduce((sum, [positions, places]) => sum + places.reduce((part, k) => part * shares[k], positions), 0));
    for (const [coefficient, widths, powers, side] of told.terms) work[side ?? 0] += widths.reduce((part, w, k) => part * (sizes[w] ? sizes[w] ** powers[k] : 0), coefficient);
    if (!told.sides) return work[0];
    const longest = new Map();
    told.sides.forEach(([part, knots, us], side) => longest.set(part, Math.max(longest.get(part) ?? 0, knots ? curved(work[side], knots, us) : work[side])));
    return told.fixed + told.rate * [...longest.values()].reduce((sum, one) => sum + one, 0);
  };
  const curved = (work, knots, us) => {
    const right = knots.findIndex((knot) => knot >= work);
    if (right < 0) return us.at(-1);
    if (right === 0) return knots[0] > 0 ? us[0] * work / knots[0] : us[0];
    return us[right - 1] + (us[right] - us[right - 1]) * (work - knots[right - 1]) / (knots[right] - knots[right - 1]);
  };
  const count = (number) => {
    for (const [scale, unit] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]]) if (number >= scale) return `${+(number / scale).toPrecision(3)}${unit}`;
    return `${Math.round(number)}`;
  };
  const time = (us) => (us < 1e6 ? `${+(us / 1e3).toPrecision(3)} ms` : `${+(us / 1e6).toPrecision(3)} s`);
  const written = (cost, amount) => (cost === "latency" ? time(amount) : count(amount));
  const units = groups.map((group) => group.width);
  const chosen = groups.map((group) => group.kept ?? group.width);
  const kept = groups.map(() => false);
  // Groups go in steps of their own, those that are wide in multiples beside that.
  const steps = groups.map((group, k) => {
    const least = formula.steps[k];
    return group.rows || group.width < 16 ? least : least * Math.max(1, Math.round((multiple > 1 ? multiple : 4) / least));
  });
  const floors = groups.map((group, k) => Math.min(Math.ceil(Math.max(formula.least[k], steps[k]) / steps[k]) * steps[k], group.width));
  const tops = groups.map((group, k) => floors[k] + Math.ceil((group.width - floors[k]) / steps[k]) * steps[k]); // sliders stop at steps
  const whole = Object.fromEntries(Object.keys(COSTS).map((cost) => [cost, value(cost, units.map(() => 1))]));
  const shares = (widths) => widths.map((width, k) => width / units[k]);
  const curves = groups.map((group) => (group.curve ? [...Object.entries(group.curve).map(([width, loss]) => [+width, Math.max(loss, 0)]), [group.width, 0]].sort((a, b) => a[0] - b[0]) : null));
  const known = curves.some(Boolean);
  const loss = (k, width) => {
    const curve = curves[k];
    if (!curve) return 0;
    const right = curve.findIndex(([at]) => at >= width);
    if (right <= 0) return curve[0][1];
    const [[a, low], [b, high]] = [curve[right - 1], curve[right]];
    return low + ((high - low) * (width - a)) / (b - a);
  };

  // --- the widths that lose least within a budget; without curves all alike -------------------------------------------
  const candidates = groups.map((group, k) => {
    const by = steps[k], list = [];
    for (let width = floors[k]; width < group.width; width += by * Math.max(1, Math.round(group.width / by / 16))) list.push(width);
    return [...list, group.width];
  });
  const savings = {};
  const saved = (cost) => (savings[cost] ??= groups.map((_, k) => candidates[k].map((width) => {
    const others = units.map(() => 1);
    others[k] = width / units[k];
    return (whole[cost] - value(cost, others)) / whole[cost];
  })));
  const at = (price, cost) => groups.map((group, k) => {
    if (kept[k]) return group.width;
    if (!known) return candidates[k].reduce((best, width) => (Math.abs(width - price * group.width) < Math.abs(best - price * group.width) ? width : best));
    let best = group.width, least = Infinity;
    candidates[k].forEach((width, place) => {
      const pays = loss(k, width) - price * saved(cost)[k][place];
      if (pays < least) { least = pays; best = width; }
    });
    return best;
  });
  const meet = (cost, bound) => {
    let [low, high] = known ? [-12, 6] : [0, 1], best = at(known ? 1e6 : 0, cost);
    for (let turn = 0; turn < 30; turn += 1) {
      const middle = (low + high) / 2;
      const widths = at(known ? 10 ** middle : middle, cost);
      const fits = value(cost, shares(widths)) <= bound;
      if (fits) best = widths;
      if (fits === known) high = middle; else low = middle;
    }
    best.forEach((width, k) => { chosen[k] = width; });
  };

  // --- what is shown ------------------------------------------------------------------------------------------------
  const figures = make("dl", { className: "tiles" });
  const tile = (label, told, more) => make("div", { className: "tile" }, make("dt", {}, label), make("dd", {}, make("b", {}, told), make("span", {}, more)));
  const copied = () => {
    const code = make("code"), button = make("button", { type: "button", textContent: "Copy" });
    button.onclick = async () => {
      try { await navigator.clipboard.writeText(code.textContent); button.textContent = "Copied"; } catch { getSelection().selectAllChildren(code); }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    };
    return { code, line: make("div", { className: "command" }, code, button) };
  };
  const command = copied();
  const narrowed = make("p", {}, "A tick keeps a group whole. The command that cuts to these widths, and chooses and repairs on samples:");
  const bounded = make("select", { ariaLabel: "what the budget is of" }, ...Object.entries(COSTS).map(([cost, title]) => make("option", { value: cost }, title)));
  const budget = make("input", { type: "range", min: 5, max: 100, step: 1, value: 100, ariaLabel: "budget: share that is left, per cent" });
  const said = make("output");
  const rows = groups.map((group, k) => {
    const slider = make("input", { type: "range", min: floors[k], max: tops[k], step: steps[k], ariaLabel: `units of ${group.title}` });
    const keep = make("input", { type: "checkbox", ariaLabel: `keep all of ${group.title}` });
    const told = make("output");
    slider.oninput = () => set(k, +slider.value);
    keep.onchange = () => protect(k, keep.checked);
    const row = make("div", { className: "row" }, make("label", { title: group.name }, keep, ` ${group.title}`), slider, told);
    return { row, slider, keep, told };
  });
  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
  const exactly = (name) => `^${name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`;
  const beside = (ending) => model.replace(/(\.onnx)?$/, ending);
  const line = (...words) => words.map(quoted).join(" ");
  const show = (moved) => {
    const part = shares(chosen), costs = Object.fromEntries(Object.keys(COSTS).map((cost) => [cost, value(cost, part)]));
    const share = (cost) => costs[cost] / whole[cost];
    const lost = chosen.reduce((sum, width, k) => sum + loss(k, width), 0);
    figures.replaceChildren(
      ...Object.entries(COSTS).map(([cost, title]) => tile(cost === "latency" ? "Latency, predicted" : title, written(cost, costs[cost]), `${(100 * share(cost)).toFixed(1)} % of ${written(cost, whole[cost])}`)),
      ...(formula.latency ? [] : [tile("Time, by MACs alone", `about ${Math.round(100 * share("macs"))} %`, "if time went with MACs, which it seldom does: view --measure knows")]),
      known ? tile("Loss, predicted", `${+lost.toPrecision(3)}`, losses) : tile("Loss", "unknown", "slim and view find out what widths lose, on --data SAMPLES and with enough --work"));
    if (!moved) budget.value = Math.round(100 * share(bounded.value));
    said.textContent = `${budget.value} %`;
    rows.forEach(({ slider, keep, told }, k) => {
      slider.value = chosen[k];
      slider.disabled = keep.checked = kept[k];
      told.textContent = `${chosen[k]} of ${units[k]}`;
    });
    const target = Math.ceil(1e6 * share("macs")) / 1e6;
    // No group may keep less, and the budget lets none keep more.
    const least = (k) => Math.floor(1e6 * chosen[k] / units[k]) / 1e6;
    const limits = groups.flatMap(({ name }, k) => (kept[k] ? ["--protect", exactly(name)] : ["--keep", `${exactly(name)}=${least(k)}`]));
    const samples = options.includes("--data") ? [] : ["--data", "SAMPLES"];
    narrowed.hidden = command.line.hidden = chosen.every((width, k) => width === units[k]);
    command.code.textContent = line("onnxslim-learn", "slim", model, "-o", beside("-slim.onnx"), "--target", `macs=${target}`, "--multiple", "1", ...samples, ...options, ...limits);
  };
  const change = (moved = false) => {
    show(moved);
    document.dispatchEvent(new CustomEvent("widths", { detail: new Map(groups.map(({ name }, k) => [name, { share: chosen[k] / units[k], kept: kept[k] }])) }));
  };
  const set = (k, width) => { chosen[k] = Math.min(width, units[k]); change(); };
  const protect = (k, on) => { kept[k] = on; if (on) chosen[k] = units[k]; change(); };
  budget.oninput = () => { meet(bounded.value, whole[bounded.value] * budget.value / 100); change(true); };
  bounded.onchange = () => show(false);

  // --- the plan, where somebody serves the page -------------------------------------------------------------------------
  const answer = make("p", { className: "note", ariaLive: "polite" }), apply = copied();
  apply.line.hidden = true;
  const name = beside("-plan.json").split("/").at(-1);
  const save = async () => {
    const widths = Object.fromEntries(groups.map((group, k) => [group.name, chosen[k]]));
    apply.line.hidden = true;
    try {
      const reply = await fetch(plans, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ widths }) });
      const text = await reply.text();
      if (!reply.ok) { answer.textContent = text; return; }
      const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: "application/json" })) });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      const { macs, params } = JSON.parse(text).provenance.after;
      answer.textContent = `${name} is in your downloads: ${macs.toLocaleString("en")} MACs and ${params.toLocaleString("en")} parameters, counted exactly. The command that carries it out:`;
      apply.code.textContent = line("onnxslim-learn", "apply", model, name, "-o", beside("-slim.onnx"), ...options);
      apply.line.hidden = false;
    } catch { answer.textContent = "Nobody answers: view has ended. Start it anew."; }
  };
  const exported = make("button", { type: "button", textContent: "Export plan", className: "export" });
  exported.onclick = save;
  place.append(figures, make("div", { className: "row budget" }, make("label", {}, "Budget of ", bounded), budget, said),
    make("div", { className: "rows" }, ...rows.map(({ row }) => row)),
    ...(plans ? [make("div", { className: "bar" }, exported), answer, apply.line] : []),
    narrowed, command.line);
  window.chooser = { value, shares, chosen, whole, units, steps, floors, tops, set, protect, kept, places: new Map(groups.map((group, k) => [group.name, k])) };
  show(false);
})();
