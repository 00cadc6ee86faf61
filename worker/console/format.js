// Amounts, times and numbers as people read them. Amounts are whole fen, and only strings of digits are cut: no fractions.

/** Fen as yuan with two decimals; another currency as it is. What is no whole number stays as it was written. */
export function money(amount, currency = "CNY") {
  if (amount === null || amount === undefined) return null;
  const digits = String(amount);
  if (!/^\d+$/.test(digits)) return digits;
  return currency === "CNY" ? `¥${yuan(digits)}` : `${digits} ${currency}`;
}

function yuan(digits) {
  const padded = digits.replace(/^0+(?=\d)/, "").padStart(3, "0");
  return `${padded.slice(0, -2)}.${padded.slice(-2)}`;
}

/** Yuan as a person types them, as fen; null for anything but digits with at most two decimals. */
export function fen(typed) {
  const match = /^(\d{1,12})(?:\.(\d{1,2}))?$/.exec(typed.trim());
  return match ? Number(match[1] + (match[2] ?? "").padEnd(2, "0")) : null;
}

/** A moment as China's clocks show it, whatever this machine's zone is. */
export function time(moment) {
  const beijing = new Date(new Date(moment).getTime() + 8 * 3600 * 1000);
  return Number.isNaN(beijing.getTime()) ? moment : `${beijing.toISOString().slice(0, 19).replace("T", " ")}+08:00`;
}

/** When ingress received a notification, by its id (UUID version 7 begins with milliseconds); null for foreign ids. */
export function receivedAt(id) {
  const match = /^([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-/.exec(id);
  return match ? new Date(parseInt(match[1] + match[2], 16)).toISOString() : null;
}

/** With a sign, for points. */
export function signed(points) {
  return points > 0 ? `+${points}` : String(points);
}

/** A rate: small ones with two decimals. */
export function rate(perSecond) {
  return perSecond.toFixed(perSecond >= 10 || perSecond === 0 ? 0 : 2);
}

/** Seconds in the unit that fits. */
export function duration(seconds) {
  if (seconds < 1) return `${+(seconds * 1000).toPrecision(3)} ms`;
  return seconds < 120 ? `${+seconds.toPrecision(3)} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
