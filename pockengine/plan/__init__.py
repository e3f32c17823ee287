"""Order of work, lifetimes and byte offsets: plans, and the checker that mistrusts them."""
