#!/usr/bin/env python3
"""check_profile.py FILE STEP,STEP,... N_RANKS: a timeline of --profile is what docs/performance.md says.

It is JSON in Chrome's trace format; spans of a thread nest; on each rank's main thread the steps are those named, and
what is inside a step covers at least 95 % of it.
"""
import json
import sys


def spans_by_thread(events):
    threads = {}
    for e in events:
        if e["ph"] == "X":
            assert e["name"] and e["cat"] and e["dur"] >= 0 and e["ts"] >= 0, e
            begin = round(e["ts"] * 1000)  # whole nanoseconds
            threads.setdefault((e["pid"], e["tid"]), []).append((begin, begin + round(e["dur"] * 1000), e))
    for spans in threads.values():
        spans.sort(key=lambda s: (s[0], -s[1]))
    return threads


def check_nesting(spans):
    open_ends = []
    for begin, end, event in spans:
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1], f"{event} ends after the span around it"
        open_ends.append(end)


def covered(spans, step):
    """Nanoseconds of the step inside some span of the same thread."""
    total, reached = 0, step[0]
    for begin, end, event in spans:
        if event is not step[2] and step[0] <= begin and end <= step[1] and begin >= reached:
            total, reached = total + end - begin, end
    return total


def main():
    path, steps, n_ranks = sys.argv[1], [int(s) for s in sys.argv[2].split(",")], int(sys.argv[3])
    with open(path, encoding="utf-8") as f:
        events = json.load(f)["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    threads = spans_by_thread(events)
    assert set(threads) == set(names), "threads without names"
    main_threads = [t for t in threads if names[t] == "main"]
    assert sorted(pid for pid, _ in main_threads) == list(range(n_ranks)), main_threads
    for thread in threads:
        check_nesting(threads[thread])
    for thread in main_threads:
        found = [s for s in threads[thread] if s[2]["name"] == "step"]
        assert [s[2]["args"]["n"] for s in found] == steps, [s[2] for s in found]
        for step in found:
            share = covered(threads[thread], step) / (step[1] - step[0])
            assert share >= 0.95, f"spans cover {share:.3f} of {step[2]}"
        kinds = {s[2]["cat"] for s in threads[thread]}
        assert {"start", "data", "forward", "backward", "reduce", "optimizer", "conv", "attention"} <= kinds, kinds
    print(*sorted({names[t] for t in threads}))


main()
