// A list of tabs: one is chosen by click, arrow keys, Home or End, and its panel is shown.

export class Tabs {
  // list: the element with role tablist. onChoose(tab) is called after another tab was chosen.
  constructor(list, onChoose) {
    this.tabs = [...list.querySelectorAll("[role=tab]")];
    this.onChoose = onChoose;
    for (const [place, tab] of this.tabs.entries()) {
      tab.addEventListener("click", () => this.choose(tab));
      tab.addEventListener("keydown", (event) => {
        const last = this.tabs.length - 1;
        const next = { ArrowLeft: Math.max(place - 1, 0), ArrowRight: Math.min(place + 1, last), Home: 0, End: last }[event.key];
        if (next === undefined) return;
        event.preventDefault();
        this.tabs[next].focus();
        this.choose(this.tabs[next]);
      });
    }
  }

  choose(tab) {
    for (const other of this.tabs) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
    this.onChoose(tab);
  }
}
