"""From fused groups to machine code: the only part that knows TVM."""
