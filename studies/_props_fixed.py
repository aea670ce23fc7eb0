"""Parts A and D of the PROPS study: sampling error for a target that does not move."""

from __future__ import annotations

from typing import Any

from rheostat.experiments.studies import Cell, Claim, Columns, Judgement, Results, as_json, smaller, summary
from studies._props_claims import FACTOR, FIXED, SHARED, TABLES, TRAIN, Config, Sizes, Values, behaviour, by_seed, mean, ros

# --- A: a target that does not move, small ---------------------------------------------------------------------------------------------


def grid(sizes: Sizes) -> Claim:
    """Exact sampling error on the 5x5 grid; the learning rate 0.1 was declared from the range .05 to .2, whose ends are shown besides."""
    n = max(sizes.grid_at)
    m, coarse = min(16, n // 4), min(64, n // 2)
    window = {"num_envs": 1, "batch_steps": n, "window": 1}
    configs: dict[str, tuple[str, Config]] = {
        "on-policy": ("ppo-buffer", {"num_envs": 1, "batch_steps": min(sizes.grid_at), "window": n // min(sizes.grid_at)}),
        "ROS": ("ros", window | ros(1, 1000.0)),
        "PROPS": ("props", window | behaviour(m, 0.1, 0.05, 0.1, 4)),
        f"PROPS m={coarse}": ("props", window | behaviour(coarse, 0.1, 0.05, 0.1, 4)),
        "PROPS lr=0.05": ("props", window | behaviour(m, 0.05, 0.05, 0.1, 4)),
        "PROPS lr=0.2": ("props", window | behaviour(m, 0.2, 0.05, 0.1, 4)),
    }
    shared = {
        "task": "rheostat/GridWorld5x5-v0",
        "options": {"vector_kwargs": {"autoreset_mode": "SameStep"}},  # every row is a transition, so steps are counted exactly
        "target": {"kind": "tabular", "scale": 0.5},
        "at": list(sizes.grid_at),
    }
    arms = {
        arm: fixed_cells("A grid", arm, pair, shared, sizes.seeds_a, sizes.first_seed, 30.0 if arm == "ROS" else 6.0)
        for arm, pair in configs.items()
    }

    def judge(result: Results) -> Judgement:
        def errors_at(arm: str, index: int) -> Values:
            return by_seed(arms[arm], lambda r: r["sampling_error"][index], result)

        errors = {arm: {at: errors_at(arm, index) for index, at in enumerate(sizes.grid_at)} for arm in arms}
        half, full = sizes.grid_at[-2:]
        conditions = [
            smaller(f"PROPS over on-policy at {half} steps", errors["PROPS"][half], errors["on-policy"][half], factor=0.6),
            smaller(f"PROPS over on-policy at {full} steps", errors["PROPS"][full], errors["on-policy"][full], factor=0.5),
        ]
        metrics = {"sampling_error": {arm: {str(at): summary(v) for at, v in rows.items()} for arm, rows in errors.items()}}
        return Judgement(conditions, metrics, error_curves(arms, result))

    return Claim(
        "grid",
        "A: exact sampling error, fixed tabular policy, 5x5 grid",
        "Six seeds of a reference run at 128/256/512/1024 steps: on-policy .283/.159/.073/.036, PROPS .220/.089/.031/.010, "
        "PROPS m=64 .276/.116/.044/.013, ROS .069/.023/.006/.003",
        "logits N(0, 0.5^2) new for every seed, episodes of at most 50 steps, one world, everything kept; "
        f"PROPS m = {m}, lr 0.1, clip 0.3, delta 0.05, lambda 0.1, 16 epochs, 4 minibatches; ROS lr 1000, m = 1",
        arms,
        judge,
        margins={"ratio at half": 0.6, "ratio in full": 0.5},
    )


def cartpole(sizes: Sizes) -> Claim:
    """Neural sampling error on CartPole for a trained network; the behaviour settings are the authors' for discrete actions."""
    n = sizes.cartpole_rows
    window = {"num_envs": 1, "batch_steps": n, "window": 1}
    target = train_cell("CartPole-v1", SHARED | {"batch_steps": sizes.batch_c[0]}, sizes.target_steps)
    configs: dict[str, tuple[str, Config]] = {
        "on-policy": ("ppo-buffer", window),
        "ROS": ("ros", window | ros(n // 64, 10.0)),
        "PROPS": ("props", window | behaviour(n // 8, 1e-3, 0.03, 0.1, 8)),
    }
    shared = {
        "task": "CartPole-v1",
        "target": {"kind": "trained", "cell": target.key},
        "at": [n * (i + 1) for i in range(sizes.cartpole_windows)],
        "epochs": sizes.fit_epochs,
    }
    arms = {
        arm: fixed_cells("A CartPole", arm, pair, shared, sizes.seeds_a, sizes.first_seed, 25.0, needs=(target,))
        for arm, pair in configs.items()
    }

    def judge(result: Results) -> Judgement:
        errors = {arm: by_seed(cells, lambda r: mean(r["sampling_error"]), result) for arm, cells in arms.items()}
        first = {arm: by_seed(cells, lambda r: r["sampling_error"][0], result) for arm, cells in arms.items()}
        conditions = [smaller("PROPS over on-policy", errors["PROPS"], errors["on-policy"], factor=0.8)]
        metrics = {
            "sampling_error": {arm: summary(values) for arm, values in errors.items()},
            "sampling_error_windows": {arm: [result(cell)["sampling_error"] for cell in cells.values()] for arm, cells in arms.items()},
            "target": result(target),
            "besides": as_json([smaller("first full window only, PROPS over on-policy", first["PROPS"], first["on-policy"], factor=0.8)]),
        }
        return Judgement(conditions, metrics, error_curves(arms, result))

    return Claim(
        "cartpole",
        "A: neural sampling error, fixed trained policy, CartPole-v1",
        "Expected 20 to 45 % lower",
        f"PPO trained for {sizes.target_steps:,} steps, then frozen with its normalisation; the window holds the last {n} steps; the mean "
        f"of {sizes.cartpole_windows} full windows in a row; PROPS m = {n // 8}, lr 1e-3, delta 0.03, lambda 0.1, 8 minibatches; "
        f"ROS lr 10, m = {n // 64}; head fitted with {sizes.fit_epochs} epochs",
        arms,
        judge,
        margins={"ratio": 0.8},
    )


def fixed_cells(
    part: str, arm: str, method: tuple[str, Config], shared: Config, seeds: int, first: int, cost: float, needs: tuple[Cell, ...] = ()
) -> dict[int, Cell]:
    """One cell per seed for one arm with a frozen target."""
    return {
        seed: Cell(
            FIXED,
            {"method": method[0], "config": method[1], "seed": seed, **shared},
            f"{part} {shared['target']['kind']}, {arm}, seed {seed}",
            cost=cost,
            needs=needs,
            sources=TABLES,
        )
        for seed in range(first, first + seeds)
    }


def error_curves(arms: dict[str, dict[int, Cell]], result: Results) -> dict[str, dict[int, Columns]]:
    """Sampling error against environment steps."""

    def curve(cell: Cell) -> Columns:
        return {"steps": cell.arguments["at"], "meter/sampling_error": result(cell)["sampling_error"]}

    return {arm: {seed: curve(cell) for seed, cell in cells.items()} for arm, cells in arms.items()}


def train_cell(task: str, config: Config, steps: int) -> Cell:
    """A target trained with PPO, seed 1000: not one of the study's seeds."""
    arguments = {"task": task, "config": config | {"num_envs": 8}, "steps": steps, "seed": 1000}
    return Cell(TRAIN, arguments, f"train a target on {task}", cost=steps / 2000, sources=TABLES)


# --- D: a target that does not move, MuJoCo --------------------------------------------------------------------------------------------

PUBLISHED_D = {
    "Hopper-v5": (0.0078, 0.0062),
    "HalfCheetah-v5": (0.0205, 0.0152),
    "Walker2d-v5": (0.0177, 0.0132),
}
"""On-policy and PROPS at 32,768 steps in the authors' logs (v4 worlds, five seeds)."""
TASKS_D = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5")


def fixed_mujoco(sizes: Sizes, task: str) -> Claim:
    """One task with a randomly initialised target, in the setting of the authors' logs."""
    n, m, b = sizes.batch_d, sizes.batch_d // 4, sizes.batches_d
    window = {"num_envs": 1, "batch_steps": n, "window": b}
    configs: dict[str, tuple[str, Config]] = {
        "on-policy": ("ppo-buffer", window),
        "PROPS": ("props", window | behaviour(m, 1e-3, 0.05, 0.1, 32)),
    }
    shared = {"task": task, "target": {"kind": "random", "warm_up": 10 * n}, "at": [b * n, 2 * b * n], "epochs": sizes.fit_epochs}
    costs = {"on-policy": 30.0, "PROPS": 60.0}
    arms = {arm: fixed_cells(f"D {task}", arm, pair, shared, sizes.seeds_d, sizes.first_seed, costs[arm]) for arm, pair in configs.items()}

    def judge(result: Results) -> Judgement:
        errors = {arm: by_seed(cells, lambda r: r["sampling_error"][-1], result) for arm, cells in arms.items()}
        half = {arm: by_seed(cells, lambda r: r["sampling_error"][0], result) for arm, cells in arms.items()}
        conditions = [smaller(f"PROPS over on-policy at {2 * b * n:,} steps", errors["PROPS"], errors["on-policy"], margin=FACTOR)]
        metrics: dict[str, Any] = {
            "sampling_error": {arm: summary(values) for arm, values in errors.items()},
            "sampling_error_halfway": {arm: summary(values) for arm, values in half.items()},
            "authors": dict(zip(("on-policy", "PROPS"), PUBLISHED_D[task], strict=True)),
        }
        return Judgement(conditions, metrics, error_curves(arms, result))

    on_policy, props = PUBLISHED_D[task]
    return Claim(
        f"fixed {task} random",
        f"D: neural sampling error, fixed random policy, {task}",
        f"{task.replace('v5', 'v4')}, initialisation: on-policy {on_policy}, PROPS {props} (ratio {props / on_policy:.2f})",
        f"n = {n}, m = {m}, b = {b}, at {2 * b * n:,} steps, one world; target: the initialisation, with frozen normalisation; "
        f"PROPS lr 1e-3, delta 0.05, lambda 0.1, 32 minibatches; head fitted with {sizes.fit_epochs} epochs",
        arms,
        judge,
        margins={"ratio": FACTOR},
    )
