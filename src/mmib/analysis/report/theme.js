"use strict";
(() => {
  // Light and dark: the system's choice until the button is used.
  const theme = document.getElementById("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";
  const labelTheme = () => { theme.textContent = isDark() ? "light" : "dark"; theme.setAttribute("aria-label", `use ${theme.textContent} colours`); };
  theme.hidden = false;
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; labelTheme(); });
  systemDark.addEventListener("change", labelTheme);
  labelTheme();
})();
