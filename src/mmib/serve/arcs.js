// Relations as arcs over the lines of a text, from head to tail.

const SVG = "http://www.w3.org/2000/svg";
const STEP = 22; // pixels between arcs that lie over each other
const APART = 12; // pixels between arcs that end at the same entity
const SAME_LINE = 4; // pixels that the tops of names in one line may differ by

const shape = (name, attributes, text) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

/** Where each relation's ends are: of a name that is broken over two lines, its first part. */
const measure = (relations, marks, frame) => {
  const ends = new Map();
  const all = relations.map((relation, number) => ({ relation, number, head: marks[relation.head], tail: marks[relation.tail] }));
  const arcs = all.filter((arc) => arc.head && arc.tail);
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

/** Short arcs lie low over the lower of their lines; one that spans another lies over it. */
const stack = (arcs) => {
  const done = [];
  for (const arc of [...arcs].sort((a, b) => Math.abs(a.from.x - a.to.x) - Math.abs(b.from.x - b.to.x))) {
    [arc.left, arc.right] = [arc.from.x, arc.to.x].sort((a, b) => a - b);
    [arc.upper, arc.lower] = [arc.from, arc.to].sort((a, b) => a.top - b.top);
    const under = done.filter((other) => Math.abs(other.lower.top - arc.lower.top) < SAME_LINE && other.left < arc.right + APART && arc.left < other.right + APART);
    arc.level = 1 + Math.max(0, ...under.map((other) => other.level));
    done.push(arc);
  }
};

/** From head to tail: over both where they stand in one line, else down to between the lines, along, and down again. */
const pathOf = ({ from, to, upper, lower }, lane, tip) => {
  if (lower.top - upper.top < SAME_LINE) {
    const control = from.top + (lane - from.top) / 0.75;
    return `M${from.x} ${from.top - 2} C${from.x} ${control} ${to.x} ${control} ${to.x} ${tip}`;
  }
  const turn = Math.min(8, Math.abs(from.x - to.x) / 2) * Math.sign(to.x - from.x);
  const down = from === upper ? 8 : -8;
  const start = from === upper ? from.bottom + 2 : from.top - 2;
  return `M${from.x} ${start} V${lane - down} Q${from.x} ${lane} ${from.x + turn} ${lane} H${to.x - turn} Q${to.x} ${lane} ${to.x} ${lane + down} V${tip}`;
};

const draw = (svg, arc, name) => {
  const { to, upper, lower } = arc;
  const lane = lower.top - 8 - STEP * arc.level;
  const down = to === lower || lower.top - upper.top < SAME_LINE;
  const point = down ? to.top - 2 : to.bottom + 2;
  const group = shape("g", arc.relation.compatible ? {} : { class: "faint" });
  const label = shape("text", { x: (arc.left + arc.right) / 2, y: lane + 4 }, `${arc.number + 1} ${name}`);
  group.append(
    shape("path", { d: pathOf(arc, lane, point + (down ? -5 : 5)) }),
    shape("path", { class: "head", d: `M${to.x} ${point} l-4 ${down ? -7 : 7} h8 z` }),
    label,
  );
  svg.append(group);
  if (label.getComputedTextLength() > arc.right - arc.left - 24) label.textContent = arc.number + 1;
  return group;
};

/** Draws relations; the drawn groups, by number of the relation. */
export const drawArcs = (svg, words, relations, marks, names) => {
  svg.replaceChildren();
  words.style.setProperty("--room", "0px");
  if (!relations.length) return [];
  // Room between lines moves nothing sideways, so that what lies over what is known before.
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
