// Starts the page: which view the address means, the language switch, and the login.

import { api, dropToken, hasToken, setToken } from "./api.js";
import { auditRecord, deadLetter, deadLetters } from "./dead_letters.js";
import { element, field, problem } from "./dom.js";
import { order, orders } from "./orders.js";
import { overview } from "./overview.js";
import { language, otherLanguage, text } from "./text.js";

/** Paths behind the `#`. A view gets a signal that fires when it is left, what the path names, and the query. */
const VIEWS = [
  [/^\/?$/, overview],
  [/^\/orders$/, orders],
  [/^\/orders\/([^/]+)\/([^/]+)$/, order],
  [/^\/dead-letters$/, deadLetters],
  [/^\/dead-letters\/record$/, auditRecord],
  [/^\/dead-letters\/([^/]+)$/, deadLetter],
];

const main = document.querySelector("#main");
let shown = new AbortController();

async function show({ moveFocus = true } = {}) {
  shown.abort();
  const { signal } = (shown = new AbortController());
  const [path, query] = location.hash.slice(1).split("?");
  translate(path);
  main.setAttribute("aria-busy", "true");
  const content = await view(signal, path, new URLSearchParams(query));
  if (signal.aborted) return;
  main.removeAttribute("aria-busy");
  main.replaceChildren(...content);
  document.querySelector("#logout").hidden = !hasToken();
  const heading = main.querySelector("h1");
  document.title = `${heading.textContent} · wxpay-notify`;
  if (!moveFocus) return;
  const first = main.querySelector(".first") ?? heading;
  if (first === heading) heading.tabIndex = -1;
  first.focus();
}

async function view(signal, path, query) {
  const found = VIEWS.map(([pattern, view]) => [pattern.exec(path), view]).find(([match]) => match);
  if (!found) return [element("h1", {}, text("no_such_view"))];
  const [[, ...names], build] = found;
  try {
    return await build(signal, names.map(decodeURIComponent), query);
  } catch (error) {
    if (error.status === 401) return login(hasToken());
    return [element("h1", {}, text("failed")), problem(error)];
  }
}

/** Asks for the token. `wasRefused`: there was one, and it is not right. */
function login(wasRefused) {
  dropToken();
  const input = element("input", { name: "token", type: "password", autocomplete: "current-password", required: true, class: "first" });
  // A password manager files the token under this name.
  const user = element("input", { name: "user", autocomplete: "username", value: "admin", hidden: true });
  const failure = wasRefused && element("p", { class: "problem", role: "alert" }, text("token_wrong"));
  const submit = async (event) => {
    event.preventDefault();
    setToken(input.value);
    await show();
  };
  return [
    element("h1", {}, text("login")),
    element("form", { class: "narrow", onsubmit: submit }, user,
      field(text("token"), input, text("token_hint")), failure,
      element("div", { class: "buttons" }, element("button", {}, text("login")))),
  ];
}

function translate(path) {
  document.documentElement.lang = language();
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", text(node.dataset.label));
  for (const link of document.querySelectorAll("nav a")) {
    const target = link.hash.slice(1);
    const isHere = target === "/" ? path === "" || path === "/" : path.startsWith(target);
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const other = otherLanguage();
  const button = document.querySelector("#language");
  button.textContent = other.name;
  button.lang = other.code;
}

document.querySelector("#language").addEventListener("click", () => {
  otherLanguage().choose();
  show({ moveFocus: false });
});
document.querySelector("#logout").addEventListener("click", () => {
  dropToken();
  show();
});
// The link must not change the address, which names the view.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => show());
addEventListener("wxpay-changed", () => show());
show({ moveFocus: false });
