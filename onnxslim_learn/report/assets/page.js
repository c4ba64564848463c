// Comfort for a page that can be read without: charts, sorting, filtering, searching, copying, light and dark.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, about = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), about);
    element.append(...inside);
    return element;
  };

  // --- light and dark -------------------------------------------------------------------------------------------
  const root = document.documentElement;
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  document.getElementById("theme").onclick = () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a page without a place to keep it */ }
  };

  // --- commands to copy -----------------------------------------------------------------------------------------
  for (const button of all(".copy")) {
    button.hidden = false;
    button.onclick = async () => {
      const code = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        const range = document.createRange();
        range.selectNodeContents(code);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    };
  }

  // --- tables ---------------------------------------------------------------------------------------------------
  const UNITS = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, KiB: 1024, MiB: 1048576, GiB: 1073741824, us: 1e-3, ms: 1, s: 1e3, "%": 0.01 };
  const number = (text) => {
    const parts = /^\s*([+-]?[\d.,]*\d(?:e[+-]?\d+)?)\s*([A-Za-z%]*)/.exec(text);
    return parts ? parseFloat(parts[1].replaceAll(",", "")) * (UNITS[parts[2]] ?? 1) : -Infinity;
  };
  const sort = (table, column, head) => {
    const words = head.classList.contains("w");
    const up = head.getAttribute("aria-sort") === (words ? "ascending" : "descending") ? !words : words;
    all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => {
      const text = row.cells[column]?.textContent ?? "";
      return [words ? text : number(text), row];
    });
    const order = words ? (a, b) => a.localeCompare(b, undefined, { numeric: true }) : (a, b) => a - b;
    keyed.sort((a, b) => (up ? order(a[0], b[0]) : order(b[0], a[0])));
    body.append(...keyed.map(([, row]) => row));
  };
  const filter = (table, text) => {
    const needle = spelled(text).replace(/^\.+/, "");
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const away = needle !== "" && !spelled(row.textContent).includes(needle);
      row.classList.toggle("away", away);
      row.classList.toggle("hit", needle !== "" && !away);
      shown += !away;
    }
    table.classList.toggle("searched", needle !== "");
    return shown;
  };
  // What exporters write as a.b.c stands as /a/b/c in the names of nodes, and may hold both: /a/b.c.
  const spelled = (text) => text.trim().toLowerCase().replaceAll("/", ".");
  const tables = all("table");
  for (const table of tables) {
    const heads = all("thead th", table);
    const rows = table.tBodies[0].rows.length;
    if (rows > 2) {
      heads.forEach((head, column) => {
        head.classList.add("sortable");
        head.tabIndex = 0;
        head.onclick = () => sort(table, column, head);
        head.onkeydown = (event) => {
          if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(table, column, head); }
        };
      });
    }
    if (rows > 8) {
      const count = make("output");
      const field = make("input", { type: "search", placeholder: "Filter", ariaLabel: "Filter rows" });
      field.oninput = () => { count.textContent = field.value ? `${filter(table, field.value)} of ${rows}` : (filter(table, ""), ""); };
      const bar = make("div", { className: "bar" }, field, count);
      if (table.classList.contains("long")) {
        const more = make("button", { type: "button", textContent: `Show all ${rows}` });
        more.onclick = () => { more.textContent = table.classList.toggle("all") ? "Show fewer" : `Show all ${rows}`; };
        bar.append(more);
      }
      table.parentElement.before(bar);
    }
  }

  // --- search ---------------------------------------------------------------------------------------------------
  const find = document.getElementById("find");
  let waiting = 0;
  const search = () => {
    for (const table of tables) filter(table, find.value);
    document.dispatchEvent(new CustomEvent("find", { detail: spelled(find.value).replace(/^\.+/, "") }));
  };
  find.oninput = () => { clearTimeout(waiting); waiting = setTimeout(search, 120); };
  find.onkeydown = (event) => {
    if (event.key === "Enter") document.querySelector("tr.hit, .hit")?.scrollIntoView({ block: "center" });
  };
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { event.preventDefault(); find.focus(); }
  });

  // --- charts ---------------------------------------------------------------------------------------------------
  const plots = all(".plot");
  for (const figure of all("figure")) {
    const own = all(".plot", figure);
    if (own.length > 1) { const panels = make("div", { className: "panels" }); own[0].before(panels); panels.append(...own); }
  }
  const text = { labelColor: "currentColor", titleColor: "currentColor", labelFontSize: 12, titleFontSize: 12 };
  const config = {
    background: null, font: "system-ui, sans-serif", view: { stroke: null }, text: { color: "currentColor", fontSize: 12 },
    axis: { ...text, gridColor: "currentColor", gridOpacity: 0.12, domainColor: "currentColor", domainOpacity: 0.4, tickColor: "currentColor", tickOpacity: 0.4, titleFontWeight: "normal" },
    legend: { ...text, symbolType: "square", labelLimit: 260 }, title: { color: "currentColor", fontSize: 12, fontWeight: "normal", anchor: "start", limit: 250 },
    rule: { color: "currentColor" }, line: { strokeJoin: "round" },
  };
  const folded = (words, letters) => words.split(" ").reduce((lines, word) => {
    const longer = `${lines.at(-1)} ${word}`.trim();
    return longer.length > letters && lines.at(-1) ? [...lines, word] : [...lines.slice(0, -1), longer];
  }, [""]);
  const draw = async (plot) => {
    if (plot.drawn || !plot.clientWidth) return; // what is not seen has no room; it is drawn when it is
    plot.drawn = true;
    const spec = (plot.spec ??= JSON.parse(plot.querySelector("script").textContent));
    const room = plot.clientWidth;
    const labels = Math.min(spec.usermeta?.label ?? 0, room * 0.42, 340);
    const letters = Math.floor(Math.max(labels, 60) / 6.4);
    const named = spec.encoding?.y?.axis?.labelExpr;
    spec.whole ??= named;
    if (named) { // words begin with what tells them apart, paths end with it
      const [short, end] = [`slice(${spec.whole}, 0, ${letters - 1}) + '…'`, `'…' + slice(${spec.whole}, -${letters - 1})`];
      spec.encoding.y.axis.labelExpr = `length(${spec.whole}) <= ${letters} ? ${spec.whole} : indexof(${spec.whole}, ' ') > 0 ? ${short} : ${end}`;
    }
    const legend = { ...config.legend, ...(room < 480 ? { columns: 1, labelLimit: room - labels - 24 } : { columns: 3 }) };
    const axis = { ...config.axis, labelLimit: Math.max(labels, 60) + 8 };
    const { whole, ...shown } = spec;
    const title = spec.title && { text: { expr: JSON.stringify(folded(spec.title, Math.floor(room / 7))) }, limit: room };
    const sized = { ...shown, ...(title ? { title } : {}), width: "container", autosize: { type: "fit-x", contains: "padding" }, config: { ...config, axis, legend } };
    const view = new vega.View(vega.parse(vegaLite.compile(sized, { logger: vega.logger(vega.Error) }).spec), { renderer: "svg", container: plot, hover: true });
    await view.runAsync();
    plot.classList.add("done");
  };
  const watch = new IntersectionObserver((seen) => seen.forEach((one) => one.isIntersecting && draw(one.target)), { rootMargin: "300px" });
  plots.forEach((plot) => watch.observe(plot));
  window.drawn = () => Promise.all(plots.map(draw));
  addEventListener("beforeprint", () => plots.forEach(draw));
  let wide = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === wide) return;
    wide = innerWidth;
    for (const plot of plots) if (plot.spec) { plot.querySelector("svg")?.remove(); plot.drawn = false; draw(plot); }
  });

  // --- where one is ---------------------------------------------------------------------------------------------
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const spy = new IntersectionObserver((seen) => seen.forEach((one) => {
    if (!one.isIntersecting) return;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(one.target.id)?.setAttribute("aria-current", "true");
  }), { rootMargin: "-10% 0px -80% 0px" });
  all("main > section").forEach((section) => spy.observe(section));
})();
