import { drawArcs } from "./arcs.js";
import { drawRegions, lookingAt, mean, shadeWords } from "./evidence.js";
import { curlLine, pythonLines } from "./program.js";
import { charactersBefore, element, moved, write } from "./text.js";

const by = (id) => document.getElementById(id);
const nameOf = (label) => label.split("/").pop().replaceAll("_", " ");
const SPREAD_SAMPLES = 20;
const COLOURS = 6; // of entity types

const form = by("form"), text = by("text"), words = by("words");
let service = null; // the service's description of itself
let given = []; // entities that the person has marked
let before = ""; // the text that they were marked in
let image = null; // the file
let crops = null; // boxes that belong to it
let shown = null; // what is on the page: the answer, and the elements that show it
let held = null; // what was clicked
let chosen = null; // what the image is looked at for: { kind: "entities", "relations" or "labels", number }

// What is asked

const tell = (problem) => { by("problem").textContent = problem ?? ""; by("problem").hidden = !problem; };
const finds = (kind) => service?.models.some((model) => model.finds === kind);
const relatesOnly = () => finds("relations") && !finds("entities");
const findsEntities = () => finds("entities") || finds("relations");
const styleOf = (type) => (type && service?.entity_types.includes(type) ? `type${service.entity_types.indexOf(type) % COLOURS}` : "untyped");

const countCharacters = () => {
  const most = service?.limits.characters;
  by("count").textContent = `${Array.from(text.value).length.toLocaleString("en")}${most ? ` of ${most.toLocaleString("en")}` : ""} characters`;
};

const showGiven = () => {
  by("given").replaceChildren(...given.map((entity, number) => {
    const remove = element("button", { type: "button", textContent: "×" });
    remove.setAttribute("aria-label", `unmark ${entity.text}`);
    remove.addEventListener("click", () => { given.splice(number, 1); showGiven(); });
    return element("li", { className: styleOf(entity.type) }, element("bdi", {}, entity.text), " ", element("span", { className: "type" }, entity.type ?? ""), remove);
  }));
};

text.addEventListener("input", () => {
  given = given.map((entity) => moved(entity, before, text.value)).filter(Boolean);
  before = text.value;
  countCharacters();
  showGiven();
});

const mark = (type) => {
  const selected = text.value.slice(text.selectionStart, text.selectionEnd);
  if (!selected.trim()) { tell("Select some words of the post first, then what they are."); return; }
  tell();
  const from = text.selectionStart + selected.length - selected.trimStart().length;
  const start = charactersBefore(text.value, from), name = selected.trim();
  const end = start + Array.from(name).length;
  given = [...given.filter((other) => other.start !== start || other.end !== end), { start, end, type, text: name }];
  given.sort((a, b) => a.start - b.start);
  showGiven();
};

/** A button for each type that entities may have; where none is known, one for entities of any type. */
const offerTypes = (types) => {
  for (const type of types.length ? types : [null]) {
    const button = element("button", { type: "button", textContent: type ?? "entity" });
    button.dataset.mark = type ?? "";
    button.addEventListener("click", () => mark(type));
    by("marking").append(button);
  }
};

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
/** Takes the image among files that were dropped or pasted; whether there is one. */
const takeFile = (files) => {
  const file = [...files].find((each) => each.type.startsWith("image/"));
  if (file) { chooseImage(file); tell(); }
  return Boolean(file);
};
// Anywhere on the page: beside the field, a browser would leave the page for the file.
const dragged = (on) => by("drop").classList.toggle("over", on);
document.addEventListener("dragover", (event) => { if (event.dataTransfer.types.includes("Files")) { event.preventDefault(); dragged(true); } });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) dragged(false); });
document.addEventListener("drop", (event) => {
  dragged(false);
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  if (!takeFile(event.dataTransfer.files)) tell("What was dropped is no image file.");
});
document.addEventListener("paste", (event) => { if (takeFile(event.clipboardData.files)) event.preventDefault(); });
text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });

const ask = async (path, options) => {
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Error("The service does not answer. Is it still running?"); }
  const content = await answer.json().catch(() => ({ error: `the service answered with status ${answer.status}` }));
  if (!answer.ok) throw new Error(`Nothing could be extracted: ${content.error}.`);
  return content;
};

/** Puts an example into the form; its entities where the model has to be given them. */
const take = (example) => {
  text.value = before = example.text;
  const bytes = Uint8Array.from(atob(example.image), (character) => character.charCodeAt(0));
  chooseImage(new File([bytes], "example.jpg", { type: "image/jpeg" }), example.crops);
  const characters = Array.from(example.text);
  given = relatesOnly() ? example.entities.map((entity) => ({ ...entity, text: characters.slice(entity.start, entity.end).join("") })) : [];
  countCharacters();
  showGiven();
  tell();
  by("extract").focus();
};

const showGallery = (examples) => {
  by("examples").replaceChildren(...examples.map((example) => {
    const button = element("button", { type: "button" }, element("img", { src: `data:image/jpeg;base64,${example.image}`, alt: "" }), element("span", {}, example.text));
    button.addEventListener("click", () => take(example));
    return element("li", {}, button);
  }));
  by("gallery").hidden = !examples.length;
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (by("extract").disabled) return; // Ctrl+Enter while a post is read: answers could arrive in another order
  tell();
  if (!text.value.trim()) { tell("The post is empty: paste some text first."); text.focus(); return; }
  if (relatesOnly() && given.length < 2) { tell("This model relates entities that you mark: select the words of at least two in the post, and choose their types."); text.focus(); return; }
  // No form: one would send line ends in another way than they are counted.
  const body = { text: text.value, evidence: true, samples: by("spread").checked ? Math.min(SPREAD_SAMPLES, service?.limits.samples ?? SPREAD_SAMPLES) : 0 };
  if (given.length) body.entities = given.map(({ start, end, type }) => ({ start, end, type }));
  const sent = image;
  if (sent && crops) body.crops = crops;
  const began = performance.now();
  by("extract").disabled = true;
  by("status").textContent = "reading the post …";
  try {
    const rest = bytesOf(body);
    if (sent) body.image = await base64(sent);
    if (service && sent && bytesOf(body) > service.limits.body) {
      // Four characters of base64 for three bytes, and `,"image":""` around them.
      const most = Math.max(0, Math.floor((service.limits.body - rest - 11) / 4) * 3);
      throw new Error(`The image file is too large: ${most.toLocaleString("en")} bytes at most.`);
    }
    const asked = { ...body, image: undefined };
    const found = await ask("/api/extract", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    show(found, sent, (performance.now() - began) / 1000);
    showProgram(asked, sent);
  } catch (error) {
    by("status").textContent = "";
    tell(error.message);
  } finally {
    by("extract").disabled = false;
  }
});

const bytesOf = (body) => new Blob([JSON.stringify(body)]).size;

const base64 = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => failed(new Error("The image file cannot be read."));
  reader.readAsDataURL(file);
});

// What is answered

const show = (found, file, seconds) => {
  if (shown?.url) URL.revokeObjectURL(shown.url);
  const labels = Object.entries(found.labels ?? {}).map(([task, label]) => ({ task, ...label }));
  const evidence = found.evidence ?? [...found.relations, ...labels].find((result) => result.evidence)?.evidence ?? null;
  const marks = write(words, found, evidence?.tokens ?? [], styleOf);
  shown = { found, labels, evidence, marks, url: file && URL.createObjectURL(file), rows: { entities: [], relations: [], labels: [] }, arcs: [] };
  held = chosen = null;
  by("result").hidden = false;
  by("notes").replaceChildren(...found.notes.map((note) => element("li", {}, note)));
  by("picture").hidden = !shown.url;
  if (shown.url) by("seen").src = shown.url;
  listEntities(found);
  listRelations(found);
  listLabels(labels);
  marks.forEach((mark, number) => watch(mark, { kind: "entities", number }));
  by("shade-choice").hidden = !evidence;
  by("json").textContent = JSON.stringify(found, null, 1);
  shade();
  redraw();
  const counted = (count, one, many) => `${count || "no"} ${count === 1 ? one : many}`;
  const parts = [
    ...(findsEntities() ? [counted(found.entities.length, "entity", "entities"), counted(found.relations.length, "relation", "relations")] : []),
    ...(labels.length ? [counted(labels.length, "label", "labels")] : []),
  ];
  by("status").textContent = `Found ${new Intl.ListFormat("en").format(parts)} in ${seconds.toFixed(1)} s.`;
};

/** The lines that ask the same of the service, or of the model in Python. */
const showProgram = (asked, file) => {
  by("curl").textContent = curlLine(location.origin, asked, file?.name);
  by("python").textContent = pythonLines(asked, file?.name);
  by("program-note").hidden = !file;
  by("copied").textContent = "";
  if (file) Object.assign(by("image-file"), { href: shown.url, download: file.name, textContent: file.name });
};
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", async () => {
  const lines = by(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(lines.textContent);
    by("copied").textContent = "Copied.";
  } catch { // such as over HTTP from another machine
    getSelection().selectAllChildren(lines);
    by("copied").textContent = "Selected: copy it with Ctrl+C.";
  }
});

const confidence = (result) => {
  const cell = element("td", { className: "sure" });
  if (result.confidence == null) { cell.textContent = "given"; return cell; }
  const bar = element("span", { className: "bar" });
  bar.style.setProperty("--v", result.confidence);
  const spread = result.spread === undefined ? "" : ` ± ${Math.round(result.spread * 100)}`;
  cell.append(bar, `${Math.round(result.confidence * 100)}${spread} %`);
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
    const row = element("tr", { className: styleOf(entity.type) });
    const name = element("td");
    chip(row, name, "entities", number, element("bdi", {}, entity.text));
    const type = entity.type ? element("span", { className: "type" }, entity.type) : "not given";
    row.append(name, element("td", {}, type), confidence(entity));
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
    const name = nameOf(relation.label);
    const label = element("td", {}, name, ...(name === relation.label ? [] : [element("code", {}, relation.label)]));
    if (!relation.compatible) label.append(element("span", { className: "note" }, "the types of the two do not fit this relation"));
    row.append(pair, label, confidence(relation));
    return row;
  });
  const why = !finds("relations") ? "This model looks for entities alone." : found.entities.length < 2 ? "A relation needs two entities." : "No relation was found between these entities.";
  by("relations").replaceChildren(rows.length ? table(["from → to", "relation", "confidence"], rows) : element("p", { className: "missing" }, why));
};

const listLabels = (labels) => {
  const rows = labels.map((label, number) => {
    const row = element("tr");
    const name = element("td");
    chip(row, name, "labels", number, label.label);
    const title = service?.models.find((model) => model.task === label.task)?.title ?? label.task;
    row.append(element("td", {}, title), name, confidence(label));
    return row;
  });
  by("labels-part").hidden = !rows.length;
  by("labels").replaceChildren(table(["task", "label", "confidence"], rows));
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

/** Attention of an entity's words or, where entities were given, of the relations that it takes part in. */
const ofEntity = (found, number) => {
  const entity = found.entities[number], from = found.evidence;
  if (from) return { from, weights: mean(from.attention.filter((_, word) => from.tokens[word][0] >= entity.start && from.tokens[word][1] <= entity.end)) };
  const rows = found.relations.flatMap((relation) => [[relation.head, 0], [relation.tail, 1]].filter(([place]) => place === number).map(([, row]) => relation.evidence?.attention[row]));
  return { from: shown.evidence, weights: mean(rows) };
};
const ofResult = ({ evidence }) => ({ from: evidence, weights: mean(evidence?.attention ?? []) });
const ofRelation = (found, number) => ofResult(found.relations[number]);
const ofLabel = (found, number) => ofResult(shown.labels[number]);

const basis = () => {
  const { found, evidence } = shown;
  if (chosen) return { entities: ofEntity, relations: ofRelation, labels: ofLabel }[chosen.kind](found, chosen.number);
  const known = found.relations.some((relation) => relation.evidence) ? found.relations.map((_, number) => ofRelation(found, number)) : found.entities.map((_, number) => ofEntity(found, number));
  const from = known[0]?.from ?? evidence;
  return { from, weights: mean(known.map((part) => part.weights)) ?? mean(evidence?.attention ?? []) };
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
  for (const kind of ["entities", "relations", "labels"]) {
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
  drawRegions(by("regions"), from, weights);
  const { found } = shown;
  const quoted = (entity) => `“${found.entities[entity].text}”`;
  const pair = (number) => `${quoted(found.relations[number].head)} → ${quoted(found.relations[number].tail)}`;
  const subjects = { entities: quoted, relations: pair, labels: (number) => `“${shown.labels[number].label}”` };
  by("looks").textContent = lookingAt(chosen ? subjects[chosen.kind](chosen.number) : "All of it", from, weights);
};

const shade = () => {
  const on = by("shade").checked && shown?.evidence;
  words.classList.toggle("shaded", Boolean(on));
  by("shade-note").hidden = !on;
  if (on) by("shade-note").textContent = shadeWords(words, shown.evidence.kl);
};
by("shade").addEventListener("change", shade);

const redraw = () => {
  if (!shown) return;
  shown.arcs = drawArcs(by("arcs"), words, shown.found.relations, shown.marks, shown.found.relations.map((relation) => nameOf(relation.label)));
  look(chosen);
};
let width = 0;
new ResizeObserver(() => { if (words.clientWidth !== width) { width = words.clientWidth; redraw(); } }).observe(words);

// What the service has

by("gallery").hidden = false; // from the start, at its full height: nothing moves when the examples arrive

const showFacts = (models) => {
  by("models-facts").replaceChildren(...models.map((model) => element("details", {}, element("summary", {}, `${model.title}: ${model.summary}`),
    element("dl", {}, ...model.facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))))));
  by("facts").hidden = !models.length;
};

try {
  service = await ask("/api/model");
  const found = service.models.map((model) => (model.finds === "labels" ? `the label of posts for ${model.title}` : model.finds));
  by("models").textContent = `This model finds ${new Intl.ListFormat("en").format(found)}: in a post and, where there is one, its image.`;
  by("marking-note").textContent = finds("entities") ? "Optional: without any, the model looks for entities itself." : "This model finds relations between entities that you mark.";
  by("marking").hidden = by("marking-note").hidden = by("given").hidden = by("entities-part").hidden = !findsEntities();
  offerTypes(service.entity_types);
  by("spread").closest("label").hidden = service.limits.samples === 0;
  by("explain").hidden = !relatesOnly();
  showFacts(service.models);
  showGallery(await ask("/api/examples"));
} catch (error) { tell(error.message); }
countCharacters();
