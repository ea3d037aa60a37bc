"use strict";
// Shows one image at a time: two of its versions with a divider, and a detail of each version with its numbers.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const state = { image: 0, group: 0, left: 0, right: 1 };
  if (!data.images.length) {
    $("images").hidden = true;
    return;
  }

  const urls = new Map();
  // URL of a version's image, created when it is first shown: decoding all of them at once would take much memory.
  function address(view) {
    if (!urls.has(view)) {
      const bytes = Uint8Array.from(atob(view.data), (c) => c.charCodeAt(0));
      urls.set(view, URL.createObjectURL(new Blob([bytes], { type: view.type })));
    }
    return urls.get(view);
  }

  const image = () => data.images[state.image];
  const views = () => image().groups[state.group].views.map((index) => image().views[index]);
  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  function fill(select, labels, chosen) {
    select.replaceChildren(...labels.map((label, i) => new Option(label, i, false, i === chosen)));
  }

  function show() {
    const shown = views();
    state.left = Math.min(state.left, shown.length - 1);
    state.right = Math.min(state.right, shown.length - 1);
    [...$("strip").children].forEach((button, i) => button.setAttribute("aria-pressed", i === state.image));
    fill($("left"), shown.map((view) => view.label), state.left);
    fill($("right"), shown.map((view) => view.label), state.right);
    fill($("group"), image().groups.map((group) => group.label), state.group);
    $("group-label").hidden = image().groups.length < 2;
    $("stage").style.aspectRatio = `${image().width} / ${image().height}`;
    // Limit the width so that the image fits on the screen and is scaled up by 2 at most.
    $("stage").style.maxWidth = `min(${image().width * 2}px, calc(72vh * ${image().width / image().height}))`;
    for (const [side, layer, tag] of [["left", "over", "tag-left"], ["right", "under", "tag-right"]]) {
      const view = shown[state[side]];
      $(layer).src = address(view);
      $(layer).alt = `${image().name}, ${view.label}`;
      $(tag).textContent = view.size ? `${view.label} · ${view.size}` : view.label;
    }
    $("cards").replaceChildren(...shown.map(card));
    moveDetail();
  }

  function card(view) {
    const list = element("dl");
    for (const [name, value] of view.numbers) {
      list.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
    }
    const detail = element("div", { className: "crop" }, element("img", { src: address(view), alt: "", draggable: false }));
    const caption = element("figcaption", {}, element("strong", { textContent: view.label }), list);
    return element("figure", { className: `card ${view.kind}` }, detail, caption);
  }

  function moveDetail() {
    const zoom = Number($("zoom").value);
    const { width, height } = image();
    const box = document.querySelector(".crop").getBoundingClientRect();
    const seen = { width: Math.min(width, box.width / zoom), height: Math.min(height, box.height / zoom) };
    const left = ((width - seen.width) * $("across").value) / 100;
    const top = ((height - seen.height) * $("down").value) / 100;
    for (const detail of document.querySelectorAll(".crop img")) {
      Object.assign(detail.style, {
        width: `${width * zoom}px`, height: `${height * zoom}px`, left: `${-left * zoom}px`, top: `${-top * zoom}px`,
      });
    }
    Object.assign($("frame").style, {
      left: `${(100 * left) / width}%`, top: `${(100 * top) / height}%`,
      width: `${(100 * seen.width) / width}%`, height: `${(100 * seen.height) / height}%`,
    });
    return seen;
  }

  function centerDetail(x, y) { // in pixels of the image
    const seen = moveDetail();
    const part = (at, whole, span) => (whole > span ? (100 * (at - span / 2)) / (whole - span) : 0);
    $("across").value = part(x, image().width, seen.width);
    $("down").value = part(y, image().height, seen.height);
    moveDetail();
  }

  data.images.forEach((choice, i) => {
    const button = element("button", { type: "button", title: choice.name },
      element("img", { src: choice.thumbnail, alt: choice.name }));
    button.addEventListener("click", () => { state.image = i; state.group = Math.min(state.group, choice.groups.length - 1); show(); });
    $("strip").append(button);
  });
  $("strip").hidden = data.images.length < 2;
  for (const side of ["left", "right", "group"]) {
    $(side).addEventListener("change", () => { state[side] = Number($(side).value); show(); });
  }
  const slide = () => {
    $("stage").style.setProperty("--position", `${$("slider").value}%`);
    $("slider").setAttribute("aria-valuetext", `${Math.round($("slider").value)} % left image`);
  };
  $("slider").addEventListener("input", slide);
  $("slider").addEventListener("dblclick", (event) => {
    const box = $("stage").getBoundingClientRect();
    const scale = image().width / box.width;
    centerDetail((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
  });
  for (const control of ["across", "down", "zoom"]) $(control).addEventListener("input", moveDetail);
  addEventListener("resize", moveDetail);

  let grabbed = null;
  $("cards").addEventListener("pointerdown", (event) => {
    if (event.target.closest(".crop")) grabbed = { x: event.clientX, y: event.clientY, across: +$("across").value, down: +$("down").value };
  });
  addEventListener("pointermove", (event) => {
    if (!grabbed) return;
    const zoom = Number($("zoom").value);
    const seen = moveDetail();
    const range = { x: image().width - seen.width, y: image().height - seen.height };
    if (range.x > 0) $("across").value = grabbed.across - (100 * (event.clientX - grabbed.x)) / zoom / range.x;
    if (range.y > 0) $("down").value = grabbed.down - (100 * (event.clientY - grabbed.y)) / zoom / range.y;
    moveDetail();
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { grabbed = null; });

  show();
  slide();
  document.documentElement.dataset.ready = "yes";
})();
