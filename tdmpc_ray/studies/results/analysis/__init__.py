"""The sections of a report: each computes one answer, draws it, and says why where the data give none."""
