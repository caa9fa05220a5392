"use strict";

// What comes from services is text: it is only ever set as textContent.

/** Rows that are shown at once; a button shows as many more. */
const SHOWN = 300;
/** The least time between two drawings, in milliseconds. */
const DRAWING = 250;
/** Seconds that the plots show. */
const SPAN = 600;
const LINES = 6;
/** Columns that are too short to be broken into lines. */
const PLAIN = new Set(["program", "versions", "user", "pid", "owner", "since", "state"]);

const find = (id) => document.getElementById(id);

function make(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function draw(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const two = (number) => String(number).padStart(2, "0");

function moment(seconds) {
  const at = new Date(1000 * seconds);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return at.toDateString() === new Date().toDateString() ? time : `${day} ${time}`;
}

function short(number) {
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)} M`;
  if (number >= 1e4) return `${(number / 1e3).toFixed(1)} k`;
  return Number.isInteger(number) ? String(number) : number.toPrecision(2);
}

/** A table whose rows are kept by their keys, so that what does not change is left alone. */
class Table {
  /** @param columns of [title, function from an item to a cell's text, what it is sorted by] */
  constructor(id, columns) {
    this.id = id;
    this.columns = columns;
    this.body = find(id).tBodies[0];
    this.rows = new Map();
    this.limit = SHOWN;
    this.sorted = 0;
    this.isDescending = false;
    const head = make("tr");
    columns.forEach(([title], number) => {
      const cell = make("th");
      cell.scope = "col";
      const button = make("button", title);
      button.type = "button";
      button.addEventListener("click", () => this.sortBy(number));
      cell.append(button);
      head.append(cell);
    });
    find(id).tHead.append(head);
    this.head = head;
    this.more = find(`${id}-more`);
    this.more.addEventListener("click", () => {
      this.limit += SHOWN;
      page.touch();
    });
    this.mark();
  }

  sortBy(number) {
    this.isDescending = this.sorted === number && !this.isDescending;
    this.sorted = number;
    this.mark();
    page.touch();
  }

  mark() {
    [...this.head.cells].forEach((cell, number) => {
      const way = this.isDescending ? "descending" : "ascending";
      if (number === this.sorted) cell.setAttribute("aria-sort", way);
      else cell.removeAttribute("aria-sort");
    });
  }

  /** @param items that match the filter, of so many in all */
  show(items, all) {
    const [, , key] = this.columns[this.sorted];
    const way = this.isDescending ? -1 : 1;
    items.sort((a, b) => way * (compare(key(a), key(b)) || compare(a.key, b.key)));
    const shown = items.slice(0, this.limit);
    const keys = new Set(shown.map((item) => item.key));
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) {
        row.element.remove();
        this.rows.delete(key);
      }
    }
    let next = this.body.firstChild;
    for (const item of shown) {
      const element = this.row(item);
      if (element === next) next = next.nextSibling;
      else this.body.insertBefore(element, next);
    }
    find(`${this.id}-count`).textContent =
      items.length === all ? String(all) : `${items.length} of ${all}`;
    const hidden = items.length - shown.length;
    this.more.hidden = !hidden;
    this.more.textContent = `Show ${Math.min(hidden, SHOWN)} more of ${hidden}`;
  }

  row(item) {
    let row = this.rows.get(item.key);
    if (row && row.item === item) return row.element;
    const cells = this.columns.map(([title, text]) => {
      const cell = make("td", text(item));
      cell.dataset.label = title;
      if (title === "state") cell.classList.add(item.state);
      if (PLAIN.has(title)) cell.classList.add("plain");
      return cell;
    });
    if (row) row.element.replaceChildren(...cells);
    else {
      row = { element: make("tr") };
      row.element.append(...cells);
      this.rows.set(item.key, row);
    }
    row.element.classList.toggle("fresh", page.isReady && item.isFresh);
    row.item = item;
    return row.element;
  }
}

/** A plot of the last ten minutes. */
class Plot {
  /**
   * @param values gives the values of a sample by the names of their lines
   * @param isZeroed whether a line is at zero where a sample has no value of it
   */
  constructor(title, unit, values, isZeroed = false) {
    this.unit = unit;
    this.values = values;
    this.isZeroed = isZeroed;
    this.figure = make("figure");
    const caption = make("figcaption", title);
    this.top = make("span");
    caption.append(this.top);
    this.title = title;
    this.graph = draw("svg", { viewBox: "0 0 600 80", preserveAspectRatio: "none", role: "img" });
    this.legend = make("ul");
    this.figure.append(caption, this.graph, this.legend);
    find("plots").append(this.figure);
  }

  show(samples) {
    const rows = samples.map((sample) => [sample.at, this.values(sample)]);
    const sums = new Map();
    for (const [, values] of rows) {
      for (const [name, value] of Object.entries(values)) {
        sums.set(name, (sums.get(name) ?? 0) + value);
      }
    }
    const names = [...sums.keys()].sort((a, b) => sums.get(b) - sums.get(a)).slice(0, LINES);
    names.sort();
    const top = Math.max(0, ...rows.flatMap(([, values]) => names.map((name) => values[name] ?? 0)));
    const now = samples.at(-1)?.at ?? 0;
    const lines = names.map((name, number) => {
      const points = rows
        .filter(([, values]) => name in values || this.isZeroed)
        .map(([at, values]) => {
          const height = top ? (values[name] ?? 0) / top : 0;
          return `${(SPAN - (now - at)).toFixed(1)},${(77 - 72 * height).toFixed(1)}`;
        });
      return draw("polyline", { points: points.join(" "), class: `c${number}` });
    });
    this.graph.replaceChildren(draw("line", { x1: 0, x2: SPAN, y1: 78, y2: 78 }), ...lines);
    const last = rows.at(-1)?.[1] ?? {};
    const told = names.map((name) => `${name} ${short(last[name] ?? 0)}`);
    this.legend.replaceChildren(...told.map((text, number) => make("li", text, `c${number}`)));
    this.top.textContent = `up to ${short(top)}${this.unit}`;
    this.graph.setAttribute("aria-label", `${this.title}: ${told.join(", ") || "nothing yet"}`);
  }
}

/** Everything that is shown. */
class Page {
  constructor() {
    this.mappings = new Map();
    this.services = new Map();
    this.samples = [];
    this.isReady = false;
    this.drawn = 0;
    this.waiting = 0;
  }

  begin() {
    const age = (item) => item.since;
    this.programTable = new Table("programs", [
      ["program", (p) => String(p.program), (p) => p.program],
      ["name", (p) => p.name, (p) => p.name],
      ["versions", (p) => p.versions.join(", "), (p) => p.versions[0]],
      ["netids", (p) => p.netids.join(", "), (p) => p.netids.join()],
      ["addresses", (p) => p.addresses.join("\n"), (p) => p.addresses.join()],
      ["owner", (p) => p.owner, (p) => p.owner],
      ["since", (p) => moment(p.since), age],
      ["state", (p) => p.state, (p) => p.state],
    ]);
    this.serviceTable = new Table("services", [
      ["name", (s) => s.name, (s) => s.name],
      ["user", (s) => String(s.user), (s) => s.user],
      ["pid", (s) => String(s.pid), (s) => s.pid],
      ["port", (s) => s.port, (s) => (s.port.startsWith("/") ? s.port : Number(s.port))],
      ["executable", (s) => s.exe, (s) => s.exe],
      ["since", (s) => moment(s.since), age],
    ]);
    this.plots = [
      new Plot("Calls a second", "/s", (s) => s.rates, true),
      new Plot("Registrations", "", (s) => ({ services: s.service, mappings: s.mapping })),
      new Plot("Latency", " ms", (s) =>
        s.latency ? { median: s.latency[0], longest: s.latency[1] } : {}),
    ];
    this.filter = find("filter");
    this.filter.addEventListener("input", () => this.touch());
    document.addEventListener("keydown", (event) => this.key(event));
    this.listen();
  }

  key(event) {
    if (event.key === "/" && document.activeElement !== this.filter) {
      event.preventDefault();
      this.filter.focus();
    } else if (event.key === "Escape") {
      this.filter.value = "";
      this.touch();
    }
  }

  listen() {
    const source = new EventSource("events");
    const on = (name, take) =>
      source.addEventListener(name, (event) => take(JSON.parse(event.data)));
    on("begin", ({ host, version }) => {
      this.mappings.clear();
      this.services.clear();
      this.isReady = false;
      find("host").textContent = `on ${host}`;
      find("version").textContent = `portmapd ${version}`;
      document.title = `portmapd on ${host}`;
    });
    on("history", (samples) => {
      this.samples = samples;
      this.sampled();
    });
    on("sample", (sample) => {
      this.samples.push(sample);
      this.sampled();
    });
    on("cluster", ({ host, state, age, hosts, services }) => {
      const parts = [`${host} in a cluster: ${state}`, `${hosts} machines`, `${services} services`];
      if (age) parts.push(`known ${age} s ago`);
      find("cluster").textContent = parts.join(", ");
      find("cluster").hidden = false;
    });
    on("rows", (rows) => {
      rows.forEach((row) => this.take(row));
      this.touch();
    });
    on("ready", () => {
      this.isReady = true;
      this.tell("live", "live");
      this.touch();
    });
    source.addEventListener("error", () => this.tell("lost", "connection lost; trying again"));
  }

  tell(className, text) {
    find("state").className = className;
    find("state").textContent = text;
  }

  take([kind, key, ...cells]) {
    if (kind === "service") {
      const [name, user, pid, port, exe, since] = cells;
      const text = `${name} ${user} ${pid} ${port} ${exe}`.toLowerCase();
      this.services.set(key, { key, name, user, pid, port, exe, since, text, isFresh: this.isReady });
    } else if (kind === "mapping") {
      const [program, name, version, netid, address, owner, state, since] = cells;
      this.mappings.set(key, {
        program, name, version, netid, address, owner, state, since, isFresh: this.isReady,
      });
      this.groups = null;
    } else {
      this.services.delete(key);
      if (this.mappings.delete(key)) this.groups = null;
    }
  }

  /** Programs as rpcinfo -s shows them: one row for all versions and netids of an owner. */
  programs() {
    if (this.groups) return this.groups;
    const groups = new Map();
    for (const m of this.mappings.values()) {
      const key = `${m.program} ${m.owner} ${m.state}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(m);
    }
    this.groups = [...groups].map(([key, all]) => {
      const of = (field) => [...new Set(all.map((m) => m[field]))];
      const { program, name, owner, state } = all[0];
      const item = {
        key, program, name, owner, state,
        versions: of("version").sort((a, b) => b - a),
        netids: of("netid").sort(),
        addresses: [...new Set(all.map((m) => `${m.netid} ${m.address}`))].sort(),
        since: Math.min(...all.map((m) => m.since)),
        isFresh: all.some((m) => m.isFresh),
      };
      item.text = [program, name, owner, state, item.versions, item.addresses].join(" ").toLowerCase();
      // What is as it was stays the same object, and its row is left alone.
      const before = this.programTable.rows.get(key)?.item;
      return before && JSON.stringify(before) === JSON.stringify(item) ? before : item;
    });
    return this.groups;
  }

  /** Draw soon, a few times a second at most. */
  touch() {
    if (this.waiting) return;
    const left = Math.max(0, this.drawn + DRAWING - performance.now());
    this.waiting = setTimeout(() => requestAnimationFrame(() => this.show()), left);
  }

  show() {
    this.waiting = 0;
    this.drawn = performance.now();
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (item) => words.every((word) => item.text.includes(word));
    const programs = this.programs();
    const services = [...this.services.values()];
    this.programTable.show(programs.filter(matches), programs.length);
    this.serviceTable.show(services.filter(matches), services.length);
    this.count();
  }

  sampled() {
    const last = this.samples.at(-1);
    if (last) this.samples = this.samples.filter((s) => s.at > last.at - SPAN);
    this.plots.forEach((plot) => plot.show(this.samples));
    this.count();
  }

  count() {
    const last = this.samples.at(-1);
    const paused = [...this.mappings.values()].filter((m) => m.state === "paused").length;
    const rate = last ? Object.values(last.rates).reduce((a, b) => a + b, 0) : 0;
    const open = last ? last.connections.rpc + last.connections.channel : 0;
    const counters = [
      ["services", this.services.size],
      ["mappings", this.mappings.size - paused],
      ["paused", paused],
      ["calls", last?.calls ?? 0],
      ["calls a second", rate],
      ["refused", last?.refusals ?? 0],
      ["connections", open],
      ["latency", last?.latency ? `${short(last.latency[0])} ms` : "–"],
    ];
    find("counters").replaceChildren(...counters.map(([name, value]) => {
      const card = make("div");
      card.append(make("dt", name), make("dd", typeof value === "number" ? short(value) : value));
      return card;
    }));
  }
}

const page = new Page();
page.begin();
