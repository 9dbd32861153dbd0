// A post's text as elements. The service counts characters, JavaScript counts an emoji as two.

export const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

/** Characters of a text before a place in JavaScript's count. */
export const charactersBefore = (text, place) => Array.from(text.slice(0, place)).length;

/** What becomes of spans [start, end) when a text is edited in one place: null where the edit reaches into one. */
export const moved = (span, before, after) => {
  const from = Array.from(before), to = Array.from(after);
  const shorter = Math.min(from.length, to.length);
  let same = 0;
  while (same < shorter && from[same] === to[same]) same += 1;
  let rest = 0;
  while (rest < shorter - same && from[from.length - 1 - rest] === to[to.length - 1 - rest]) rest += 1;
  if (span.end <= same) return span;
  if (span.start < from.length - rest) return null;
  const shift = to.length - from.length;
  return { ...span, start: span.start + shift, end: span.end + shift };
};

/** Fills an element with a text whose words and entities are elements; the marks, by number of the entity. */
export const write = (target, found, tokens, styleOf) => {
  const characters = Array.from(found.text);
  const marks = [];
  const words = tokens.map((span, number) => ({ start: span[0], end: span[1], number }));
  const slice = (start, end) => characters.slice(start, end).join("");
  const plain = (parent, start, end) => {
    let place = start;
    for (const word of words) {
      if (word.end <= place || word.start >= end) continue;
      const from = Math.max(word.start, place), to = Math.min(word.end, end);
      parent.append(slice(place, from));
      const made = element("span", { className: "w" }, slice(from, to));
      made.dataset.word = word.number;
      parent.append(made);
      place = to;
    }
    parent.append(slice(place, end));
  };
  // Entities lie behind or inside each other; of two that overlap in part the second is only listed.
  const nest = (parent, start, end, entities) => {
    let place = start;
    for (const entity of entities) {
      if (entity.start < place || entity.end > end) continue;
      plain(parent, place, entity.start);
      const mark = element("mark", { className: styleOf(entity.type), tabIndex: 0 });
      mark.setAttribute("role", "button");
      mark.setAttribute("aria-pressed", "false");
      mark.dataset.entity = entity.number;
      nest(mark, entity.start, entity.end, entities.filter((inner) => inner.number !== entity.number && inner.start >= entity.start && inner.end <= entity.end && inner.end - inner.start < entity.end - entity.start));
      if (entity.type) mark.append(element("small", {}, entity.type));
      marks[entity.number] = mark;
      parent.append(mark);
      place = entity.end;
    }
    plain(parent, place, end);
  };
  const entities = found.entities.map((entity, number) => ({ ...entity, number }));
  entities.sort((a, b) => a.start - b.start || b.end - a.end);
  target.replaceChildren();
  nest(target, 0, characters.length, entities);
  return marks;
};
