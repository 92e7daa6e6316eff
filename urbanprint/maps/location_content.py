"""From what a geolocator answers to what people read: the sentence, the lines of a terminal, the content of the map."""

from urbanprint.geolocation.geolocator import Answer, LikelyCell
from urbanprint.geolocation.photographs import Photograph
from urbanprint.geolocation.sphere import haversine_km
from urbanprint.grid import boxes, from_ids
from urbanprint.maps.location_map import Candidate, LocationAnswer

_EARTH = "the Earth"
_LISTED = 3  # cells named in a terminal


def statement(answer: Answer) -> str:
    """The answer in a sentence: somewhere in this cell, this sure; or that the photograph is unlike all known ones."""
    if answer.widened:
        return (
            "Somewhere on Earth: the photograph is unlike those the model has learned from, so that it knows nothing "
            "of this one."
        )
    if answer.sure.cell == _EARTH:
        return f"Somewhere on Earth: no part of the grid has a probability of {answer.confidence:.0%}."
    return f"Somewhere in the cell {answer.sure.cell} ({_bounds(answer.sure.cell)}), {answer.sure.probability:.0%}."


def told(photograph: Photograph, answer: Answer) -> tuple[str, ...]:
    """The answer in lines: the sentence, the prediction set, the likeliest cells, the position, EXIF, what is odd."""
    promise = f"hold the true cell {answer.coverage:.0%} of the time"
    lines = [
        f"{photograph.path}",
        f"  {statement(answer)}",
        f"  set      {len(answer.cells)} cell{'s' if len(answer.cells) > 1 else ''} of L{answer.cells_level}"
        f" ({', '.join(map(_share, answer.cells[:_LISTED]))}{', ...' if len(answer.cells) > _LISTED else ''});"
        f" such sets {promise}",
    ]
    for level, cells in answer.candidates.items():
        lines.append(f"  L{level:<7} {', '.join(map(_share, cells[:_LISTED]))}")
    lines.append(
        f"  point    {_degrees(answer.longitude, answer.latitude)}, and {answer.confidence:.0%} of the probability"
        f" within {answer.radius_km:,.0f} km"
    )
    lines.append(f"  familiar {_familiar(answer)}")
    if photograph.position is None:
        lines.append("  EXIF     no position")
    else:
        km = haversine_km(*photograph.position, answer.longitude, answer.latitude)
        lines.append(
            f"  EXIF     {_degrees(*photograph.position)}, {km:,.0f} km from the point; it had no part in the answer"
        )
    lines += [f"  note     {note}" for note in photograph.notes]
    return tuple(lines)


def location_answer(answer: Answer, photograph: Photograph) -> LocationAnswer:
    """The answer as its map shows it."""
    levels = {}
    for level, candidates in answer.candidates.items():
        held = answer.sets.get(level, ())
        names = {cell.cell for cell in held}
        shown = (*held, *(cell for cell in candidates if cell.cell not in names))
        levels[level] = [
            Candidate(cell_id=cell.cell, probability=cell.probability, in_set=cell.cell in names) for cell in shown
        ]
    return LocationAnswer(
        statement=statement(answer),
        cell_id=None if answer.sure.cell == _EARTH else answer.sure.cell,
        levels=levels,
        point=(answer.longitude, answer.latitude),
        radius_km=answer.radius_km,
        coverage=answer.coverage,
        share=answer.confidence,
        exif=photograph.position,
    )


def _familiar(answer: Answer) -> str:
    rare = "it is unlike what the model knows" if answer.widened else "it is like what the model knows"
    return f"{answer.familiar:.1%} of the photographs it was calibrated on are as unusual: {rare}"


def _share(cell: LikelyCell) -> str:
    return f"{cell.cell} {cell.probability:.0%}"


def _bounds(cell: str) -> str:
    west, south, east, north = boxes(*from_ids([cell]))[0].tolist()
    return f"{_degree(south, 'NS')} to {_degree(north, 'NS')}, {_degree(west, 'EW')} to {_degree(east, 'EW')}"


def _degrees(longitude: float, latitude: float) -> str:
    return f"{_degree(latitude, 'NS')} {_degree(longitude, 'EW')}"


def _degree(value: float, letters: str) -> str:
    return f"{abs(value):.1f}°{letters[value < 0]}"
