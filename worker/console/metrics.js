// What the programs count, read from /metrics, and what two readings say about the time between them.

/** Samples of Prometheus' text format: `{name, labels, value}`. */
export function parse(page) {
  const samples = [];
  for (const line of page.split("\n")) {
    const match = /^([a-z_]\w*)(?:\{(.*)\})? (\S+)$/i.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    samples.push({ name: match[1], labels, value: Number(match[3].replace("+Inf", "Infinity")) });
  }
  return samples;
}

/** The sum of a metric's samples that `fits` takes; null where there is none. */
export function sum(samples, name, fits = () => true) {
  const found = samples.filter((sample) => sample.name === name && fits(sample.labels));
  return found.length ? found.reduce((total, sample) => total + sample.value, 0) : null;
}

/** How much a counter grew from one reading to another. A counter that began anew has grown by what it says. */
export function growth(before, after, name, fits) {
  const end = sum(after, name, fits);
  if (end === null) return null;
  const start = sum(before, name, fits) ?? 0;
  return end >= start ? end - start : end;
}

/** The bucket's bound within which `share` of a histogram's new samples lie; null where there are none. */
export function within(before, after, name, share) {
  const bounds = new Set(after.filter((sample) => sample.name === `${name}_bucket`).map((sample) => sample.labels.le));
  const bound = (le) => (le === "+Inf" ? Infinity : Number(le));
  const sorted = [...bounds].sort((left, right) => bound(left) - bound(right));
  const counts = sorted.map((le) => growth(before, after, `${name}_bucket`, (labels) => labels.le === le));
  const all = counts.at(-1);
  if (!all) return null;
  return bound(sorted[counts.findIndex((count) => count >= share * all)]);
}
