// Relations as arcs over the lines of a text, from head to tail.

const SVG = "http://www.w3.org/2000/svg";
const STEP = 22; // pixels between arcs that lie over each other
const APART = 12; // pixels between arcs that end at the same entity

const shape = (name, attributes, text) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

/** Where each relation's ends are: of a name that is broken over two lines, its first part. */
const measure = (relations, marks, frame) => {
  const ends = new Map();
  const own = relations.map((relation, number) => ({ relation, number, head: marks[relation.head], tail: marks[relation.tail] }));
  const arcs = own.filter((arc) => arc.head && arc.tail);
  for (const { head, tail } of arcs) for (const mark of [head, tail]) ends.set(mark, (ends.get(mark) ?? 0) + 1);
  const used = new Map();
  const end = (mark) => {
    const box = mark.getClientRects()[0];
    const place = used.get(mark) ?? 0;
    used.set(mark, place + 1);
    const shift = (place - (ends.get(mark) - 1) / 2) * Math.min(APART, box.width / ends.get(mark));
    return { x: box.left + box.width / 2 + shift - frame.left, top: box.top - frame.top, bottom: box.bottom - frame.top };
  };
  return arcs.map((arc) => ({ ...arc, from: end(arc.head), to: end(arc.tail) }));
};

/** Short arcs lie low; one that spans another lies over it. */
const stack = (arcs) => {
  const done = [];
  for (const arc of [...arcs].sort((a, b) => Math.abs(a.from.x - a.to.x) - Math.abs(b.from.x - b.to.x))) {
    arc.sameLine = Math.abs(arc.from.top - arc.to.top) < 4;
    [arc.left, arc.right] = [arc.from.x, arc.to.x].sort((a, b) => a - b);
    const under = done.filter((own) => own.sameLine && arc.sameLine && Math.abs(own.from.top - arc.from.top) < 4 && own.left < arc.right && arc.left < own.right);
    arc.level = 1 + Math.max(0, ...under.map((own) => own.level));
    done.push(arc);
  }
};

const draw = (svg, arc, name) => {
  const { from, to } = arc;
  const down = arc.sameLine || from.top < to.top;
  const start = arc.sameLine || !down ? from.top - 2 : from.bottom + 2;
  const tip = down ? to.top - 2 : to.bottom + 2;
  const end = tip + (down ? -5 : 5);
  const rise = arc.sameLine ? -(8 + STEP * arc.level) / 0.75 : 0;
  const reach = arc.sameLine ? 0 : Math.max(18, Math.abs(end - start) / 2) * (down ? 1 : -1);
  const group = shape("g", arc.relation.compatible ? {} : { class: "faint" });
  group.append(
    shape("path", { d: `M${from.x} ${start} C${from.x} ${start + rise + reach} ${to.x} ${end + rise - reach} ${to.x} ${end}` }),
    shape("path", { class: "head", d: `M${to.x} ${tip} l-4 ${down ? -7 : 7} h8 z` }),
  );
  const label = shape("text", { x: (from.x + to.x) / 2, y: (start + end) / 2 + rise * 0.75 + 4 }, `${arc.number + 1} ${name}`);
  group.append(label);
  svg.append(group);
  if (arc.sameLine && label.getComputedTextLength() > arc.right - arc.left - 24) label.textContent = arc.number + 1;
  return group;
};

/** Draws relations; the drawn groups, by number of the relation. */
export const drawArcs = (svg, words, relations, marks, names) => {
  svg.replaceChildren();
  words.style.setProperty("--room", "0px");
  if (!relations.length) return [];
  // Room between lines moves nothing sideways, so that what is over what can be told before.
  let arcs = measure(relations, marks, svg.getBoundingClientRect());
  stack(arcs);
  const levels = Math.max(0, ...arcs.map((arc) => arc.level));
  words.style.setProperty("--room", `${14 + STEP * levels}px`);
  arcs = measure(relations, marks, svg.getBoundingClientRect());
  stack(arcs);
  const groups = [];
  for (const arc of arcs) groups[arc.number] = draw(svg, arc, names[arc.number]);
  return groups;
};
