// Menus that open below their button: the browser closes them on Escape and on a click elsewhere.

import { at } from "./dom.js";

const EDGE = 8;

export function start() {
  for (const menu of document.querySelectorAll("[popover]")) {
    const button = document.querySelector(`[popovertarget="${menu.id}"]`);
    button.setAttribute("aria-haspopup", "dialog");
    button.setAttribute("aria-expanded", "false");
    menu.addEventListener("toggle", ({ newState }) => {
      const open = newState === "open";
      button.setAttribute("aria-expanded", String(open));
      if (!open) return;
      const below = button.getBoundingClientRect();
      menu.style.insetBlockStart = `${below.bottom + 4}px`;
      menu.style.insetInlineStart = `${Math.max(EDGE, Math.min(below.left, document.documentElement.clientWidth - menu.offsetWidth - EDGE))}px`;
      (menu.querySelector("[data-first]") ?? menu.querySelector("button, input, select"))?.focus();
    });
  }
  addEventListener(
    "scroll",
    (event) => { if (event.target === document) document.querySelectorAll(":popover-open").forEach((menu) => menu.hidePopover()); },
    true,
  );
}

export const close = (id) => { if (at(id).matches(":popover-open")) at(id).hidePopover(); };
