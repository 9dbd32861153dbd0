import { drawArcs } from "./arcs.js";
import { TYPES, charactersBefore, element, moved, write } from "./text.js";

const by = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(share * 100)} %`;
const nameOf = (label) => label.split("/").pop().replaceAll("_", " ");
const SPREAD_SAMPLES = 20;

const form = by("form"), text = by("text"), words = by("words"), regions = by("regions");
let service = null; // what the service says of itself
let given = []; // entities that the person has marked
let before = ""; // the text that they were marked in
let image = null; // the file
let crops = null; // boxes that belong to it
let shown = null; // what is on the page: the answer, and the elements that show it
let held = null; // what was clicked
let chosen = null; // what the image is looked at for: { kind: "entities" or "relations", number }

// What is asked

const tell = (problem) => { by("problem").textContent = problem ?? ""; by("problem").hidden = !problem; };
const reads = (task) => service?.models.some((model) => model.task === task);

const countCharacters = () => {
  const most = service?.limits.characters;
  by("count").textContent = `${Array.from(text.value).length.toLocaleString("en")}${most ? ` of ${most.toLocaleString("en")}` : ""} characters`;
};

const showGiven = () => {
  by("given").replaceChildren(...given.map((entity, number) => {
    const remove = element("button", { type: "button", textContent: "×" });
    remove.setAttribute("aria-label", `unmark ${entity.text}`);
    remove.addEventListener("click", () => { given.splice(number, 1); showGiven(); });
    return element("li", { className: entity.type }, element("bdi", {}, entity.text), " ", element("span", { className: "type" }, entity.type), remove);
  }));
};

text.addEventListener("input", () => {
  given = given.map((entity) => moved(entity, before, text.value)).filter(Boolean);
  before = text.value;
  countCharacters();
  showGiven();
});

for (const button of document.querySelectorAll("[data-mark]")) {
  button.addEventListener("click", () => {
    const selected = text.value.slice(text.selectionStart, text.selectionEnd);
    if (!selected.trim()) { tell("Select some words of the post first, then say what they are."); return; }
    tell();
    const from = text.selectionStart + selected.length - selected.trimStart().length;
    const start = charactersBefore(text.value, from), name = selected.trim();
    const end = start + Array.from(name).length;
    given = [...given.filter((own) => own.start !== start || own.end !== end), { start, end, type: button.dataset.mark, text: name }];
    given.sort((a, b) => a.start - b.start);
    showGiven();
  });
}

const chooseImage = (file, boxes = null) => {
  if (by("preview").src) URL.revokeObjectURL(by("preview").src);
  image = file;
  crops = boxes;
  by("preview").hidden = by("remove").hidden = !file;
  by("drop-hint").hidden = Boolean(file);
  if (file) by("preview").src = URL.createObjectURL(file); else by("preview").removeAttribute("src");
  // So that the field tells the name of a file that was dropped, too.
  const files = new DataTransfer();
  if (file) files.items.add(file);
  by("image").files = files.files;
};

by("image").addEventListener("change", () => { if (by("image").files.length) chooseImage(by("image").files[0]); });
by("remove").addEventListener("click", () => { chooseImage(null); by("image").focus(); });
const drop = by("drop");
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const file = [...event.dataTransfer.files].find((own) => own.type.startsWith("image/"));
  if (file) chooseImage(file); else tell("What was dropped is no image file.");
});
text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });

const ask = async (path, options) => {
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Error("The service does not answer. Is it still running?"); }
  const content = await answer.json().catch(() => ({ error: `the service answered with status ${answer.status}` }));
  if (!answer.ok) throw new Error(`Nothing could be extracted: ${content.error}.`);
  return content;
};

let examples = null, nextExample = 0;
by("example").addEventListener("click", async () => {
  try { examples ??= await ask("/api/examples"); } catch (error) { tell(error.message); return; }
  const example = examples[nextExample];
  nextExample = (nextExample + 1) % examples.length;
  text.value = before = example.text;
  const bytes = Uint8Array.from(atob(example.image), (character) => character.charCodeAt(0));
  chooseImage(new File([bytes], "example.jpg", { type: "image/jpeg" }), example.crops);
  const characters = Array.from(example.text);
  given = reads("mner") ? [] : example.entities.map((entity) => ({ ...entity, text: characters.slice(entity.start, entity.end).join("") }));
  countCharacters();
  showGiven();
  tell();
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  tell();
  if (!text.value.trim()) { tell("The post is empty: paste some text first."); text.focus(); return; }
  if (service && image && image.size > service.limits.body) { tell(`The image file is too large: ${service.limits.body.toLocaleString("en")} bytes at most.`); return; }
  // No form: one would send line ends in another way than they are counted.
  const body = { text: text.value, evidence: true, samples: by("spread").checked ? Math.min(SPREAD_SAMPLES, service?.limits.samples ?? SPREAD_SAMPLES) : 0 };
  if (given.length) body.entities = given.map(({ start, end, type }) => ({ start, end, type }));
  const sent = image;
  if (sent && crops) body.crops = crops;
  const began = performance.now();
  by("extract").disabled = true;
  by("status").textContent = "reading the post …";
  try {
    if (sent) body.image = await base64(sent);
    const found = await ask("/api/extract", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    show(found, sent, (performance.now() - began) / 1000);
  } catch (error) {
    by("status").textContent = "";
    tell(error.message);
  } finally {
    by("extract").disabled = false;
  }
});

const base64 = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => failed(new Error("The image file cannot be read."));
  reader.readAsDataURL(file);
});

// What is answered

const show = (found, file, seconds) => {
  if (shown?.url) URL.revokeObjectURL(shown.url);
  const evidence = found.evidence ?? found.relations.find((own) => own.evidence)?.evidence ?? null;
  const marks = write(words, found, evidence?.tokens ?? []);
  shown = { found, evidence, marks, url: file && URL.createObjectURL(file), rows: { entities: [], relations: [] }, arcs: [] };
  held = chosen = null;
  by("result").hidden = false;
  by("notes").replaceChildren(...found.notes.map((note) => element("li", {}, note)));
  by("picture").hidden = !shown.url;
  if (shown.url) by("seen").src = shown.url;
  listEntities(found);
  listRelations(found);
  marks.forEach((mark, number) => watch(mark, { kind: "entities", number }));
  by("shade-choice").hidden = !evidence;
  by("json").textContent = JSON.stringify(found, null, 1);
  shade();
  redraw();
  const some = (count, one, many) => `${count || "no"} ${count === 1 ? one : many}`;
  by("status").textContent = `Found ${some(found.entities.length, "entity", "entities")} and ${some(found.relations.length, "relation", "relations")} in ${seconds.toFixed(1)} s.`;
};

const confidence = (own) => {
  const cell = element("td", { className: "sure" });
  if (own.confidence == null) { cell.textContent = "given"; return cell; }
  const bar = element("span", { className: "bar" });
  bar.style.setProperty("--v", own.confidence);
  const spread = own.spread === undefined ? "" : ` ± ${Math.round(own.spread * 100)}`;
  cell.append(bar, `${Math.round(own.confidence * 100)}${spread} %`);
  return cell;
};

const table = (headings, rows) => element("table", {},
  element("thead", {}, element("tr", {}, ...headings.map((name) => Object.assign(element("th", {}, name), { scope: "col" })))),
  element("tbody", {}, ...rows));

const chip = (row, place, kind, number, ...parts) => {
  const made = element("button", { type: "button", className: "chip" }, ...parts);
  made.setAttribute("aria-pressed", "false");
  watch(made, { kind, number });
  shown.rows[kind][number] = row;
  place.append(made);
};

const listEntities = (found) => {
  const rows = found.entities.map((entity, number) => {
    const row = element("tr", { className: entity.type ?? "untyped" });
    const name = element("td");
    chip(row, name, "entities", number, element("bdi", {}, entity.text));
    const type = entity.type ? [element("span", { className: "type" }, entity.type), ` ${TYPES[entity.type]}`] : ["not told"];
    row.append(name, element("td", {}, ...type), confidence(entity));
    return row;
  });
  by("entities").replaceChildren(rows.length ? table(["name", "type", "confidence"], rows) : element("p", { className: "missing" }, "No name was found in this post."));
};

const listRelations = (found) => {
  const rows = found.relations.map((relation, number) => {
    const row = element("tr");
    const pair = element("td");
    const [head, tail] = [relation.head, relation.tail].map((place) => element("bdi", {}, found.entities[place].text));
    chip(row, pair, "relations", number, `${number + 1} `, head, " → ", tail);
    const label = element("td", {}, nameOf(relation.label), element("code", {}, relation.label));
    if (!relation.compatible) label.append(element("span", { className: "note" }, "the types of the two do not fit this relation"));
    row.append(pair, label, confidence(relation));
    return row;
  });
  const why = !reads("mre") ? "This model looks for entities alone." : found.entities.length < 2 ? "A relation needs two entities." : "No relation was found between these entities.";
  by("relations").replaceChildren(rows.length ? table(["from → to", "relation", "confidence"], rows) : element("p", { className: "missing" }, why));
};

/** What is hovered, focused or, by a click, held shows what it looks at. */
const same = (a, b) => a?.kind === b?.kind && a?.number === b?.number;
const watch = (part, what) => {
  part.addEventListener("pointerenter", () => look(what));
  part.addEventListener("pointerleave", () => look(held));
  part.addEventListener("focus", () => look(what));
  part.addEventListener("blur", () => look(held));
  part.addEventListener("click", () => { held = same(held, what) ? null : what; look(held); });
  if (part.localName === "mark") part.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); part.click(); } });
};

const mean = (rows) => {
  const there = rows.filter(Boolean);
  return there.length ? there[0].map((_, place) => there.reduce((sum, row) => sum + row[place], 0) / there.length) : null;
};

/** Attention of an entity's words or, where entities were given, of the relations that it takes part in. */
const ofEntity = (found, number) => {
  const entity = found.entities[number], own = found.evidence;
  if (own) return { from: own, weights: mean(own.attention.filter((_, word) => own.tokens[word][0] >= entity.start && own.tokens[word][1] <= entity.end)) };
  const rows = found.relations.flatMap((relation) => [[relation.head, 0], [relation.tail, 1]].filter(([place]) => place === number).map(([, row]) => relation.evidence?.attention[row]));
  return { from: shown.evidence, weights: mean(rows) };
};
const ofRelation = (found, number) => ({ from: found.relations[number].evidence, weights: mean(found.relations[number].evidence?.attention ?? []) });

const basis = () => {
  const { found, evidence } = shown;
  if (chosen) return { entities: ofEntity, relations: ofRelation }[chosen.kind](found, chosen.number);
  const known = found.relations.some((own) => own.evidence) ? found.relations.map((_, number) => ofRelation(found, number)) : found.entities.map((_, number) => ofEntity(found, number));
  const from = known[0]?.from ?? evidence;
  return { from, weights: mean(known.map((own) => own.weights)) ?? mean(evidence?.attention ?? []) };
};

const isWhole = (box) => box[0] === 0 && box[1] === 0 && box[2] === 1 && box[3] === 1;
const placeOf = (box) => {
  if (isWhole(box)) return "the whole image";
  if (box[2] <= box[0]) return "another picture";
  const at = (share, names) => names[Math.min(2, Math.floor(share * 3))];
  const name = [at((box[1] + box[3]) / 2, ["top", "", "bottom"]), at((box[0] + box[2]) / 2, ["left", "", "right"])].filter(Boolean).join(" ");
  return name ? `the ${name}` : "the middle";
};

const look = (what) => {
  chosen = what;
  const lit = (part, on) => part?.classList.toggle("lit", on);
  const { found, marks, arcs, rows } = shown;
  const relation = chosen?.kind === "relations" ? found.relations[chosen.number] : null;
  marks.forEach((mark, number) => {
    lit(mark, chosen?.kind === "entities" ? chosen.number === number : relation?.head === number || relation?.tail === number);
    mark.setAttribute("aria-pressed", String(same(held, { kind: "entities", number })));
  });
  for (const kind of ["entities", "relations"]) {
    rows[kind].forEach((row, number) => {
      lit(row, same(chosen, { kind, number }));
      row.querySelector("button").setAttribute("aria-pressed", String(same(held, { kind, number })));
    });
  }
  arcs.forEach((group, number) => lit(group, chosen?.kind === "entities" ? [found.relations[number].head, found.relations[number].tail].includes(chosen.number) : chosen?.number === number && chosen.kind === "relations"));
  shadeRegions();
};

const shadeRegions = () => {
  const { from, weights } = basis();
  const boxes = weights ? from.regions : [];
  const most = Math.max(...(weights ?? [0]), 1e-9);
  regions.replaceChildren(...boxes.map((box, place) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const [x, y, right, bottom] = box;
    for (const [name, value] of Object.entries({ x, y, width: right - x, height: bottom - y })) rect.setAttribute(name, value);
    rect.setAttribute("class", isWhole(box) ? "whole" : right <= x ? "unknown" : "part");
    rect.style.setProperty("--a", (weights[place] / most).toFixed(2));
    return rect;
  }));
  const { found } = shown;
  const subject = !chosen ? "All of it" : chosen.kind === "entities" ? `“${found.entities[chosen.number].text}”` : `“${found.entities[found.relations[chosen.number].head].text}” → “${found.entities[found.relations[chosen.number].tail].text}”`;
  if (!weights) { by("looks").textContent = "It is not known which parts of the image matter."; return; }
  const order = weights.map((_, place) => place).sort((a, b) => weights[b] - weights[a]).filter((place) => weights[place] >= 0.01).slice(0, 3);
  const agreement = from.agreement == null ? "" : ` Text and image agree: ${from.agreement.toFixed(2)}.`;
  by("looks").textContent = `${subject} looks at ${order.map((place) => `${placeOf(boxes[place])} ${percent(weights[place])}`).join(", ")}.${agreement}`;
};

const shade = () => {
  const on = by("shade").checked && shown?.evidence;
  words.classList.toggle("shaded", Boolean(on));
  by("shade-note").hidden = !on;
  if (!on) return;
  const kl = shown.evidence.kl, read = kl.filter((value) => value !== null);
  const least = Math.min(...read), most = Math.max(...read);
  for (const word of words.querySelectorAll(".w")) {
    const value = kl[word.dataset.word];
    word.style.setProperty("--k", value === null ? 0 : (value - least) / (most - least || 1));
    word.title = value === null ? "not read" : `${value.toFixed(1)} nats`;
  }
  by("shade-note").textContent = `What the latents of a word hold, from ${least.toFixed(1)} nats (not shaded) to ${most.toFixed(1)} nats (darkest).`;
};
by("shade").addEventListener("change", shade);

const redraw = () => {
  if (!shown) return;
  shown.arcs = drawArcs(by("arcs"), words, shown.found.relations, shown.marks, shown.found.relations.map((own) => nameOf(own.label)));
  look(chosen);
};
let width = 0;
new ResizeObserver(() => { if (words.clientWidth !== width) { width = words.clientWidth; redraw(); } }).observe(words);

// What the service has

try {
  service = await ask("/api/model");
  const finds = service.models.map((model) => (model.task === "mner" ? "entities" : "relations"));
  by("models").textContent = `This model finds ${finds.join(" and ")}: in a post and, where there is one, its image.`;
  by("marking-note").textContent = reads("mner") ? "Optional: without any, the model looks for entities itself." : "This model finds relations between entities that you mark.";
  by("spread").closest("label").hidden = service.limits.samples === 0;
} catch (error) { tell(error.message); }
countCharacters();
