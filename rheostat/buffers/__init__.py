"""WHAT IS KEPT? History windows, replay, data sets, mixing, filters, as retainers."""
