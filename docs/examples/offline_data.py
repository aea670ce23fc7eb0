"""Make a data set, read it again for its task, and look at it."""

from pathlib import Path

from rheostat.buffers.offline import OfflineData
from rheostat.collect.control.offline_data import load_for
from rheostat.tasks.control.environments import make
from rheostat.training.datasets import make_dataset


def main(folder: Path, steps: int = 1000) -> OfflineData:
    """Random actions on Hopper."""
    made = make_dataset("Hopper-v5", "random", steps=steps, seed=0)
    made.save(folder)

    environments = make("Hopper-v5", num_envs=1, seed=0)
    data = load_for(environments, folder)  # or the id of a Minari data set: "mujoco/hopper/medium-v0"
    environments.close()
    print(f"{len(data)} steps in {len(data.episodes)} episodes, by {data.behaviour}")
    print(f"mean score {data.normalised_score(float(data.whole_returns.mean())):.1f}")
    return data


if __name__ == "__main__":
    main(Path("datasets/hopper-random"))
