"""Tasks: data sets, heads and metrics for what a fused representation is used for."""
