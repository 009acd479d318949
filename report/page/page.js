"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const report = JSON.parse(byId("report").textContent);
  const table = byId("images");
  const body = table.tBodies[0];
  const heads = [...table.tHead.querySelectorAll("[data-m]")];
  const rows = [...body.rows];
  const stage = byId("stage"), tabs = byId("tabs"), dialog = byId("zoom"), canvas = byId("canvas");
  const FIRST = "flow", STEP = 1.4;

  let shown = rows; // the rows in view, in their order
  let row = null; // the one in the viewer
  let view = FIRST; // the picture that was asked for, also where an image lacks it
  let sorted = { measure: "epe", worst: true };

  // ---- pictures: text until someone looks at them

  const pairOf = (row) => report.pairs[row.dataset.id];
  const nameOf = (row) => row.querySelector("th button").textContent;
  const setOf = (row) => row.querySelector("th small").textContent;
  const viewOf = (row) => (pairOf(row).names.includes(view) ? view : pairOf(row).names[0]);

  function show(img, row, name) {
    img.src = "data:image/webp;base64," + byId(`p${row.dataset.id}-${name}`).textContent;
    img.alt = `${report.titles[name]} of ${nameOf(row)}`;
    img.width = pairOf(row).width;
    img.height = pairOf(row).height;
    img.hidden = false;
  }

  // Only rows on the screen or close to it have their small picture.
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target: cell, isIntersecting } of entries) {
        cell.replaceChildren();
        if (isIntersecting && pairOf(cell.parentElement)) cell.append(new Image());
        drawThumbs(cell);
      }
    },
    { rootMargin: "300px 0px" },
  );

  function drawThumbs(part) {
    for (const img of part.querySelectorAll("img")) {
      const row = img.closest("tr");
      show(img, row, viewOf(row));
    }
  }

  // ---- the table

  const cellOf = (row, measure) => row.querySelector(`td[data-m="${CSS.escape(measure)}"]`);
  const valueOf = (row, measure) => Number(cellOf(row, measure).dataset.v ?? NaN);

  function sort(measure, worst) {
    sorted = { measure, worst };
    const head = heads.find((head) => head.dataset.m === measure);
    const falling = worst !== "low" in head.dataset;
    const keys = new Map(rows.map((row) => [row, valueOf(row, measure)]));
    rows.sort((one, other) => {
      const a = keys.get(one), b = keys.get(other);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return a === b ? 0 : (a < b) === falling ? 1 : -1;
    });
    body.append(...rows);
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    byId("sort").value = measure;
    byId("order").value = worst ? "worst" : "best";
    // What a narrow screen shows of each row: EPE and what it is sorted by.
    for (const cell of body.querySelectorAll("td[data-m]")) {
      cell.classList.toggle("by", cell.dataset.m === measure || cell.dataset.m === "epe");
    }
    filter();
  }

  function filter() {
    const set = byId("set").value, text = byId("find").value.trim().toLowerCase();
    for (const row of rows) {
      row.hidden = (set && row.dataset.set !== set) || !nameOf(row).toLowerCase().includes(text);
    }
    shown = rows.filter((row) => !row.hidden);
    byId("shown").textContent =
      shown.length === rows.length ? `${rows.length}` : `${shown.length} of ${rows.length}`;
    byId("none").hidden = shown.length > 0;
    if (shown.length && !shown.includes(row)) select(shown[0]);
    else if (row) tellPosition();
  }

  function tellPosition() {
    const place = shown.indexOf(row);
    byId("position").textContent = place < 0 ? "" : `${place + 1} of ${shown.length}`;
    byId("previous").disabled = place <= 0;
    byId("next").disabled = place < 0 || place === shown.length - 1;
  }

  // ---- the viewer

  function select(chosen) {
    if (row) row.removeAttribute("aria-current");
    row = chosen;
    row.setAttribute("aria-current", "true");
    byId("viewer").hidden = false;
    for (const id of ["viewer-title", "zoom-title"]) {
      const parts = row.querySelector("th button").cloneNode(true).childNodes;
      byId(id).replaceChildren(...parts);
    }
    byId("viewer-set").textContent = setOf(row);
    tellPosition();
    byId("values").replaceChildren(
      ...heads
        .map((head) => [head, cellOf(row, head.dataset.m)])
        .filter(([, cell]) => cell.dataset.v !== undefined)
        .map(([head, cell]) => {
          const entry = document.createElement("div");
          entry.append(document.createElement("dt"), document.createElement("dd"));
          entry.firstChild.textContent = head.querySelector("abbr").textContent;
          entry.firstChild.title = head.querySelector("abbr").title;
          const unit = head.querySelector("small");
          entry.lastChild.textContent = cell.textContent + (unit ? ` ${unit.textContent}` : "");
          return entry;
        }),
    );
    const pair = pairOf(row);
    for (const id of ["stage", "tabs", "legend"]) byId(id).hidden = !pair;
    byId("bare").hidden = Boolean(pair);
    if (!pair) {
      if (dialog.open) dialog.close();
      return;
    }
    makeTabs(pair);
    fit();
    showView();
  }

  function makeTabs(pair) {
    const make = (name) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.view = name;
      button.append(report.titles[name]);
      button.addEventListener("click", () => switchTo(name));
      return button;
    };
    const small = pair.names.map(make);
    for (const button of small) {
      button.setAttribute("role", "tab");
      button.setAttribute("aria-controls", "panel");
      button.prepend(new Image());
      show(button.firstChild, row, button.dataset.view);
      button.firstChild.alt = "";
    }
    tabs.style.setProperty("--count", Math.max(pair.names.length, 6));
    tabs.replaceChildren(...small);
    byId("zoom-tabs").replaceChildren(...pair.names.map(make));
  }

  function showView() {
    const name = viewOf(row), pair = pairOf(row), title = report.titles[name];
    show(byId("picture"), row, name);
    stage.setAttribute("aria-label", `Zoom: ${byId("picture").alt}`);
    for (const tab of tabs.children) {
      const chosen = tab.dataset.view === name;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
    }
    for (const button of byId("zoom-tabs").children) {
      button.setAttribute("aria-pressed", button.dataset.view === name);
    }
    const scale = (share) => `${Number((pair.maxFlow * share).toPrecision(3))} px`;
    for (const mark of document.querySelectorAll("[data-scale]")) {
      mark.textContent = scale(Number(mark.dataset.scale));
    }
    byId("legend-title").textContent = title;
    for (const part of byId("legend").querySelectorAll("[data-for]")) {
      part.hidden = !part.dataset.for.split(" ").includes(name);
    }
    if (dialog.open) showLarge();
  }

  function switchTo(name) {
    if (name === view) return;
    view = name;
    const focused = tabs.contains(document.activeElement);
    showView();
    if (focused) tabs.querySelector('[aria-selected="true"]').focus();
    drawThumbs(body);
  }

  function turn(step) {
    if (!row || !pairOf(row)) return;
    const names = pairOf(row).names;
    switchTo(names[(names.indexOf(viewOf(row)) + step + names.length) % names.length]);
  }

  function move(step) {
    const next = shown[shown.indexOf(row) + step];
    if (next) select(next);
  }

  // ---- zoom

  const SMALLEST = 0.25, LARGEST = 40; // screen pixels for one of the image
  const PIXELS_FROM = 4; // from there on its pixels have sharp edges
  let scale = 1;

  // The middle stays where it is.
  function zoomTo(wanted) {
    const large = byId("large"), { clientWidth, clientHeight } = canvas;
    const x = (canvas.scrollLeft + clientWidth / 2) / scale, y = (canvas.scrollTop + clientHeight / 2) / scale;
    scale = Math.min(Math.max(wanted, SMALLEST), LARGEST);
    large.style.width = `${pairOf(row).width * scale}px`;
    large.style.imageRendering = scale >= PIXELS_FROM ? "pixelated" : "auto";
    canvas.scrollTo(x * scale - clientWidth / 2, y * scale - clientHeight / 2);
  }

  function showLarge() {
    const name = viewOf(row);
    show(byId("large"), row, name);
    const colours = `, full colour at ${Number(pairOf(row).maxFlow.toPrecision(3))} px`;
    const scale = { flow: colours, truth: colours, error: `, ${canvas.dataset.errorScale}` };
    byId("zoom-view").textContent = report.titles[name] + (scale[name] || "");
  }

  function fit() {
    if (!dialog.open) return;
    const { width, height } = pairOf(row);
    zoomTo(Math.min(canvas.clientWidth / width, canvas.clientHeight / height));
  }

  function openZoom() {
    if (!row || !pairOf(row)) return;
    dialog.showModal();
    showLarge(); // before the fit, for its text may make the canvas smaller
    fit();
  }

  // ---- what people do

  body.addEventListener("click", (event) => {
    const chosen = event.target.closest("tr");
    if (!chosen) return;
    select(chosen);
    byId("viewer").scrollIntoView({ block: "nearest" });
    if (pairOf(chosen)) stage.focus({ preventScroll: true });
  });
  for (const head of heads) {
    head.querySelector("button").addEventListener("click", () => {
      const { measure, worst } = sorted;
      sort(head.dataset.m, head.dataset.m === measure ? !worst : true);
    });
  }
  const listen = (event, handlers) => {
    for (const [id, handler] of Object.entries(handlers)) byId(id).addEventListener(event, handler);
  };
  const larger = () => zoomTo(scale * STEP), smaller = () => zoomTo(scale / STEP);
  const bySelects = () => sort(byId("sort").value, byId("order").value === "worst");
  listen("change", { sort: bySelects, order: bySelects, set: filter });
  listen("input", { find: filter });
  listen("submit", { tools: (event) => event.preventDefault() });
  listen("click", {
    stage: openZoom, previous: () => move(-1), next: () => move(1), fit, close: () => dialog.close(), larger, smaller,
  });
  listen("close", { zoom: () => stage.focus({ preventScroll: true }) });
  addEventListener("resize", fit);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select")) return;
    const inViewer = dialog.open || byId("viewer").contains(event.target);
    const scrolls = event.target.matches(".scroll"); // its own arrows move it
    const action = {
      ...(scrolls ? {} : { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1) }),
      ...(inViewer ? { ArrowUp: () => move(-1), ArrowDown: () => move(1) } : {}),
      ...(dialog.open ? { "+": larger, "=": larger, "-": smaller, 0: fit } : {}),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  for (const row of rows) {
    for (const head of heads) cellOf(row, head.dataset.m).dataset.label = head.dataset.plain;
    watcher.observe(row.cells[0]);
  }
  sort("epe", true);
})();
