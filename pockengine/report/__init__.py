"""What is told about a trainer: how fast each of its kernels runs, what each pass did, where values lie."""
