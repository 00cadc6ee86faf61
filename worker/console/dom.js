// Builds elements. Every value becomes text, never markup: this is the only file that creates nodes.

import { time } from "./format.js";
import { text } from "./text.js";

/** An element; `attributes` may hold listeners (`onclick`) and `dataset`-free plain attributes; false and null are left out. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A table whose rows become cards on a narrow screen. `columns` are titles; a cell is a text or a node. */
export function table(label, columns, rows) {
  const cell = (content, index) => element("td", { "data-title": columns[index] }, content ?? "–");
  return element("table", { "aria-label": label },
    element("thead", {}, element("tr", {}, columns.map((title) => element("th", { scope: "col" }, title)))),
    element("tbody", {}, rows.map((row) => element("tr", {}, row.map(cell)))));
}

/** Names and values; a value that is null or undefined is left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined);
  return element("dl", {}, known.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** A labelled input. */
export function field(label, input, hint) {
  const id = `field-${input.name}`;
  input.id = id;
  const note = hint ? element("small", { id: `${id}-hint` }, hint) : null;
  if (note) input.setAttribute("aria-describedby", note.id);
  return element("div", { class: "field" }, element("label", { for: id }, label), input, note);
}

/** A choice among `[value, label]` pairs. */
export function choice(name, pairs, chosen) {
  const option = ([value, label]) => element("option", { value, selected: value === chosen }, label);
  return element("select", { name }, pairs.map(option));
}

/** Text that the API wrote: it is English whatever the page speaks. */
export function english(content) {
  return content ? element("span", { lang: "en" }, content) : null;
}

/** A moment; null where there is none. */
export function moment(at) {
  return at ? element("time", { datetime: at }, time(at)) : null;
}

/** A number or id that people copy. */
export function code(content) {
  return content === null || content === undefined ? null : element("code", {}, content);
}

/** Says that something went wrong, in its place. */
export function problem(error) {
  return element("p", { class: "problem", role: "alert" }, error.known ? text(error.known) : english(error.message));
}
