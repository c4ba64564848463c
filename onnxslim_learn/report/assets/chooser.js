// Widths to try: costs follow from a formula, losses from the curves that were measured; nothing is run.
(() => {
  "use strict";
  const place = document.querySelector(".chooser");
  if (!place) return;
  const { formula, groups, model, multiple } = JSON.parse(place.querySelector("script").textContent);
  const make = (tag, about = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), about);
    element.append(...inside);
    return element;
  };
  const value = (cost, shares) => {
    const sizes = formula[cost].sizes.map((size) => size.reduce((sum, [positions, places]) => sum + places.reduce((part, k) => part * shares[k], positions), 0));
    return formula[cost].terms.reduce((sum, [coefficient, widths, powers]) => sum + widths.reduce((part, w, k) => part * (sizes[w] ? sizes[w] ** powers[k] : 0), coefficient), 0);
  };
  const count = (number) => {
    for (const [scale, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) if (number >= scale) return `${(number / scale).toPrecision(3)}${unit}`;
    return `${Math.round(number)}`;
  };
  const units = groups.map((group) => group.width);
  const chosen = groups.map((group) => group.kept ?? group.width);
  const kept = groups.map(() => false);
  const step = (group) => (group.rows || group.width < 16 ? 1 : multiple > 1 ? multiple : 4);
  const whole = { macs: value("macs", units.map(() => 1)), params: value("params", units.map(() => 1)) };
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
  const candidates = groups.map((group) => {
    const by = step(group), least = Math.min(by, group.width), list = [];
    for (let width = least; width < group.width; width += by * Math.max(1, Math.round(group.width / by / 16))) list.push(width);
    return [...list, group.width];
  });
  const saved = groups.map((_, k) => candidates[k].map((width) => {
    const others = units.map(() => 1);
    others[k] = width / units[k];
    return whole.macs - value("macs", others);
  }));
  const at = (price) => groups.map((group, k) => {
    if (kept[k]) return group.width;
    if (!known) return candidates[k].reduce((best, width) => (Math.abs(width - price * group.width) < Math.abs(best - price * group.width) ? width : best));
    let best = group.width, least = Infinity;
    candidates[k].forEach((width, place) => {
      const pays = loss(k, width) - price * saved[k][place] / whole.macs;
      if (pays < least) { least = pays; best = width; }
    });
    return best;
  });
  const meet = (budget) => {
    let [low, high] = known ? [-12, 6] : [0, 1], best = at(known ? 1e6 : 0);
    for (let turn = 0; turn < 30; turn += 1) {
      const middle = (low + high) / 2;
      const widths = at(known ? 10 ** middle : middle);
      const fits = value("macs", shares(widths)) <= budget;
      if (fits) best = widths;
      if (fits === known) high = middle; else low = middle;
    }
    best.forEach((width, k) => { chosen[k] = width; });
  };

  // --- what is shown ------------------------------------------------------------------------------------------------
  const figures = make("dl", { className: "tiles" });
  const tile = (label, told, more) => make("div", { className: "tile" }, make("dt", {}, label), make("dd", {}, make("b", {}, told), make("span", {}, more)));
  const command = make("code");
  const copy = make("button", { type: "button", textContent: "Copy" });
  copy.onclick = async () => {
    try { await navigator.clipboard.writeText(command.textContent); copy.textContent = "Copied"; } catch { getSelection().selectAllChildren(command); }
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  };
  const budget = make("input", { type: "range", min: 5, max: 100, step: 1, value: 100, ariaLabel: "budget: share of the MACs, per cent" });
  const said = make("output");
  const rows = groups.map((group, k) => {
    const slider = make("input", { type: "range", min: Math.min(step(group), group.width), max: group.width, step: step(group), ariaLabel: `units of ${group.title}` });
    const keep = make("input", { type: "checkbox", ariaLabel: `keep all of ${group.title}` });
    const told = make("output");
    slider.oninput = () => { chosen[k] = Math.min(+slider.value, group.width); show(false); };
    keep.onchange = () => { kept[k] = keep.checked; if (keep.checked) chosen[k] = group.width; show(false); };
    const row = make("div", { className: "row" }, make("label", { title: group.name }, keep, ` ${group.title}`), slider, told);
    return { row, slider, keep, told };
  });
  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
  const exactly = (name) => `^${name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`;
  const show = (moved) => {
    const part = shares(chosen), macs = value("macs", part), params = value("params", part);
    const lost = chosen.reduce((sum, width, k) => sum + loss(k, width), 0);
    figures.replaceChildren(tile("MACs", count(macs), `${(100 * macs / whole.macs).toFixed(1)} % of ${count(whole.macs)}`),
      tile("Parameters", count(params), `${(100 * params / whole.params).toFixed(1)} % of ${count(whole.params)}`),
      known ? tile("Loss, predicted", lost.toPrecision(3), "the sum of what each group loses by itself, after repair") : tile("Loss", "unknown", "slim --data SAMPLES measures what widths lose"));
    if (!moved) budget.value = Math.round(100 * macs / whole.macs);
    said.textContent = `${budget.value} %`;
    rows.forEach(({ slider, keep, told }, k) => {
      slider.value = chosen[k];
      slider.disabled = keep.checked = kept[k];
      told.textContent = `${chosen[k]} of ${units[k]}`;
    });
    const target = Math.ceil(1e6 * macs / whole.macs) / 1e6;
    // No group may keep less, and the budget lets none keep more.
    const least = (k) => Math.floor(1e6 * chosen[k] / units[k]) / 1e6;
    const options = groups.flatMap(({ name }, k) => (kept[k] ? ["--protect", exactly(name)] : ["--keep", `${exactly(name)}=${least(k)}`]));
    command.textContent = ["onnxslim-learn", "slim", model, "-o", model.replace(/(\.onnx)?$/, "-slim.onnx"), "--target", `macs=${target}`, "--multiple", "1", "--data", "SAMPLES", ...options].map(quoted).join(" ");
  };
  budget.oninput = () => { meet(whole.macs * budget.value / 100); show(true); };
  place.append(figures, make("div", { className: "row budget" }, make("label", {}, "Budget: share of the MACs"), budget, said),
    make("div", { className: "rows" }, ...rows.map(({ row }) => row)), make("p", {}, "A tick keeps a group whole. The command that cuts to these widths:"),
    make("div", { className: "command" }, command, copy));
  window.chooser = { value, shares, chosen, whole };
  show(false);
})();
