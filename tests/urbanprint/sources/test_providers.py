"""From a table of the catalogue to terms and a source: public terms unless the user's own agreement says otherwise."""

from datetime import date

import pytest

from urbanprint.errors import CatalogueError, MissingSecret
from urbanprint.settings import Imagery, RejectedValue
from urbanprint.sources.providers import filters_of, key_variable, secret_variable, source_of, terms_of


class Unlimited:
    """A budget that never ends."""

    def spend(self) -> None:
        """Allow it."""


@pytest.mark.parametrize("provider", ["mapillary", "panoramax", "kartaview"])
def test_open_imagery_may_be_stored_shown_and_learned_from(provider: str) -> None:
    terms = terms_of(Imagery(key="x", provider=provider))
    assert (terms.may_store, terms.may_train, terms.may_show) == (True, True, True)


def test_street_view_may_not_be_stored_shown_or_learned_from_unless_an_agreement_says_so() -> None:
    public = terms_of(Imagery(key="x", provider="street-view"))
    assert (public.may_store, public.may_train, public.may_show) == (False, False, False)
    own = terms_of(Imagery(key="x", provider="street-view", may_train=True))
    assert (own.may_store, own.may_train, own.may_show) == (False, True, False)
    assert own.attribution == public.attribution


def test_a_simulated_provider_has_no_pages_for_people() -> None:
    assert terms_of(Imagery(key="x", provider="mapillary")).page is not None
    assert terms_of(Imagery(key="x", provider="mapillary", endpoint="simulation:/mapillary")).page is None


def test_the_name_of_the_source_is_the_name_of_its_provider() -> None:
    for provider in ("mapillary", "panoramax", "kartaview"):
        assert source_of(Imagery(key="x", provider=provider), key="not-a-key").name == provider
    paid = source_of(Imagery(key="x", provider="street-view"), key="not-a-key", budget=Unlimited())
    assert paid.name == "street-view"
    assert paid.price > 0


def test_a_provider_that_costs_money_needs_a_budget() -> None:
    with pytest.raises(CatalogueError, match=r"\[imagery.mine\].*set budget"):
        source_of(Imagery(key="mine", provider="street-view"), key="not-a-key")


@pytest.mark.parametrize(("provider", "named"), [("mapillary", "MAPILLARY_TOKEN"), ("street-view", "GOOGLE_MAPS_KEY")])
def test_a_missing_key_is_named_by_its_variable(provider: str, named: str) -> None:
    with pytest.raises(MissingSecret, match=named):
        source_of(Imagery(key="x", provider=provider), budget=Unlimited())
    with pytest.raises(MissingSecret, match="KEY_OF_MINE"):
        source_of(Imagery(key="x", provider=provider, key_variable="KEY_OF_MINE"), budget=Unlimited())


def test_variables_are_the_providers_usual_ones_or_those_the_catalogue_names() -> None:
    assert key_variable(Imagery(key="x", provider="panoramax")) is None
    assert key_variable(Imagery(key="x", provider="mapillary")) == "MAPILLARY_TOKEN"
    assert secret_variable(Imagery(key="x", provider="street-view", secret_variable="MINE")) == "MINE"


def test_how_images_are_found_is_said_in_the_catalogue_and_for_mapillary_alone() -> None:
    for discovery in ("tiles", "search", "sequences"):
        source = source_of(Imagery(key="x", provider="mapillary", discovery=discovery), key="not-a-key")
        assert f"/{discovery}?" in source.request_key
    assert Imagery(key="x", provider="mapillary").discovery == "tiles"
    with pytest.raises(RejectedValue, match="mapillary only"):
        Imagery(key="x", provider="panoramax", discovery="sequences")


def test_dates_begin_at_midnight_utc() -> None:
    wanted = filters_of(
        Imagery(key="x", provider="mapillary", captured_from=date(2020, 1, 1), captured_before=date(2021, 1, 1))
    )
    assert wanted.captured_from_ms == 1_577_836_800_000
    assert wanted.captured_to_ms == 1_609_459_200_000


def test_a_changed_filter_is_a_changed_request() -> None:
    every = source_of(Imagery(key="x", provider="panoramax"))
    recent = source_of(Imagery(key="x", provider="panoramax", captured_from=date(2024, 1, 1)))
    assert every.request_key != recent.request_key
