"""What the load saw of one contestant, and the questions asked of it. Times are seconds from the start of the load."""

from dataclasses import dataclass


@dataclass
class Sample:
    """One request."""

    due: float
    latency: float  # ms, from when it was due
    status: int  # 0: no answer
    app: str  # which application answered


def read(path, contestants):
    """The generator's lines, by contestant name."""
    seen = {one.name: [] for one in contestants}
    latest = 0.0
    with open(path) as file:
        for line in file:
            index, due, latency, late, status, app = line.rstrip("\n").split(",")
            seen[contestants[int(index)].name].append(Sample(float(due), float(latency), int(status), app))
            latest = max(latest, float(late))
    for samples in seen.values():
        samples.sort(key=lambda one: one.due)
    return seen, latest


def within(samples, begin, end):
    """Those due from `begin` until `end`."""
    return [one for one in samples if begin <= one.due < end]


def percent(part, whole):
    """A share; None of nothing."""
    return round(100 * part / whole, 2) if whole else None


def share(samples, app):
    """Percent of requests that `app` answered."""
    return percent(sum(one.app == app for one in samples), len(samples))


def failed(samples):
    """Those that visitors would complain about."""
    return [one for one in samples if one.status != 200]


def percentile(samples, rank):
    """Latency that `rank` percent don't exceed, ms (nearest rank)."""
    ordered = sorted(one.latency for one in samples)
    return round(ordered[max(0, -(-len(ordered) * rank // 100) - 1)], 1) if ordered else None


def last_failure(samples, begin, end):
    """How long after `begin` the last failing request was due; 0 if none failed."""
    bad = failed(within(samples, begin, end))
    return round(max(one.due for one in bad) - begin, 2) if bad else 0.0


def first_use(samples, app, begin):
    """How long after `begin` a request was due that `app` served with 200; None if never."""
    for one in samples:
        if one.due >= begin and one.app == app and one.status == 200:
            return round(one.due - begin, 2)
    return None


def full_use(samples, app, begin, fair):
    """How long after `begin` the first whole second began in which `app` had three quarters of `fair` percent.

    Not before it was first used: a second that begins earlier would have most of them, too.
    """
    first = first_use(samples, app, begin)
    if first is None:
        return None
    at, end = begin + first, samples[-1].due
    while at + 1 <= end:
        seen = [one for one in within(samples, at, at + 1) if one.status == 200]
        if seen and share(seen, app) >= 0.75 * fair:
            return round(at - begin, 2)
        at += 0.1
    return None
