"""HOW DOES THE POLICY MOVE? Ratio, limiter, weight, aggregation, regularisers: pure functions of tensors."""
