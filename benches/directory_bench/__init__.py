"""benches/directory: 5,000 tunnels of real frpc on five real frps 0.71, and what it costs a gateway to know them.

Reading order: __main__ (one run), lab (who is there), costs (polls, memory, restart), changes (how soon one is served), flaps
(what 200 a second cost requests), report. The programs themselves are those of takeover_bench.
"""
