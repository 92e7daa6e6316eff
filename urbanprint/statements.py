"""What this project says of its own results, in words that model cards and reports share."""

INTENDED_USE = (
    "Describing how well street images reflect published area statistics, and which visible features carry that "
    "signal, for research and planning at the level of areas. Predictions are estimates of a published index, not "
    "measurements."
)
LIMITS = (
    "Not for decisions about persons, households, addresses, credit, insurance or policing. Valid for the city, the "
    "time and the imagery it was made from; images are taken where and when people happened to drive or walk. What a "
    "network looks at is correlated with deprivation and is not its cause."
)

LOCATING_USE = (
    "Saying from which part of the Earth a street photograph may come, with the uncertainty that belongs to it, for "
    "research on what places look like and on how far such models can be trusted."
)
LOCATING_LIMITS = (
    "Not for finding persons, their homes or where they are: locating a photograph that somebody shared can expose and "
    "endanger them. Ask the people concerned first; a precision cap in the catalogue keeps answers coarse. Valid for "
    "street views of places that contributors photograph: where nobody uploads images, nothing was learned."
)
