"""`lineshaft demo`: work, a killed worker, a restarted coordinator, and the proof that nothing was lost."""
