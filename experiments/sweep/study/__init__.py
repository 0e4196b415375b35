"""The Optuna study: storage, samplers, trials and confirmation."""
