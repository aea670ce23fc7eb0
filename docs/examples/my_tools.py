"""Count to a number with tools: an environment as TRL's environment_factory wants it."""


class Counter:
    """One episode: the counter begins at 0 and has to reach the goal."""

    def reset(self, seed: int = 0) -> str:
        """Begin an episode."""
        self.goal, self.count = 1 + seed % 5, 0
        return f"Count to {self.goal}."

    def add(self, number: int) -> str:
        """Add a number to the counter.

        Args:
            number: What is added.
        """
        self.count += number
        return f"The counter is {self.count}."

    def get_reward(self) -> float:
        """1 if the counter stands on the goal."""
        return float(self.count == self.goal)
