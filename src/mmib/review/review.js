import { drawArcs } from "./arcs.js";
import { linked, marked, removed, renamed } from "./edits.js";
import { drawRegions, lookingAt, shadeWords } from "./evidence.js";
import { charactersBefore, element, write } from "./text.js";

const by = (id) => document.getElementById(id);
const COLOURS = 6; // of entity types
const editor = by("editor"), words = by("words");
let review = null; // what the server says of all posts
let place = 0; // of the post that is shown, in their order
let post = null; // the post as it was opened
let wanted = null; // { number } of the post that was asked for last, until it is shown
let saving = false;
let draft = null; // { entities, relations } as they are on the page
let marks = [], arcs = [], rows = [];
let chosen = null; // { kind: "entities" or "relations", number }
let selection = null; // words [from, to], from the one where it began

const tell = (problem) => { by("problem").textContent = problem ?? ""; by("problem").hidden = !problem; };
const say = (text) => { by("status").textContent = text; };
const styleOf = (type) => (type && review.types.includes(type) ? `type${review.types.indexOf(type) % COLOURS}` : "untyped");
const nameOf = (label) => label.split("/").pop().replaceAll("_", " ");
const textOf = (entity) => Array.from(post.text).slice(entity.start, entity.end).join("");
const labelsOf = (kind) => (kind === "entities" ? review.types : review.relations);
const changeable = (item) => labelsOf(item.kind).length > 0;
const items = () => [...draft.entities.map((_, number) => ({ kind: "entities", number })), ...draft.relations.map((_, number) => ({ kind: "relations", number }))];
const is = (a, b) => a?.kind === b?.kind && a?.number === b?.number;

const ask = async (path, options) => {
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Error("mmib review does not answer. Is it still running? What is on this page is kept, and can be saved when it runs again."); }
  const content = await answer.json().catch(() => ({ error: `the status is ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(`${content.error}.`), { status: answer.status });
  return content;
};

// A post that is being saved, or is about to be replaced by another one, can be neither edited nor saved.

const busy = () => saving || wanted !== null;
const showBusy = () => editor.setAttribute("aria-busy", String(busy()));

// Edits that are not saved outlive the tab.

const plain = ({ entities, relations }) => ({
  entities: entities.map(({ start, end, type }) => ({ start, end, type })),
  relations: relations.map(({ head, tail, type }) => ({ head, tail, type })),
});
const storeName = () => `mmib review ${review.output} ${review.posts[place].row}`;
const edited = () => JSON.stringify(plain(draft)) !== JSON.stringify(plain(post));
const keep = () => { try { if (edited()) localStorage.setItem(storeName(), JSON.stringify({ text: post.text, draft: plain(draft) })); else localStorage.removeItem(storeName()); } catch { /* no room: the page still holds them */ } };
const kept = () => {
  try {
    const found = JSON.parse(localStorage.getItem(storeName()));
    return found?.text === post.text ? found.draft : null;
  } catch { return null; }
};

// One post

const open = async (number) => {
  if (saving) return;
  const asked = wanted = { number: Math.min(Math.max(number, 0), review.posts.length - 1) };
  showBusy();
  const { row } = review.posts[asked.number];
  let found = null, problem;
  try { found = await ask(`/api/posts/${row}`); } catch (error) { problem = error.message; }
  if (asked !== wanted) return; // another post was asked for in the meantime
  wanted = null;
  showBusy();
  tell(problem);
  if (!found) return;
  [place, post] = [asked.number, found];
  const restored = kept();
  draft = restored ?? { entities: post.entities, relations: post.relations };
  selection = null;
  chosen = items().find(changeable) ?? null;
  editor.hidden = false;
  by("place").textContent = `Post ${place + 1} of ${review.posts.length}`;
  by("certainty").textContent = post.certainty === null ? "nothing was found in it" : `certainty ${Math.round(100 * post.certainty)} %`;
  say(restored ? "Edits that were not saved are shown again." : post.reviewed ? "This post is reviewed." : "");
  by("shade-choice").hidden = !post.kl.length;
  by("picture").hidden = true;
  by("seen").removeAttribute("src");
  if (post.image) by("seen").src = `/api/posts/${row}/image`;
  render();
  editor.focus({ preventScroll: true });
};
const step = (posts) => open((wanted?.number ?? place) + posts);
by("seen").addEventListener("load", () => { by("picture").hidden = false; });
by("seen").addEventListener("error", () => say("The image of this post was not found: --images names its folder."));

const change = (next, now = chosen) => {
  if (busy()) { render(); return; }
  draft = next;
  selection = null;
  chosen = items().find((item) => is(item, now)) ?? items().at(-1) ?? null;
  say("");
  render();
  keep();
};

const save = async (content) => {
  if (busy()) return false;
  saving = true;
  showBusy();
  const { row } = review.posts[place];
  try {
    const { version } = await ask(`/api/posts/${row}`, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ version: post.version, text: post.text, ...content }) });
    post = { ...post, version, reviewed: Boolean(content.entities), entities: draft.entities, relations: draft.relations };
    try { localStorage.removeItem(storeName()); } catch { /* nothing is kept */ }
    review.posts[place].reviewed = post.reviewed;
    tell();
    progress();
    return true;
  } catch (error) {
    // What another window saved stays until this one is saved again, knowingly.
    if (error.status === 409) post.version = (await ask(`/api/posts/${row}`).catch(() => post)).version;
    tell(error.message);
    return false;
  } finally {
    saving = false;
    showBusy();
  }
};

const saveAndGoOn = async () => {
  if (!(await save(plain(draft)))) return;
  const order = [...review.posts.keys()].map((number) => (place + 1 + number) % review.posts.length);
  const next = order.find((number) => !review.posts[number].reviewed);
  if (next === undefined) { say("All posts are reviewed."); return; }
  await open(next);
  say("Saved.");
};

const reset = () => change({ entities: post.entities, relations: post.relations });
const takeBack = async () => {
  if (!(await save({}))) return;
  post = { ...post, entities: post.proposal.entities, relations: post.proposal.relations };
  reset();
  say("Taken back: the post is not in the file, and shows what the model found.");
};

const progress = () => {
  const done = review.posts.filter((each) => each.reviewed).length;
  by("progress").textContent = `${done} of ${review.posts.length} posts are reviewed.`;
  by("takeback").hidden = !post?.reviewed;
};

// What is on the page

const choice = (kind, number, type) => {
  const select = element("select", {}, ...labelsOf(kind).map((label, place) => element("option", { value: label, selected: label === type }, place < 9 ? `${place + 1} ${nameOf(label)}` : nameOf(label))));
  const subject = kind === "entities" ? textOf(draft.entities[number]) : `${textOf(draft.entities[draft.relations[number].head])} to ${textOf(draft.entities[draft.relations[number].tail])}`;
  select.setAttribute("aria-label", `${kind === "entities" ? "type" : "relation"} of ${subject}`);
  select.addEventListener("change", () => { change(renamed(draft, { kind, number }, select.value), { kind, number }); rows[items().findIndex((item) => is(item, { kind, number }))].querySelector("select").focus(); });
  return select;
};

const rowOf = (kind, number) => {
  const item = draft[kind][number], what = { kind, number };
  const label = kind === "entities" ? [element("bdi", {}, textOf(item))] : [`${number + 1} `, element("bdi", {}, textOf(draft.entities[item.head])), " → ", element("bdi", {}, textOf(draft.entities[item.tail]))];
  const chip = element("button", { type: "button", className: "chip" }, ...label);
  chip.addEventListener("click", () => { chosen = what; selection = null; look(); });
  const row = element("tr", { className: kind === "entities" ? styleOf(item.type) : "" }, element("td", {}, chip));
  const fixed = !labelsOf(kind).length;
  row.append(element("td", {}, fixed ? "given" : choice(kind, number, item.type)));
  row.append(element("td", { className: "sure" }, item.confidence == null ? "" : `${Math.round(100 * item.confidence)} %`));
  const remove = element("button", { type: "button", className: "remove", textContent: "×" });
  remove.setAttribute("aria-label", `remove ${chip.textContent}`);
  remove.addEventListener("click", () => { change(removed(draft, what, review.negative)); editor.focus(); });
  row.append(element("td", {}, ...(fixed ? [] : [remove])));
  rows.push(row);
  return row;
};

const table = (kind, headings, none) => {
  const body = draft[kind].map((_, number) => rowOf(kind, number));
  const head = headings.map((name) => (name ? element("th", { scope: "col", className: name === "confidence" ? "sure" : "" }, name) : element("td")));
  by(kind).replaceChildren(body.length ? element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)) : element("p", { className: "missing" }, none));
};

const render = () => {
  rows = [];
  marks = write(words, { text: post.text, entities: draft.entities }, post.words, styleOf);
  marks.forEach((mark, number) => {
    mark.addEventListener("click", () => { chosen = { kind: "entities", number }; look(); });
    mark.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); mark.click(); } });
  });
  table("entities", ["name", "type", "confidence", ""], "No name is marked in this post.");
  by("entities-part").hidden = !review.types.length;
  by("relations-part").hidden = !review.relations.length;
  table("relations", ["from → to", "relation", "confidence", ""], "No relation is marked in this post.");
  by("adding").hidden = draft.entities.length < 2;
  for (const end of ["head", "tail"]) by(end).replaceChildren(...draft.entities.map((entity, number) => element("option", { value: number }, textOf(entity))));
  if (draft.entities.length > 1) by("tail").selectedIndex = 1;
  by("reset").disabled = !edited();
  if (by("shade").checked) shade();
  redraw();
  progress();
};

const redraw = () => {
  if (!post) return;
  const links = draft.relations.map((link) => ({ ...link, compatible: link.type !== review.negative }));
  arcs = review.relations.length ? drawArcs(by("arcs"), words, links, marks, links.map((link) => nameOf(link.type))) : [];
  look();
};

/** Shows what is chosen, and what it looks at. */
const look = () => {
  const item = chosen && draft[chosen.kind][chosen.number];
  const ends = chosen?.kind === "relations" ? [item.head, item.tail] : [];
  marks.forEach((mark, number) => mark.classList.toggle("lit", is(chosen, { kind: "entities", number }) || ends.includes(number)));
  arcs.forEach((arc, number) => arc?.classList.toggle("lit", is(chosen, { kind: "relations", number })));
  items().forEach((each, number) => {
    rows[number].classList.toggle("lit", is(chosen, each));
    rows[number].querySelector("button").setAttribute("aria-pressed", String(is(chosen, each)));
  });
  const [from, to] = selection ? [Math.min(...selection), Math.max(...selection)] : [0, -1];
  for (const word of words.querySelectorAll(".w")) word.classList.toggle("selected", word.dataset.word >= from && word.dataset.word <= to);
  const evidence = item?.evidence ?? null;
  drawRegions(by("regions"), evidence, evidence?.weights ?? null);
  const subject = !item ? "" : chosen.kind === "entities" ? `“${textOf(item)}”` : `“${textOf(draft.entities[item.head])}” → “${textOf(draft.entities[item.tail])}”`;
  by("looks").textContent = lookingAt(subject, evidence, evidence?.weights ?? null);
};

const shade = () => {
  words.classList.toggle("shaded", by("shade").checked);
  by("shade-note").hidden = !by("shade").checked;
  if (by("shade").checked) by("shade-note").textContent = shadeWords(words, post.kl);
};
by("shade").addEventListener("change", shade);

// By mouse and by keyboard

/** The characters that are selected, by keyboard or by mouse; null without any. */
const selected = () => {
  if (selection) return [post.words[Math.min(...selection)][0], post.words[Math.max(...selection)][1]];
  const range = getSelection().rangeCount ? getSelection().getRangeAt(0) : null;
  if (!range || range.collapsed || !words.contains(range.commonAncestorContainer)) return null;
  // The names of types are on the page, and not in the text.
  const before = (node, offset) => {
    const part = document.createRange();
    part.setStart(words, 0);
    part.setEnd(node, offset);
    const copy = part.cloneContents();
    copy.querySelectorAll("small").forEach((small) => small.remove());
    return charactersBefore(copy.textContent, copy.textContent.length);
  };
  let [start, end] = [before(range.startContainer, range.startOffset), before(range.endContainer, range.endOffset)];
  const touched = post.words.filter((word) => word[0] < end && word[1] > start);
  if (touched.length) [start, end] = [touched[0][0], touched.at(-1)[1]];
  return end > start ? [start, end] : null;
};

const give = (type) => {
  const span = review.types.length ? selected() : null;
  if (span) {
    const next = marked(draft, ...span, type);
    getSelection().removeAllRanges();
    change(next, { kind: "entities", number: next.entities.findIndex((entity) => entity.start === span[0] && entity.end === span[1]) });
  } else if (chosen && labelsOf(chosen.kind).includes(type)) change(renamed(draft, chosen, type));
  else tell("Select some words first, with the mouse or with ← and →.");
};

const moveWord = (step, extend) => {
  if (!post.words.length) { tell("The words of this post are not known: select some with the mouse."); return; }
  const within = (number) => Math.min(Math.max(number, 0), post.words.length - 1);
  const begin = chosen?.kind === "entities" ? post.words.findIndex((word) => word[0] >= draft.entities[chosen.number].start) : -1;
  if (!selection) selection = Array(2).fill(within(begin >= 0 ? begin : 0));
  else if (extend) selection = [selection[0], within(selection[1] + step)];
  else selection = Array(2).fill(within(selection[1] + step));
  look();
  say(`“${textOf({ start: selected()[0], end: selected()[1] })}” is selected.`);
};

const moveItem = (step) => {
  const all = items().filter(changeable);
  if (!all.length) return;
  const now = all.findIndex((item) => is(item, chosen));
  chosen = all[(now + step + all.length) % all.length];
  selection = null;
  look();
};

const KEYS = {
  Enter: saveAndGoOn,
  n: () => step(1),
  p: () => step(-1),
  ArrowDown: () => moveItem(1),
  ArrowUp: () => moveItem(-1),
  ArrowRight: (event) => moveWord(1, event.shiftKey),
  ArrowLeft: (event) => moveWord(-1, event.shiftKey),
  Delete: () => { if (chosen && changeable(chosen)) change(removed(draft, chosen, review.negative)); },
  Escape: () => { if (selection) { selection = null; look(); } else reset(); },
};
editor.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input")) return;
  if (event.key === "Enter" && event.repeat) { event.preventDefault(); return; } // held: nobody has seen the post
  if (event.key === "Enter" && event.target !== editor) return; // a button's own
  const kind = review.types.length && selected() ? "entities" : chosen?.kind ?? "entities";
  const type = /^[1-9]$/.test(event.key) ? labelsOf(kind)[Number(event.key) - 1] : null;
  const act = type ? () => give(type) : KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act(event);
});
by("save").addEventListener("click", saveAndGoOn);
by("next").addEventListener("click", () => step(1));
by("previous").addEventListener("click", () => step(-1));
by("reset").addEventListener("click", reset);
by("takeback").addEventListener("click", takeBack);
by("add").addEventListener("click", () => {
  const [head, tail] = [by("head").selectedIndex, by("tail").selectedIndex];
  if (head === tail) { tell("A relation needs two entities: choose another one."); return; }
  tell();
  const next = linked(draft, head, tail, by("relation").value);
  change(next, { kind: "relations", number: next.relations.length - 1 });
});
let width = 0;
new ResizeObserver(() => { if (words.clientWidth !== width) { width = words.clientWidth; redraw(); } }).observe(words);

try {
  review = await ask("/api/review");
  by("output").textContent = review.output;
  by("marking").hidden = !review.types.length;
  review.types.forEach((type, number) => {
    const button = element("button", { type: "button" }, number < 9 ? `${number + 1} ${type}` : type);
    button.addEventListener("mousedown", (event) => event.preventDefault()); // which would end the selection
    button.addEventListener("click", () => { give(type); editor.focus(); });
    by("marking").append(button);
  });
  by("relation").replaceChildren(...review.relations.map((label) => element("option", { value: label }, nameOf(label))));
  const first = review.posts.findIndex((each) => !each.reviewed);
  await open(Math.max(first, 0));
} catch (error) { tell(error.message); }
