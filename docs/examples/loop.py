"""The training loop by hand: a turn is four steps, and data flow one way."""

from __future__ import annotations

from rheostat.learner.control import build
from rheostat.streams import Streams
from rheostat.tasks.control.environments import Environments, make
from rheostat.training.settings import configure


def environments(num_envs: int, seed: int) -> Environments:
    return make("CartPole-v1", num_envs=num_envs, seed=seed)


def main(turns: int = 3) -> list[dict[str, float]]:
    config = configure("ppo-buffer", {"num_envs": 4, "batch_steps": 256, "minibatches": 4})
    method = build(config, "ppo-buffer", environments, Streams(0), total_steps=turns * 256)
    history = []
    for _ in range(turns):
        fresh = method.collect()  # WHO ACTS?
        kept = method.retain(fresh)  # WHAT IS KEPT?
        batch = method.credit(kept)  # WHAT IS IT WORTH?
        metrics = method.improve(batch)  # HOW DOES THE POLICY MOVE?
        history.append(metrics)
        stale, ess = metrics.get("meter/share_stale", 0.0), metrics["meter/ess"]
        print(f"fresh {list(fresh.rows.shape)}  kept {list(kept.rows.shape)}  stale {stale:.2f}  ess {ess:.3f}")
    method.close()
    return history


if __name__ == "__main__":
    main()
