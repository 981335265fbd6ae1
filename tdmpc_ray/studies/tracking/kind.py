"""What kind of study the trials of a run in MLflow make, which decides what can be concluded from them."""

from __future__ import annotations

from enum import Flag, auto

KIND_TAG = "study_kind"  # of a study's run


class StudyKind(Flag):
    """What is special about a study's trials; several may be true at once."""

    PLAIN = 0
    SEARCH = auto()  # settings are drawn, or suggested by earlier results
    EARLY_STOPPED = auto()  # a scheduler ends the worse trials before their last step
    POPULATION = auto()  # trials go on from each other's networks, with settings that change on the way
    TASK_SET = auto()  # one model learns several tasks
    OFFLINE = auto()  # trials learn from a dataset alone: their steps are updates

    def __str__(self) -> str:
        return ", ".join(_word(kind) for kind in StudyKind if kind in self) or "plain"

    @classmethod
    def parse(cls, text: str) -> StudyKind:
        """What `str` gave; words that this version does not know say nothing, nor does an empty text."""
        words = {_word(kind): kind for kind in cls}
        found = cls.PLAIN
        for word in text.split(", "):
            found |= words.get(word, cls.PLAIN)
        return found


def _word(kind: StudyKind) -> str:
    return str(kind.name).lower().replace("_", "-")
