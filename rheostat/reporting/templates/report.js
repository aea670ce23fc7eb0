"use strict";
(() => {
  const root = document.documentElement;
  let charts = JSON.parse(document.getElementById("charts").textContent);
  const announce = (text) => { document.getElementById("announce").textContent = text; };
  const drawn = new Set();
  const DASHES = ["solid", "dash", "dot", "dashdot"];

  // Light and dark: the system's choice until the reader makes one.
  const button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("rheostat-theme"); } catch { /* storage is closed for pages from disk in some browsers */ }
  const setTheme = () => {
    const theme = chosen || (system.matches ? "dark" : "light");
    root.dataset.theme = theme;
    button.setAttribute("aria-pressed", String(theme === "dark"));
    button.setAttribute("aria-label", "Dark colours");
    drawn.forEach(draw);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("rheostat-theme", chosen); } catch { /* as above */ }
    setTheme();
  });
  system.addEventListener("change", setTheme);

  // What is shown, per task.
  const state = charts.tasks.map((task) => ({ axis: Object.keys(task.axes)[0] || "steps", hidden: new Set(), seeds: false }));

  // Colours live in the style sheet; a hidden element resolves them for the theme at hand, as "rgb(r, g, b)".
  const probe = document.body.appendChild(Object.assign(document.createElement("i"), { hidden: true }));
  const tone = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const fade = (colour, alpha) => colour.replace(/^rgba?\(([^,]+,[^,]+,[^,)]+).*$/, `rgba($1, ${alpha})`);
  const short = (value) => Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });

  const traces = (task, panel, view) => {
    const result = [];
    for (const series of panel.series) {
      const arm = task.arms[series.arm];
      const colour = tone(`--c${arm.colour}`);
      const x = series.x[panel.axis ? "own" : view.axis];
      const visible = !view.hidden.has(series.arm);
      const common = { visible, x, type: "scatter", mode: "lines", meta: { arm: series.arm } };
      const singles = view.seeds && series.seeds;
      if (series.low && !singles) {
        result.push({ ...common, y: series.high, line: { width: 0 }, hoverinfo: "skip", name: "high" });
        result.push({ ...common, y: series.low, line: { width: 0 }, fill: "tonexty", fillcolor: fade(colour, 0.17), hoverinfo: "skip", name: "low" });
      }
      if (singles) {
        const thin = x.filter((_, index) => index % series.every === 0);
        for (const seed of series.seeds) {
          result.push({ ...common, x: thin, y: seed, line: { color: fade(colour, 0.4), width: 1 }, hoverinfo: "skip", name: "seed" });
        }
      }
      const interval = series.low ? series.low.map((low, index) => `${short(series.y[index])} [${short(low)}, ${short(series.high[index])}]`) : series.y.map(short);
      result.push({
        ...common, y: series.y, name: arm.label, mode: series.y.length <= 20 ? "lines+markers" : "lines", marker: { size: 4, color: colour },
        line: { color: colour, width: 2, dash: DASHES[arm.dash] }, text: interval, hovertemplate: "%{text}",
      });
    }
    return result;
  };

  const layout = (task, panel, view, headline) => {
    const most = 1.01 * Math.max(...panel.series.flatMap((series) => (panel.axis ? series.x.own : series.x[view.axis].at(-1))));
    return {
      margin: { l: 46, r: 10, t: 6, b: headline ? 42 : 38 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 11.5, color: tone("--soft") },
      hovermode: panel.axis ? "closest" : "x unified", hoverlabel: { bgcolor: tone("--card"), bordercolor: tone("--line"), font: { color: tone("--ink"), size: 12.5 } },
      xaxis: {
        title: { text: panel.axis || task.axes[view.axis], standoff: 6 }, gridcolor: tone("--grid"), zeroline: false, linecolor: tone("--line"), range: [0, most],
        spikecolor: tone("--soft"), spikethickness: 1, spikedash: "dot",
        nticks: headline ? 10 : 6, exponentformat: "SI", fixedrange: matchMedia("(pointer: coarse)").matches, automargin: false, hoverformat: ",.4~s",
      },
      yaxis: {
        gridcolor: tone("--grid"), zeroline: true, zerolinecolor: tone("--line"), zerolinewidth: 1, nticks: headline ? 7 : 5, exponentformat: "SI",
        fixedrange: true, automargin: true, rangemode: panel.series.every((series) => Math.min(...(series.low || series.y)) >= 0) ? "nonnegative" : "normal",
      },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    };
  };

  function draw(plot) {
    const number = Number(plot.closest(".task").dataset.task);
    const task = charts.tasks[number];
    const panel = task.panels[plot.dataset.panel];
    const headline = plot.parentElement.classList.contains("headline");
    drawn.add(plot);
    return window.Plotly.react(plot, traces(task, panel, state[number]), layout(task, panel, state[number], headline), {
      responsive: true, displayModeBar: false, scrollZoom: false, doubleClick: "reset",
    });
  }

  const redraw = (number) => drawn.forEach((plot) => { if (Number(plot.closest(".task").dataset.task) === number) draw(plot); });

  // What a reader can press; called again when a page that refreshes itself has new content.
  const listen = () => {
    document.querySelectorAll(".task").forEach((section, number) => {
      const controls = section.querySelector(".controls");
      if (!controls) return;
      controls.hidden = false;
      const view = state[number];
      for (const input of controls.querySelectorAll("input")) {
        input.checked = input.type === "radio" ? input.value === view.axis : input.name === "seeds" ? view.seeds : !view.hidden.has(Number(input.value));
      }
      controls.addEventListener("change", ({ target }) => {
        if (target.type === "radio") {
          view.axis = target.value;
          announce(`Charts against ${charts.tasks[number].axes[view.axis]}.`);
        } else if (target.name === "seeds") {
          view.seeds = target.checked;
          announce(target.checked ? "Single seeds shown." : "Intervals shown.");
        } else {
          view.hidden[target.checked ? "delete" : "add"](Number(target.value));
          announce(`${charts.tasks[number].arms[Number(target.value)].label} ${target.checked ? "shown" : "hidden"}.`);
        }
        redraw(number);
      });
    });
    document.querySelectorAll(".command").forEach((block) => {
      const copy = block.querySelector(".copy");
      if (!navigator.clipboard) return;
      copy.hidden = false;
      copy.addEventListener("click", async () => {
        await navigator.clipboard.writeText(block.querySelector("code").textContent);
        copy.textContent = "Copied";
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      });
    });
  };
  listen();

  // The chart library is packed into the page; charts are drawn when they come near the window.
  const library = async () => {
    const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (character) => character.charCodeAt(0));
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "400px" });
  const start = async () => {
    await library();
    document.querySelectorAll(".plot").forEach((plot) => watcher.observe(plot));
    root.dataset.ready = `${Math.round(performance.now())} ms`;
  };

  // A page that refreshes itself: new text, new numbers, and the charts that are there stay where they are.
  const opened = (node) => `${node.closest("figure")?.querySelector(".plot").id || ""} ${node.querySelector("summary").textContent.replace(/\d+/, "")}`;
  const take = (next) => {
    const main = next.querySelector("main");
    const open = new Set([...document.querySelectorAll("details[open]")].map(opened));
    const { name, value } = document.activeElement;
    charts = JSON.parse(next.getElementById("charts").textContent);
    charts.tasks.forEach((task, number) => {
      state[number] ||= { axis: Object.keys(task.axes)[0] || "steps", hidden: new Set(), seeds: false };
      if (!(state[number].axis in task.axes)) state[number].axis = Object.keys(task.axes)[0] || "steps";
    });
    main.querySelectorAll("details").forEach((node) => { node.open = open.has(opened(node)); });
    main.querySelectorAll(".plot").forEach((plot) => {
      const old = document.getElementById(plot.id);
      if (!old || !drawn.has(old)) { watcher.observe(plot); return; }
      old.setAttribute("aria-label", plot.getAttribute("aria-label"));
      plot.replaceWith(old);
    });
    document.querySelector("main").replaceWith(main);
    for (const plot of drawn) if (!plot.isConnected) drawn.delete(plot);
    for (const id of ["status", "written"]) document.getElementById(id).textContent = next.getElementById(id).textContent;
    listen();
    if (name && value) main.querySelector(`input[name="${CSS.escape(name)}"][value="${CSS.escape(value)}"]`)?.focus();
    drawn.forEach(draw);
  };
  const refresh = async () => {
    try {
      const answer = await fetch("update", { cache: "no-store" });
      const text = await answer.text();
      if (!answer.ok) throw new Error(text);
      take(new DOMParser().parseFromString(text, "text/html"));
    } catch (error) {
      document.getElementById("status").textContent = error instanceof TypeError ? "The page is not being served any more." : error.message;
    }
  };
  const every = Number(document.body.dataset.every);
  const follow = async () => {
    if (document.visibilityState === "visible") await refresh();
    setTimeout(follow, 1000 * every);
  };

  setTheme();
  start().then(() => { if (every) setTimeout(follow, 1000 * every); }).catch((error) => {
    document.querySelectorAll(".plot").forEach((plot) => { plot.innerHTML = '<p class="failed">This browser cannot draw the charts; their numbers are under “Data”.</p>'; });
    console.error(error);
  });
})();
