"""HOW DOES THE POLICY MOVE? Ratios, clips, weights, regularisers: pure functions of tensors, and terms made of them."""
