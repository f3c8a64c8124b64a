// Shows the answers of the server on the page. Text is never set as markup, because names come from files.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const number = (value, digits = 0) => {
  const text = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return text.replace("-", "−");
};

function power(value) {
  if (!value) return ["0"];
  const [mantissa, exponent] = value.toExponential(1).split("e");
  return [`${mantissa} × 10`.replace("-", "−"), element("sup", {}, exponent.replace("+", "").replace("-", "−"))];
}

function picture(source, alt, what) {
  const image = element("img", { src: source, alt });
  image.addEventListener("error", () => image.replaceWith(what()));
  return image;
}

const gone = (text) => () => element("p", { className: "gone" }, text);

function chip(accepted) {
  const word = element("span", { className: "word" }, accepted ? " accepted" : " refused");
  return element("span", { className: `chip ${accepted ? "yes" : "no"}` }, accepted ? "✓" : "✕", word);
}

function row(match, rank, search, isOpen) {
  const proof = element("div", { className: "proof", id: `proof-${rank}`, hidden: true });
  const facts = element("span", { className: "facts" }, `${match.inliers} matches agree; ${match.confidence}`);
  const button = element(
    "button",
    { className: "row", "aria-controls": proof.id, "aria-expanded": "false" },
    element("span", { className: "rank" }, String(rank + 1)),
    picture(`/api/collection/${match.place}.jpg`, "", () => element("span", { className: "thumb" })),
    element("span", {}, element("span", { className: "name" }, match.name), element("br"), facts),
    chip(match.accepted),
    element("span", { className: "arrow", "aria-hidden": "true" }, "›"),
  );
  button.querySelector("img").className = "thumb";
  const open = (isShown) => {
    if (isShown && !proof.childElementCount) {
      const address = `/api/searches/${search}/${rank}.jpg`;
      const alt = `The photo beside ${match.name}, ${match.inliers} matching features joined by lines`;
      const missing = gone("No picture: the photo’s file has been moved or deleted since it was indexed.");
      proof.append(element("a", { href: address, target: "_blank", title: "Open in full size" }, picture(address, alt, missing)));
    }
    proof.hidden = !isShown;
    button.setAttribute("aria-expanded", String(isShown));
  };
  button.addEventListener("click", () => open(proof.hidden));
  if (isOpen) open(true);
  return element("li", {}, button, proof);
}

function verdict(isGood, title, ...text) {
  const sign = element("span", { className: "sign", "aria-hidden": "true" }, isGood ? "✓" : "✕");
  const words = element("div", {}, element("h2", {}, title), element("p", {}, ...text));
  return element("div", { className: `verdict ${isGood ? "yes" : "no"}` }, sign, words);
}

// Shows the ranked matches of a search. Returns one sentence for screen readers.
export function showMatches(panel, found, photos, hasBox) {
  const accepted = found.matches.filter((match) => match.accepted);
  const refused = found.matches.filter((match) => !match.accepted);
  const what = hasBox ? "this part" : "this photo";
  const count =
    `${number(found.features)} features, ${number(photos)} photos searched in ${number(found.seconds, 1)} s. ` +
    `What accepted means: ${found.guarantee}.`;
  const list = (matches) =>
    element(
      "ol",
      { className: "matches" },
      ...matches.map((match) => row(match, found.matches.indexOf(match), found.id, match === accepted[0])),
    );
  panel.replaceChildren();
  if (accepted.length) {
    const title = accepted.length === 1 ? `Found in ${accepted[0].name}` : `Found in ${accepted.length} photos`;
    panel.append(verdict(true, title, count), list(accepted));
  } else if (found.features) {
    const why = "No photo of this collection shows the same thing. The matches below can be chance. ";
    panel.append(verdict(false, "No match", why, count));
  } else {
    panel.append(verdict(false, "No features", `There is nothing to search for in ${what}: it is empty or very small.`));
  }
  if (refused.length) {
    panel.append(element("h3", { className: "list-title" }, accepted.length ? "Also compared, but refused" : "Best candidates, all refused"));
    panel.append(list(refused));
  }
  const best = accepted[0];
  return best
    ? `Found: ${best.name}, ${best.inliers} matches agree. ${accepted.length} accepted.`
    : `No match for ${what}.`;
}

const count = (many, what) => `${number(many)} ${what}${many === 1 ? "" : "s"}`;

function member(photo) {
  const marks = [...(photo.copy_of ? [["copy", `a copy of ${photo.copy_of}`]] : []), ...(photo.other_name ? [["another name", ""]] : [])];
  const chips = marks.map(([word, title]) => element("span", { className: "chip no", title }, word));
  return element(
    "li",
    { title: photo.name },
    picture(`/api/collection/${photo.place}.jpg`, "", gone("Its file has been moved or deleted.")),
    photo.name,
    ...chips,
  );
}

function pair(found, address) {
  const kind = found.copy ? "copies" : "two views";
  const line = `${found.a} and ${found.b}: ${kind}, ${found.inliers} inliers, log10 NFA ${number(found.log10_nfa, 1)} (limit ${number(found.limit, 1)})`;
  const proof = element("div", { className: "proof" });
  const details = element("details", {}, element("summary", {}, line), proof);
  details.addEventListener("toggle", () => {
    if (!details.open || proof.childElementCount) return;
    const alt = `${found.a} beside ${found.b}, ${found.inliers} matching features joined by lines`;
    proof.append(picture(address, alt, gone("No picture: a photo’s file has been moved or deleted.")));
  });
  return details;
}

// Shows the groups of the collection. Returns one sentence for screen readers.
export function showGroups(panel, found) {
  const cards = found.groups.map((group, place) => {
    const size = `${group.members.length} photos${group.label ? ` · ${group.label}` : ""}`;
    const title = `Group ${place + 1}`;
    return element(
      "article",
      { className: "card", "aria-label": title },
      element("div", { className: "head" }, element("h3", {}, title), element("span", {}, size)),
      element("ul", { className: "sheet" }, ...group.members.map(member)),
      ...group.pairs.map((each, rank) => pair(each, `/api/groups/${place}/${rank}.jpg`)),
    );
  });
  const sentence = `${count(found.groups.length, "group")}; ${count(found.alone, "photo")} in none.`;
  panel.replaceChildren(element("p", { className: "soft" }, `${sentence} Open a pair to see its proof.`), ...cards);
  return sentence;
}

// Shows what was located. Returns one sentence for screen readers.
export function showLocated(panel, located) {
  const count = located.boxes.length;
  const title = count ? `${count} ${count === 1 ? "object" : "objects"}` : "Nothing found";
  const score = `Largest cosine with w* is ${number(located.score, 3)}. The map is cut at ${number(located.threshold, 2)} of its maximum.`;
  panel.replaceChildren(verdict(count > 0, title, score));
  return `${title}.`;
}

function point(entry) {
  const figures = [
    ["share", [`${number(100 * entry.share, 1)} %`]],
    ["cosine", [number(entry.similarity, 2)]],
    ["value", power(entry.value)],
    ["importance", power(entry.importance)],
  ];
  const place = entry.xy.map((value) => number(value)).join(", ");
  return element(
    "li",
    {},
    entry.thumbnail
      ? element("img", { src: entry.thumbnail, alt: `${entry.name} with a ring around ${place}` })
      : element("p", { className: "gone" }, "no picture stored"),
    element("p", { className: "name" }, entry.label ? `${entry.name} (${entry.label})` : entry.name),
    element("dl", {}, ...figures.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, ...value)])),
  );
}

// Shows the training places that explain a place. Returns one sentence for screen readers.
export function showWhy(panel, why, place) {
  const rows = [
    ["yes", "+", "Training places that speak for the object", why.excitatory],
    ["no", "−", "Training places that speak against it", why.inhibitory],
  ];
  const lists = rows.flatMap(([kind, sign, title, entries]) => [
    element("h4", {}, element("span", { className: `chip ${kind}` }, sign), ` ${title}`),
    entries.length ? element("ul", { className: "places" }, ...entries.map(point)) : element("p", {}, "None."),
  ]);
  const title = `Why ${place.join(", ")}?`;
  const sum = `The cosine with w* is ${number(why.value, 3)}. It is the sum of the values of all training places.`;
  panel.replaceChildren(element("div", { className: "card" }, element("h3", {}, title), element("p", { className: "soft" }, sum), ...lists));
  const names = (entries) => entries.map((entry) => entry.name).slice(0, 3).join(", ") || "nothing";
  return `${title} For: ${names(why.excitatory)}. Against: ${names(why.inhibitory)}.`;
}
