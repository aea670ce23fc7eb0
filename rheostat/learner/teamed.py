"""What a method says of itself that trains several policies in the same environments: one composition, of which each has its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.options import option


@dataclass(frozen=True)
class Policies:
    """Which agents have which policy."""

    share: bool = option(False, short="share_policies")
    """One policy for all agents of equal observation and action spaces; else one for every agent."""

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        team = context.team.collector
        one_each = len(team.rows) == len(team.environments.agents)
        return {"share": "no two agents have equal spaces, so leave it alone"} if one_each else {}


@dataclass
class Teamed:
    """What a method of several policies says of itself, before anything is built.

    Attributes:
        member: of every policy.
        share: whether agents of equal spaces have one policy.
        log: when the team is measured.
    """

    member: Composition
    share: bool
    log: Evaluations = Evaluations()

    @property
    def innermost(self) -> Any:
        """The collector of a member."""
        return self.member.innermost

    def parts(self) -> dict[str, Any]:
        """Every part of a member."""
        return self.member.parts()

    def any(self, name: str) -> bool:
        """Whether any part has this attribute set."""
        return self.member.any(name)

    def check(self, who: str) -> None:
        """Refuse members whose parts cannot work together."""
        self.member.check(who)
