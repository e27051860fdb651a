"""What happens to which member when, before whom, and what is read off afterwards."""

from dataclasses import dataclass

from harness.process import wait_until

from . import samples as of
from .contestants import gateway, haproxy, nginx

FAIR = 20.0  # percent: one of five
UNDER_WAY = 0.1  # s: a request due so long before a death may have been at the one that died
HEALTH = "health: { http: { host: app.test, path: /healthz } }"
HTTPCHK = "option httpchk; http-check send meth GET uri /healthz hdr Host app.test"
NEXT = "proxy_next_upstream error timeout http_500;"


@dataclass
class Column:
    """One number per contestant."""

    key: str
    title: str
    digits: int = 1


@dataclass
class Scenario:
    """A run of the load with a timetable of misfortunes."""

    name: str
    about: str
    contestants: dict  # name → recipe
    columns: list
    play: object  # (members, clock) → {event: seconds}: does it, and says when
    judge: object  # (samples, events) → {column: number}
    seconds: float
    members: tuple = (0, 1, 2, 3, 4)


def deaths(members, clock):
    """The frpc of one member is killed and comes back, then the frps of another."""
    times, victim, other = {}, members[2], members[3]
    clock.until(3)
    victim.kill(victim.frpc)
    times["frpc_dead"] = clock.now()
    clock.until(10)
    victim.start_frpc()
    wait_until(victim.serves, 15, f"{victim.name} serving again")
    times["frpc_back"] = clock.now()
    clock.until(22)
    other.kill(other.frps)
    times["frps_dead"] = clock.now()
    clock.until(27)
    other.start_frps()
    wait_until(other.serves, 25, f"{other.name} serving again")
    times["frps_back"] = clock.now()
    return times


def judge_deaths(seen, at):
    """Failures and waits of both deaths."""
    result = {}
    for who, app, end in (("frpc", "app-2", at["frps_dead"] - UNDER_WAY), ("frps", "app-3", seen[-1].due)):
        dead, back = at[f"{who}_dead"], at[f"{who}_back"]
        result |= {
            f"{who}_failed": len(of.failed(of.within(seen, dead - UNDER_WAY, end))),
            f"{who}_last": of.last_failure(seen, dead, end),
            f"{who}_first": of.first_use(seen, app, back),
            f"{who}_full": of.full_use(of.within(seen, 0, end), app, back, FAIR),
        }
    return result


def fast_failures(members, clock):
    """One application answers 500 in 1 ms for twelve seconds, its health page too."""
    victim, times = members[2], {}
    clock.until(3)
    victim.tell("/fail?percent=100&status=500&ms=1")
    times["bad"] = clock.now()
    clock.until(15)
    victim.tell("/fail?percent=0")
    times["mended"] = clock.now()
    return times


def judge_fast_failures(seen, at):
    """What visitors saw of it, and how soon it was over for good."""
    bad, mended = at["bad"], at["mended"]
    early, late = of.within(seen, bad, bad + 2), of.within(seen, bad + 2, mended)
    return {
        "early": of.percent(len(of.failed(early)), len(early)), "late": of.percent(len(of.failed(late)), len(late)),
        "failed": len(of.failed(of.within(seen, bad, seen[-1].due + 1))), "last": of.last_failure(seen, bad, seen[-1].due + 1),
        "first": of.first_use(seen, "app-2", mended), "full": of.full_use(seen, "app-2", mended, FAIR),
    }


def nothing(members, clock):
    """Nothing happens: the fault is there from the start."""
    return {}


def judge_absence(seen, at):
    """How much was thrown at the frps that lacks the tunnel. Only a 404 that reached the visitor can be counted here."""
    settled = of.within(seen, 1, seen[-1].due + 1)
    return {"failed": of.percent(len(of.failed(settled)), len(settled)), "p99": of.percentile(settled, 99)}


def slowness(members, clock):
    """One application is ten times slower for nine seconds."""
    victim, times = members[2], {}
    clock.until(4)
    victim.tell("/delay?ms=500&jitter=50")
    times["slow"] = clock.now()
    clock.until(13)
    victim.tell("/delay?ms=50&jitter=5")
    times["well"] = clock.now()
    return times


def judge_slowness(seen, at):
    """Share and latencies, the first two seconds apart."""
    slow, well = at["slow"], at["well"]
    early, late = of.within(seen, slow, slow + 2), of.within(seen, slow + 2, well)
    return {
        "early": of.share(early, "app-2"), "late": of.share(late, "app-2"), "early99": of.percentile(early, 99),
        "late50": of.percentile(late, 50), "late99": of.percentile(late, 99),
        "failed": len(of.failed(of.within(seen, slow, well))), "full": of.full_use(seen, "app-2", well, FAIR),
    }


def _columns(*pairs):
    return [Column(*pair) for pair in pairs]


def _death_columns(who):
    return _columns((f"{who}_failed", f"{who} killed: failed requests", 0), (f"{who}_last", "last one after, s", 2),
                    (f"{who}_first", f"{who} back: first used after, s", 2), (f"{who}_full", "¾ of its share after, s", 2))


SCENARIOS = [
    Scenario(
        "deaths", "the frpc of one of five is killed and comes back after 7 s; then the frps of another, back after 5 s",
        {
            "gateway": gateway("balance: least_request"),
            "gateway, health": gateway(f"balance: least_request, {HEALTH}"),
            "gateway, outlier": gateway("balance: least_request, outlier: {}"),
            "gateway, health, slow_start": gateway(f"balance: least_request, {HEALTH}, slow_start: 5s"),
            "haproxy": haproxy("balance leastconn"),
            "haproxy, check": haproxy(f"balance leastconn; {HTTPCHK}", "check inter 2s"),
            "nginx": nginx("least_conn;"),
        },
        _death_columns("frpc") + _death_columns("frps"), deaths, judge_deaths, 45),
    Scenario(
        "fast failures", "one of five answers 500 in 1 ms for twelve seconds, its health page too",
        {
            "gateway, least_request": gateway("balance: least_request"),
            "gateway, least_request, outlier": gateway("balance: least_request, outlier: {}"),
            "gateway, least_request, outlier, health": gateway(f"balance: least_request, outlier: {{}}, {HEALTH}"),
            "gateway, round_robin, outlier": gateway("balance: round_robin, outlier: {}"),
            "gateway, peak_ewma": gateway("balance: peak_ewma"),
            "gateway, peak_ewma, retry": gateway("balance: peak_ewma, retry: { on: [500], budget: 20% }"),
            "gateway, least_request, outlier, retry": gateway("balance: least_request, outlier: {}, retry: { on: [500], budget: 20% }"),
            "haproxy, leastconn": haproxy("balance leastconn"),
            "haproxy, leastconn, check, observe": haproxy(
                f"balance leastconn; {HTTPCHK}", "check inter 2s observe layer7 error-limit 5 on-error mark-down"),
            "haproxy, leastconn, retry-on": haproxy("balance leastconn; retry-on conn-failure 500; retries 2; option redispatch 1"),
            "nginx, least_conn": nginx("least_conn;"),
            "nginx, least_conn, next_upstream": nginx("least_conn;", NEXT),
        },
        _columns(("early", "failures visitors see, first 2 s, %", 1), ("late", "after 2 s, %", 1), ("failed", "in all", 0),
                 ("last", "last one after, s", 2), ("first", "mended: first used after, s", 2), ("full", "¾ of its share after, s", 2)),
        fast_failures, judge_fast_failures, 35),
    Scenario(
        "absence", "one of five frps has no such tunnel: its 404 comes in less than 1 ms",
        {
            "gateway, round_robin": gateway("balance: round_robin"),
            "gateway, least_request": gateway("balance: least_request"),
            "gateway, peak_ewma": gateway("balance: peak_ewma"),
            "haproxy, roundrobin": haproxy("balance roundrobin"),
            "haproxy, leastconn": haproxy("balance leastconn"),
            "haproxy, leastconn, check": haproxy(f"balance leastconn; {HTTPCHK}", "check inter 2s"),
            "nginx, least_conn": nginx("least_conn;"),
        },
        _columns(("failed", "requests that got the 404, %", 1), ("p99", "p99, ms", 0)), nothing, judge_absence, 6, members=(0, 1, 5, 3, 4)),
    Scenario(
        "slowness", "one of five is ten times slower for nine seconds; what stands around the policy",
        {
            "gateway, round_robin": gateway("balance: round_robin"),
            "gateway, round_robin, limits": gateway("balance: round_robin, limits: { in_flight: 4 }"),
            "gateway, round_robin, adaptive": gateway("balance: round_robin, limits: { adaptive: {} }"),
            "gateway, round_robin, outlier": gateway("balance: round_robin, outlier: { latency_factor: 3, window: 5s }"),
            "gateway, round_robin, hedge": gateway("balance: round_robin, retry: { hedge: { after: 150ms, budget: 25% } }"),
            "gateway, peak_ewma": gateway("balance: peak_ewma"),
            "gateway, peak_ewma, hedge": gateway("balance: peak_ewma, retry: { hedge: { after: 150ms } }"),
            "haproxy, roundrobin, maxconn": haproxy("balance roundrobin", "maxconn 4"),
        },
        _columns(("early", "share, first 2 s, %", 1), ("late", "after 2 s, %", 1), ("early99", "p99, first 2 s, ms", 0),
                 ("late50", "p50 after 2 s, ms", 0), ("late99", "p99 after 2 s, ms", 0), ("failed", "failed requests", 0),
                 ("full", "well: ¾ of its share after, s", 2)),
        slowness, judge_slowness, 25),
]
