"""How long the sequences of tests are."""

HORIZON = 3
