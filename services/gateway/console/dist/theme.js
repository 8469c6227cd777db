// Dark or light: as the system says, or as somebody chose here.

import { at } from "./dom.js";

const KEY = "logboom-theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

function wear(theme) {
  document.documentElement.dataset.theme = theme;
  at("theme").textContent = `${SIGNS[theme]} ${theme}`;
  at("theme").setAttribute("aria-label", `Colours: ${theme}. Change to ${NEXT[theme]}`);
}

export function start() {
  const kept = localStorage.getItem(KEY);
  wear(NEXT[kept] ? kept : "auto");
  at("theme").addEventListener("click", () => {
    const theme = NEXT[document.documentElement.dataset.theme];
    localStorage.setItem(KEY, theme);
    wear(theme);
  });
}
