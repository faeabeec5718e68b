"""Segments grow while motion and detector agree, and shrink when they do not."""

from avatar.faces.cadence import MAX_SEGMENT, MIN_SEGMENT, WAVERING_SEGMENT, Cadence


def lengths(*overlaps: float) -> list[int]:
    cadence = Cadence()
    result = [cadence.length]
    for overlap in overlaps:
        cadence.agreed(overlap)
        result.append(cadence.length)
    return result


def test_with_a_steady_detector_segments_grow_to_the_longest() -> None:
    assert lengths(*[0.98] * 5) == [4, 8, 16, 32, MAX_SEGMENT, MAX_SEGMENT]


def test_with_a_detector_that_wavers_a_lucky_agreement_does_not_make_them_long() -> None:
    assert max(lengths(0.92, 0.91, 0.93, 0.98, 0.92, 0.91)) == WAVERING_SEGMENT


def test_disagreement_makes_them_short_and_no_face_does_too() -> None:
    assert lengths(0.98, 0.98, 0.7, 0.0, 0.0)[2:] == [16, 8, MIN_SEGMENT, MIN_SEGMENT]
