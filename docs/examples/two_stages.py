"""A recipe in Python: two stages of PPO, the second with a smaller step size."""

from __future__ import annotations

from pathlib import Path

import rheostat


def main(directory: Path, steps: int = 4096) -> list[dict[str, object]]:
    recipe = rheostat.Recipe(
        name="two-stages",
        shared={"task": "CartPole-v1", "seed": 0},
        stages=(
            rheostat.Stage("fast", "ppo", {"steps": steps, "batch_steps": 512, "learning_rate": 1e-3}),
            rheostat.Stage("slow", "ppo", {"steps": steps, "batch_steps": 512, "learning_rate": 1e-4}),
        ),
    )
    found = rheostat.train_recipe(recipe, directory)
    found.run("slow").close()  # the run of a stage, opened
    return found.stages


if __name__ == "__main__":
    for row in main(Path("runs/recipe")):
        print(row["stage"], row["from"], row["steps"])
