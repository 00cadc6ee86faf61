// What a person can do with dead letters: dry run, replay, discard. Each asks first, and shows what came of it as it comes.

import { api } from "./api.js";
import { code, element, english, field, problem, table } from "./dom.js";
import { count, text } from "./text.js";

/** Results that are listed one by one; all are counted. */
const LISTED_MAX = 500;
const WHO = "wxpay-who";

/** The buttons. `target` says on what they act now; `after` is called when that may have changed something. */
export function desk(target, after = () => dispatchEvent(new Event("wxpay-changed"))) {
  const button = (name, act, kind) => element("button", { type: "button", class: kind, onclick: () => act(target(), after) }, text(name));
  return element("div", { class: "buttons" }, button("dry_run", dryRun, "plain"), button("replay", askReplay), button("discard", askDiscard, "danger"));
}

function dryRun({ select, number }, after) {
  const dialog = open(text("dry_run_title", count(number)));
  const again = element("button", { type: "button", onclick: () => {
    dialog.close();
    askReplay({ select, number }, after);
  } }, text("replay_these"));
  run(dialog, { select, limit: number, dry_run: true }, number, () => {}, again);
}

function askReplay({ select, number }, after) {
  const [who, why] = [nameInput(), element("input", { name: "why", maxlength: 500 })];
  const fields = [element("p", {}, text("replay_note")), field(text("who"), who), field(text("why"), why, text("optional"))];
  ask(text("replay_title", count(number)), fields, text("replay_button", count(number)), "", (dialog) => {
    run(dialog, { select, limit: number, ...said({ by: who.value, why: why.value }) }, number, after);
  });
}

function askDiscard({ select, number }, after) {
  const [who, why] = [nameInput(), element("input", { name: "why", maxlength: 500, required: true })];
  const fields = [element("p", { class: "bad" }, text("discard_note")), field(text("who"), who), field(text("why"), why, text("discard_why_hint"))];
  ask(text("discard_title", count(number)), fields, text("discard_button", count(number)), "danger", async (dialog) => {
    dialog.append(progress());
    try {
      const { ids } = await api.discard({ select, reason: why.value, ...said({ by: who.value }) });
      finish(dialog, after, element("p", { role: "status" }, text("discarded", count(ids.length))));
    } catch (error) {
      finish(dialog, after, problem(error));
    }
  });
}

/** Without what was left empty. */
const said = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value.trim()));

function nameInput() {
  const input = element("input", { name: "who", maxlength: 100, autocomplete: "username", value: localStorage.getItem(WHO) ?? "" });
  input.addEventListener("change", () => localStorage.setItem(WHO, input.value));
  return input;
}

function open(title, ...content) {
  const dialog = element("dialog", { "aria-labelledby": "dialog-title" }, element("h2", { id: "dialog-title" }, title), content);
  // Whoever opened it gets the focus back; that is the browser's own doing.
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A bar; without `max` it only says that something goes on. */
function progress(max) {
  return element("progress", { max, value: max && 0, "aria-label": text("progress") });
}

function ask(title, fields, label, kind, act) {
  const submit = (event) => {
    event.preventDefault();
    form.remove();
    act(dialog);
  };
  const cancel = element("button", { type: "button", class: "plain", onclick: () => dialog.close() }, text("cancel"));
  const form = element("form", { onsubmit: submit }, fields, element("div", { class: "buttons" }, cancel, element("button", { class: kind }, label)));
  const dialog = open(title, form);
}

/** Replays within the dialog: progress, what became of each, and a way to stop between two dead letters. */
async function run(dialog, request, number, after, ...more) {
  const stop = new AbortController();
  const bar = progress(number);
  const said = element("p", { role: "status" });
  const stopButton = element("button", { type: "button", class: "plain", onclick: () => stop.abort() }, text("stop"));
  const buttons = element("div", { class: "buttons" }, stopButton);
  const body = element("div", { class: "results" });
  dialog.addEventListener("close", () => stop.abort());
  dialog.append(bar, said, body, buttons);
  stopButton.focus();

  const [results, tally] = [[], new Map()];
  let done = 0;
  const show = () => {
    bar.value = done;
    const outcomes = [...tally].map(([outcome, times]) => `${text(`outcome_${outcome}`)}: ${count(times)}`);
    said.textContent = [text("progress_of", count(done), count(number)), ...outcomes].join(" · ");
  };
  show();
  let ending;
  try {
    const end = await api.replay(request, (result) => {
      done += 1;
      tally.set(result.outcome, (tally.get(result.outcome) ?? 0) + 1);
      if (results.length < LISTED_MAX) results.push(result);
      // Every line would be too much for the browser, and for whoever listens to it.
      if (done % 50 === 0) show();
    }, stop.signal);
    ending = [end.problem && problem(new Error(end.problem)), end.left ? element("p", {}, text("left", count(end.left))) : null];
  } catch (error) {
    ending = [error.name === "AbortError" ? element("p", {}, text("stopped")) : problem(error)];
  }
  show();
  body.append(...ending.filter(Boolean), ...listed(results));
  finish(dialog, after, ...more);
}

function listed(results) {
  if (!results.length) return [];
  const row = (result) => [code(result.id), text(`outcome_${result.outcome}`), english(result.detail) ?? "–"];
  return [table(text("results"), [text("notification"), text("result"), text("detail")], results.map(row))];
}

/** The last state of a dialog: closing it leads on. */
function finish(dialog, after, ...content) {
  const close = element("button", { type: "button", class: "plain", onclick: () => dialog.close() }, text("close"));
  const isButton = (node) => node.tagName === "BUTTON";
  for (const node of dialog.querySelectorAll("progress, div.buttons")) node.remove();
  dialog.append(...content.filter((node) => !isButton(node)), element("div", { class: "buttons" }, content.filter(isButton), close));
  dialog.addEventListener("close", after);
  if (dialog.open) close.focus();
  else after();
}
