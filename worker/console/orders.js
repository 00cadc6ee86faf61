// Orders: finding one, its story from the first notification to the ledger, and registering what is missing.

import { api } from "./api.js";
import { choice, code, element, english, facts, field, moment, problem } from "./dom.js";
import { fen, money, receivedAt, signed } from "./format.js";
import { reasonName, stateName, text } from "./text.js";

/** Dead letters of one order whose attempts are fetched. */
const LETTERS_MAX = 20;

export const orderPath = (merchant, number) => `#/orders/${encodeURIComponent(merchant)}/${encodeURIComponent(number)}`;

export async function orders() {
  const merchants = await api.merchants();
  const merchant = choice("merchant", merchants.map((name) => [name, name]));
  const number = element("input", { name: "out_trade_no", required: true, autocomplete: "off", spellcheck: "false", class: "first" });
  const submit = (event) => {
    event.preventDefault();
    location.hash = orderPath(merchant.value, number.value.trim());
  };
  return [
    element("h1", {}, text("orders")),
    element("form", { class: "narrow", onsubmit: submit },
      field(text("merchant"), merchant), field(text("out_trade_no"), number),
      element("div", { class: "buttons" }, element("button", {}, text("show_order")))),
  ];
}

export async function order(signal, [merchant, number]) {
  const known = await api.order(merchant, number).catch((error) => {
    if (error.status === 404) return null;
    throw error;
  });
  const letters = await lettersOf(merchant, number);
  const title = element("h1", {}, `${text("order")} `, code(`${merchant}/${number}`));
  const story = storyOf(known, letters.found);
  return [
    title,
    known ? orderFacts(known) : element("p", { class: "bad" }, text("order_not_registered")),
    known ? null : registerForm(merchant, number),
    element("h2", {}, text("story")),
    letters.error ? problem(letters.error) : null,
    story.length ? timeline(story) : element("p", { class: "note" }, text("no_story")),
    known ? refundForm(known) : null,
  ].filter(Boolean);
}

/** The order's dead letters with their attempts. That somebody else reads them at present must not hide the order. */
async function lettersOf(merchant, number) {
  try {
    const list = await api.deadLetters({ order: `${merchant}/${number}`, limit: LETTERS_MAX });
    const found = [];
    for (const letter of list.dead_letters) found.push(await api.deadLetter(letter.id));
    return { found };
  } catch (error) {
    if (error.status === 401) throw error;
    // An order number that no order can have: there is nothing to look for.
    return error.status === 422 ? { found: [] } : { found: [], error };
  }
}

function orderFacts(order) {
  const refunds = Object.entries(order.registered_refunds ?? {});
  return facts([
    [text("state"), element("span", { class: `state ${order.state}` }, stateName(order.state))],
    [text("amount"), money(order.amount, order.currency)],
    [text("received"), money(order.received, order.currency)],
    [text("kept"), money(order.kept, order.currency)],
    [text("points"), text("points_at_rate", String(order.points), order.points_rate)],
    [text("user"), order.user ?? text("whoever_pays")],
    [text("appid"), order.appid && code(order.appid)],
    [text("registered_at"), moment(order.registered_at)],
    [text("closed_at"), moment(order.closed_at)],
    [text("registered_refunds"), refunds.length ? refunds.map(([no, amount]) => `${no}: ${money(amount, order.currency)}`).join(", ") : null],
  ]);
}

/** Everything that is known of the order, oldest first: `{at, kind, what, more}`. */
function storyOf(order, letters) {
  const story = [];
  const tell = (at, kind, what, ...more) => story.push({ at, kind, what, more: more.filter(Boolean) });
  const notification = (id) => tell(receivedAt(id), "notification", text("notification_accepted"), code(id));
  if (order) {
    tell(order.registered_at, "event", text("was_registered", money(order.amount, order.currency)));
    if (order.closed_at) tell(order.closed_at, "event", text("was_closed"));
    for (const payment of order.payments) {
      tell(payment.success_time, "event", text("was_paid", money(payment.amount, order.currency)), code(payment.transaction_id), why(payment.rejection));
      notification(payment.notification);
    }
    for (const refund of order.refunds) {
      const what = text(`refund_${refund.status}`, money(refund.amount, order.currency));
      tell(refund.success_time ?? receivedAt(refund.notification), "event", what, code(`${refund.refund_id} ${refund.out_refund_no}`), why(refund.rejection));
      notification(refund.notification);
    }
    for (const entry of order.ledger) {
      tell(entry.at, "ledger", text("points_moved", signed(entry.points), String(entry.balance)), code(entry.event));
    }
  }
  for (const letter of letters) {
    const told = order && [...order.payments, ...order.refunds].some((fact) => fact.notification === letter.id);
    if (!told) notification(letter.id);
    for (const attempt of letter.history ?? []) tell(attempt.at, "attempt", text("attempt_failed"), english(attempt.error));
    for (const entry of letter.actions ?? []) tell(entry.at, "desk", actionText(entry), entry.why);
    tell(null, "dead", text("is_dead_letter", reasonName(letter.reason)), english(letter.detail), element("a", { href: `#/dead-letters/${letter.id}` }, text("show_dead_letter")));
  }
  // WeChat tells whole seconds, so within one the order of telling stands. What has no time, the state now, comes last.
  const second = ({ at }) => (at ? Math.floor(Date.parse(at) / 1000) : Number.MAX_SAFE_INTEGER);
  return story.sort((left, right) => second(left) - second(right));
}

function why(rejection) {
  return rejection && element("span", {}, `${reasonName(rejection.reason)}: `, english(rejection.detail));
}

function actionText(entry) {
  return `${text(`action_${entry.action}`, entry.by)} ${entry.result ? `→ ${text(`outcome_${entry.result}`)}` : text("action_open")}`;
}

function timeline(story) {
  return element("ol", { class: "story" }, story.map(({ at, kind, what, more }) => element("li", { class: kind },
    element("span", { class: "when" }, moment(at) ?? text("now")),
    element("span", { class: "kind" }, text(`kind_${kind}`)),
    element("div", {}, element("span", { class: "what" }, what), more.map((part) => element("div", { class: "more" }, part))))));
}

/** A form for an amount in yuan; `send` gets it in fen, the other fields are `more`. */
function amountForm(title, note, button, more, send) {
  const amount = element("input", { name: "amount", inputmode: "decimal", required: true, autocomplete: "off", pattern: "[0-9]{1,12}([.][0-9]{1,2})?" });
  const said = element("div", {});
  const submit = async (event) => {
    event.preventDefault();
    try {
      await send(fen(amount.value));
      dispatchEvent(new Event("wxpay-changed"));
    } catch (error) {
      said.replaceChildren(problem(error));
    }
  };
  return element("details", {}, element("summary", {}, title),
    element("form", { class: "narrow", onsubmit: submit }, element("p", { class: "note" }, note),
      more, field(text("amount_yuan"), amount, text("amount_hint")), said,
      element("div", { class: "buttons" }, element("button", {}, button))));
}

function registerForm(merchant, number) {
  const user = element("input", { name: "user", autocomplete: "off", spellcheck: "false" });
  const send = (amount) => api.registerOrder({ merchant, out_trade_no: number, amount, ...(user.value && { user: user.value }) });
  const form = amountForm(text("register_order"), text("register_note"), text("register"), field(text("user"), user, text("user_hint")), send);
  form.open = true;
  return form;
}

function refundForm(order) {
  const number = element("input", { name: "out_refund_no", required: true, autocomplete: "off", spellcheck: "false" });
  const send = (amount) => api.registerRefund(order.merchant, order.out_trade_no, { out_refund_no: number.value.trim(), amount });
  return amountForm(text("register_refund"), text("register_refund_note"), text("register"), field(text("out_refund_no"), number), send);
}
