"""The process and the machine: start-up, signals, child processes and memory."""
