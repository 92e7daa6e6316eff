"""A hard budget of paid requests: counted before each leaves, so that it can be spent once and never exceeded."""

from dataclasses import dataclass

from urbanprint.errors import BudgetSpent
from urbanprint.imagery.ledger import Ledger


@dataclass(frozen=True)
class Purse:
    """At most `limit` paid requests to `source_name` over the life of `ledger`.

    All threads, runs and processes that share the ledger share the purse. A request counts from the moment before it
    leaves: one that was under way when its process was killed, or that failed, has been spent.
    """

    ledger: Ledger
    source_name: str
    limit: int

    def spend(self) -> None:
        """Count one paid request, on disk before this returns. Raises `BudgetSpent` when none is left."""
        if not self.ledger.spend(self.source_name, limit=self.limit):
            raise BudgetSpent(
                f"{self.spent:,} of {self.limit:,} paid requests to {self.source_name} have been spent: "
                "raise the budget to go on, what has been fetched is kept"
            )

    @property
    def spent(self) -> int:
        """Paid requests that have left so far, of this run and all before it."""
        return self.ledger.spent(self.source_name)

    @property
    def left(self) -> int:
        """Paid requests that may still leave."""
        return max(0, self.limit - self.spent)
