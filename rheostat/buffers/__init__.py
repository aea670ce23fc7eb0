"""WHAT IS KEPT? History windows, replay, expert and offline data, mixing, filters."""
