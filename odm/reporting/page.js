const content = JSON.parse(document.getElementById("content").textContent);

// Tables: a number by its value, a word by its letters; what is empty stays last.
function key(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace(/[(,]/g, "").replace("\u2212", "-"));
  return Number.isNaN(number) ? text : number;
}
function compare(a, b) {
  if (a === "" || b === "") return 0;
  return typeof a === typeof b ? (typeof a === "number" ? a - b : a.localeCompare(b)) : typeof a === "number" ? -1 : 1;
}
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table"), column = head.cellIndex;
    const falls = head.getAttribute("aria-sort") === "ascending";
    for (const each of table.querySelectorAll("[aria-sort]")) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const rows = [...table.querySelectorAll("tbody tr")].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => (a === "") - (b === "") || (falls ? -1 : 1) * compare(a, b));
    const [first, ...others] = table.tBodies;
    first.append(...rows.map(([, row]) => row));
    for (const body of others) body.remove();
  });
}

// Charts: drawn when they come near, after the page is there.
const quiet = "currentColor";
const views = {};
async function draw(id) {
  const spec = content.charts[id], menus = [...document.querySelectorAll(`[data-chart="${id}"]`)];
  for (const menu of menus) spec.params.find((each) => each.name === `${menu.dataset.key}_chosen`).value = menu.value;
  const narrow = document.body.clientWidth < 500;
  const { view } = await vegaEmbed(`#chart-${id}`, spec, {
    renderer: "svg", actions: false, mode: "vega-lite",
    config: {
      background: null, font: getComputedStyle(document.body).fontFamily, autosize: { type: "fit-x", contains: "padding" },
      view: { stroke: null },
      axis: { labelColor: quiet, titleColor: quiet, domainColor: quiet, tickColor: quiet, gridColor: quiet, gridOpacity: 0.13, titleFontWeight: "normal", labelFontSize: 11, titleFontSize: 12 },
      legend: { orient: "bottom", layout: { bottom: { direction: "vertical", anchor: "start", margin: 6 } }, columns: narrow ? 2 : 5, labelColor: quiet, titleColor: quiet, symbolLimit: 0, titleFontWeight: "normal" },
    },
  });
  views[id] = view;
}
for (const menu of document.querySelectorAll("[data-chart]"))
  menu.addEventListener("change", () => {
    const { chart, key: name } = menu.dataset;
    views[chart]?.signal(`${name}_chosen`, menu.value).runAsync();
  });
const near = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen)
    if (isIntersecting) {
      near.unobserve(target);
      draw(target.id.slice("chart-".length));
    }
}, { rootMargin: "400px" });
for (const chart of document.querySelectorAll(".chart")) near.observe(chart);

// Images: two versions of a scene on one canvas, and what lies between them.
const at = (id) => document.getElementById(id);
if (content.scenes.length) {
  const picture = at("picture"), lens = at("lens"), stage = at("stage"), difference = at("difference");
  const ZOOM = 8;
  let left, right, point, turn = 0;

  async function pixels(version) {
    const image = new Image();
    image.src = version.src;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height), pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    return pen.getImageData(0, 0, image.width, image.height);
  }
  // What has a reference is the difference from it, about 128 and modulo 256.
  async function whole(scene, place) {
    const version = scene.versions[place], found = await pixels(version);
    if (version.of === null) return found;
    const reference = await pixels(scene.versions[version.of]);
    for (let i = 0; i < found.data.length; i++)
      if (i % 4 < 3) found.data[i] = (found.data[i] + reference.data[i] - 128) & 255;
    return found;
  }
  function paint() {
    const pen = picture.getContext("2d"), { width, height } = picture, edge = Math.round((at("division").value / 100) * width);
    pen.putImageData(right, 0, 0);
    pen.putImageData(left, 0, 0, 0, 0, edge, height);
    magnify();
    pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--mark");
    if (edge > 0 && edge < width) pen.fillRect(edge, 0, 1, height);
  }
  function magnify() {
    lens.hidden = !point;
    if (!point) return;
    const pen = lens.getContext("2d"), part = lens.width / ZOOM;
    pen.imageSmoothingEnabled = false;
    pen.clearRect(0, 0, lens.width, lens.height);
    pen.drawImage(picture, point[0] - part / 2, point[1] - part / 2, part, part, 0, 0, lens.width, lens.height);
    lens.style.left = `${(100 * point[0]) / picture.width}%`;
    lens.style.top = `${(100 * point[1]) / picture.height}%`;
  }
  function subtract() {
    const found = new ImageData(left.width, left.height), gain = at("gain").value;
    let sum = 0;
    for (let i = 0; i < found.data.length; i += 4) {
      let apart = 0;
      for (let c = 0; c < 3; c++) {
        const each = Math.abs(left.data[i + c] - right.data[i + c]);
        found.data[i + c] = gain * each;
        apart += each;
      }
      sum += apart / 3;
      found.data[i + 3] = 255;
    }
    difference.getContext("2d").putImageData(found, 0, 0);
    at("apart").textContent = `Difference of the two, times ${gain}. Mean over pixels and channels: ${(sum / (found.data.length / 4)).toFixed(2)} of 255.`;
  }
  async function compose() {
    const scene = content.scenes[at("scene").value], mine = ++turn;
    const both = await Promise.all([whole(scene, at("left").value), whole(scene, at("right").value)]);
    if (mine !== turn) return;
    [left, right] = both;
    for (const canvas of [picture, difference]) [canvas.width, canvas.height] = [left.width, left.height];
    paint();
    subtract();
  }
  function choose() {
    const { versions } = content.scenes[at("scene").value];
    for (const [id, preferred] of [["left", 2], ["right", versions.length - 1]]) {
      const menu = at(id), before = menu.options.length ? menu.selectedIndex : preferred;
      menu.replaceChildren(...versions.map((version, place) => new Option(version.label, place)));
      menu.selectedIndex = Math.min(before, versions.length - 1);
    }
    compose();
  }
  at("scene").addEventListener("change", choose);
  for (const id of ["left", "right"]) at(id).addEventListener("change", compose);
  at("division").addEventListener("input", paint);
  at("gain").addEventListener("input", subtract);
  stage.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    point = [((event.clientX - box.left) / box.width) * picture.width, ((event.clientY - box.top) / box.height) * picture.height];
    paint();
  });
  stage.addEventListener("pointerleave", () => { point = undefined; paint(); });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4] }[event.key];
    if (event.key === "Escape") point = undefined;
    else if (step) {
      const [x, y] = point ?? [picture.width / 2, picture.height / 2];
      point = [Math.min(Math.max(x + step[0], 0), picture.width), Math.min(Math.max(y + step[1], 0), picture.height)];
      event.preventDefault();
    } else return;
    paint();
  });
  choose();
}
