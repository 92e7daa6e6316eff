"""The catalogue: what it reads, and one sentence naming table and key for every mistake."""

import re
from pathlib import Path

import pytest

from urbanprint.catalogue import CATALOGUE_VARIABLE, read_catalogue
from urbanprint.errors import CatalogueError
from urbanprint.settings import Quality

ROOT = Path(__file__).resolve().parent.parent.parent

SMALL = """
[defaults.sample]
areas = 40

[editions.one]
publisher = "england"
areas_ranked = 100
deprivation = "statistics.csv"
boundaries = "https://example.org/FeatureServer/0"
licence = "OGL"
attribution = "someone"

[imagery.photographs]
provider = "folder"
folder = "photographs"
licence = "CC0"
attribution = "someone"

[cities.here]
name = "Here"
edition = "one"
imagery = "photographs"
districts = ["D1", "D2"]
sample.views = 2
"""


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "cities.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_projects_own_catalogue_holds_the_five_cities_and_the_simulated_one() -> None:
    catalogue = read_catalogue(ROOT / "cities.toml")
    assert {"london", "birmingham", "manchester", "leeds", "liverpool", "simville"} <= set(catalogue.cities)
    assert len(catalogue.city("london").districts) == 33
    assert catalogue.city("simville").simulated
    assert {edition.areas_ranked for edition in catalogue.editions("england")} == {32844, 33755}


def test_every_city_has_boroughs_to_hold_out() -> None:
    for city in read_catalogue(ROOT / "cities.toml").cities.values():
        assert len(set(city.districts)) == len(city.districts) >= 2, city.key


def test_defaults_are_taken_where_a_city_says_nothing(written) -> None:
    city = read_catalogue(written(SMALL)).city("here")
    assert (city.sample.areas, city.sample.views) == (40, 2)
    assert city.evaluation.folds == 5


def test_a_local_path_starts_at_the_catalogue_and_an_address_stays(written, tmp_path: Path) -> None:
    edition = read_catalogue(written(SMALL)).city("here").edition
    assert edition.deprivation == str(tmp_path / "statistics.csv")
    assert edition.boundaries == "https://example.org/FeatureServer/0"


def test_imagery_says_what_a_picture_has_to_be(written) -> None:
    text = SMALL.replace('licence = "CC0"', 'licence = "CC0"\nquality.darkest = 30\nquality.distance_bits = -1')
    quality = read_catalogue(written(text)).city("here").imagery.quality
    assert (quality.darkest, quality.distance_bits) == (30.0, -1)
    assert quality == Quality(darkest=30.0, distance_bits=-1)
    assert read_catalogue(written(SMALL)).city("here").imagery.quality == Quality()


def test_an_environment_variable_in_an_address_is_filled_in(written, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SMALL.replace('"statistics.csv"', '"${STATISTICS}/file7.csv"')
    with pytest.raises(CatalogueError, match=r"\[editions.one\] deprivation: the environment variable STATISTICS"):
        read_catalogue(written(text))
    monkeypatch.setenv("STATISTICS", "/somewhere")
    assert read_catalogue(written(text)).city("here").edition.deprivation == "/somewhere/file7.csv"


def test_the_environment_names_another_catalogue(written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(written(SMALL)))
    assert list(read_catalogue().cities) == ["here"]


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('name = "Here"', 'nam = "Here"', r"\[cities.here\] has an unknown key 'nam'; did you mean 'name'"),
        ('name = "Here"', "", r"\[cities.here\] lacks the key 'name'"),
        ('name = "Here"', "name = 3", r"\[cities.here\] name: expected text, found 3"),
        ('edition = "one"', 'edition = "on"', r"\[cities.here\] edition: unknown 'on'; did you mean 'one'"),
        ('edition = "one"', "", r"\[cities.here\] lacks the key 'edition': one of one"),
        ("sample.views = 2", "sample.views = 0", r"\[cities.here.sample\] views: expected at least 1, found 0"),
        ("sample.views = 2", "sample.views = true", r"\[cities.here.sample\] views: expected a whole number"),
        (
            "sample.views = 2",
            'sample.areas = "some"',
            r"\[cities.here.sample\] areas: expected a whole number or one of",
        ),
        ("sample.views = 2", "sample = 3", r"\[cities.here\] sample must be a table"),
        ("sample.views = 2", 'training.indicators = ["income"]', r'indicators: expected a list that holds "imd"'),
        ('["D1", "D2"]', "[]", r"\[cities.here\] districts: list at least one"),
        ('["D1", "D2"]', '["D1", 2]', r"districts: expected a list, each item text"),
        ('publisher = "england"', 'publisher = "wales"', r"\[editions.one\] publisher: expected one of 'england'"),
        ('folder = "photographs"', "", r"\[imagery.photographs\] folder: expected given when provider is folder"),
        ("[imagery.photographs]", "[imagry.photographs]", r"unknown table \[imagry\]; did you mean 'imagery'"),
        (
            'licence = "CC0"',
            'licence = "CC0"\nquality.darkest = -1',
            r"\[imagery.photographs.quality\] darkest: expected a",
        ),
        (
            'licence = "CC0"',
            'licence = "CC0"\nquality.dark = 1',
            r"\.quality\] has an unknown key 'dark'; did you mean 'dark",
        ),
        (
            'licence = "CC0"',
            'licence = "CC0"\nquality.spacing_m = "3"',
            r"\.quality\] spacing_m: expected a number, found '3'",
        ),
        (
            'licence = "CC0"',
            'licence = "CC0"\nquality = 3',
            r"\[imagery.photographs\] quality must be a table: \[imagery.ph",
        ),
        ("[cities.here]", "[cities.Here]", r"\[cities.Here\]: keys are lower-case"),
        ("[cities.here]", "[cities.here", r"is not valid TOML"),
    ],
)
def test_a_mistake_is_one_sentence_naming_table_and_key(written, before: str, after: str, sentence: str) -> None:
    assert before in SMALL
    with pytest.raises(CatalogueError, match=sentence):
        read_catalogue(written(SMALL.replace(before, after, 1)))


def test_a_missing_catalogue_and_an_unknown_city_say_what_to_do(written, tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"there is no catalogue at .*nowhere.toml: name one with --catalogue"):
        read_catalogue(tmp_path / "nowhere.toml")
    with pytest.raises(CatalogueError, match="has no city, conurbation or country 'her'; did you mean 'here'"):
        read_catalogue(written(SMALL)).city("her")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('provider = "panoramax"\nbudget = 10', r"budget: expected no such key, which is for street-view only"),
        ('provider = "kartaview"\nleast_quality = 0.5', r"least_quality: expected no such key.*mapillary only"),
        ('provider = "mapillary"\nradius_m = 90', r"radius_m: expected no such key"),
        ('provider = "mapillary"\nheading = [350.0]', r"heading: expected two directions"),
        ('provider = "mapillary"\ncaptured_from = "2020"', r"captured_from: expected a date"),
        ('provider = "mapillary"\nquality.darkest = 300', r"darkest: expected a grey level"),
    ],
)
def test_a_key_that_would_have_no_effect_or_no_sense_is_refused(written, line: str, message: str) -> None:
    table = (
        '[imagery.photographs]\nprovider = "folder"\nfolder = "photographs"\nlicence = "CC0"\nattribution = "someone"'
    )
    with pytest.raises(CatalogueError, match=rf"\[imagery.photographs.*\].*{message}"):
        read_catalogue(written(SMALL.replace(table, f"[imagery.photographs]\n{line}")))


def test_filters_and_terms_of_ones_own_are_read(written) -> None:
    table = (
        '[imagery.photographs]\nprovider = "folder"\nfolder = "photographs"\nlicence = "CC0"\nattribution = "someone"'
    )
    own = 'provider = "mapillary"\nheading = [350, 10]\ncaptured_from = 2020-01-01\nkeep_days = 30\nmay_show = false'
    imagery = read_catalogue(written(SMALL.replace(table, f"[imagery.photographs]\n{own}"))).city("here").imagery
    assert (imagery.heading, imagery.keep_days, imagery.may_show) == ((350, 10), 30, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults = 3\n", "defaults must be a table"),
        ("imagery = 3\n", "imagery must be a table"),
        ("[defaults.evaluaton]\nfolds = 3\n", r"unknown table \[defaults.evaluaton\]; did you mean 'evaluation'"),
        ("[defaults]\nsample = 3\n", "defaults.sample must be a table"),
    ],
)
def test_what_is_no_table_is_refused(written, text: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        read_catalogue(written(text))


def test_a_folder_is_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="there is no catalogue at"):
        read_catalogue(tmp_path)


COUNTRY = """
[imagery.photographs]
provider = "mapillary"

[countries.there]
name = "There"
imagery = "photographs"

[countries.there.survey]
table = "there.csv"
licence = "CC0 1.0"
attribution = "nobody"
columns = {poverty = "asset_index"}
"""


def test_a_country_is_read_with_the_defaults_of_countries(written) -> None:
    text = COUNTRY + "\n[defaults.countries.graph]\nepochs = 7\n[defaults.sample]\nviews = 2\n"
    catalogue = read_catalogue(written(text))
    country = catalogue.country("there")
    assert (country.sample.areas, country.sample.views) == ("all", 200), "the defaults of cities are not a country's"
    assert (country.evaluation.block_m, country.evaluation.buffer_m) == (100_000, 20_000)
    assert country.training.backbone == "resnet34"
    assert country.graph.epochs == 7
    assert country.survey.columns == {"poverty": "asset_index"}
    assert Path(country.survey.table).parent == catalogue.path.parent
    assert list(catalogue.places) == ["there"]


def test_a_table_that_is_like_another_takes_what_it_does_not_say(written) -> None:
    text = COUNTRY + '\n[countries.here]\nlike = "there"\nsurvey.table = "here.csv"\nevaluation.folds = 3\n'
    catalogue = read_catalogue(written(text))
    there, here = catalogue.country("there"), catalogue.country("here")
    assert (here.name, here.survey.licence, here.evaluation.folds) == ("There", "CC0 1.0", 3)
    assert Path(here.survey.table).name == "here.csv"
    assert (Path(there.survey.table).name, there.evaluation.folds) == ("there.csv", 5)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ('[countries.here]\nlike = "ther"', r"\[countries.here\] like: unknown 'ther'; did you mean 'there'"),
        ("[countries.there.graph]\nepoch = 3", "unknown key 'epoch'; did you mean 'epochs'"),
        ('[countries.there.scenes]\nfeatures_are = "names"', "expected one of 'identifiers', 'counts', found 'names'"),
        (
            '[countries.there.training]\nmethods = ["forest"]',
            "methods: expected one or more of k-NN, random forest, boo",
        ),
        ("[countries.there.training]\nmethods = []", "methods: expected one or more of k-NN"),
        ("[countries.there.evaluation]\nblock_m = 500", "evaluation.block_m: expected at least the 10000 m"),
        ("[defaults.countries.grap]\nepochs = 3", r"unknown table \[defaults.countries.grap\]; did you mean 'graph'"),
        ("[defaults.graph]\nepochs = 3", r"unknown table \[defaults.graph\]"),
    ],
)
def test_mistakes_about_a_country_are_one_sentence(written, more: str, sentence: str) -> None:
    with pytest.raises(CatalogueError, match=sentence):
        read_catalogue(written(f"{COUNTRY}\n{more}\n"))


def test_a_survey_names_both_fixed_lists_or_none(written) -> None:
    text = COUNTRY.replace('licence = "CC0', 'train_list = "train.txt"\nlicence = "CC0')
    with pytest.raises(CatalogueError, match=r"validation_list: expected given together with train_list"):
        read_catalogue(written(text))


def test_a_city_is_no_country_and_a_country_no_city(written) -> None:
    catalogue = read_catalogue(written(SMALL + COUNTRY.replace("photographs", "elsewhere")))
    with pytest.raises(CatalogueError, match="there is a country of survey clusters, and this is for a city"):
        catalogue.city("there")
    with pytest.raises(CatalogueError, match="here is a city, and this is for a country of survey clusters"):
        catalogue.country("here")
    with pytest.raises(CatalogueError, match=r"there are \[cities.here\] and \[countries.here\]: rename one"):
        read_catalogue(
            written(SMALL + COUNTRY.replace("photographs", "elsewhere").replace("countries.there", "countries.here"))
        )


CONURBATION = """
[imagery.sky]
provider = "ign-ortho"

[conurbations.above]
name = "Above"
imagery = "sky"

[conurbations.above.income]
table = "cells.gpkg"
licence = "CC0 1.0"
attribution = "nobody"

[conurbations.above.land_use]
polygons = "land.gpkg"
licence = "CC0 1.0"
attribution = "nobody"
"""


def test_a_conurbation_is_read_with_defaults_of_its_own(written) -> None:
    catalogue = read_catalogue(written(CONURBATION))
    place = catalogue.conurbation("above")
    assert (place.sample.areas, place.sample.views) == ("all", 1)
    assert (place.training.backbone, place.training.classes) == ("efficientnet_b0", 5)
    assert place.imagery.crs == "EPSG:3035" and place.from_above
    assert Path(place.land_use.polygons).parent == catalogue.path.parent


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('provider = "ign-ortho"', 'provider = "mapillary"', "expected a source of orthophotos"),
        ('imagery = "sky"', 'imagery = "sky"\nevaluation.buffer_m = 200', "no tile beside a test tile trains"),
        ('provider = "ign-ortho"', 'provider = "ign-ortho"\nside_m = 100', "one whose side_m is 200"),
        (
            'table = "cells.gpkg"',
            'table = "cells.gpkg"\nedition = "values"',
            'crs: expected given when edition is "values"',
        ),
        ('imagery = "sky"', 'imagery = "sky"\ntraining.heads = ["softmax"]', "different ones of binomial, cumulative"),
        ('provider = "ign-ortho"', 'provider = "geotiff"', "folder: expected given when provider is geotiff"),
        ('imagery = "sky"', 'imagery = "sky"\nevaluation.block_m = 1500', "a multiple of 1000 metres"),
    ],
)
def test_mistakes_about_a_conurbation_are_one_sentence(written, before: str, after: str, sentence: str) -> None:
    with pytest.raises(CatalogueError, match=re.escape(sentence)):
        read_catalogue(written(CONURBATION.replace(before, after)))


def test_a_city_does_not_take_orthophotos_and_a_conurbation_is_no_city(written) -> None:
    catalogue = read_catalogue(written(CONURBATION))
    with pytest.raises(CatalogueError, match="above is a conurbation seen from above, and this is for a city"):
        catalogue.city("above")
    with pytest.raises(CatalogueError, match="imagery: expected a source of photographs of streets, found 'sky'"):
        read_catalogue(written(SMALL.replace('imagery = "photographs"', 'imagery = "sky"') + CONURBATION))
