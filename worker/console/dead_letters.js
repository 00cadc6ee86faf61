// Dead letters: the list with its filters, one of them with everything, and the record of what people did.

import { api } from "./api.js";
import { desk } from "./desk.js";
import { choice, code, element, english, facts, field, moment, table } from "./dom.js";
import { money } from "./format.js";
import { orderPath } from "./orders.js";
import { count, cureOf, reasonName, stateName, text } from "./text.js";

const PAGE = 100;

export async function deadLetters(signal, names, query) {
  const asked = ["reason", "merchant", "order"].map((name) => [name, query.get(name)]).filter(([, value]) => value);
  const filter = Object.fromEntries(asked);
  const [list, merchants] = await Promise.all([
    api.deadLetters({ ...filter, limit: PAGE, page: query.get("page") }),
    api.merchants(),
  ]);
  return [
    element("h1", {}, text("dead_letters")),
    filterForm(filter, list.by_reason, merchants),
    ...(list.matching ? found(list, filter, query) : [element("p", { class: "good" }, text("no_dead_letters"))]),
    element("p", {}, element("a", { href: "#/dead-letters/record" }, text("record"))),
  ];
}

function filterForm(filter, byReason, merchants) {
  const reasons = Object.entries(byReason).map(([reason, number]) => [reason, `${reasonName(reason)} (${count(number)})`]);
  const reason = choice("reason", [["", text("all_reasons")], ...reasons], filter.reason);
  const merchant = choice("merchant", [["", text("all_merchants")], ...merchants.map((name) => [name, name])], filter.merchant);
  const order = element("input", { name: "order", value: filter.order ?? "", autocomplete: "off", spellcheck: "false" });
  const submit = (event) => {
    event.preventDefault();
    const given = [reason, merchant, order].map((input) => [input.name, input.value.trim()]).filter(([, value]) => value);
    location.hash = `#/dead-letters?${new URLSearchParams(given)}`;
  };
  return element("form", { class: "filter", onsubmit: submit },
    field(text("reason"), reason), field(text("merchant"), merchant), field(text("order"), order, text("order_hint")),
    element("div", { class: "buttons" }, element("button", {}, text("filter"))));
}

/** The desk acts on what is ticked; with nothing ticked, on all that match. */
function found(list, filter, query) {
  const ticked = new Set();
  const everything = Object.keys(filter).length ? selection(filter) : { all: true };
  const actions = desk(() => (ticked.size ? { select: { ids: [...ticked] }, number: ticked.size } : { select: everything, number: list.matching }));
  const target = element("p", { role: "status" });
  const tell = () => {
    target.textContent = ticked.size ? text("acts_on_ticked", count(ticked.size)) : text("acts_on_all", count(list.matching));
  };
  const tick = (letter) => {
    const change = (event) => {
      if (event.target.checked) ticked.add(letter.id);
      else ticked.delete(letter.id);
      tell();
    };
    return element("input", { type: "checkbox", "aria-label": text("tick", letter.id), onchange: change });
  };
  tell();
  const rows = list.dead_letters.map((letter) => [
    tick(letter),
    element("a", { href: `#/dead-letters/${letter.id}` }, moment(letter.received_at) ?? code(letter.id)),
    reasonName(letter.reason),
    orderLink(letter.merchant, letter.out_trade_no),
    money(letter.amount),
    english(letter.detail),
  ]);
  const columns = [text("ticked"), text("received_at"), text("reason"), text("order"), text("amount"), text("detail")];
  const next = list.next && new URLSearchParams([...query, ["page", list.next]].filter(([name, value]) => name !== "page" || value === list.next));
  return [
    element("section", { class: "desk", "aria-label": text("desk") }, target, actions),
    element("p", { class: "note" }, text("showing", count(list.dead_letters.length), count(list.matching))),
    table(text("dead_letters"), columns, rows),
    next && element("p", {}, element("a", { href: `#/dead-letters?${next}` }, text("next_page"))),
  ].filter(Boolean);
}

/** A filter as the API's selection has it: an order is a pair there. */
function selection({ order, ...rest }) {
  const [merchant, ...number] = (order ?? "").split("/");
  return order ? { ...rest, order: { merchant, out_trade_no: number.join("/") } } : rest;
}

function orderLink(merchant, number) {
  return merchant && number ? element("a", { href: orderPath(merchant, number) }, `${merchant}/${number}`) : number ?? merchant;
}

export async function deadLetter(signal, [id]) {
  const letter = await api.deadLetter(id);
  const toList = () => {
    location.hash = "#/dead-letters";
  };
  return [
    element("h1", {}, `${text("dead_letter")}: ${reasonName(letter.reason)}`),
    element("p", { class: "cure" }, element("strong", {}, `${text("cure")} `), cureOf(letter.reason, letter.cure)),
    desk(() => ({ select: { ids: [letter.id] }, number: 1 }), toList),
    facts([
      [text("detail"), english(letter.detail)],
      [text("notification"), code(letter.id)],
      [text("received_at"), moment(letter.received_at)],
      [text("sealed"), text(letter.sealed ? "seal_fits" : "seal_wrong")],
      [text("attempts"), count(letter.attempts)],
      [text("replays"), count(letter.replays)],
      ...[letter, ...(letter.others ?? [])].flatMap((named) => namedFacts(letter.merchant, named)),
    ]),
    ...ordersNow(letter.orders ?? []),
    ...part("attempts", letter.history, ["time", "worker", "error"], (it) => [moment(it.at), code(it.worker), english(it.error)]),
    ...fields("content", letter.content),
    ...fields("fields", letter.fields),
    letter.unreadable ? element("p", { class: "note" }, english(letter.unreadable)) : null,
    ...part("actions", letter.actions, ACTION_COLUMNS, actionRow),
  ].filter(Boolean);
}

function namedFacts(merchant, named) {
  return [
    [text("order"), orderLink(merchant, named.out_trade_no)],
    [text("transaction_id"), code(named.transaction_id)],
    [text("out_refund_no"), code(named.out_refund_no)],
    [text("amount_in_notification"), money(named.amount)],
  ];
}

function ordersNow(orders) {
  return part("order_now", orders, ["order", "state", "amount", "received", "refunded", "points"], (it) => {
    const [merchant, ...number] = it.order.split("/");
    const link = orderLink(merchant, number.join("/"));
    if (it.known !== "registered") return [link, it.known === "not_registered" ? text("order_not_registered") : english(it.problem)];
    return [link, stateName(it.state), ...[it.amount, it.received, it.refunded].map((fen) => money(fen, it.currency)), String(it.points)];
  });
}

/** A headed table, where there is something to show. */
function part(title, items, columns, row) {
  if (!items?.length) return [];
  return [element("h2", {}, text(title)), table(text(title), columns.map((name) => text(name)), items.map(row))];
}

function fields(title, values) {
  return part(title, Object.entries(values ?? {}), ["field", "value"], ([name, value]) => [code(name), code(value)]);
}

const ACTION_COLUMNS = ["time", "action", "who", "why", "result"];

function actionRow(entry) {
  const result = entry.result ? text(`outcome_${entry.result}`) : text("action_open");
  return [moment(entry.at), text(`did_${entry.action}`), entry.by, entry.why || "–", [result, entry.detail && element("div", { class: "more" }, english(entry.detail))]];
}

export async function auditRecord() {
  const entries = (await api.audit({ limit: PAGE })).reverse();
  const rows = entries.map((entry) => {
    const [at, ...rest] = actionRow(entry);
    return [at, code(entry.notification), entry.orders || "–", reasonName(entry.reason), ...rest];
  });
  const columns = ["time", "notification", "order", "reason", ...ACTION_COLUMNS.slice(1)].map((name) => text(name));
  return [
    element("h1", {}, text("record")),
    element("p", { class: "note" }, rows.length ? text("latest_first", count(rows.length)) : text("no_actions")),
    rows.length ? table(text("record"), columns, rows) : "",
  ];
}
