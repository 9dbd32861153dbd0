// What a person changes of a post, without anything of the page: each function gives a new annotation.

const same = (a, b) => a.start === b.start && a.end === b.end;

/** Relations once entities have other places: `places` gives the new one by the old, or nothing where it is gone. */
const relinked = (relations, places) => relations
  .map((link) => ({ ...link, head: places.get(link.head), tail: places.get(link.tail) }))
  .filter((link) => link.head !== undefined && link.tail !== undefined);

const kept = (annotation, entities) => {
  const places = new Map();
  annotation.entities.forEach((old, place) => {
    const now = entities.findIndex((entity) => same(entity, old));
    if (now >= 0) places.set(place, now);
  });
  return { entities, relations: relinked(annotation.relations, places) };
};

/** With an entity of a type, in place of those that it overlaps: a word has one type. */
export const marked = (annotation, start, end, type) => {
  const others = annotation.entities.filter((entity) => entity.end <= start || entity.start >= end);
  return kept(annotation, [...others, { start, end, type }].sort((a, b) => a.start - b.start));
};

/** With another type of an entity, or another relation between its two. */
export const renamed = (annotation, { kind, number }, type) => ({
  ...annotation,
  [kind]: annotation[kind].map((item, place) => (place === number ? { ...item, type, confidence: null } : item)),
});

/** Without an entity and its relations, or without a relation: where there is a negative one, the pair gets that. */
export const removed = (annotation, chosen, negative) => {
  if (chosen.kind === "entities") return kept(annotation, annotation.entities.filter((_, place) => place !== chosen.number));
  if (negative !== null) return renamed(annotation, chosen, negative);
  return { ...annotation, relations: annotation.relations.filter((_, place) => place !== chosen.number) };
};

/** With a relation between two entities, in place of the one that they have. */
export const linked = (annotation, head, tail, type) => ({
  ...annotation,
  relations: [...annotation.relations.filter((link) => link.head !== head || link.tail !== tail), { head, tail, type }],
});
