"""How a metric grows with the number of training images, and what more of them would bring."""
