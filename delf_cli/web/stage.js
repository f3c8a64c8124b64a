// The photo on the page. The user chooses a box or a place on it by mouse, finger or keyboard. All coordinates are
// pixels of the upright original photo.

const SVG = "http://www.w3.org/2000/svg";
// Step of an arrow key, and smallest side of a box, as fractions of the photo's longest side.
const STEP = 0.02;
const SMALLEST = 0.04;

export class Stage {
  // root: the focusable element. onBox(box or null) and onPlace([x, y]) are called when the user has chosen, onMove(text)
  // while the keyboard moves the box or place, onDrawing(on) when drawing with a finger begins or ends.
  constructor(root, { onBox, onPlace, onMove, onDrawing }) {
    Object.assign(this, { root, onBox, onPlace, onMove, onDrawing });
    this.fit = document.createElement("div");
    this.fit.className = "fit";
    this.photo = document.createElement("img");
    this.photo.draggable = false;
    this.heat = document.createElement("img");
    this.heat.className = "heat";
    this.heat.alt = "";
    this.heat.hidden = true;
    this.overlay = document.createElementNS(SVG, "svg");
    this.overlay.setAttribute("preserveAspectRatio", "none");
    this.overlay.setAttribute("aria-hidden", "true");
    this.fit.append(this.photo, this.heat, this.overlay);
    root.append(this.fit);
    this.mode = "box";
    this.clear();
    this.overlay.addEventListener("pointerdown", (event) => this.#press(event));
    this.overlay.addEventListener("pointermove", (event) => this.#drag(event));
    this.overlay.addEventListener("pointerup", (event) => this.#release(event));
    this.overlay.addEventListener("pointercancel", () => this.#abandon());
    root.addEventListener("keydown", (event) => this.#key(event));
  }

  clear() {
    Object.assign(this, { box: null, place: null, boxes: [], start: null, before: null });
  }

  show(source, name, width, height) {
    this.clear();
    Object.assign(this, { width, height });
    this.photo.src = source;
    this.photo.alt = name;
    this.photo.width = width;
    this.photo.height = height;
    this.heat.hidden = true;
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.draw();
  }

  setMode(mode) {
    this.mode = mode;
    this.setDrawing(false);
    this.draw();
  }

  setDrawing(on) {
    this.drawing = on;
    this.root.classList.toggle("drawing", on);
    this.onDrawing(on);
  }

  draw() {
    this.overlay.replaceChildren();
    if (this.mode === "box" && this.box) {
      const [x0, y0, x1, y1] = this.box;
      const { width, height } = this;
      for (const shade of [[0, 0, width, y0], [0, y1, width, height], [0, y0, x0, y1], [x1, y0, width, y1]]) {
        this.#rectangle("shade", shade);
      }
      this.#rectangle("box", this.box);
    }
    if (this.mode !== "place") return;
    this.boxes.forEach((box, rank) => this.#rectangle(rank ? "found" : "found first", box));
    if (this.place) {
      const shown = this.overlay.getBoundingClientRect();
      for (const kind of ["ring-edge", "ring"]) {
        const ring = document.createElementNS(SVG, "ellipse");
        const size = shown.width ? [(10 * this.width) / shown.width, (10 * this.height) / shown.height] : [10, 10];
        for (const [name, value] of Object.entries({ cx: this.place[0] + 0.5, cy: this.place[1] + 0.5, rx: size[0], ry: size[1] })) {
          ring.setAttribute(name, value);
        }
        ring.setAttribute("class", kind);
        this.overlay.append(ring);
      }
    }
  }

  #rectangle(kind, [x0, y0, x1, y1]) {
    const rect = document.createElementNS(SVG, "rect");
    const edges = { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) };
    for (const [name, value] of Object.entries(edges)) rect.setAttribute(name, value);
    rect.setAttribute("class", kind);
    this.overlay.append(rect);
  }

  #at(event) {
    const shown = this.overlay.getBoundingClientRect();
    const x = ((event.clientX - shown.left) / shown.width) * this.width;
    const y = ((event.clientY - shown.top) / shown.height) * this.height;
    return [Math.min(Math.max(x, 0), this.width), Math.min(Math.max(y, 0), this.height)];
  }

  // A finger scrolls the page, unless the user has pressed "Search a part". A mouse always draws.
  #press(event) {
    if (event.button !== 0) return;
    if (this.mode === "box" && event.pointerType === "touch" && !this.drawing) return;
    this.start = this.#at(event);
    this.before = this.box;
    if (this.mode === "box") this.overlay.setPointerCapture(event.pointerId);
  }

  #drag(event) {
    if (!this.start || this.mode !== "box") return;
    const [x, y] = this.#at(event);
    const [u, v] = this.start;
    this.box = [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];
    this.draw();
  }

  #release(event) {
    if (!this.start) return;
    const begun = this.start;
    this.start = null;
    if (this.mode === "place") {
      this.place = begun.map((value, axis) => Math.min(Math.floor(value), (axis ? this.height : this.width) - 1));
      this.draw();
      this.onPlace(this.place);
      return;
    }
    this.#drag(event);
    const least = SMALLEST * Math.max(this.width, this.height);
    const isBox = this.box && Math.min(this.box[2] - this.box[0], this.box[3] - this.box[1]) >= least;
    if (!isBox || this.box === this.before) {
      this.#abandon(); // a click draws nothing
      return;
    }
    this.setDrawing(false);
    this.onBox(this.box);
  }

  #abandon() {
    this.start = null;
    this.box = this.before;
    this.draw();
  }

  // Adds a box in the middle, which the keyboard can move.
  beginBox() {
    const { width, height } = this;
    this.box ??= [width / 4, height / 4, (3 * width) / 4, (3 * height) / 4];
    this.draw();
    this.root.focus();
  }

  #key(event) {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const isChoice = event.key === "Enter" || event.key === " ";
    if (event.ctrlKey || event.metaKey || event.altKey || !(direction || isChoice || event.key === "Escape")) return;
    event.preventDefault();
    if (this.mode === "box") this.#keyBox(event, direction, isChoice);
    else if (event.key !== "Escape") this.#keyPlace(event, direction, isChoice);
  }

  #keyBox(event, direction, isChoice) {
    if (event.key === "Escape") {
      if (!this.box) return;
      this.box = null;
      this.draw();
      this.onBox(null);
      return;
    }
    if (!this.box) {
      this.beginBox();
    } else if (isChoice) {
      this.onBox(this.box);
      return;
    } else {
      const step = STEP * Math.max(this.width, this.height);
      const least = SMALLEST * Math.max(this.width, this.height);
      const box = this.box.slice();
      [this.width, this.height].forEach((end, axis) => {
        const by = direction[axis] * step;
        if (event.shiftKey) {
          box[axis + 2] = Math.min(end, Math.max(box[axis] + least, box[axis + 2] + by));
        } else {
          const moved = Math.min(end - box[axis + 2], Math.max(-box[axis], by));
          box[axis] += moved;
          box[axis + 2] += moved;
        }
      });
      this.box = box;
      this.draw();
    }
    const [x0, y0, x1, y1] = this.box.map(Math.round);
    this.onMove(`Box from ${x0}, ${y0} to ${x1}, ${y1}`);
  }

  #keyPlace(event, direction, isChoice) {
    this.place ??= [Math.floor(this.width / 2), Math.floor(this.height / 2)];
    if (isChoice) {
      this.draw();
      this.onPlace(this.place);
      return;
    }
    const step = STEP * Math.max(this.width, this.height) * (event.shiftKey ? 4 : 1);
    this.place = [this.width, this.height].map((end, axis) =>
      Math.min(end - 1, Math.max(0, Math.round(this.place[axis] + direction[axis] * step))),
    );
    this.draw();
    this.onMove(`Place ${this.place[0]}, ${this.place[1]}`);
  }
}
