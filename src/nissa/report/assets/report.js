"use strict";
(async () => {
  const root = document.documentElement;
  const GLYPHS = { "triangle-up": "▲", "triangle-down-open": "▽", "triangle-right": "▶", x: "✕" };
  const CONFIG = { responsive: true, displaylogo: false, scrollZoom: false, doubleClick: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "resetScale2d"] };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = { axis: "time", group: "", range: null, scheme: null, smoothing: 0.8 };
  const LEAST_TO_SMOOTH = 30;
  const WIDEST_LABEL = 0.36;

  const unpack = (id) => {
    const text = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };

  const fail = (why) => {
    const place = document.getElementById("failure");
    place.textContent = `The figures could not be drawn (${why}). They need a browser of 2023 or newer; words and tables do not.`;
    place.hidden = false;
  };

  const scheme = () => state.scheme ?? (dark.matches ? "dark" : "light");

  // A heatmap holds logarithms; what one reads are the numbers themselves.
  const magnitudes = (trace) => {
    const { floor } = trace.meta;
    if (floor === undefined) return;
    const bytes = Uint8Array.from(atob(trace.z.bdata), (each) => each.charCodeAt(0));
    const exponents = new Float32Array(bytes.buffer);
    const width = Number(trace.z.shape.split(",")[1]);
    const row = (at) => Array.from(exponents.subarray(at * width, (at + 1) * width), (z) => (z <= floor ? 0 : 10 ** z));
    trace.customdata = Array.from({ length: exponents.length / width }, (_, at) => row(at));
  };

  const decoded = (values) => {
    if (Array.isArray(values)) return values;
    const bytes = Uint8Array.from(atob(values.bdata), (each) => each.charCodeAt(0));
    return Array.from(new { f4: Float32Array, f8: Float64Array }[values.dtype](bytes.buffer));
  };

  // Cut out of the middle, since names differ at their ends; an entity is one character.
  const shortened = (text, most) => {
    const characters = text.match(/&(?:lt|gt|amp);|./gsu) ?? [];
    if (characters.length <= most) return text;
    const head = Math.floor((most - 1) / 3);
    return [...characters.slice(0, head), "…", ...characters.slice(head + 1 - most)].join("");
  };

  // Exponential moving average without the bias towards zero at the start; gaps stay gaps.
  const smoothed = (values, weight) => {
    let sum = 0, share = 1;
    return values.map((value) => {
      if (value === null || !Number.isFinite(value)) return null;
      sum = sum * weight + (1 - weight) * value;
      share *= weight;
      return sum / (1 - share);
    });
  };

  // The values themselves become faint behind their moving average.
  const smooth = (trace) => {
    const { smooth: means } = trace.meta;
    if (!means || !state.smoothing || trace.mode !== "lines" || trace.points < LEAST_TO_SMOOTH) return [trace];
    const line = { ...trace.line, width: 2 };
    const average = { ...trace, ...(means.y ? { x: means.x } : {}), ...(means.y && state.axis === "step" ? means.step : {}), y: smoothed(means.y ?? trace.numbers, state.smoothing), line, hovertemplate: "%{y:.4g} smoothed" };
    return [{ ...trace, opacity: 0.3 }, average];
  };

  const prepare = (trace) => {
    if (trace.meta.smooth) {
      trace.numbers = decoded(trace.y);
      trace.points = trace.numbers.length;
    }
    magnitudes(trace);
    trace.meta.time = Object.fromEntries(Object.keys(trace.meta.step).map((name) => [name, trace[name]]));
  };

  class Panel {
    constructor(key, variants, page) {
      this.page = page;
      this.variants = variants;
      this.index = 0;
      this.log = false;
      this.hidden = new Set();
      this.plot = document.querySelector(`[data-plot="${key}"]`);
      this.legend = document.querySelector(`[data-legend="${key}"]`);
      this.select = document.querySelector(`[data-variant="${key}"]`);
      this.title = document.getElementById(`${key}-title`).textContent;
      this.prepared = new Set();
      this.select?.addEventListener("change", () => { this.index = Number(this.select.value); this.draw(); });
      document.querySelector(`[data-log="${key}"]`)?.addEventListener("click", (event) => {
        this.log = !this.log;
        event.currentTarget.setAttribute("aria-pressed", this.log);
        this.draw();
      });
      this.plot.addEventListener("keydown", (event) => this.key(event));
    }

    get variant() {
      const found = this.variants[this.index];
      if (!this.prepared.has(this.index)) found.data.forEach(prepare);
      this.prepared.add(this.index);
      return found;
    }

    choose(group) {
      if (!this.select || !group) return;
      const option = [...this.select.options].find((each) => each.dataset.of === group);
      if (option && this.select.selectedOptions[0].dataset.of !== group) {
        this.select.value = option.value;
        this.index = Number(option.value);
      }
    }

    traces() {
      return this.variant.data.flatMap((trace) => {
        const { group, label, step } = trace.meta;
        const placed = "x" in step;
        const elsewhere = state.group && group && group !== state.group && this.variants.length === 1;
        const unknown = state.axis === "step" && !placed;
        return smooth({ ...trace, ...trace.meta[state.axis], visible: !(this.hidden.has(label) || elsewhere || unknown) });
      });
    }

    layout() {
      const { layout } = this.variant;
      const narrow = this.plot.clientWidth < 480;
      const xaxis = { ...(narrow ? { nticks: 4, tickangle: 0 } : {}), ...this.page.axes[state.axis], range: [...(state.range ?? this.page.extents[state.axis])], autorange: false };
      const yaxis = { ...layout.yaxis };
      const margin = { ...layout.margin };
      if (narrow && yaxis.ticktext && margin.l > this.plot.clientWidth * WIDEST_LABEL) {
        margin.l = Math.round(this.plot.clientWidth * WIDEST_LABEL);
        yaxis.ticktext = yaxis.ticktext.map((text) => shortened(text, Math.floor((margin.l - 16) / 7.2)));
      }
      if (this.log) {
        Object.assign(yaxis, { type: "log", tickformat: "~g" });
        delete yaxis.range; // of a linear axis
      }
      const found = { ...layout, margin, xaxis, yaxis, template: this.page.templates[scheme()], showlegend: false };
      const lanes = layout.meta?.lanes;
      if (lanes && state.group) {
        const rows = lanes.flatMap((lane, at) => (lane === state.group ? [at] : []));
        if (rows.length) {
          yaxis.range = [rows.at(-1) + 0.65, rows[0] - 0.75];
          found.height = layout.meta.row * rows.length + 90;
        }
      }
      return found;
    }

    async draw() {
      await Plotly.react(this.plot, this.traces(), this.layout(), CONFIG);
      this.plot.querySelectorAll("svg.main-svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
      this.plot.querySelectorAll("[role=toolbar]").forEach((bar) => bar.setAttribute("aria-label", `Tools of ${this.title}`));
      this.key_of_colours();
      if (!this.heard) {
        this.heard = true;
        this.plot.on("plotly_relayout", (change) => this.moved(change));
        this.plot.on("plotly_doubleclick", () => { show(null); return false; });
      }
    }

    moved(change) {
      const from = change["xaxis.range[0]"] ?? change["xaxis.range"]?.[0];
      const to = change["xaxis.range[1]"] ?? change["xaxis.range"]?.[1];
      if (change["xaxis.autorange"]) show(null);
      else if (from !== undefined && to !== undefined) show([from, to], this);
    }

    key_of_colours() {
      const shown = this.variant.data.filter((trace) => trace.type !== "heatmap" && !(state.group && trace.meta.group && trace.meta.group !== state.group));
      const focused = document.activeElement?.dataset.label;
      this.legend.replaceChildren(...shown.map((trace) => this.button(trace)));
      if (focused !== undefined) [...this.legend.children].find((each) => each.dataset.label === focused)?.focus();
    }

    button(trace) {
      const { label } = trace.meta;
      const button = document.createElement("button");
      const swatch = document.createElement("span");
      const glyph = trace.mode === "markers" ? GLYPHS[trace.marker.symbol] : undefined;
      const weight = trace.type === "bar" ? "" : trace.line?.width > 2 ? "bold" : "thin";
      swatch.className = `swatch ${glyph ? "mark" : weight}`;
      swatch.style.setProperty("--swatch", trace.line?.color ?? trace.marker?.color);
      swatch.setAttribute("aria-hidden", "true");
      swatch.textContent = glyph ?? "";
      button.type = "button";
      button.dataset.label = label;
      button.setAttribute("aria-pressed", String(!this.hidden.has(label)));
      button.append(swatch, label);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(label)) this.hidden.add(label);
        this.draw();
      });
      return button;
    }

    key(event) {
      if (event.target !== this.plot || event.ctrlKey || event.metaKey || event.altKey) return;
      const [low, high] = (state.range ?? this.page.extents[state.axis]).map(number);
      const width = high - low;
      const moves = {
        ArrowLeft: [low - width / 8, high - width / 8],
        ArrowRight: [low + width / 8, high + width / 8],
        "+": [low + width / 6, high - width / 6],
        "=": [low + width / 6, high - width / 6],
        "-": [low - width / 4, high + width / 4],
        0: null,
      };
      if (!(event.key in moves)) return;
      event.preventDefault();
      show(moves[event.key]);
    }
  }

  const number = (value) => (typeof value === "number" ? value : Date.parse(`${value.replace(" ", "T")}Z`));

  let panels = [];

  // All figures share their x axis: where one goes the others follow.
  const show = (range, from) => {
    state.range = range;
    const wanted = range ?? (panels.length ? panels[0].page.extents[state.axis] : null);
    panels.filter((panel) => panel !== from && panel.plot.layout).forEach((panel) => {
      const now = panel.plot.layout.xaxis.range;
      if (number(now[0]) !== number(wanted[0]) || number(now[1]) !== number(wanted[1])) Plotly.relayout(panel.plot, { "xaxis.range": [...wanted] });
    });
  };

  const all = () => Promise.all(panels.map((panel) => panel.draw()));

  const listen = () => {
    document.querySelectorAll("[data-axis]").forEach((button) => button.addEventListener("click", () => {
      state.axis = button.dataset.axis;
      state.range = null;
      document.querySelectorAll("[data-axis]").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      all();
    }));
    document.getElementById("group")?.addEventListener("change", (event) => {
      state.group = event.target.value;
      document.querySelectorAll("[data-group]").forEach((each) => { each.hidden = state.group !== "" && each.dataset.group !== state.group; });
      panels.forEach((panel) => panel.choose(state.group));
      all();
    });
    document.getElementById("smoothing").addEventListener("input", (event) => {
      state.smoothing = Number(event.target.value);
      document.getElementById("smoothed").textContent = state.smoothing.toFixed(2);
      panels.filter((panel) => panel.variant.data.some((trace) => trace.meta.smooth)).forEach((panel) => panel.draw());
    });
    document.getElementById("reset").addEventListener("click", () => show(null));
    document.getElementById("scheme").addEventListener("click", () => { state.scheme = scheme() === "dark" ? "light" : "dark"; dress(); });
    dark.addEventListener("change", () => { if (state.scheme === null) dress(); });
  };

  const dress = () => {
    if (state.scheme !== null) root.dataset.scheme = state.scheme;
    document.getElementById("scheme").setAttribute("aria-pressed", String(scheme() === "dark"));
    return all();
  };

  // What one sees comes first; between figures the page listens.
  const open = async () => {
    const seen = (panel) => panel.plot.getBoundingClientRect().top < innerHeight;
    for (const panel of panels.filter(seen)) await panel.draw();
    performance.mark("shown");
    for (const panel of panels.filter((each) => !seen(each))) {
      await new Promise((go) => setTimeout(go));
      await panel.draw();
    }
  };

  try {
    const [library, data] = await Promise.all([unpack("library"), unpack("data")]);
    performance.mark("unpacked");
    const script = document.createElement("script");
    script.textContent = library;
    document.head.append(script);
    performance.mark("loaded");
    const page = JSON.parse(data);
    panels = Object.entries(page.panels).map(([key, panel]) => new Panel(key, panel.variants, page));
    listen();
    document.getElementById("scheme").setAttribute("aria-pressed", String(scheme() === "dark"));
    await open();
    performance.mark("drawn");
    root.dataset.drawn = String(panels.length);
  } catch (error) {
    fail(error.message);
    throw error;
  }
})();
