"""What must not be kept any longer: pixels past the time the terms give, and images someone asked to remove."""

from urbanprint.imagery.ledger import Ledger, TakenDown
from urbanprint.imagery.records import Terms
from urbanprint.imagery.store import Store

_DAY_S = 86_400.0


def expire(ledger: Ledger, store: Store, terms: Terms, now: float, *, source: str) -> int:
    """Remove what has been kept for longer than `terms.keep_days` at `now` (seconds since 1970); return how many.

    The ledger then knows each as `found`, with the reason: the provider still has it, and a later run that wants it
    may fetch it anew. Images whose day of fetching an older ledger has not noted count as kept too long.
    """
    if terms.keep_days is None:
        return 0
    expired = ledger.fetched_before(now - terms.keep_days * _DAY_S, source=source)
    for image in expired:
        # The ledger first: a kill in between leaves a file that nobody refers to, not a reference to no file.
        ledger.record_removed(source, image["image_id"], f"removed after the {terms.keep_days:g} days its terms allow")
        store.remove(image["sha256"])
    return len(expired)


def take_down(ledger: Ledger, store: Store, image_id: str) -> tuple[TakenDown, ...]:
    """Block an image for good and remove what is kept of it; return what was known of it and of its exact copies."""
    known = ledger.take_down(image_id)
    for sha256 in {each.sha256 for each in known if each.sha256}:
        store.remove(sha256)
    return known
