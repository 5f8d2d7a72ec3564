"""What the engine benchmark's JSON holds, as its issue fixed it."""

ROW = [
    "work",
    "callers",
    "engine",
    "model",
    "dtype",
    "output_tokens_per_s",
    "ttft_p50_ms",
    "ttft_p99_ms",
    "itl_p50_ms",
    "pictures_per_s",
    "goodput_rps",
    "runs",
]
RATIO = ["work", "callers", "ours_over", "ratio_median", "ratio_min", "ratio_max"]
