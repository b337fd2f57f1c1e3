// Sets light or dark before the page is drawn; without a choice, the system's setting counts.
const stored = localStorage.getItem("theme");
if (stored) document.documentElement.dataset.theme = stored;

addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme").addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const current = document.documentElement.dataset.theme || system;
    const next = current === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem("theme", next);
    dispatchEvent(new CustomEvent("themechange"));
  });
});
