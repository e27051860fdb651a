"""The side-by-side speed harness behind benches/compare; the method and its reasons are in benches/RESULTS.md.

Reading order: __main__ (one run from top to bottom), scenarios (what is measured and what must hold), contestants (who),
measure (CPU, memory, load), process (children that never outlive us), install, render, report.
"""
