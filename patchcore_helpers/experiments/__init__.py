"""The three experiments: settings -> tasks -> rows -> tables and verdicts. Figures: `course`."""
