"""benches/balance-times: what health checks, ejection, retries and limits add to a policy, on real frps beside the peers.

benches/balance compares the policies; this measures what stands around them: how long after a death visitors still get
failures, how soon a member that is back is used. Reading order: __main__ (one run), scenarios (what happens when),
contestants (who), fleet (real frps, frpc, apps), samples (what the load saw), report.
"""
