// Every request to the admin API. The token stays in this tab's session storage and goes into the header, nowhere else.

const TOKEN = "wxpay-admin-token";

/** A request that was not fulfilled: the API's own sentence, or the key of one of ours. */
export class Problem extends Error {
  constructor(message, status, known) {
    super(message);
    this.status = status;
    this.known = known;
  }
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;
export const setToken = (token) => sessionStorage.setItem(TOKEN, token);
export const dropToken = () => sessionStorage.removeItem(TOKEN);

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(TOKEN);
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, redirect: "error", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(String(error), 0, "unreachable");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Problem(body.error ?? `HTTP ${response.status}`, response.status);
}

const get = async (path) => (await ask(path)).json();

const post = (path, body, options = {}) =>
  ask(path, {
    ...options, method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...options.headers },
  });

const query = (parameters) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

const order = (merchant, number) => `orders/${encodeURIComponent(merchant)}/${encodeURIComponent(number)}`;

export const api = {
  merchants: () => get("merchants"),
  depths: () => get("queue"),
  metrics: async () => (await ask("metrics")).text(),
  isReady: async () => (await fetch("readyz", { credentials: "omit" })).ok,

  order: (merchant, number) => get(order(merchant, number)),
  registerOrder: async (registration) => (await post("orders", registration)).json(),
  registerRefund: async (merchant, number, refund) => (await post(`${order(merchant, number)}/refunds`, refund)).json(),

  deadLetters: (filter) => get(`dead-letters${query(filter)}`),
  deadLetter: (id) => get(`dead-letters/${encodeURIComponent(id)}`),
  audit: (filter) => get(`dead-letters/audit${query(filter)}`),
  discard: async (request) => (await post("dead-letters/discard", request)).json(),

  /** Replays, and tells `onResult` of each dead letter as it comes. Returns how it ended; `signal` stops it. */
  async replay(request, onResult, signal) {
    const response = await post("dead-letters/replay", request, { signal, headers: { Accept: "application/x-ndjson" } });
    for await (const line of lines(response.body)) {
      const item = JSON.parse(line);
      if (item.end) return item.end;
      onResult(item.result);
    }
    throw new Problem("the answer was cut off", 0, "cut_off");
  },
};

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts;
  }
  if (rest) yield rest;
}
