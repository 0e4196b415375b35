"""The ensemble command, and boosting."""
