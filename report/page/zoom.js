"use strict";

// Moves and scales an image inside a box, by wheel, pointers and the functions that are returned.
const zoomable = (box, image) => {
  const SMALLEST = 0.25, LARGEST = 40; // screen pixels for one of the image
  const PIXELS_FROM = 4; // from there on its pixels have sharp edges
  let at = { x: 0, y: 0, scale: 1 };
  const pointers = new Map();

  function place() {
    image.style.transform = `translate(${at.x}px, ${at.y}px) scale(${at.scale})`;
    image.style.imageRendering = at.scale >= PIXELS_FROM ? "pixelated" : "auto";
  }

  function fit({ width, height }) {
    const room = box.getBoundingClientRect();
    const scale = Math.min(room.width / width, room.height / height);
    at = { x: (room.width - width * scale) / 2, y: (room.height - height * scale) / 2, scale };
    place();
  }

  // The point (x, y) of the box stays where it is.
  function by(factor, x = box.clientWidth / 2, y = box.clientHeight / 2) {
    const scale = Math.min(Math.max(at.scale * factor, SMALLEST), LARGEST);
    const real = scale / at.scale;
    at = { x: x - (x - at.x) * real, y: y - (y - at.y) * real, scale };
    place();
  }

  function inBox({ x, y }) {
    const room = box.getBoundingClientRect();
    return [x - room.x, y - room.y];
  }

  box.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      by(Math.exp(-event.deltaY / 400), ...inBox(event));
    },
    { passive: false },
  );
  box.addEventListener("dblclick", (event) => by(2, ...inBox(event)));
  box.addEventListener("pointerdown", (event) => {
    box.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    box.classList.add("moving");
  });
  box.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...pointers].find(([id]) => id !== event.pointerId);
    if (other) {
      const [, still] = other;
      const distance = (point) => Math.hypot(point.x - still.x, point.y - still.y) || 1;
      by(distance(now) / distance(before), ...inBox(still));
    } else {
      at = { ...at, x: at.x + now.x - before.x, y: at.y + now.y - before.y };
      place();
    }
    pointers.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    box.addEventListener(end, (event) => {
      pointers.delete(event.pointerId);
      box.classList.toggle("moving", pointers.size > 0);
    });
  }
  return { fit, by };
};
