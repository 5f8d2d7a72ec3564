"""The engine against its peers: `python -m loadtests.engine`; see docs/benchmarks.md.

works      what is asked: prompts, lengths, arrivals       models     the checkpoints it is asked of (noise: random ones)
measure    rounds in turn ─► worker (one process an engine) ─► engines/*  runs a job, takes the times
search     the highest rate that meets an objective        figures    percentiles, rows, ratios
report     table, JSON        plot  PNG                    docs       the section in docs/benchmarks.md
"""
