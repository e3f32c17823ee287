"""Which parameters matter, and what updating them costs."""
