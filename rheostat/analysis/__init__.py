"""What logged numbers mean: statistics over seeds, verdicts, curves, records, offline evaluation."""
