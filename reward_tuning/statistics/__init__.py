"""Statistics of an evaluation: intervals, tests and votes; knows no generator and no torch."""
