// Comfort for the page: parts are renewed without loading it whole, times in the viewer's zone, copying, and the time
// line by pointer and keys. All that matters works without it.
"use strict";

const parts = "[data-part]";
const say = (text) => { document.getElementById("said").textContent = text; };

// Local times, where they are not UTC.
const localForm = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const zoneForm = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" });
const localTime = (date) => {
  const zone = zoneForm.formatToParts(date).find((part) => part.type === "timeZoneName");
  return `${localForm.format(date)} ${zone ? zone.value : ""}`.trim();
};
const addLocalTimes = (root) => {
  for (const time of root.querySelectorAll("time")) {
    const date = new Date(time.dateTime);
    if (isNaN(date) || date.getTimezoneOffset() === 0) continue;
    const local = document.createElement("span");
    local.className = "local";
    local.textContent = ` ${localTime(date)}`;
    time.after(local);
  }
};

const prepare = (root) => {
  addLocalTimes(root);
  for (const hidden of root.querySelectorAll(".script")) hidden.hidden = false;
};

// What was asked for last wins.
let asked = 0;
const fetchPage = async (url) => {
  const number = ++asked;
  const answer = await fetch(url, { headers: { accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  // Not ours any more: signed out, or the service starts anew.
  if (!page.getElementById("line")) return location.assign(url);
  return number === asked ? page : undefined;
};

// A way back to the element that had the focus, in a part that is made anew.
const place = (element) => {
  if (!element || element === document.body) return null;
  if (element.id) return `#${CSS.escape(element.id)}`;
  for (const name of ["data-key", "data-event", "href"]) {
    const value = element.getAttribute(name);
    if (value && element.closest(parts)) return `#${element.closest(parts).id} [${name}="${CSS.escape(value)}"]`;
  }
  return null;
};

const put = (page, only) => {
  const focus = place(document.activeElement);
  for (const old of document.querySelectorAll(parts)) {
    const made = page.getElementById(old.id);
    if (!made || (only && !only.includes(old.id))) continue;
    const node = document.importNode(made, true);
    prepare(node);
    old.replaceWith(node);
  }
  const again = focus && document.querySelector(focus);
  if (again && again !== document.activeElement) again.focus({ preventScroll: true });
};

const go = async (url, { push = true, quiet = false } = {}) => {
  let page;
  try {
    page = await fetchPage(url);
  } catch {
    return say("The service does not answer.");
  }
  if (!page) return;
  put(page);
  if (push) history.pushState(null, "", url);
  const target = !quiet && new URL(url, location.href).hash === "#plan" && document.getElementById("plan");
  if (!target) return;
  target.focus({ preventScroll: true });
  target.scrollIntoView({ block: "nearest" });
  say(target.querySelector("h3")?.textContent ?? "");
};

document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-swap]");
  const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0;
  if (link && plain && !event.defaultPrevented) {
    event.preventDefault();
    // Links of drawings have an object here.
    return go(link.getAttribute("href"));
  }
  const button = event.target.closest("[data-copy]");
  if (button) copy(document.getElementById(button.dataset.copy), button);
});

// The clipboard is there over HTTPS and on this machine alone.
const copy = async (from, button) => {
  const range = document.createRange();
  range.selectNodeContents(from);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  let copied = false;
  try {
    await navigator.clipboard.writeText(from.textContent);
    copied = true;
  } catch {
    copied = document.execCommand("copy");
  }
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  say(copied ? "The command is copied." : "The command is selected: copy it with Ctrl and C.");
  setTimeout(() => { button.textContent = "Copy"; }, 3000);
};

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-swap]");
  if (!form) return;
  event.preventDefault();
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  const hash = new URL(form.action).hash;
  go(`/?${query}${hash}`);
});

addEventListener("popstate", () => go(location.href, { push: false, quiet: true }));

// The time line: wheel with Ctrl zooms, dragging moves, a click is a moment.
const span = () => {
  const line = document.getElementById("line");
  return [Number(line.dataset.from), Number(line.dataset.until)];
};
const lay = (from, until) => {
  const line = document.getElementById("line");
  [line.dataset.from, line.dataset.until] = [from, until];
  const at = (ms) => Math.min(105, Math.max(-5, ((ms - from) / (until - from)) * 100));
  for (const element of line.querySelectorAll("[data-at]")) {
    const x = `${at(Number(element.dataset.at))}%`;
    for (const name of element.localName === "line" ? ["x1", "x2"] : ["x"]) element.setAttribute(name, x);
  }
  for (const bar of line.querySelectorAll("[data-until]")) {
    const [first, last] = [at(Number(bar.dataset.from)), at(Number(bar.dataset.until))];
    bar.setAttribute("x", `${first}%`);
    bar.setAttribute("width", `${Math.max(0.1, last - first)}%`);
  }
};
let later;
const settle = (wait) => {
  clearTimeout(later);
  later = setTimeout(() => {
    const [from, until] = span();
    const url = new URL(location.href);
    url.searchParams.set("from", new Date(from).toISOString());
    url.searchParams.set("until", new Date(until).toISOString());
    url.hash = "";
    go(url.href, { push: false, quiet: true }).then(() => history.replaceState(null, "", url.href));
  }, wait);
};
const drawing = (target) => target.closest?.(".drawing > svg");
const moment = (svg, x) => {
  const box = svg.getBoundingClientRect();
  const [from, until] = span();
  return from + ((x - box.left) / box.width) * (until - from);
};

document.addEventListener("wheel", (event) => {
  const svg = drawing(event.target);
  if (!svg || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  const [from, until] = span();
  const middle = moment(svg, event.clientX);
  const factor = Math.min(4, Math.max(0.25, Math.exp(event.deltaY / 300)));
  if ((until - from) * factor < 1000) return;
  lay(Math.round(middle - (middle - from) * factor), Math.round(middle + (until - middle) * factor));
  settle(250);
}, { passive: false });

let drag = null;
let dragged = false;
document.addEventListener("pointerdown", (event) => {
  const svg = drawing(event.target);
  dragged = false;
  if (!svg || event.button !== 0) return;
  drag = { svg, x: event.clientX, span: span(), onLink: Boolean(event.target.closest("a")) };
});
document.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const moved = event.clientX - drag.x;
  if (!dragged && Math.abs(moved) < 5) return;
  if (!dragged) {
    dragged = true;
    drag.svg.setPointerCapture(event.pointerId);
    drag.svg.parentElement.classList.add("moving");
  }
  const [from, until] = drag.span;
  const by = Math.round((moved / drag.svg.getBoundingClientRect().width) * (until - from));
  lay(from - by, until - by);
});
const letGo = (event) => {
  if (!drag) return;
  const { svg, onLink } = drag;
  drag = null;
  svg.parentElement.classList.remove("moving");
  if (dragged) return settle(50);
  if (onLink || event.type !== "pointerup") return;
  const [from, until] = span();
  // As exact as the picture is.
  const pixel = (until - from) / svg.getBoundingClientRect().width;
  const unit = pixel >= 500 ? 1000 : 1;
  const time = new Date(Math.round(moment(svg, event.clientX) / unit) * unit).toISOString();
  const url = new URL(location.href);
  for (const name of ["exclusive", "timeline", "backup"]) url.searchParams.delete(name);
  url.searchParams.set("by", "time");
  url.searchParams.set("value", time.replace("T", " "));
  url.hash = "#plan";
  go(url.href);
};
document.addEventListener("pointerup", letGo);
document.addEventListener("pointercancel", letGo);
// The click that ends a drag follows no link.
document.addEventListener("click", (event) => {
  if (dragged && drawing(event.target)) event.preventDefault();
  dragged = false;
}, { capture: true });
document.addEventListener("dragstart", (event) => { if (drawing(event.target)) event.preventDefault(); });

document.addEventListener("keydown", (event) => {
  const line = document.activeElement?.closest("#line");
  if (!line || event.ctrlKey || event.metaKey || event.altKey) return;
  const way = line.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!way) return;
  event.preventDefault();
  go(way.getAttribute("href"));
});

// How it stands, as long as somebody looks.
setInterval(async () => {
  if (document.hidden || drag) return;
  const before = asked;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (asked === before && page.getElementById("state")) put(page, ["state"]);
  } catch {
    say("The service does not answer.");
  }
}, 10000);

prepare(document);
