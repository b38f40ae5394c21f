"""The experiments of the QR paper and the leaderboard of methods: grids of training runs."""
