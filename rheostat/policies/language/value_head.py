"""A critic on a language model's hidden states, for PPO."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError

FILE = "value_head.safetensors"


class ValueHead(nn.Module):
    """One linear layer from hidden states to values, in float32, starting at 0 everywhere.

    Because it starts at 0, the first advantages are those of plain returns instead of noise, and no random numbers are needed.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.form = ""
        """How the rows are written that it reads, as JSON, where they are more than a prompt and an answer; saved beside the weights."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Values ``[n]`` float32 of hidden states ``[n, C]``."""
        return self.linear(hidden.float())[:, 0]

    def save(self, folder: Path) -> None:
        """Write the head into the folder of the model's files."""
        from safetensors.torch import save_file

        facts = {"form": self.form} if self.form else None
        save_file({name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}, folder / FILE, metadata=facts)

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            RheostatError: a head of another width.
        """
        from safetensors import safe_open
        from safetensors.torch import load_file

        state = load_file(folder / FILE)
        with safe_open(folder / FILE, framework="pt") as file:
            self.form = (file.metadata() or {}).get("form", "")
        width, own = state["linear.weight"].shape[-1], self.linear.weight.shape[-1]
        if width != own:
            raise RheostatError(f"The value head in {folder} is for hidden states of width {width}, the model's have {own}.")
        with torch.no_grad():
            self.load_state_dict(state)
