"""Weight sharing beyond one hash: multipliers, bit blocks, frequency, memories of all fields."""
