"""What is better measured than guessed before training: the learning rate and the batch size."""
