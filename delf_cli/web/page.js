// The page: takes a photo, asks the server, and shows the answer. Only the answer to the latest request is shown.

import { element, number, showGroups, showLocated, showMatches, showWhy } from "/show.js";
import { Stage } from "/stage.js";
import { Tabs } from "/tabs.js";

const $ = (id) => document.getElementById(id);
const HINTS = {
  box: [
    "Drag a box to search for a part.",
    " With the keyboard: Enter adds a box, arrow keys move it, Shift and arrow keys resize it, Enter searches, Escape removes it.",
  ],
  place: [
    "Click a place to see why it belongs to the object.",
    " With the keyboard: arrow keys move the ring, Shift moves it faster, Enter explains.",
  ],
};

let collection = null;
let photo = null; // {id, name, width, height} of the latest upload
let located = null; // the latest localization of it
let task = null; // the request that is running

class RequestError extends Error {}

async function ask(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("cannot reach the server; check that delf-jax serve is still running");
  }
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new RequestError(answer.error);
  return answer;
}

const post = (address, body, signal) =>
  ask(address, { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// Runs work(signal) and shows the progress bar. It stops the request that was running; errors are shown as an alert.
async function run(text, what, work) {
  task?.abort();
  const mine = (task = new AbortController());
  const start = performance.now();
  const tick = () => {
    const seconds = Math.floor((performance.now() - start) / 1000);
    const hint = seconds < 5 ? "" : "; the first photo of each size takes longest";
    $("busy-text").textContent = seconds < 1 ? `${text} …` : `${text} … ${seconds} s${hint}`;
  };
  $("alert").hidden = true;
  $("busy").hidden = false;
  $("status").textContent = text;
  document.querySelector(".answers").setAttribute("aria-busy", "true");
  tick();
  const timer = setInterval(tick, 500);
  try {
    const said = await work(mine.signal);
    if (mine === task) $("status").textContent = said ?? "";
  } catch (error) {
    if (mine === task && error.name !== "AbortError") complain(what, error);
  } finally {
    clearInterval(timer);
    if (mine === task) {
      task = null;
      $("busy").hidden = true;
      document.querySelector(".answers").setAttribute("aria-busy", "false");
    }
  }
}

function complain(what, error) {
  if (!(error instanceof RequestError)) console.error(error);
  $("status").textContent = "";
  $("alert").textContent = `${what}: ${error instanceof RequestError ? error.message : "something went wrong on this page; its console shows the error"}`;
  $("alert").hidden = false;
}

const stage = new Stage($("stage"), {
  onBox: search,
  onPlace: explain,
  onMove: (text) => ($("status").textContent = text),
  onDrawing: (on) => $("draw").setAttribute("aria-pressed", String(on)),
});

const views = new Tabs($("views"), view);

async function take(file) {
  if (!file) return;
  views.choose($("tab-find"));
  const name = file.name || "pasted photo";
  if (collection && file.size > collection.max_bytes) {
    complain(name, new RequestError(`the file is larger than ${collection.max_bytes >> 20} MiB; save the photo smaller`));
    return;
  }
  let isTaken = false;
  await run(`Reading ${name}`, name, async (signal) => {
    const headers = { "Content-Type": "application/octet-stream" };
    const taken = await ask("/api/photos", { method: "POST", signal, headers, body: file });
    photo = { ...taken, name };
    located = null;
    isTaken = true;
  });
  if (!isTaken) return;
  $("drop").className = "small";
  document.querySelector("#drop .button").textContent = "Another photo";
  $("work").hidden = false;
  $("photo-name").textContent = photo.name;
  $("photo-size").textContent = `${photo.width} × ${photo.height}`;
  for (const panel of ["panel-search", "located", "why"]) $(panel).replaceChildren();
  stage.show(`/api/photos/${photo.id}.jpg`, photo.name, photo.width, photo.height);
  if (stage.mode === "place") await locate();
  else await search(null);
}

async function search(box) {
  $("whole").hidden = !box;
  const query = photo;
  await run(`Searching ${number(collection?.photos ?? 0)} photos`, query.name, async (signal) => {
    const found = await post(`/api/photos/${query.id}/search`, { box }, signal);
    return showMatches($("panel-search"), found, collection?.photos ?? 0, Boolean(box));
  });
}

async function locate() {
  const query = photo;
  $("why").replaceChildren();
  stage.place = null;
  await run("Looking for the object", query.name, async (signal) => {
    located = await post(`/api/photos/${query.id}/localize`, { label: $("label").value || null }, signal);
    stage.heat.src = `/api/maps/${located.id}.jpg`;
    showThreshold(located.threshold);
    return showBoxes(located);
  });
  showHeat();
}

async function explain(place) {
  if (!collection?.predictor?.explains) {
    complain("Why", new RequestError("this predictor has no training points; fit it again without --no-points"));
    return;
  }
  const query = photo;
  await run("Looking for the training places that explain it", query.name, async (signal) => {
    const why = await post(`/api/photos/${query.id}/explain`, { at: place }, signal);
    return showWhy($("why"), why, place);
  });
}

function showBoxes(answer) {
  stage.boxes = answer.boxes;
  stage.draw();
  return showLocated($("located"), answer);
}

function showHeat() {
  stage.heat.hidden = !(stage.mode === "place" && located && $("show-map").checked);
}

function showThreshold(value) {
  $("threshold").value = value;
  $("threshold-value").textContent = Number(value).toFixed(2);
  $("threshold-own").hidden = Math.abs(value - (collection?.predictor?.threshold ?? value)) < 0.005;
}

// The slider may move while a request runs. Then only its latest value is requested next.
let isAsking = false;
let wanted = null;

async function moveThreshold(value) {
  showThreshold(value);
  wanted = value;
  if (isAsking || !located) return;
  isAsking = true;
  try {
    while (wanted !== null) {
      const threshold = wanted;
      wanted = null;
      const { id } = located;
      const answer = await ask(`/api/maps/${id}/boxes?threshold=${threshold}`);
      if (located?.id === id) $("status").textContent = showBoxes(answer);
    }
  } catch (error) {
    complain("Threshold", error);
  } finally {
    isAsking = false;
  }
}

async function view(tab) {
  if (tab.id !== "tab-groups" || $("view-groups").childElementCount) return;
  try {
    $("status").textContent = showGroups($("view-groups"), await ask("/api/groups"));
  } catch (error) {
    complain("Groups", error);
  }
}

function act(tab) {
  const isSearch = tab.id === "tab-search";
  $("box-controls").hidden = !isSearch;
  $("map-controls").hidden = isSearch;
  stage.setMode(isSearch ? "box" : "place");
  describeStage();
  showHeat();
  if (!photo) return;
  if (!isSearch && !located) locate();
  else if (isSearch && !$("panel-search").childElementCount) search(stage.box);
}

function describeStage() {
  const [pointer, keys] = HINTS[stage.mode];
  $("hint").replaceChildren(pointer, element("span", { className: "keys" }, keys));
  $("stage").setAttribute("aria-label", stage.mode === "box" ? "Photo: choose a part" : "Photo: choose a place");
}

async function start() {
  describeStage();
  new Tabs($("actions"), act);
  $("file").addEventListener("change", () => {
    take($("file").files[0]);
    $("file").value = ""; // so that choosing the same file again is a change
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dragging", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  }
  $("draw").addEventListener("click", () => {
    stage.setDrawing(!stage.drawing);
    if (stage.drawing) stage.root.focus();
  });
  $("whole").addEventListener("click", () => {
    stage.box = null;
    stage.draw();
    stage.root.focus();
    search(null);
  });
  $("threshold").addEventListener("input", () => moveThreshold($("threshold").valueAsNumber));
  $("threshold-own").addEventListener("click", () => {
    moveThreshold(collection.predictor.threshold);
    $("threshold").focus();
  });
  $("show-map").addEventListener("change", showHeat);
  $("label").addEventListener("change", locate);
  try {
    collection = await ask("/api/collection");
  } catch (error) {
    complain("delf-jax", error);
    return;
  }
  $("collection").textContent = `${number(collection.photos)} photos, ${number(collection.features)} features`;
  const predictor = collection.predictor;
  $("actions").hidden = !predictor;
  $("views").hidden = !collection.groups;
  $("tab-groups").textContent = `Groups (${number(collection.groups)})`;
  if (!predictor?.labels.length) return;
  $("label").append(element("option", { value: "" }, "any class"), ...predictor.labels.map((name) => element("option", { value: name }, name)));
  $("label-choice").hidden = false;
}

start();
