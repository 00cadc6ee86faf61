"""The medians of all rounds as a Markdown table."""

import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

rates, latencies = defaultdict(list), defaultdict(list)
handlers = set()
for file in sorted(Path(sys.argv[1]).glob("*-*-*.json")):
    name, mode, _ = file.stem.rsplit("-", 2)
    handlers.add(f"{name}, {mode}")
    text = file.read_text()
    # What could not be measured has an error instead.
    for figure in json.loads(text).get("figures", []) if text.strip() else []:
        connections = re.search(r"(\d+) connections", figure["name"])
        if connections is None or "v3" in figure["name"]:
            continue
        key = (f"{name}, {mode}", int(connections[1]))
        if figure["name"].startswith("accepted"):
            rates[key].append(figure["values"]["median"])
            latencies[key] += [int(p99) for note in figure["notes"] for p99 in re.findall(r"p99 (\d+) µs", note)]
        elif figure["name"].endswith("p99"):
            latencies[key].append(figure["values"]["median"])


def cell(key: tuple[str, int]) -> str:
    if not rates[key]:
        return "not measured"
    low, high = min(rates[key]), max(rates[key])
    return f"{statistics.median_low(rates[key])} ({low}–{high}), {statistics.median_low(latencies[key]) / 1000:.1f} ms"


print("| handler | 64 connections: requests/s, p99 | 512 connections: requests/s, p99 |\n| --- | --- | --- |")
for name in sorted(handlers, key=lambda name: -statistics.median_low(rates[name, 64] or [0])):
    print(f"| {name} | {cell((name, 64))} | {cell((name, 512))} |")
