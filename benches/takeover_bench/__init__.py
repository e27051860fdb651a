"""benches/takeover: one http tunnel, five ways to it, in one run on real frps and frpc.

Reading order: __main__ (one run), contestants (the five ways), load (what is put on them and read off them), fleet (real
frps and frpc, shared with benches/directory), report.
"""
