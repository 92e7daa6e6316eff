"""What must not be kept any longer: pixels past the time the terms give, and images someone asked to remove."""

from urbanprint.imagery.ledger import Ledger, TakenDown
from urbanprint.imagery.records import Terms
from urbanprint.imagery.store import Store

_DAY_S = 86_400.0


def expire(ledger: Ledger, store: Store, terms: Terms, now: float, *, source: str) -> int:
    """Remove pixels kept for longer than `terms.keep_days` at `now` (seconds since 1970); return of how many images.

    The ledger then knows each as `found`, with the reason: the provider still has it, and a later run that wants it
    may fetch it anew; one rejected since stays rejected. Images whose day of fetching an older ledger has not noted
    count as kept too long. A store that keeps no pixels keeps what it has.
    """
    if terms.keep_days is None or not store.keeps_pixels:
        return 0
    removed = 0
    for image in ledger.fetched_before(now - terms.keep_days * _DAY_S, source=source):
        if image["state"] == "fetched":
            # The ledger first: a kill in between leaves a file that nobody refers to, not a reference to no file.
            reason = f"removed after the {terms.keep_days:g} days its terms allow"
            ledger.record_removed(source, image["image_id"], reason)
        # A younger image may have the same pixels, and its time is not over.
        gone = not ledger.is_kept(image["sha256"]) and store.remove(image["sha256"])
        removed += gone or image["state"] == "fetched"
    return removed


def take_down(ledger: Ledger, store: Store, image_id: str) -> tuple[TakenDown, ...]:
    """Block an image for good and remove what is kept of it; return what was known of it and of its exact copies."""
    known = ledger.take_down(image_id)
    for sha256 in {each.sha256 for each in known if each.sha256}:
        store.remove(sha256)
    return known
