"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Order of the confusion matrix: rows and columns move together.
  for (const matrix of all("table[data-frequent]")) {
    const head = matrix.tHead.rows[0];
    const rows = [...matrix.tBodies[0].rows];
    const lines = [head, ...rows].map((row) => [...row.cells]);
    const orders = { name: rows.map((_, place) => place), frequent: matrix.dataset.frequent.split(" ").map(Number) };
    const buttons = all("[data-order]", matrix.closest(".confusion"));
    for (const button of buttons) {
      button.addEventListener("click", () => {
        const order = orders[button.dataset.order];
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        lines.forEach((cells) => cells[0].parentNode.append(cells[0], ...order.map((place) => cells[place + 1]), cells[cells.length - 1]));
        matrix.tBodies[0].append(...order.map((place) => rows[place]));
      });
    }
  }

  // Posts: filters.
  const list = document.getElementById("posts-list");
  if (!list) return;
  const posts = all(".post", list);
  const shows = all("[data-show]");
  const chosenClass = document.getElementById("post-class");
  const count = document.getElementById("post-count");
  let show = "";
  const visible = () => posts.filter((post) => !post.hidden);
  const reachable = (post) => posts.forEach((other) => { other.tabIndex = other === post ? 0 : -1; });
  const filter = () => {
    for (const post of posts) {
      const has = !chosenClass.value || post.dataset.classes.split(" ").includes(chosenClass.value);
      post.hidden = !has || (show !== "" && post.dataset.right !== show);
    }
    for (const button of shows) button.setAttribute("aria-pressed", String(button.dataset.show === show));
    const left = visible();
    count.textContent = `${left.length} of ${posts.length} posts`;
    if (left.length) reachable(left[0]);
  };
  for (const button of shows) button.addEventListener("click", () => { show = button.dataset.show; filter(); });
  chosenClass.addEventListener("change", filter);
  filter();

  // Posts: what a word looks at.
  const percent = (thousandths) => `${Math.round(thousandths / 10)} %`;
  const read = (post, part) => {
    const picture = post.querySelector(".picture");
    const readout = picture.querySelector(".readout");
    const rects = all(".regions rect", picture);
    if (readout.dataset.rest === undefined) {
      readout.dataset.rest = readout.textContent;
      for (const rect of rects) rect.dataset.rest = rect.style.getPropertyValue("--a");
    }
    const weights = part && part.dataset.a ? part.dataset.a.split(" ").map(Number) : null;
    const most = Number(picture.dataset.most) || 1;
    rects.forEach((rect, place) => rect.style.setProperty("--a", weights ? (weights[place] / most).toFixed(2) : rect.dataset.rest));
    if (!part) { readout.textContent = readout.dataset.rest; return; }
    const text = (part.querySelector("bdi") || part).textContent;
    const says = [];
    if (part.dataset.kl) says.push(`KL ${part.dataset.kl} nats`);
    if (weights) {
      const order = weights.map((_, place) => place).sort((a, b) => weights[b] - weights[a]).slice(0, 3);
      says.push(...order.map((place) => {
        const name = rects[place] && rects[place].classList.contains("whole") ? "whole image" : `region ${place + 1}`;
        return `${name} ${percent(weights[place])}`;
      }));
    }
    readout.textContent = `“${text}”: ${says.join(", ") || "nothing is known"}`;
  };
  const partOf = (target) => target.closest(".w, .chip");
  for (const post of posts) {
    post.addEventListener("pointerover", (event) => { const part = partOf(event.target); if (part) read(post, part); });
    post.addEventListener("pointerleave", () => { const part = partOf(document.activeElement); read(post, part && post.contains(part) ? part : null); });
    post.addEventListener("focusin", (event) => read(post, partOf(event.target)));
    post.addEventListener("focusout", () => read(post, null));
  }

  // Posts: up and down go from post to post, left and right through the words of one.
  list.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const post = event.target.closest(".post");
    const places = visible();
    const parts = all(".w, .chip", post);
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -places.length, End: places.length }[event.key];
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    let next = null;
    if (step) next = places[Math.max(0, Math.min(places.length - 1, places.indexOf(post) + step))];
    else if (move) next = parts[Math.max(0, Math.min(parts.length - 1, parts.indexOf(partOf(event.target)) + move))];
    else if (event.key === "Escape") next = post;
    if (!next) return;
    event.preventDefault();
    if (step) reachable(next);
    next.focus();
  });
})();
