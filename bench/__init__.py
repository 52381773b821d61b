"""How fast gameday is beside what people use today, measured side by side in one run."""
