"""How fast Trueward is, as ratios of runs interleaved in one session. ``python -m benchmarks --help``."""
