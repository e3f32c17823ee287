"""What is told of a trainer: how fast each kernel runs, what each pass did, where values lie."""
