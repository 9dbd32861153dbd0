// What a prediction rests on: regions of the image by attention, words by what their latents hold.

const percent = (share) => `${Math.round(share * 100)} %`;

/** The mean of rows of weights, of which some may be missing; null where all are. */
export const mean = (rows) => {
  const there = rows.filter(Boolean);
  return there.length ? there[0].map((_, place) => there.reduce((sum, row) => sum + row[place], 0) / there.length) : null;
};

const isWhole = (box) => box[0] === 0 && box[1] === 0 && box[2] === 1 && box[3] === 1;
const placeOf = (box) => {
  if (isWhole(box)) return "the whole image";
  if (box[2] <= box[0]) return "another picture";
  const at = (share, names) => names[Math.min(2, Math.floor(share * 3))];
  const name = [at((box[1] + box[3]) / 2, ["top", "", "bottom"]), at((box[0] + box[2]) / 2, ["left", "", "right"])].filter(Boolean).join(" ");
  return name ? `the ${name}` : "the middle";
};

/** Draws the regions over an image: the darker, the more weight. */
export const drawRegions = (svg, evidence, weights) => {
  const most = Math.max(...(weights ?? [0]), 1e-9);
  svg.replaceChildren(...(weights ? evidence.regions : []).map((box, place) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const [x, y, right, bottom] = box;
    for (const [name, value] of Object.entries({ x, y, width: right - x, height: bottom - y })) rect.setAttribute(name, value);
    rect.setAttribute("class", isWhole(box) ? "whole" : right <= x ? "unknown" : "part");
    rect.style.setProperty("--a", (weights[place] / most).toFixed(2));
    return rect;
  }));
};

/** Which regions something looks at, as a sentence. */
export const lookingAt = (subject, evidence, weights) => {
  if (!weights) return "It is not known which parts of the image matter.";
  const order = weights.map((_, place) => place).sort((a, b) => weights[b] - weights[a]).filter((place) => weights[place] >= 0.01).slice(0, 3);
  const similarity = evidence.similarity == null ? "" : ` Similarity of text and image: ${evidence.similarity.toFixed(2)}.`;
  return `${subject} looks at ${order.map((place) => `${placeOf(evidence.regions[place])} ${percent(weights[place])}`).join(", ")}.${similarity}`;
};

/** Shades the words of a text by the nats that their latents hold; what the shades mean, as a sentence. */
export const shadeWords = (words, kl) => {
  const read = kl.filter((value) => value !== null);
  const least = Math.min(...read), most = Math.max(...read);
  for (const word of words.querySelectorAll(".w")) {
    const value = kl[word.dataset.word];
    word.style.setProperty("--k", value === null ? 0 : (value - least) / (most - least || 1));
    word.title = value === null ? "not read" : `${value.toFixed(1)} nats`;
  }
  return `What the latents of a word hold, from ${least.toFixed(1)} nats (not shaded) to ${most.toFixed(1)} nats (darkest).`;
};
