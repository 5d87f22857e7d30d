"use strict";
// Makes the page from the events that it carries. Names come from hostile files: they are text nodes, never markup.
(() => {
  const words = JSON.parse(document.getElementById("words").textContent);
  const t = (key, values = {}) =>
    (words[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

  // ---- elements
  const el = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  };
  const svg = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const name = (text) => el("bdi", {}, text);
  const hex = (n) => "0x" + n.toString(16);
  const address = (n) => "0x" + BigInt.asUintN(64, n).toString(16).padStart(16, "0");
  const signed = (n) => (n < 0 ? "-0x" + (-n).toString(16) : "0x" + n.toString(16));
  const spaced = (digits) => digits.replace(/(..)(?=.)/g, "$1 ");

  // ---- data
  const unpack = async (id) => {
    if (typeof DecompressionStream === "undefined") throw new Error(t("ui.no_unpack"));
    const letters = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };
  const unpacked = new Map();
  const chunk = (number) => {
    if (!unpacked.has(number)) unpacked.set(number, unpack("chunk-" + number));
    return unpacked.get(number);
  };
  // Rows of a chunk of symbols, relocations or patches.
  const rowsOf = {
    symbols: (c) => c.index.map((index, n) => ({
      index, name: c.name[n], section: c.section[n], file_value: c.file_value[n], value: c.value[n], size: c.size[n],
    })),
    patches: (c) => c,
    relocations: (c, table, first) => {
      let at = 0;
      const shared = new Set(c.shared), slots = new Map(c.slots), inverted = new Set(c.inverted);
      return c.offset.map((offset, n) => {
        const from = at * 2;
        at += c.width[n];
        const code = c.code[n];
        const p = BigInt(table.target_addr) + BigInt(offset);
        return {
          entry: first + n, offset, kind: c.types[c.kind[n]], formula: c.formulas[c.kind[n]], symbol: c.symbol[n], a: c.a[n], result: c.result[n],
          p: address(p), slot: slots.get(n), shared: shared.has(n),
          entered: c.entered[n] === null ? null : { bits: c.bits[c.kind[n]], inverted: inverted.has(n), value: c.entered[n] },
          before: c.before.slice(from, at * 2), after: c.after.slice(from, at * 2),
          code: code && { addr: address(p - BigInt(code[0])), size: code[1], before: c.code_before[n], after: c.code_after[n] },
        };
      });
    },
  };
  const rows = async (event) => {
    const all = [];
    for (const number of event.chunks) for (const row of rowsOf[event.event](await chunk(number), event, all.length)) all.push(row);
    return all;
  };

  // ---- the story: loads, each with its steps
  const stories = [];
  const steps = [];
  const read = (events) => {
    let story = null, step = null;
    for (const event of events) {
      if (event.event === "begin") {
        story = { begin: event, headers: new Map(), memory: null, symbols: null, imports: [], relocations: [], patches: [] };
        stories.push(story);
        step = null;
        continue;
      }
      if (event.event === "step" || event.event === "asked") {
        if (event.event === "step" && step?.asked && !step.name) {
          Object.assign(step, { name: event.name, functions: event.functions, reached: event.reached });
          continue;
        }
        step = {
          story, name: event.name ?? "", functions: event.functions ?? [], reached: event.reached ?? true,
          asked: event.event === "asked" ? event : null, events: [], stops: false,
        };
        steps.push(step);
        continue;
      }
      if (!step) continue;
      step.events.push(event);
      if (event.event === "stop") step.stops = true;
      if (event.event === "sections") story.headers.set(step, event.sections);
      if (event.event === "memory") story.memory = event;
      if (event.event === "symbols") story.symbols = event;
      if (event.event === "import") story.imports.push(event);
      if (event.event === "relocations") story.relocations.push(event);
      if (event.event === "patches") story.patches.push({ step, event });
    }
  };
  const titleOf = (step) => (step.name ? t(`step.${step.name}.title`) : step.asked.step);

  // The headers that a step sees: those of the last step that has left any.
  const headersAt = (at) => {
    const story = steps[at].story;
    for (let n = at; n >= 0 && steps[n].story === story; n--) {
      const headers = story.headers.get(steps[n]);
      if (headers) return headers;
    }
    return [];
  };

  // ---- state
  let now = 0;
  let chosen = null;
  const app = document.getElementById("app");
  let parts = {};

  const go = (at) => {
    now = Math.max(0, Math.min(steps.length - 1, at));
    history.replaceState(null, "", "#" + now);
    draw();
  };
  const choose = (what) => {
    chosen = what;
    drawSelection();
    markPieces();
  };

  // ---- the frame
  const build = () => {
    const begin = stories[0].begin;
    const back = el("button", { class: "act", type: "button", onclick: () => go(now - 1) }, t("ui.back"));
    const forward = el("button", { class: "act", type: "button", onclick: () => go(now + 1) }, t("ui.forward"));
    const list = el("ol", {});
    let last = null;
    steps.forEach((step, at) => {
      if (step.story !== last) {
        last = step.story;
        if (stories.length > 1) list.append(el("li", { class: "load" }, `${t("ui.load")} `, name(last.begin.module ?? last.begin.file)));
      }
      const kind = step.stops ? "stop" : step.reached ? "" : "missed";
      step.button = el("button", { type: "button", class: kind, onclick: () => go(at) }, `${at + 1}. ${titleOf(step)}`);
      list.append(el("li", {}, step.button));
    });
    parts = {
      back, forward,
      count: el("span", { class: "of" }),
      live: el("div", { class: "live", "aria-live": "polite" }),
      views: el("section", { class: "views", "aria-label": t("ui.views") }),
      step: el("section", { id: "step", "aria-labelledby": "step-title" }),
      selection: el("aside", { "aria-label": t("ui.selection"), tabindex: "0" }),
      nav: el("nav", { "aria-label": t("ui.steps"), tabindex: "0" }, list),
    };
    app.append(
      el("header", {},
        el("h1", {}, t("ui.title", { module: begin.module ?? begin.file })),
        el("span", { class: "of" }, name(`${begin.kernel} ${begin.arch ?? ""}`)),
        back, forward, parts.count, el("span", { class: "keys" }, t("ui.keys"))),
      el("div", { class: "columns" }, parts.nav, el("main", {}, parts.views, parts.step), parts.selection),
      parts.live);
    document.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches?.("input, select, textarea")) return;
      if (event.key === "ArrowRight") go(now + 1);
      else if (event.key === "ArrowLeft") go(now - 1);
      else return;
      event.preventDefault();
    });
    let timer;
    addEventListener("resize", () => {
      clearTimeout(timer);
      timer = setTimeout(drawViews, 100);
    });
    addEventListener("beforeprint", () => document.getElementById("print").replaceChildren(...printed()));
    addEventListener("afterprint", () => document.getElementById("print").replaceChildren());
  };

  // ---- bars
  const LANE = 26, GAP = 46;
  let pieces = new Map();
  let drawn = null;
  const lookOf = (section) => {
    if (!section.flags.includes("A") && !section.region) return section.type === "RELA" ? "none" : "meta";
    if (section.flags.includes("X")) return "code";
    if (section.flags.includes("R")) return "ro";
    return section.flags.includes("W") ? "data" : "rodata";
  };
  const has = (step, what) => {
    const order = steps.filter((s) => s.story === step.story).map((s) => s.name);
    const at = order.indexOf(what);
    return at >= 0 && order.indexOf(step.name) >= at;
  };
  const drawViews = () => {
    const step = steps[now], story = step.story;
    const width = Math.max(200, parts.views.clientWidth - 16);
    // Before the headers are read they are what they are.
    const known = headersAt(now);
    const sections = known.length ? known : (story.headers.values().next().value ?? []);
    const regions = story.memory?.regions ?? [];
    const size = Math.max(story.begin.size, 1);
    const largest = Math.max(1, ...regions.map((r) => r.allocated));
    const inFile = (s) => ({ x: (s.offset / size) * width, w: s.type === "NOBITS" ? 0 : Math.max(1.5, (s.size / size) * width) });
    const regionAt = new Map(regions.map((r, n) => [r.name, { y: 2 * GAP + LANE + 24 + n * (LANE + 22), scale: width / largest, region: r }]));
    const height = 2 * GAP + LANE + 24 + Math.max(1, regions.length) * (LANE + 22);
    const copied = has(step, "rewrite"), moved = has(step, "move");
    const freedCopy = has(step, "init"), freedInit = has(step, "free_init"), gone = step.name === "unload";
    const same = drawn === story && parts.drawing?.isConnected && parts.drawing.dataset.width === String(width);
    if (!same) {
      const label = (y, text, more) => svg("text", { x: 0, y: y - 5 }, text, ...(more ? [svg("tspan", { class: "faint", dx: 8 }, more)] : []));
      const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": t("ui.views") });
      drawing.dataset.width = width;
      drawing.append(
        label(18, t("ui.file"), t("ui.bytes", { count: size })), svg("rect", { class: "bed", x: 0, y: 18, width, height: LANE }),
        label(18 + GAP, t("ui.hdr")), svg("rect", { class: "bed", x: 0, y: 18 + GAP, width, height: LANE }));
      if (!regions.length) drawing.append(label(18 + 2 * GAP, t("ui.memory")));
      for (const { y, scale, region } of regionAt.values()) {
        const more = `${region.base ?? ""} ${region.permissions} ${t("ui.bytes", { count: region.size })}`;
        drawing.append(label(y, `${t("ui.memory")}: ${region.name}`, width > 500 ? more : ""),
          svg("rect", { class: "bed", x: 0, y, width: region.allocated * scale, height: LANE }));
      }
      pieces = new Map();
      for (const s of sections) {
        if (s.size === 0) continue;
        const { x, w } = inFile(s);
        if (w) drawing.append(svg("rect", { class: "ghost", x, y: 18, width: w, height: LANE }));
        const piece = svg("rect", { class: "piece", height: LANE, tabindex: 0, role: "button", x, y: 18, width: w });
        piece.append(svg("title", {}, s.name));
        piece.addEventListener("click", () => choose({ kind: "section", index: s.index }));
        piece.addEventListener("keydown", (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            choose({ kind: "section", index: s.index });
          }
        });
        pieces.set(s.index, piece);
        drawing.append(piece);
      }
      parts.views.replaceChildren(drawing);
      parts.drawing = drawing;
      drawn = story;
      // The first place of a piece is drawn before it moves.
      void drawing.getBoundingClientRect();
    }
    for (const s of sections) {
      const piece = pieces.get(s.index);
      if (!piece) continue;
      let { x, w } = inFile(s), y = 18, out = false;
      const place = moved && s.region ? regionAt.get(s.region) : null;
      if (place) {
        x = s.region_offset * place.scale;
        w = Math.max(1.5, s.size * place.scale);
        y = place.y;
        out = gone || (freedInit && place.region.init);
      } else if (copied) {
        y = 18 + GAP;
        out = freedCopy;
      }
      piece.setAttribute("style", `x:${x.toFixed(2)}px;y:${y}px;width:${w.toFixed(2)}px`);
      piece.setAttribute("class", `piece ${lookOf(s)}${out ? " gone" : ""}`);
      const where = place ? `${s.region}+${hex(s.region_offset)}` : s.addr;
      piece.setAttribute("aria-label", `${t("ui.section")} ${s.name}, ${t("ui.bytes", { count: s.size })}, ${where}`);
    }
    markPieces();
  };
  const markPieces = () => {
    const index = chosen?.kind === "section" ? chosen.index : chosen?.section;
    for (const [of, piece] of pieces) piece.classList.toggle("chosen", of === index);
  };

  // ---- tables
  const table = (heads, body) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": heads.join(", ") },
    el("table", {}, el("thead", {}, el("tr", {}, heads.map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, body)));
  const cell = (content, attributes) => el("td", attributes, content ?? "");
  const link = (text, what) => el("button", { type: "button", class: "link", onclick: () => choose(what) }, name(text || "-"));
  const facts = (list) => el("dl", {}, list.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]));

  const sectionTable = (step, sections) => {
    const at = steps.indexOf(step);
    const old = new Map((at > 0 && steps[at - 1].story === step.story ? headersAt(at - 1) : []).map((s) => [s.index, s]));
    const columns = [
      ["flags", t("ui.flags")], ["size", t("ui.size")], ["offset", t("ui.offset"), hex], ["addr", t("ui.sh_addr")], ["region", t("ui.region")],
      ["region_offset", t("ui.region_offset"), hex], ["type", t("ui.type")], ["align", t("ui.align")],
    ];
    return table(["", t("ui.name"), ...columns.map((c) => c[1])], sections.map((s) => {
      const was = old.get(s.index);
      return el("tr", {}, cell(String(s.index), { class: "num" }), cell(link(s.name, { kind: "section", index: s.index })),
        columns.map(([key, , show]) => cell(s[key] === null ? "" : (show ?? String)(s[key]),
          { class: was && was[key] !== s[key] ? "changed" : undefined })));
    }));
  };

  // A list of rows that are fetched when they are wanted, with a search.
  const PAGE = 100, FEW = 2000, PRINTED = 10000;
  const listOf = (heads, event, match, row) => {
    const body = el("tbody", {});
    const more = el("button", { type: "button", class: "act" });
    const search = el("input", { type: "search", placeholder: t("ui.search"), "aria-label": t("ui.search") });
    const note = el("span", { class: "of" }, t("ui.loading"));
    let all = null, found = [], shown = 0;
    const show = () => {
      body.append(...found.slice(shown, shown + PAGE).map(row));
      shown = Math.min(found.length, shown + PAGE);
      more.hidden = shown >= found.length;
      more.textContent = t("ui.more", { count: found.length - shown });
      note.textContent = `${shown} / ${found.length}`;
    };
    const filter = () => {
      const wanted = search.value.trim().toLowerCase();
      found = wanted ? all.filter((r) => match(r).toLowerCase().includes(wanted)) : all;
      shown = 0;
      body.replaceChildren();
      show();
    };
    search.addEventListener("input", () => all && filter());
    more.addEventListener("click", show);
    more.hidden = true;
    rows(event).then((data) => { all = data; filter(); }, (error) => { note.textContent = String(error.message); });
    return [el("div", { class: "tools" }, search, note),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": heads.join(", ") },
        el("table", {}, el("thead", {}, el("tr", {}, heads.map((h) => el("th", { scope: "col" }, h)))), body)), more];
  };

  // Details that are made when they are opened.
  const lazy = (summary, open, make) => {
    const node = el("details", {}, summary);
    node.addEventListener("toggle", () => {
      if (node.open && node.childElementCount === 1) node.append(...make());
    });
    if (open) node.open = true;
    return node;
  };

  const symbolsOf = async (story) => {
    if (!story.bySymbol) story.bySymbol = new Map((story.symbols ? await rows(story.symbols) : []).map((s) => [s.index, s]));
    return story.bySymbol;
  };

  const before = (digits) => el("span", { class: "mono bytes" }, spaced(digits));

  // ---- one event as elements
  // What is in closed details on the screen stands on paper, if it is at hand: `event.all`.
  const show = (event, step, onPaper) => {
    const story = step.story;
    switch (event.event) {
      case "facts":
        return facts(event.facts.map((f) => [t("fact." + f.name), name(f.value || "-")]));
      case "sections":
        return [el("h3", {}, t("ui.sections")), sectionTable(step, event.sections)];
      case "memory":
        return [el("h3", {}, t("ui.memory")), table([t("ui.region"), t("ui.addr"), t("ui.flags"), t("ui.size"), ""],
          event.regions.map((r) => el("tr", {}, cell(r.name), cell(r.base ?? t("ui.unknown")), cell(r.permissions),
            cell(`${r.size} / ${r.allocated}`), cell(r.init ? "init" : ""))))];
      case "symbols":
        if (onPaper && event.all) {
          return [el("h3", {}, t("ui.symbols")), table(["", t("ui.name"), t("ui.section"), t("ui.value"), t("ui.size")], event.all.map((s) =>
            el("tr", {}, cell(String(s.index)), cell(name(s.name)), cell(String(s.section)), cell(s.value ?? t("ui.unknown")), cell(String(s.size)))))];
        }
        return lazy(el("summary", {}, `${t("ui.symbols")}: ${event.count}`), false, () => listOf(["", t("ui.name"), t("ui.section"), t("ui.value"), t("ui.size")], event, (s) => `${s.name} ${s.value}`,
            (s) => el("tr", {}, cell(String(s.index)), cell(link(s.name, { kind: "symbol", index: s.index, section: s.section, story })),
              cell(String(s.section)), cell(s.value ?? t("ui.unknown")), cell(String(s.size)))));
      case "relocations":
        if (onPaper && event.all) {
          return [el("h3", {}, name(event.name), " → ", name(event.target_name)), table([t("ui.place"), t("ui.type"), t("ui.symbol"), "A", t("ui.formula"), t("ui.before"), t("ui.after"), t("ui.code_after")],
            event.all.map((r) => el("tr", {}, cell(`+${hex(r.offset)}`), cell(r.kind), cell(name(story.bySymbol?.get(r.symbol)?.name ?? String(r.symbol))), cell(signed(r.a)),
              cell(r.formula ? `${r.formula} = ${r.result ?? t("ui.unknown")}` : ""), cell(before(r.before)), cell(before(r.after)), cell(r.code?.after ?? ""))))];
        }
        return lazy(el("summary", {}, name(event.name), `: ${event.count} → `, name(event.target_name)),
          story.relocations[0] === event && event.count < FEW, () => listOf([t("ui.place"), t("ui.type"), t("ui.symbol"), t("ui.before"), t("ui.after"), t("ui.code_after")], event,
            (r) => `${r.kind} ${r.p} ${r.code?.after ?? ""} ${story.bySymbol?.get(r.symbol)?.name ?? ""}`,
            (r) => el("tr", {}, cell(link(`${event.target_name}+${hex(r.offset)}`, { kind: "relocation", table: event, row: r, section: event.target, story })),
              cell(r.kind), cell(name(story.bySymbol?.get(r.symbol)?.name ?? String(r.symbol))), cell(before(r.before)), cell(before(r.after)),
              cell(r.code?.after ?? ""))));
      case "patches":
        if (onPaper && event.all) {
          return [el("h3", {}, t("ui.patches")), table([t("ui.type"), t("ui.place"), t("ui.reason"), t("ui.before"), t("ui.after")], event.all.map((p) =>
            el("tr", {}, cell(t("patch." + p.what)), cell(name(`${p.addr} ${p.symbol ?? ""}`)), cell(name(p.reason ?? "")), cell(before(p.before.slice(0, 32))), cell(before(p.after.slice(0, 32))))))];
        }
        return lazy(el("summary", {}, `${t("ui.patches")}: ${event.count}`), event.count < FEW, () => listOf([t("ui.type"), t("ui.place"), t("ui.reason"), t("ui.before"), t("ui.after")], event,
            (p) => `${t("patch." + p.what)} ${p.addr} ${p.symbol ?? ""} ${p.reason ?? ""}`,
            (p) => el("tr", {}, cell(t("patch." + p.what)), cell(link(p.symbol ?? p.addr, { kind: "patch", patch: p, step, story })), cell(name(p.reason ?? "")),
              cell(before(p.before.slice(0, 32))), cell(before(p.after.slice(0, 32))))));
      case "changed":
        return [el("p", {}, el("code", {}, event.function), ": ", name(event.section ?? ""), " ", event.addr, ", ", t("ui.bytes", { count: event.count })),
          facts([[t("ui.before"), before(event.before)], [t("ui.after"), before(event.after)]])];
      case "parameter":
        return el("p", {}, el("code", {}, name(event.name + (event.value === null ? "" : "=" + event.value))), " ", name(event.type ?? t("ui.unknown")));
      case "state":
        return el("div", { class: "note" }, `${t("ui.state")}: `, name(event.module), " ", el("strong", {}, event.state));
      case "notified":
        return el("details", {}, el("summary", {}, t("ui.notifiers", { state: event.state })),
          el("ol", {}, event.notifiers.map((n) => el("li", {}, el("code", {}, `${n.function} (${n.priority})`)))));
      case "protected":
        return [el("h3", {}, t("ui.protected")), table([t("ui.region"), t("ui.permissions"), t("ui.addr"), t("ui.size")],
          event.parts.map((p) => el("tr", {}, cell(p.region), cell(p.permissions), cell(p.addr), cell(String(p.size)))))];
      case "call":
        return el("p", {}, el("code", {}, name(`${event.module}: ${event.function}`)), ` ${event.addr ?? ""} `,
          event.returns === null ? t("ui.called") : `${t("ui.returns")} ${event.returns}`);
      case "freed":
        return [el("h3", {}, t("ui.freed")), el("ul", {}, event.regions.map((r) => el("li", {}, `${r.name} ${r.base ?? ""} ${t("ui.bytes", { count: r.allocated })}`)))];
      case "finding":
        return el("div", { class: `note ${event.errno || event.severity === "oops" ? "bad" : ""}` }, el("strong", {}, `${t("severity." + event.severity)} ${event.code}`), " ",
          name(event.explanation + (event.errno ? ` (${event.errno})` : "")),
          event.dmesg ? el("div", { class: "mono" }, name(event.dmesg)) : null);
      case "unjudged":
        return el("div", { class: "note" }, `${t("ui.unjudged")} ${event.code}: ${t("ui.needs")} ${event.needs}`);
      case "stop":
        return el("div", { class: "note bad" }, el("strong", {}, `${t("ui.stops")} ${event.errno ?? ""}`));
      default:
        return null;
    }
  };
  // Events of which there are many are one table.
  const gathered = (step) => {
    const out = [];
    const of = (kind) => step.events.filter((event) => event.event === kind);
    const imports = of("import");
    if (imports.length) {
      out.push(el("h3", {}, t("ui.imports")), table([t("ui.name"), t("ui.answered"), t("ui.addr"), t("ui.license"), t("ui.crc")],
        imports.map((i) => el("tr", {}, cell(link(i.name, { kind: "import", import: i, story: step.story })),
          cell(i.owner ? name(`${i.owner} ${i.table}`) : t("ui.no_answer"), { class: i.owner && !i.taken ? "refused" : undefined }), cell(i.addr ?? t("ui.unknown")),
          cell(i.gpl_only ? t("ui.gpl_only") : t("ui.everybody")), cell(i.crc ?? "")))));
    }
    const tables = of("table");
    if (tables.length) {
      out.push(el("h3", {}, t("ui.tables")), table([t("ui.name"), t("ui.addr"), t("ui.size")],
        tables.map((i) => el("tr", {}, cell(name(i.name)), cell(i.addr), cell(String(i.size))))));
    }
    const slots = of("slot");
    if (slots.length) {
      out.push(el("h3", {}, t("ui.slots")), table([t("ui.section"), t("ui.addr"), t("ui.value")],
        slots.map((i) => el("tr", {}, cell(name(i.section)), cell(i.addr), cell(i.target)))));
    }
    const runtime = of("runtime");
    if (runtime.length) {
      out.push(el("details", {}, el("summary", {}, `${t("ui.runtime")}: ${runtime.length}`), el("ul", {}, runtime.slice(0, 1000).map((r) =>
        el("li", {}, `${r.addr} ${t("ui.bytes", { count: r.size })} ${r.what}`)))));
    }
    const unknown = of("unknown");
    if (unknown.length) {
      out.push(el("details", {}, el("summary", {}, `${t("ui.not_known")}: ${unknown.length}`),
        el("ul", {}, unknown.map((u) => el("li", {}, name(u.what))))));
    }
    return out;
  };
  const stepBody = (step, at, id, onPaper) => [
    el("h2", { id, tabindex: id ? "-1" : undefined }, `${at + 1}. ${titleOf(step)}`),
    step.functions.length ? el("p", { class: "functions" }, `${t("ui.functions")}: `, el("code", {}, step.functions.join(", "))) : null,
    step.asked ? el("p", {}, `${t("ui.asked_step")}: `, el("code", {}, name(`${step.asked.step}: ${step.asked.result}`)),
      step.asked.output ? el("pre", {}, name(step.asked.output)) : null) : null,
    step.reached ? (step.name ? el("p", {}, t(`step.${step.name}.text`)) : null) : el("div", { class: "note missed" }, t("ui.not_reached")),
    ...step.events.map((event) => show(event, step, onPaper)).flat(), ...gathered(step),
  ].filter(Boolean);
  const printed = () => steps.map((step, at) => el("section", {}, stepBody(step, at, undefined, true)));

  // ---- the selection, through all steps
  const each = (story, tell) => el("ol", {}, steps.filter((s) => s.story === story).map((s) => [s, tell(s)]).filter(([, text]) => text)
    .map(([s, text]) => el("li", { class: s === steps[now] ? "here" : undefined },
      el("button", { type: "button", class: "link", onclick: () => go(steps.indexOf(s)) }, titleOf(s)), el("div", {}, text))));
  const followSection = (story, index, also) => each(story, (s) => {
    const lines = [];
    const at = steps.indexOf(s);
    const find = (n) => (n >= 0 && steps[n]?.story === story ? headersAt(n).find((h) => h.index === index) : null);
    const here = find(at), was = find(at - 1);
    if (here && !was) lines.push(`${here.flags || "-"} ${t("ui.offset")} ${hex(here.offset)}, ${t("ui.bytes", { count: here.size })}`);
    if (here && was) {
      if (here.flags !== was.flags) lines.push(`${t("ui.flags")}: ${was.flags || "-"} → ${here.flags || "-"}`);
      if (here.size !== was.size) lines.push(`${t("ui.size")}: ${was.size} → ${here.size}`);
      if (here.region !== was.region) lines.push(`${t("ui.region")}: ${here.region}+${hex(here.region_offset ?? 0)}`);
      if (here.addr !== was.addr) lines.push(`${t("ui.sh_addr")}: ${was.addr} → ${here.addr}`);
    }
    if (also) lines.push(...also(s, here));
    if (s.name === "relocations" && !also) {
      const count = story.relocations.filter((r) => r.target === index).reduce((sum, r) => sum + r.count, 0);
      if (count) lines.push(`${t("ui.relocations")}: ${count}`);
    }
    const region = here?.region && story.memory?.regions.find((r) => r.name === here.region);
    if (region && s.events.some((e) => e.event === "freed" && e.regions.some((r) => r.name === region.name))) lines.push(t("ui.freed"));
    return lines.length ? lines.map((line) => el("div", {}, line)) : null;
  });
  const entered = (r) => {
    if (!r.entered) return null;
    const [from, to] = r.entered.bits;
    return (r.slot ? t("ui.bits_of_slot") + " " : "") + t(r.entered.inverted ? "ui.bits_inverted" : "ui.bits", { from, to, value: hex(r.entered.value) });
  };
  const code = (c) => (c ? [[t("ui.code_before"), el("code", {}, c.before)], [t("ui.code_after"), el("code", {}, c.after)]] : []);
  const patchesAt = async (story, from, to) => {
    const found = [];
    for (const { step, event } of story.patches) {
      for (const patch of await rows(event)) {
        const start = BigInt(patch.addr);
        if (start < to && start + BigInt(patch.size) > from) found.push({ step, patch });
      }
    }
    return found;
  };
  let drawing = 0, told = null;
  const drawSelection = async () => {
    const mine = ++drawing;
    const title = (kind, text) => el("h2", {}, `${kind} `, name(text));
    let content = [el("p", {}, t("ui.nothing_selected"))];
    const story = chosen?.story ?? steps[now].story;
    if (chosen?.kind === "section") {
      const s = headersAt(now).find((h) => h.index === chosen.index);
      if (s) {
        content = [title(t("ui.section"), s.name), facts([[t("ui.index"), String(s.index)], [t("ui.type"), s.type], [t("ui.flags"), s.flags],
          [t("ui.offset"), hex(s.offset)], [t("ui.size"), String(s.size)], [t("ui.align"), String(s.align)], [t("ui.sh_addr"), s.addr],
          [t("ui.region"), s.region ? `${s.region}+${hex(s.region_offset)}` : null]]),
          el("h3", {}, t("ui.follow")), followSection(story, s.index)];
      }
    } else if (chosen?.kind === "symbol") {
      const symbol = (await symbolsOf(story)).get(chosen.index);
      content = [title(t("ui.symbol"), symbol.name), facts([[t("ui.index"), String(symbol.index)], [t("ui.size"), String(symbol.size)]]),
        el("h3", {}, t("ui.follow")), followSection(story, symbol.section, (s, here) => {
          if (s.name === "elf" && here) return [`st_value ${hex(symbol.file_value)}: ${t("ui.offset")} ${hex(here.offset + symbol.file_value)}`];
          if (s.name === "symbols") return [`${t("ui.value")}: ${symbol.value ?? t("ui.unknown")}`];
          return [];
        })];
    } else if (chosen?.kind === "import") {
      const i = chosen.import;
      content = [title(t("ui.import"), i.name), facts([[t("ui.asked"), el("ol", {}, i.asked.map((a) => el("li", {}, name(a.owner), `: ${a.tables.join(", ")}`)))],
        [t("ui.answered"), i.owner ? name(`${i.owner} ${i.table}`) : t("ui.no_answer")], [t("ui.addr"), i.addr],
        [t("ui.license"), i.gpl_only ? t("ui.gpl_only") : t("ui.everybody")], [t("ui.crc"), i.crc], [t("ui.expected_crc"), i.expected_crc],
        [t("ui.namespace"), i.namespace && name(i.namespace)], ["", i.owner && !i.taken ? t("ui.not_taken") : null], ["", i.weak ? t("ui.weak") : null]])];
    } else if (chosen?.kind === "relocation") {
      const { row: r, table: of } = chosen;
      const symbol = (await symbolsOf(story)).get(r.symbol);
      const s = symbol?.value ?? null;
      const from = BigInt(r.p), patches = await patchesAt(story, from, from + BigInt(r.after.length / 2));
      content = [title(t("ui.relocation"), `${of.target_name}+${hex(r.offset)}`), facts([[t("ui.type"), r.kind], [t("ui.symbol"), name(symbol?.name ?? String(r.symbol))],
        ["S", s ?? t("ui.unknown")], ["A", signed(r.a)], ["P", r.p], [t("ui.formula"), r.formula && `${r.formula} = ${r.result ?? t("ui.unknown")}`],
        [t("ui.slot"), r.slot], [t("ui.entered"), entered(r)], [t("ui.before"), before(r.before)], [t("ui.after"), before(r.after)], ...code(r.code)]),
        r.shared ? el("p", {}, t("ui.shared")) : null,
        el("h3", {}, t("ui.follow")), followSection(story, of.target, (step, here) => {
          const out = [];
          if (step.name === "elf" && here) out.push(`${t("ui.offset")} ${hex(here.offset + r.offset)}: ${spaced(r.before)}`);
          if (step.name === "rewrite" && here) out.push(`hdr+${hex(here.offset + r.offset)}: ${spaced(r.before)}`);
          if (step.name === "move") out.push(`P = ${r.p}: ${spaced(r.before)}`);
          if (step.name === "symbols") out.push(`S = ${s ?? t("ui.unknown")}`);
          if (step.name === "relocations") out.push(`${r.formula ?? ""}: ${spaced(r.before)} → ${spaced(r.after)}`);
          for (const found of patches) if (found.step === step) out.push(`${t("patch." + found.patch.what)}: ${spaced(found.patch.before.slice(0, 32))} → ${spaced(found.patch.after.slice(0, 32))}`);
          return out;
        })].filter(Boolean);
    } else if (chosen?.kind === "patch") {
      const p = chosen.patch;
      content = [title(t("patch." + p.what), p.symbol ?? p.addr), facts([[t("ui.addr"), p.addr], [t("ui.size"), String(p.size)], [t("ui.section"), p.section && name(p.section)],
        [t("ui.reason"), p.reason && name(p.reason)], [t("ui.first_change"), p.shown === p.addr ? null : p.shown ?? t("ui.no_change")], [t("ui.before"), before(p.before)], [t("ui.after"), before(p.after)], ...code(p.code)])];
    }
    if (mine !== drawing) return;
    parts.selection.replaceChildren(...content);
    if (!chosen || told === chosen) return;
    told = chosen;
    parts.live.textContent = t("ui.now_selected", { what: parts.selection.querySelector("h2")?.textContent ?? "" });
    // In one column it is below everything else.
    if (matchMedia("(max-width: 1000px)").matches) parts.selection.scrollIntoView({ block: "nearest" });
  };
  // ---- drawing
  const draw = () => {
    const step = steps[now];
    parts.back.disabled = now === 0;
    parts.forward.disabled = now === steps.length - 1;
    const of = t("ui.step_of", { n: now + 1, count: steps.length });
    parts.count.textContent = of;
    parts.live.textContent = `${of}: ${titleOf(step)}`;
    steps.forEach((s, at) => (at === now ? s.button.setAttribute("aria-current", "step") : s.button.removeAttribute("aria-current")));
    steps[now].button.scrollIntoView({ block: "nearest" });
    parts.step.replaceChildren(...stepBody(step, now, "step-title"));
    drawViews();
    drawSelection();
  };

  unpack("overview").then(async (events) => {
    read(events);
    if (!steps.length) return;
    build();
    const wanted = document.body.dataset.step;
    const asked = steps.findIndex((step) => step.name === wanted);
    const fromHash = Number.parseInt(location.hash.slice(1), 10);
    now = Number.isInteger(fromHash) && steps[fromHash] ? fromHash : Math.max(0, asked);
    draw();
    document.documentElement.dataset.ready = "yes";
    for (const story of stories) await symbolsOf(story);
    // Of large modules only the counts are printed.
    const large = steps.flatMap((step) => step.events).filter((event) => event.chunks);
    if (large.reduce((sum, event) => sum + event.count, 0) < PRINTED) for (const event of large) event.all = await rows(event);
    document.documentElement.dataset.printable = "yes";
    if (steps[now].name === "relocations") draw();
  }, (error) => app.append(el("p", {}, String(error.message))));
})();
