// The overview: what waits where, what happened in the last minute, and why dead letters are dead.

import { api } from "./api.js";
import { element, facts, problem, table } from "./dom.js";
import { duration, rate } from "./format.js";
import { growth, parse, sum, within } from "./metrics.js";
import { count, reasonName, text } from "./text.js";

const EVERY_MS = 5_000;
/** Rates are of this time at most. */
const WINDOW_MS = 60_000;

const NOTIFICATIONS = "wxpay_ingress_notifications_total";
const DELIVERIES = "wxpay_worker_deliveries_total";

/** Readings of /metrics, oldest first. They outlive the view, so that a person who comes back sees rates at once. */
const readings = [];

export async function overview(signal) {
  const [state, depths, rates, latencies, reasons] = ["state", "queues", "rates", "latency", "by_reason"].map(section);
  let shownDead = null;
  const refresh = async () => {
    const [ready, queue] = await Promise.all([settled(api.isReady()), settled(api.depths()), read()]);
    if (queue.error?.status === 401) throw queue.error;
    if (signal.aborted) return;
    showState(state, ready, readings.at(-1)?.samples);
    depths.show(queue.error ? problem(queue.error) : showDepths(queue.value));
    rates.show(...showRates());
    latencies.show(...showLatencies());
    // Counting the reasons reads every dead letter, so it is done only when their number has changed.
    if (queue.value && queue.value.dead !== shownDead) {
      shownDead = queue.value.dead;
      const list = await settled(api.deadLetters({ limit: 1 }));
      if (list.error) shownDead = null;
      reasons.show(list.error ? problem(list.error) : showReasons(list.value.by_reason));
    }
  };
  await refresh();
  const timer = setInterval(() => refresh().catch((error) => state.show(problem(error))), EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return [element("h1", {}, text("overview")), element("div", { class: "cards" }, [state, depths, rates, latencies, reasons].map((it) => it.node))];
}

function section(name) {
  const content = element("div", {});
  const node = element("section", { class: name }, element("h2", {}, text(`overview_${name}`)), content);
  return { node, show: (...children) => content.replaceChildren(...children.filter(Boolean)) };
}

async function settled(promise) {
  try {
    return { value: await promise };
  } catch (error) {
    return { error };
  }
}

async function read() {
  const page = await settled(api.metrics());
  if (page.error) return;
  const now = Date.now();
  readings.push({ at: now, samples: parse(page.value) });
  while (readings.length > 1 && now - readings[0].at > WINDOW_MS) readings.shift();
}

function showState(state, ready, samples) {
  const isReady = ready.value === true;
  const gate = samples ? sum(samples, "wxpay_worker_gate_open") : null;
  const build = samples?.find((sample) => sample.name === "wxpay_build_info");
  state.show(
    element("p", { class: isReady ? "good" : "bad" }, text(isReady ? "worker_ready" : "worker_not_ready")),
    facts([
      [text("gate"), gate === null ? "–" : text(gate ? "gate_open" : "gate_shut")],
      [text("version"), build?.labels.version],
    ]));
}

function showDepths({ notify, retry, dead }) {
  return facts([[text("depth_notify"), count(notify)], [text("depth_retry"), count(retry)], [text("depth_dead"), count(dead)]]);
}

function showRates() {
  const [first, last] = [readings[0], readings.at(-1)];
  const seconds = readings.length > 1 ? (last.at - first.at) / 1000 : null;
  const counts = (name) => Boolean(last) && sum(last.samples, name) !== null;
  // A program that counts at all, but has no such sample yet, has counted none.
  const perSecond = (name, fits) => (seconds && counts(name) ? rate((growth(first.samples, last.samples, name, fits) ?? 0) / seconds) : "–");
  const outcome = (wanted) => perSecond(DELIVERIES, ({ outcome }) => outcome === wanted);
  return [
    element("p", { class: "note" }, seconds ? text("over_seconds", Math.round(seconds)) : text("needs_two_readings")),
    facts([
      [text("rate_accepted"), perSecond(NOTIFICATIONS, ({ result }) => result === "accepted")],
      [text("rate_refused"), perSecond(NOTIFICATIONS, ({ result }) => result !== "accepted")],
      [text("rate_applied"), outcome("applied")],
      [text("rate_duplicate"), outcome("duplicate")],
      [text("rate_retry"), outcome("retry")],
      [text("rate_dead"), outcome("dead_letter")],
    ]),
    !counts(NOTIFICATIONS) && element("p", { class: "note" }, text("ingress_elsewhere")),
  ];
}

function showLatencies() {
  const [first, last] = [readings[0], readings.at(-1)];
  const bounds = (name) => {
    if (readings.length < 2) return "–";
    const [half, most] = [0.5, 0.99].map((share) => within(first.samples, last.samples, name, share));
    return half === null ? "–" : `≤ ${bound(half)} · ≤ ${bound(most)}`;
  };
  return [
    element("p", { class: "note" }, text("latency_note")),
    facts([
      [text("latency_reply"), bounds("wxpay_ingress_reply_seconds")],
      [text("latency_confirm"), bounds("wxpay_ingress_confirm_seconds")],
      [text("latency_store"), bounds("wxpay_store_apply_seconds")],
      [text("latency_age"), bounds("wxpay_worker_event_age_seconds")],
    ]),
  ];
}

function bound(seconds) {
  return seconds === Infinity ? "∞" : duration(seconds);
}

function showReasons(byReason) {
  const reasons = Object.entries(byReason).sort((left, right) => right[1] - left[1]);
  if (!reasons.length) return element("p", { class: "good" }, text("no_dead_letters"));
  const most = reasons[0][1];
  return table(text("dead_letters"), [text("reason"), text("how_many"), ""], reasons.map(([reason, number]) => [
    element("a", { href: `#/dead-letters?reason=${encodeURIComponent(reason)}` }, reasonName(reason)),
    count(number),
    element("meter", { min: 0, max: most, value: number, "aria-hidden": "true" }),
  ]));
}
