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
