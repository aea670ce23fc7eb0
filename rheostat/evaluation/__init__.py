"""Evaluation, statistics over seeds, comparisons, reports."""
