"""The runtime: the C core, the descriptor it interprets, and the binding that drives both."""
