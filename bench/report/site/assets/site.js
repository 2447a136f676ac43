"use strict";
// Routes, filters and the view of one cell. Sorting, searching and paging are DataTables'.
(() => {
  const { columns, rows, shared, names } = JSON.parse(document.getElementById("data").textContent);
  const at = Object.fromEntries(columns.map((name, place) => [name, place]));
  const byKey = new Map(rows.map((row) => [row[at.key], row]));
  const byId = (id) => document.getElementById(id);
  const sections = [...document.querySelectorAll("main > section")];

  // What is missing sorts last in either direction.
  const number = (value) => (value === "" || value === null || Number.isNaN(Number(value)) ? null : Number(value));
  const missingLast = (sign) => (a, b) => {
    const [one, other] = [number(a), number(b)];
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * (one - other);
  };
  const shownText = (text) => (typeof text === "string" ? text.replace(/<[^>]*>/g, " ") : text); // of a link, not its target
  DataTable.type("rate", { order: { asc: missingLast(1), desc: missingLast(-1) }, search: shownText, className: "number" });

  // ---- pages ----
  const started = new Set();
  function boards(section) {
    for (const table of section.querySelectorAll("table.board")) {
      const types = [...table.tHead.rows[0].cells].map((cell, target) =>
        cell.classList.contains("number") ? { type: "rate", targets: target } : { type: "html", targets: target });
      new DataTable(table, {
        paging: false, info: false, order: [], autoWidth: false, columnDefs: types,
        layout: { topStart: table.tBodies[0].rows.length > 4 ? "search" : null, topEnd: null, bottomStart: null, bottomEnd: null },
        language: { search: "Filter" },
      });
    }
  }

  // ---- plots ----
  for (const menu of document.querySelectorAll("select[data-plots]")) {
    const plots = [...byId(menu.dataset.plots).querySelectorAll(".plot")];
    const choose = () => plots.forEach((plot) => { plot.hidden = plot.dataset.place !== menu.value; });
    menu.addEventListener("change", choose);
    choose();
  }

  // ---- cells ----
  const FILTERS = ["dataset", "model", "attack", "defense", "ratio", "seed", "recipe", "precision", "status"];
  const TITLES = {
    key: "Cell", dataset: "Dataset", model: "Model", attack: "Attack", defense: "Defense", ratio: "Poison ratio", seed: "Seed",
    cacc: "CACC", asr: "ASR", floor: "ASR floor", status: "Status", recipe: "Recipe", precision: "Precision", rule: "Label rule",
    target: "Target", analysis: "Analysis", seconds: "Train seconds", memory: "Peak MB", parameters: "Trainable",
  };
  const NUMBERS = new Set(["ratio", "target", "seed", "cacc", "asr", "floor", "seconds", "memory", "parameters"]);
  const DECIMALS = { cacc: 2, asr: 2, floor: 2, seconds: 1, memory: 0, parameters: 0 };
  const escaped = (text) => String(text).replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
  const printed = (name, value) => (names[name] && names[name][value]) || value;
  const shownNumber = (name, value) => (value === null ? "—" : name in DECIMALS
    ? value.toLocaleString("en-US", { minimumFractionDigits: DECIMALS[name], maximumFractionDigits: DECIMALS[name] }) : String(value));
  let table = null;

  function column(name) {
    const place = at[name];
    const render = (value, type) => {
      if (type !== "display") return value === null ? "" : type === "filter" ? printed(name, value) : value;
      if (name === "key") return `<a href="#cell=${encodeURIComponent(value)}">${escaped(value.slice(0, 8))}</a>`;
      return escaped(NUMBERS.has(name) ? shownNumber(name, value) : value === null ? "—" : printed(name, value));
    };
    return { title: TITLES[name], data: place, render, type: NUMBERS.has(name) ? "rate" : "string" };
  }

  cells.keys = null; // beginnings of the keys that a link asked for: those behind a mean
  function cells() {
    const shown = Object.keys(TITLES);
    table = new DataTable("#cells-table", {
      data: rows, columns: shown.map(column), deferRender: true, order: [], pageLength: 25, autoWidth: false,
      caption: "One row per record",
      language: {
        search: "Search", lengthMenu: "_MENU_ rows", emptyTable: "There is no record.", zeroRecords: "No cell fits.",
        info: "Rows _START_ to _END_ of _TOTAL_", infoEmpty: "No row", infoFiltered: "(_MAX_ cells in all)",
      },
      createdRow: (line, row) => line.classList.toggle("untrained", row[at.trained] === false),
    });
    for (const name of FILTERS) {
      const label = document.createElement("label");
      const menu = document.createElement("select");
      menu.name = name;
      menu.add(new Option("all", ""));
      const values = [...new Set(rows.map((row) => row[at[name]]))];
      values.sort((a, b) => (NUMBERS.has(name) ? a - b : String(printed(name, a)).localeCompare(String(printed(name, b)), "en")));
      values.forEach((value) => menu.add(new Option(printed(name, value), String(value))));
      label.append(TITLES[name], " ", menu);
      byId("filters").append(label);
      menu.addEventListener("change", () => { cells.keys = null; filter(); }); // no menu shows the keys: they would narrow unseen
    }
    const clear = document.createElement("button");
    clear.type = "reset";
    clear.textContent = "Clear";
    byId("filters").append(clear);
    byId("filters").addEventListener("reset", () => { cells.keys = null; setTimeout(filter); });
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    let wanted = [];
    table.search.fixed("filters", (text, row) => wanted.every(([place, value]) => String(row[place]) === value)
      && (cells.keys === null || cells.keys.has(row[at.key].slice(0, 8))));
    function filter() {
      wanted = [...byId("filters").querySelectorAll("select")].filter((menu) => menu.value).map((menu) => [at[menu.name], menu.value]);
      table.draw();
    }
    cells.filter = filter;
  }

  function presetFilters(query) {
    for (const menu of byId("filters").querySelectorAll("select")) {
      const value = query.get(menu.name) ?? "";
      menu.value = [...menu.options].some((option) => option.value === value) ? value : "";
    }
    cells.keys = query.has("keys") ? new Set(query.get("keys").split(".")) : null;
    cells.filter();
  }

  // ---- one cell ----
  const make = (tag, text) => Object.assign(document.createElement(tag), text === undefined ? {} : { textContent: text });
  const words = (value) => (value === null || value === undefined || value === "" ? "—"
    : typeof value === "object" ? JSON.stringify(value) : Number.isInteger(value) && value > 9999 ? value.toLocaleString("en-US") : String(value));
  function list(title, pairs) {
    const box = make("section");
    const terms = make("dl");
    for (const [name, value] of pairs) terms.append(make("dt", name), make("dd", words(value)));
    box.append(make("h3", title), terms);
    return box;
  }
  const RATES = ["CACC", "ASR", "ASR floor", "FRR", "FAR", "AUROC"];
  const rate = (entry) => (entry === null ? "—" : entry.length === 1 ? String(entry[0])
    : `${entry[0].toFixed(2)} % (95 % interval ${entry[1].toFixed(2)} to ${entry[2].toFixed(2)}; ${entry[3]} of ${entry[4]})`);
  const COSTS = ["Train seconds", "Seconds of all stages", "Peak MB", "Trainable parameters", "Samples per second", "Steps"];

  function cell(key) {
    const row = byKey.get(key);
    const body = byId("cell-body");
    body.replaceChildren();
    byId("cell-title").textContent = row ? `Cell ${key.slice(0, 8)}` : "No such cell";
    if (!row) return body.append(make("p", `No record of this leaderboard has the key ${key}.`));
    const get = (name) => row[at[name]];
    const ref = (name) => shared[get(name)];
    const box = Object.assign(make("section"), { className: "wide" });
    const code = make("code");
    // Lines break between words only: after the first hyphen of an option they could not be read.
    for (const word of `${ref("command")} --poison-ratios ${get("ratio")} --seeds ${get("seed")}`.split(" "))
      code.append(code.firstChild ? " " : "", make("span", word));
    const pre = make("pre");
    pre.tabIndex = 0;
    pre.append(code);
    box.append(make("h3", "Run it again"), pre);
    if (Object.keys(ref("dataset_options").files ?? {}).length)
      box.append(make("p", "The data set is read from files: add --data and the folder that python -m bench data fetch fills."));
    body.append(box);
    const spec = ["dataset", "model", "attack", "defense"].map((name) => [TITLES[name], printed(name, get(name))]);
    spec.push(...["ratio", "rule", "target", "seed", "recipe", "precision"].map((name) => [TITLES[name], get(name)]));
    if (get("analysis") !== null) spec.push([TITLES.analysis, get("analysis")]);
    if (get("limit") !== null) spec.push(["Row limit", get("limit")]);
    body.append(list("Cell", [["Key", key], ...spec, ["Status", get("status")],
      ["Learned", get("trained") === null ? "—" : get("trained") ? "yes" : "no: within 5 points of the majority class"],
      ...(get("oracle") ? [["Oracle", "yes: it was given the true poison flags"]] : [])]));
    if (ref("error")) body.append(list("Why it failed", Object.entries(ref("error"))));
    const metrics = get("metrics");
    if (metrics && get("status") === "ok") body.append(list("Result", RATES.map((name, place) => [name, rate(metrics[place])])));
    if (get("flip")) body.append(list("Result under the flip rule", RATES.slice(0, 2).map((name, place) => [name, rate(get("flip")[place])])));
    body.append(list("Cost", COSTS.map((name, place) => [name, get("cost")[place]])));
    for (const [title, name] of [["Clean samples", "knowledge"], ["Poison", "poison"], ["Measured with", "environment"], ["Data", "data"]])
      if (ref(name)) body.append(list(title, Object.entries(ref(name))));
    for (const name of ["dataset", "attack", "model", "defense", "analysis"]) {
      const options = Object.entries(ref(`${name}_options`));
      if (options.length) body.append(list(`Options of the ${name}`, options));
    }
  }

  // ---- routes ----
  function show(event) {
    const hash = location.hash.slice(1);
    if (hash === "main") return byId("main").focus();
    const name = hash.split(/[=?]/)[0];
    const section = sections.find((one) => one.id === name) ?? sections[0];
    sections.forEach((one) => { one.hidden = one !== section; });
    if (!started.has(section.id)) {
      started.add(section.id);
      if (section.id === "cells") cells(); else boards(section);
    }
    if (section.id === "cell") {
      let key = hash.slice("cell=".length);
      try { key = decodeURIComponent(key); } catch { /* a broken escape names no cell */ }
      cell(key);
    }
    if (section.id === "cells" && hash.includes("?")) presetFilters(new URLSearchParams(hash.slice(hash.indexOf("?") + 1)));
    else if (section.id === "cells") { cells.keys = null; cells.filter(); }
    document.querySelectorAll("nav a").forEach((link) => {
      if (link.hash === `#${section.id}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    });
    const title = section.querySelector("h2");
    document.title = `${title.textContent}: openbackdoor-bench leaderboard`;
    if (event) { title.focus({ preventScroll: true }); scrollTo(0, 0); }
  }
  addEventListener("hashchange", show);
  show();

  // ---- dark mode: the system's, until the button says otherwise ----
  const button = byId("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  function paint() {
    const on = (stored() ?? document.documentElement.dataset.chosen ?? (dark.matches ? "dark" : "light")) === "dark";
    document.documentElement.dataset.theme = on ? "dark" : "light";
    button.setAttribute("aria-pressed", String(on));
  }
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.chosen = next;
    try { localStorage.setItem("theme", next); } catch { /* a page from a file may have no storage */ }
    paint();
  });
  dark.addEventListener("change", paint);
  paint();
})();
