"""Shows a sweep: live table, leaderboard, figures and HTML report."""
